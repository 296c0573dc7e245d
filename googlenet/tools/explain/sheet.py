"""One picture of several explanations: a row for each image."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import cm, colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from googlenet.tools.explain import page, pictures
from googlenet.tools.explain.methods import METHODS, TABLES, Explained, Table

_NUM_BARS = 10  # parts of a table that are shown
_INCHES, _DPI = 2.1, 120  # of a cell


def draw(
  shown: Sequence[tuple[Explained, int, str]], class_names: Sequence[str]
) -> bytes:
  """Returns a PNG with a row for each image and a column for each method.

  Args:
    shown: batches, the place of an image in its batch, and its title.
    class_names: of all classes.
  """
  names = [*shown[0][0].maps, *shown[0][0].tables]
  widths = [1, *(1.8 if name in TABLES else 1 for name in names)]
  figure = Figure(
    figsize=(_INCHES * sum(widths), (_INCHES + 0.35) * len(shown)),
    dpi=_DPI,
    layout='constrained',
  )
  cells = figure.subplots(
    len(shown), len(widths), squeeze=False, width_ratios=widths
  )
  for row, (explained, i, title) in zip(cells, shown, strict=True):
    pixels = pictures.as_pixels(explained.images[i])
    chance = page.probabilities(explained.logits[i])[explained.labels[i]]
    _show(row[0], np.asarray(pictures.photo(pixels).convert('RGB')))
    row[0].set_title(_short(title), fontsize=8)
    row[0].set_xlabel(
      f'{page.score_name(explained, i, class_names)}, {chance:.3f}', fontsize=8
    )
    for axes, name in zip(row[1:], names, strict=True):
      if name in TABLES:
        _bars(axes, explained.tables[name], i)
        axes.set_title(f'{TABLES[name]}: ablation', fontsize=8)
        continue
      image, scale = pictures.drawn(pixels, explained.maps[name][i], name)
      _show(axes, np.asarray(image))
      axes.set_title(METHODS[name].title, fontsize=8)
      _legend(figure, axes, scale)
  file = io.BytesIO()
  figure.savefig(file, format='png')
  return file.getvalue()


def _short(title: str) -> str:
  return title if len(title) < 28 else f'...{title[-25:]}'


def _show(axes: Axes, image: np.ndarray) -> None:
  axes.imshow(image)
  axes.set(xticks=[], yticks=[])


def _legend(figure: Figure, axes: Axes, scale: pictures.Scale) -> None:
  values = np.linspace(scale.low, scale.high, 256)
  bar = figure.colorbar(
    cm.ScalarMappable(
      colors.Normalize(scale.low, scale.high),
      colors.ListedColormap(scale.colours(values)),
    ),
    ax=axes,
    orientation='horizontal',
    ticks=[scale.low, scale.high],
    aspect=16,
    pad=0.03,
  )
  bar.ax.set_xticklabels([f'{scale.low:.2g}', f'{scale.high:.2g}'], fontsize=7)


def _bars(axes: Axes, table: Table, i: int) -> None:
  values = table.ablation[i]
  order = np.argsort(-np.abs(values), kind='stable')[:_NUM_BARS][::-1]
  colour = np.where(values[order] < 0, '#2166ac', '#b2182b')
  axes.barh([table.names[p] for p in order], values[order], color=colour)
  axes.tick_params(labelsize=6)
  axes.axvline(0, color='black', linewidth=0.6)
