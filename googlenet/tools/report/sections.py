"""The sections of the report about the run: result, curves, config."""

import pathlib

from googlenet import config as config_lib
from googlenet.tools.inference import predict
from googlenet.tools.inference.about import data_name
from googlenet.tools.report import figures
from googlenet.tools.report.page import Section, fill
from googlenet.tools.runs import Config, RunFiles, config_rows, text_of
from googlenet.tools.scoring import score_table

# Labels on the page, by name of the metric or result.
_RESULTS = {
  'step': 'steps',
  'epoch': 'epochs',
  'eval/accuracy': 'accuracy',
  'eval/top_5': 'top-5 accuracy',
  'eval/loss': 'loss',
  'eval/count': 'images in the evaluation',
  'train/accuracy': 'training accuracy, last epoch',
  'train/loss': 'training loss, last epoch',
  'train/images_per_second': 'training images/s',
  'best/step': 'step of the best checkpoint',
  'ended_early': 'ended early',
  'seconds': 'seconds in all',
  'first_step_seconds': 'seconds to the first step',
  'parameters': 'parameters',
}
_MACHINE = {
  'devices': 'devices',
  'kernels': 'kernels',
  'jax': 'JAX',
  'python': 'Python',
}
# One chart each: title, unit, and the label of each metric.
_CURVES = (
  ('Loss', 'nats', {'train/loss': 'train', 'eval/loss': 'eval'}),
  (
    'Accuracy',
    'fraction',
    {'train/accuracy': 'train', 'eval/accuracy': 'eval'},
  ),
  ('Learning rate', '', {'train/learning_rate': 'rate'}),
  ('Speed', 'images/s', {'train/images_per_second': 'train'}),
)


def summary(run: RunFiles) -> Section:
  """Returns the section with the state of the run, its scores, its machine."""
  cards = {
    'accuracy': _percent(
      run.last('eval/accuracy'), run.result.get('eval/count')
    ),
    'top-5': _percent(run.last('eval/top_5')),
    'loss': text_of(_rounded(run.last('eval/loss'))),
    'images/s': text_of(_rounded(run.last('train/images_per_second'))),
  }
  tables = {
    caption: [
      (label, text_of(_rounded(run.result[name])))
      for name, label in labels.items()
      if name in run.result
    ]
    for caption, labels in (('Result', _RESULTS), ('Machine', _MACHINE))
  }
  if 'eval/accuracy' in run.result:
    tables['Result'].append(('views of each image', str(_num_views(run))))
  body = fill(
    'summary.html',
    config=run.config,
    data=data_name(run.config.data),
    state=run.state,
    cards=[(label, text) for label, text in cards.items() if text != '-'],
    tables=[(caption, rows) for caption, rows in tables.items() if rows],
  )
  return Section('summary', 'Result', body)


def curves(runs: list[RunFiles]) -> Section:
  """Returns the section with the curves of all runs, in the same charts."""
  charts = []
  for place, (title, unit, metrics) in enumerate(_CURVES):
    lines = []
    for i, run in enumerate(runs):
      for j, (metric, label) in enumerate(metrics.items()):
        x, y = run.curve(metric)
        if x:
          name = f'{letter(i)} {label}' if len(runs) > 1 else label
          colour = i if len(runs) > 1 else j
          lines.append(
            figures.Line(name, x, y, colour, metric.startswith('eval/'))
          )
    if lines:
      charts.append(figures.curves(lines, title, unit, f'curve{place}'))
  body = fill('curves.html', charts=charts, runs=_key(runs))
  return Section('curves', 'Curves', body)


def comparison(runs: list[RunFiles]) -> Section:
  """Returns the section that compares results and configs of several runs."""
  results = [
    (label, *(text_of(_rounded(run.last(name))) for run in runs))
    for name, label in _RESULTS.items()
    if any(run.last(name) is not None for run in runs)
  ]
  base, *others = (run.config for run in runs)
  body = fill(
    'comparison.html',
    runs=_key(runs),
    head=('', *map(letter, range(len(runs)))),
    results=[*results, ('state', *(run.state for run in runs))],
    differing=_differing(base, others),
  )
  return Section('comparison', 'Runs compared', body)


def config(run: RunFiles, baseline: tuple[str, Config] | None) -> Section:
  """Returns the section with all fields, and those changed from `baseline`."""
  file, base = baseline or ('', run.config)
  fields = sorted(config_lib.flatten(run.config).items())
  body = fill(
    'config.html',
    file=file,
    changed=_differing(base, [run.config]),
    fields=[(name, text_of(value)) for name, value in fields],
  )
  return Section('config', 'Config', body)


def letter(place: int) -> str:
  """Returns the letter that stands for a run: A, B, ... Z, A1, ..."""
  more, first = divmod(place, 26)
  return chr(ord('A') + first) + (str(more) if more else '')


def _key(runs: list[RunFiles]) -> list[str]:
  return [f'{letter(i)}: {run.workdir}' for i, run in enumerate(runs)]


def _differing(base: Config, others: list[Config]) -> list[tuple[str, ...]]:
  rows = config_rows(base, others)
  return [(f'config.{name}', *values) for name, values in rows]


def _percent(value: float | None, count: int | None = None) -> str:
  """Returns a share in percent; with a count, half its 95 % interval too."""
  if value is None:
    return '-'
  if not count:
    return f'{100 * value:.2f} %'
  error = score_table.half_width(value, count)
  return f'{100 * value:.2f} ± {100 * error:.2f} %'


def _num_views(run: RunFiles) -> int:
  """Returns the number of views with which training evaluated."""
  path = pathlib.Path(run.workdir) / 'config.json'  # `run.config` may differ
  stored = config_lib.resolve(config_lib.load(path))
  return predict.views_of(stored.eval)._replace(crops=1).count


def _rounded(value: float | None) -> float | None:
  """Rounds a float to four digits; counts stay as they are."""
  return float(f'{value:.4g}') if isinstance(value, float) else value
