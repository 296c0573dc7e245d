"""The parts of the page that tell of the run: result, curves, config."""

from typing import NamedTuple

from googlenet import config as config_lib
from googlenet.tools.report import figures
from googlenet.tools.report.markup import Html, element, join, table
from googlenet.tools.runs import Config, RunFiles, config_rows, text_of


class Section(NamedTuple):
  """A heading and what stands under it."""

  anchor: str
  title: str
  body: Html


# Names of metrics and results, and how the page calls them.
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
# Title, unit, metrics and what they are called at the end of their line.
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


def note(text: str) -> Html:
  """Returns a line that says why something is not there."""
  return element('p', text, class_='note')


def summary(run: RunFiles) -> Section:
  """How far the run is, its scores, its machine."""
  model, data = run.config.model, run.config.data
  parts = [
    element(
      'p',
      f'{model.variant}, {data.image_size}x{data.image_size}, '
      f'{model.num_classes} classes, on {data.name}: {run.state}.',
    )
  ]
  cards = [
    element('div', element('dt', label), element('dd', text))
    for label, text in (
      ('accuracy', _percent(run.last('eval/accuracy'))),
      ('top-5', _percent(run.last('eval/top_5'))),
      ('loss', text_of(_rounded(run.last('eval/loss')))),
      ('images/s', text_of(_rounded(run.last('train/images_per_second')))),
    )
    if text != '-'
  ]
  if cards:
    parts.append(element('dl', *cards, class_='cards'))
  tables = [
    table(('', 'value'), rows, caption)
    for caption, names in (('Result', _RESULTS), ('Machine', _MACHINE))
    if (
      rows := [
        (label, text_of(_rounded(run.result[name])))
        for name, label in names.items()
        if name in run.result
      ]
    )
  ]
  if tables:
    parts.append(element('div', *tables, class_='pair'))
  else:
    parts.append(
      note(
        'No result.json: result and machine are written at the end of a run.'
      )
    )
  return Section('summary', 'Result', join(parts))


def curves(runs: list[RunFiles]) -> Section:
  """Curves of all runs, one over the other."""
  parts = []
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
      chart = figures.curves(lines, title, unit, f'curve{place}')
      parts.append(element('figure', chart))
  body = element('div', *parts, class_='grid')
  if not parts:
    body = note('No metrics.jsonl with records: there are no curves.')
  elif len(runs) > 1:
    body = join([_key(runs), body])
  return Section('curves', 'Curves', body)


def comparison(runs: list[RunFiles]) -> Section:
  """Results of several runs side by side, and where their configs differ."""
  head = ('', *map(letter, range(len(runs))))
  rows = [
    (label, *(text_of(_rounded(run.last(name))) for run in runs))
    for name, label in _RESULTS.items()
    if any(run.last(name) is not None for run in runs)
  ]
  rows.append(('state', *(run.state for run in runs)))
  parts = [_key(runs), table(head, rows, 'Results')]
  base, *others = (run.config for run in runs)
  differing = config_rows(base, others)
  if differing:
    rows = [(f'config.{name}', *values) for name, values in differing]
    parts.append(table(head, rows, 'Fields that differ'))
  else:
    parts.append(note('Their configs are the same.'))
  return Section('comparison', 'Runs compared', join(parts))


def config(run: RunFiles, baseline: tuple[str, Config] | None) -> Section:
  """All fields, and those that differ from a config file."""
  parts = []
  if baseline is None:
    parts.append(
      note(
        'With --config=configs/fmnist96.py, or the file that the run was '
        'started with, what was changed against that stands here.'
      )
    )
  else:
    file, base = baseline
    rows = [
      (f'config.{name}', *values)
      for name, values in config_rows(base, [run.config])
    ]
    if rows:
      head = ('field', file, 'this run')
      parts.append(table(head, rows, f'Changed against {file}'))
    else:
      parts.append(note(f'Nothing was changed against {file}.'))
  rows = [
    (name, text_of(value))
    for name, value in sorted(config_lib.flatten(run.config).items())
  ]
  parts.append(
    element(
      'details',
      element('summary', f'All {len(rows)} fields'),
      table(('field', 'value'), rows, 'config.json'),
    )
  )
  return Section('config', 'Config', join(parts))


def letter(place: int) -> str:
  """Returns A, B, ... Z, A1, ... for a run."""
  more, first = divmod(place, 26)
  return chr(ord('A') + first) + (str(more) if more else '')


def _key(runs: list[RunFiles]) -> Html:
  names = [f'{letter(i)}: {run.workdir}' for i, run in enumerate(runs)]
  return element('p', '; '.join(names))


def _percent(value: float | None) -> str:
  return '-' if value is None else f'{100 * value:.2f} %'


def _rounded(value: float | None) -> float | None:
  """To four digits; what counts something stays as it is."""
  return float(f'{value:.4g}') if isinstance(value, float) else value
