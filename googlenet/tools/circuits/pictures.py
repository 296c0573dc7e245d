"""Pictures of kernels, of similarities and of activation atlases."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from googlenet.tools.visualize.sheet import font as font_of

_GAP = 2  # pixels between the cells of an atlas
_LETTERS = 11  # of a title, per inch
# Red: positive, blue: negative, white: zero.
DIVERGING = 'RdBu_r'


class Kernel(NamedTuple):
  """A kernel [kh, kw] with its caption."""

  weights: np.ndarray
  caption: str


class Strip(NamedTuple):
  """The kernels of one channel, with the name of the channel."""

  title: str
  positive: Sequence[Kernel]
  negative: Sequence[Kernel]


def kernels(strips: Sequence[Strip], title: str) -> Figure:
  """Draws the kernels of each channel in a row, on a scale of its own.

  Zero is white; the scale is as far below zero as above.

  Args:
    strips: one for each channel.
    title: of the picture.
  """
  left = max(max(len(s.positive) for s in strips), 1)
  right = max(max(len(s.negative) for s in strips), 1)
  columns, rows = left + right, len(strips)
  width = 1.5 * columns + 1.6  # inches
  figure = Figure(figsize=(width, 1.75 * rows + 0.7), layout='constrained')
  lines = textwrap.fill(title, round(_LETTERS * width))
  figure.suptitle(lines, x=0.01, ha='left', fontsize='medium')
  grid = figure.subplots(
    rows,
    columns + 1,
    squeeze=False,
    width_ratios=[1] * columns + [0.08],
  )
  for row, strip in zip(grid, strips, strict=True):
    shown = [*strip.positive, *strip.negative]
    limit = max([np.abs(k.weights).max() for k in shown], default=0) or 1.0
    image = None
    for axes in row[:-1]:
      axes.set_axis_off()
    places = [
      *row[: len(strip.positive)],
      *row[left : left + len(strip.negative)],
    ]
    for axes, one in zip(places, shown, strict=True):
      image = axes.imshow(one.weights, cmap=DIVERGING, vmin=-limit, vmax=limit)
      axes.set_axis_on()
      axes.set_xticks([])
      axes.set_yticks([])
      axes.set_title(one.caption, fontsize=7)
    if not strip.positive:  # an empty place that only holds the label
      row[0].set_axis_on()
      row[0].set_xticks([])
      row[0].set_yticks([])
      row[0].spines[:].set_visible(False)
    row[0].set_ylabel(strip.title, fontsize=8)
    if image is None:
      row[-1].set_axis_off()
    else:
      figure.colorbar(
        image, cax=row[-1], ticks=[-limit, 0, limit], format='%.2g'
      )
      row[-1].tick_params(labelsize=7)
  return figure


def matrix(
  values: np.ndarray,
  rows: Sequence[str],
  columns: Sequence[str],
  labels: tuple[str, str],
) -> Figure:
  """Draws similarities [R, C] from 0 to 1 with their numbers.

  Args:
    values: the similarities.
    rows: names of the rows, the first at the bottom as in the literature.
    columns: names of the columns.
    labels: of the rows' and the columns' axis.
  """
  size = 0.42
  figure = Figure(
    figsize=(size * len(columns) + 2.6, size * len(rows) + 1.9),
    layout='constrained',
  )
  axes = figure.add_subplot()
  image = axes.imshow(
    values, cmap='magma', vmin=0, vmax=1, origin='lower', aspect='equal'
  )
  axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
  axes.set_yticks(range(len(rows)), rows, fontsize=7)
  axes.set_ylabel(labels[0], fontsize=8)
  axes.set_xlabel(labels[1], fontsize=8)
  if max(len(rows), len(columns)) <= 24:
    for i, j in np.ndindex(values.shape):
      axes.text(
        *(j, i, f'{values[i, j]:.2f}'.replace('0.', '.')),
        ha='center',
        va='center',
        fontsize=6,
        color='black' if values[i, j] > 0.6 else 'white',
      )
  bar = figure.colorbar(image, ax=axes, shrink=0.8)
  bar.set_label('linear CKA', fontsize=8)
  bar.ax.tick_params(labelsize=7)
  return figure


def write(file: Any, figure: Figure) -> None:
  """Writes a figure as PNG to an open file."""
  figure.savefig(file, format='png', dpi=150)


class Tile(NamedTuple):
  """A picture in a cell of an atlas.

  Attributes:
    row: of the cell, from the top.
    column: of the cell.
    pixels: uint8 [h, w, C], C 1 or 3.
    colour: index of the colour of its frame; -1: no frame.
  """

  row: int
  column: int
  pixels: np.ndarray
  colour: int = -1


_COLOURS = 'tab10'
NUM_COLOURS = 10


def atlas(
  tiles: Sequence[Tile], side: int, tile: int, names: Sequence[str]
) -> Image.Image:
  """Draws tiles in a square of cells; empty cells are white.

  Args:
    tiles: with rows and columns below `side`.
    side: number of cells along each side.
    tile: side of a cell in pixels.
    names: of the colours, for the legend below; () for none.
  """
  frame, step = 3, tile + _GAP
  size = side * step + _GAP
  font = font_of(max(size // 60, 10))
  line = 2 * font.size
  placed, x, row = [], _GAP, 0
  for name in names:
    width = int(font.getlength(name)) + 2 * font.size
    if x + width > size and x > _GAP:
      x, row = _GAP, row + 1
    placed.append((x, row))
    x += width + font.size
  height = size + (line * (row + 1) if names else 0)
  canvas = Image.new('RGB', (size, height), 'white')
  draw = ImageDraw.Draw(canvas)
  for one in tiles:
    left, top = _GAP + one.column * step, _GAP + one.row * step
    picture = _square(one.pixels, tile)
    if one.colour >= 0:
      box = (left, top, left + tile - 1, top + tile - 1)
      draw.rectangle(box, fill=_colour(one.colour))
      inner = tile - 2 * frame
      picture = _square(one.pixels, inner)
      left, top = left + frame, top + frame
    canvas.paste(picture, (left, top))
  for i, (name, (x, row)) in enumerate(zip(names, placed, strict=True)):
    top = size + row * line + font.size // 2
    box = (x, top, x + font.size, top + font.size)
    draw.rectangle(box, fill=_colour(i))
    draw.text((x + 1.5 * font.size, top), name, fill='black', font=font)
  return canvas


def _colour(index: int) -> tuple[int, ...]:
  return tuple(matplotlib.colormaps[_COLOURS](index, bytes=True)[:3])


def _square(pixels: np.ndarray, side: int) -> Image.Image:
  """Returns an image [h, w, C] as a square, enlarged without smoothing."""
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  is_small = max(image.size) < side
  how = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
  return image.convert('RGB').resize((side, side), how)
