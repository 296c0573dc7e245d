"""Plots eval accuracy of each setting of a sweep, with deviation over seeds.

Curves over epochs, or one row for each setting if all were evaluated once.
"""

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
_MAX_ROWS = 30


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
  curves = [curve([workdir / t.name for t in row.trials]) for row in rows]
  if max(map(len, curves)) == 1 and any(row.accuracies for row in rows):
    return _make_rows(rows)
  shown = rows[: len(_COLOURS)]
  figure = Figure(figsize=(8, 5), layout='constrained')
  axes = figure.add_subplot()
  for row, points, colour, line, marker in zip(  # noqa: B905
    shown, curves, _COLOURS, _LINES, _MARKERS
  ):
    if not points:
      continue
    epochs, means, deviations = zip(*points, strict=True)
    axes.plot(
      epochs,
      means,
      color=colour,
      linestyle=line,
      marker=marker,
      markersize=4,
      label=_label(row),
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


def _label(row: Row) -> str:
  short = short_names(list(row.setting))
  setting = ', '.join(f'{short[k]}={v}' for k, v in row.setting.items())
  return setting or f'{len(row.trials)} seeds'


def _make_rows(rows: Sequence[Row]) -> Figure:
  """Plots the last accuracy of each trial, and mean and deviation beside it."""
  shown = [row for row in rows if row.accuracies][:_MAX_ROWS]
  figure = Figure(figsize=(8, 1.5 + 0.4 * len(shown)), layout='constrained')
  axes = figure.add_subplot()
  for place, row in enumerate(shown):
    values = list(row.accuracies.values())
    axes.plot(values, [place + 0.15] * len(values), 'o', color='#888888', ms=4)
    mean, deviation = row.scores['eval/accuracy']
    axes.errorbar(
      mean,
      place - 0.1,
      xerr=deviation,
      fmt='s',
      color=_COLOURS[0],
      capsize=4,
      markersize=6,
    )
  title = 'Grey: trials; blue: mean and deviation over seeds'
  if len(rows) > len(shown):
    title += f'; {len(shown)} of {len(rows)} settings'
  axes.set_title(title, loc='left', fontsize='medium')
  axes.set_yticks(range(len(shown)), map(_label, shown))
  axes.set_ylim(len(shown) - 0.5, -0.5)  # the best on top
  axes.set_xlabel('eval accuracy')
  axes.grid(alpha=0.3)
  return figure


def write(path: pathlib.Path, figure: Figure) -> None:
  """Writes a PNG; if that fails, the file stays as it was before."""
  with files.written_aside(path) as file:
    figure.savefig(file, format='png', dpi=150)
