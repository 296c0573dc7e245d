"""Charts as SVG, in the colours of the page's light or dark theme.

matplotlib draws with placeholder colours, which are then replaced by variables
of the style sheet.
"""

import io
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from googlenet.tools.scoring.scores import NUM_BINS, Bin

NUM_COLOURS = 6
_INK, _FAINT = '#000001', '#000002'
_SERIES = tuple(f'#0000{i:02x}' for i in range(16, 16 + NUM_COLOURS))
_VARIABLES = {
  _INK: 'currentColor',
  _FAINT: 'var(--faint)',
  **{colour: f'var(--series-{i})' for i, colour in enumerate(_SERIES, 1)},
}
_STYLE = {
  'svg.fonttype': 'none',  # keeps text as text
  'font.size': 10,
  'font.family': 'sans-serif',
  'text.color': _INK,
  'axes.labelcolor': _INK,
  'axes.edgecolor': _FAINT,
  'axes.facecolor': 'none',
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'axes.axisbelow': True,
  'grid.color': _FAINT,
  'grid.linewidth': 0.5,
  'xtick.color': _INK,
  'ytick.color': _INK,
  'figure.facecolor': 'none',
  'savefig.facecolor': 'none',
  'lines.linewidth': 1.6,
}
_MAX_POINTS = 400


class Line(NamedTuple):
  """A curve.

  Attributes:
    label: written at the end of the curve.
    x: in ascending order.
    y: one value for each x.
    place: index from 0 that selects colour, dashes and markers.
    has_dots: whether the curve is dashed and its points are marked.
  """

  label: str
  x: Sequence[float]
  y: Sequence[float]
  place: int = 0
  has_dots: bool = False


class Chart(NamedTuple):
  """A chart as SVG, and its description for screen readers."""

  svg: Markup
  alt: str


def curves(
  lines: list[Line], title: str, unit: str, prefix: str, over: str = 'step'
) -> Chart:
  """Returns a chart of curves, over training steps if nothing else is said.

  Args:
    lines: at least one, each with points.
    title: of the chart.
    unit: of y, or ''.
    prefix: of the ids in the SVG; each chart of the page needs another.
    over: what x counts.
  """
  with matplotlib.rc_context(_STYLE):
    chart, axes = _axes(title)
    styles, markers = ('-', '-', (0, (5, 1)), '-.'), 'osD^v<'
    for line in lines:
      x, y = thinned(line.x, line.y)
      place = line.place % NUM_COLOURS
      axes.plot(
        x,
        y,
        color=_SERIES[place],
        linestyle=(0, (4, 2)) if line.has_dots else styles[line.place % 4],
        marker=markers[place] if line.has_dots or len(x) == 1 else None,
        markersize=4,
      )
    axes.set_xlabel(over)
    axes.set_ylabel(unit)
    axes.ticklabel_format(axis='y', style='plain', useOffset=False)
    axes.locator_params(axis='x', nbins=5)
    axes.margins(x=0.02)
    _label_ends(axes, lines)
    last = '; '.join(
      f'{line.label} {line.y[-1]:.4g} at {over} {line.x[-1]:,}'
      for line in lines
    )
    return _svg(chart, f'{title} over {over}s. Last: {last}.', prefix)


def reliability(bins: Iterable[Bin], prefix: str) -> Chart:
  """Returns a reliability diagram: accuracy by confidence, and the diagonal.

  Args:
    bins: of confidence.
    prefix: of the ids in the SVG; each chart of the page needs another.
  """
  with matplotlib.rc_context(_STYLE):
    chart, axes = _axes('Calibration')
    filled = [(i, part) for i, part in enumerate(bins) if part.count]
    axes.bar(
      [(i + 0.5) / NUM_BINS for i, _ in filled],
      [part.accuracy for _, part in filled],
      width=0.9 / NUM_BINS,
      color=_SERIES[0],
    )
    axes.plot([0, 1], [0, 1], color=_SERIES[1], linestyle=(0, (4, 2)))
    axes.annotate(
      'calibrated',
      (0.3, 0.3),
      (0.01, 0.45),  # where a network is rarely so unsure
      color=_SERIES[1],
      arrowprops={'arrowstyle': '-', 'color': _SERIES[1], 'linewidth': 0.8},
    )
    axes.set(
      xlim=(0, 1), ylim=(0, 1.02), xlabel='confidence', ylabel='accuracy'
    )
    values = '; '.join(
      f'confidence {part.confidence:.2f}: accuracy {part.accuracy:.2f}'
      for _, part in filled
    )
    return _svg(chart, f'Accuracy by confidence. {values}.', prefix)


def thinned(
  x: Sequence[float], y: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
  """Averages neighbouring points if there are more than `_MAX_POINTS`."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  if len(x) <= _MAX_POINTS:
    return x, y
  parts = np.array_split(np.arange(len(x)), _MAX_POINTS)
  return tuple(
    np.array([values[part].mean() for part in parts]) for values in (x, y)
  )


def _axes(title: str):
  chart = Figure(figsize=(4.4, 2.9), layout='constrained')
  axes = chart.add_subplot()
  axes.set_title(title, loc='left', fontsize=11, fontweight='bold')
  return chart, axes


def _label_ends(axes, lines: list[Line]) -> None:
  """Writes the label of each line at its end, without overlaps."""
  low, high = axes.get_ylim()
  gap = 0.085 * (high - low)
  ends = sorted((float(line.y[-1]), i) for i, line in enumerate(lines))
  places: list[float] = []
  for y, _ in ends:
    places.append(max(y, places[-1] + gap) if places else y)
  over = max(places[-1] - high, 0)
  right = max(line.x[-1] for line in lines)
  for place, (_, i) in zip(places, ends, strict=True):
    axes.annotate(
      lines[i].label,
      (right, place - over),
      xytext=(6, 0),
      textcoords='offset points',
      color=_SERIES[lines[i].place % NUM_COLOURS],
      va='center',
      annotation_clip=False,
    )


def _svg(chart: Figure, alt: str, prefix: str) -> Chart:
  file = io.StringIO()
  chart.savefig(file, format='svg', metadata={'Date': None})
  text = file.getvalue()
  text = text[text.index('<svg') :]
  text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
  text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', _OPENING, text, count=1)
  text = re.sub(r'\b(id="|href="#|url\(#)', rf'\g<1>{prefix}-', text)
  for colour, variable in _VARIABLES.items():
    text = text.replace(colour, variable)
  return Chart(Markup(text.strip()), alt)


_OPENING = (
  r'<svg xmlns="http://www.w3.org/2000/svg" '
  r'xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" '
  r'aria-hidden="true">'
)
