"""A sheet: images in rows and columns with a label above each."""

import functools
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Smaller images are shown larger, by a whole number: a pixel stays a square.
_SHOWN = 112  # pixels
_GAP, _LABEL, _LINE = 8, 11, 14  # pixels: between tiles, of a letter, of a line
_WHITE, _BLACK, _GREY = 255, (0, 0, 0), (110, 110, 110)


class Tile(NamedTuple):
  """An image of a sheet.

  Attributes:
    image: uint8 [H, W, C], C 1 or 3.
    lines: of its label.
  """

  image: np.ndarray
  lines: tuple[str, ...]


@functools.cache
def font(size: int, weight: str = '') -> ImageFont.FreeTypeFont:
  """Returns the font that comes with Matplotlib, which has most alphabets.

  Args:
    size: in pixels.
    weight: 'Bold', or ''.
  """
  name = f'DejaVuSans{"-" if weight else ""}{weight}.ttf'
  folder = pathlib.Path(matplotlib.get_data_path()) / 'fonts/ttf'
  return ImageFont.truetype(str(folder / name), size)


def factor(height: int, width: int) -> int:
  """Returns how many times as large an image is shown, from 1."""
  return max(1, math.ceil(_SHOWN / max(height, width)))


def _shortened(text: str, width: int) -> str:
  """Cuts the middle out of a text that is wider than `width` pixels."""
  length = font(_LABEL).getlength
  if length(text) <= width:
    return text
  for kept in range(len(text) - 1, 1, -1):
    head = math.ceil(kept / 2)
    short = f'{text[:head]}…{text[len(text) - kept + head :]}'
    if length(short) <= width:
      return short
  return ''


def columns_for(count: int) -> int:
  """Returns the number of columns of `count` tiles: wider than high."""
  return max(1, math.ceil(math.sqrt(count * 1.5)))


def picture(pixels: np.ndarray) -> Image.Image:
  """Returns uint8 [H, W, C] as a picture in RGB.

  Of 4 channels the last, which is transparency, is left out; of other numbers
  the first is shown.
  """
  channels = pixels.shape[-1]
  shown = pixels[..., :3] if channels in (3, 4) else pixels[..., 0]
  return Image.fromarray(shown).convert('RGB')


def draw(tiles: Sequence[Tile], columns: int) -> Image.Image:
  """Draws tiles row by row, each below its label.

  Args:
    tiles: images of any size; a column is as wide as the widest of all.
    columns: number of tiles in a row.
  """
  pictures = []
  for tile in tiles:
    shown = picture(tile.image)
    times = factor(*tile.image.shape[:2])
    pictures.append(
      shown.resize(
        (times * shown.width, times * shown.height), Image.Resampling.NEAREST
      )
    )
  columns = min(columns, len(tiles))
  rows = math.ceil(len(tiles) / columns)
  above = _LINE * max(len(tile.lines) for tile in tiles) + 2
  width = max(x.width for x in pictures)
  height = max(x.height for x in pictures) + above
  sheet = Image.new(
    'RGB',
    (
      columns * (width + _GAP) + _GAP,
      rows * (height + _GAP) + _GAP,
    ),
    (_WHITE,) * 3,
  )
  pen = ImageDraw.Draw(sheet)
  for i, (tile, shown) in enumerate(zip(tiles, pictures, strict=True)):
    row, column = divmod(i, columns)
    left = _GAP + column * (width + _GAP)
    top = _GAP + row * (height + _GAP)
    for number, line in enumerate(tile.lines):
      pen.text(
        (left, top + number * _LINE),
        _shortened(line, width),
        fill=_GREY if number else _BLACK,
        font=font(_LABEL),
      )
    sheet.paste(shown, (left, top + above))
  return sheet


def place(
  index: int, image_shape: tuple[int, int], lines: int, columns: int
) -> tuple[slice, slice]:
  """Returns where the image of a tile is on a sheet of images of one size.

  Args:
    index: of the tile.
    image_shape: (H, W) of all images.
    lines: of each label.
    columns: number of tiles in a row.
  """
  times = factor(*image_shape)
  height, width = (times * side for side in image_shape)
  above = _LINE * lines + 2
  row, column = divmod(index, columns)
  top = _GAP + row * (height + above + _GAP) + above
  left = _GAP + column * (width + _GAP)
  return slice(top, top + height), slice(left, left + width)
