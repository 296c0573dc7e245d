"""Plots eval accuracy of each setting of a sweep, with deviation over seeds."""

import pathlib
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from googlenet.io.writer import read_records
from googlenet.runtime import files
from googlenet.tools.sweep.grid import short_names
from googlenet.tools.sweep.summary import Row

# Okabe-Ito colours, suitable for colour-blind readers; lines and markers differ
# too.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#000000')
_LINES = ('-', '--', '-.', ':', (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = 'os^Dv*'


def curve(folders: Sequence[pathlib.Path]) -> list[tuple[float, float, float]]:
  """Returns (epoch, mean, standard deviation) of eval/accuracy over runs.

  The deviation (n - 1) is 0 at epochs that only one run has reached.
  """
  values: dict[float, list[float]] = {}
  for folder in folders:
    for record in read_records(folder / 'metrics.jsonl'):
      if 'eval/accuracy' in record:
        values.setdefault(record['epoch'], []).append(record['eval/accuracy'])
  return [
    (
      epoch,
      statistics.fmean(found),
      statistics.stdev(found) if len(found) > 1 else 0.0,
    )
    for epoch, found in sorted(values.items())
  ]


def make_figure(workdir: pathlib.Path, rows: Sequence[Row]) -> Figure:
  """Plots the curves of the best settings, one for each colour.

  Args:
    workdir: of the sweep.
    rows: of the summary, the best first.
  """
  short = short_names(list(rows[0].setting))
  shown = rows[: len(_COLOURS)]
  figure = Figure(figsize=(8, 5), layout='constrained')
  axes = figure.add_subplot()
  for row, colour, line, marker in zip(shown, _COLOURS, _LINES, _MARKERS):  # noqa: B905
    points = curve([workdir / trial.name for trial in row.trials])
    if not points:
      continue
    epochs, means, deviations = zip(*points, strict=True)
    setting = ', '.join(f'{short[k]}={v}' for k, v in row.setting.items())
    axes.plot(
      epochs,
      means,
      color=colour,
      linestyle=line,
      marker=marker,
      markersize=4,
      label=setting or f'{len(row.trials)} seeds',
    )
    low = [m - d for m, d in zip(means, deviations, strict=True)]
    high = [m + d for m, d in zip(means, deviations, strict=True)]
    axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
  title = 'Mean and deviation over seeds'
  if len(rows) > len(shown):
    title += f'; the best {len(shown)} of {len(rows)} settings'
  axes.set_title(title, loc='left', fontsize='medium')
  axes.set_xlabel('epoch')
  axes.set_ylabel('eval accuracy')
  axes.grid(alpha=0.3)
  if axes.lines:
    axes.legend()
  return figure


def write(path: pathlib.Path, figure: Figure) -> None:
  """Writes a PNG; if that fails, the file stays as it was before."""
  with files.written_aside(path) as file:
    figure.savefig(file, format='png', dpi=150)
