"""Draws what excites channels: a row of images for each channel."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from googlenet.tools.examples.gallery import Entry, Example
from googlenet.tools.visualize.sheet import font

MAX_ROWS, MAX_COLUMNS = 100, 100  # of a picture
_GAP, _TEXT, _HEAD = 8, 13, 15  # pixels: between tiles; heights of letters
_INK, _QUIET, _PAPER = (29, 33, 37), (89, 98, 107), (255, 255, 255)
# Orange on black is seen on dark and bright images.
_BOX, _EDGE = (255, 140, 0), (0, 0, 0)


def thumbnail(image: np.ndarray, side: int) -> Image.Image:
  """Returns an image as a square picture.

  Args:
    image: uint8 [H, W, C], C 1, 3 or 4; squeezed to a square, as the network
      sees it.
    side: of the picture, in pixels.
  """
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  is_small = max(image.shape[:2]) < side
  return picture.convert('RGB').resize(
    (side, side),
    Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS,
  )


def with_box(example: Example, image_size: int, side: int) -> Image.Image:
  """Returns an image with its receptive field, and a dot in the middle of that.

  Args:
    example: an image that excites a channel.
    image_size: side of the network's input, in pixels.
    side: of the picture, in pixels.
  """
  picture, scale = thumbnail(example.image, side), side / image_size
  pen = ImageDraw.Draw(picture)
  top, left, bottom, right = (round(x * scale) for x in example.box)
  corners = left, top, max(right, left + 3) - 1, max(bottom, top + 3) - 1
  pen.rectangle(corners, outline=_EDGE, width=3)
  pen.rectangle(corners, outline=_BOX, width=2)
  y, x = (round(place * scale) for place in example.centre)
  pen.ellipse((x - 3, y - 3, x + 3, y + 3), _BOX, _EDGE)
  return picture


class Part(NamedTuple):
  """A part of a row: pictures of equal size under a heading."""

  heading: str
  pictures: list[Image.Image]
  captions: list[tuple[str, str]]  # two lines for each picture


def parts_of(
  entry: Entry, image_size: int, side: int, made: np.ndarray | None = None
) -> list[Part]:
  """Returns the images of a channel as parts of its row.

  Args:
    entry: a channel and its images.
    image_size: side of the network's input, in pixels.
    side: of each picture, in pixels.
    made: uint8 [H, W, C], an image that is made for the channel and comes
      first; None: there is none.
  """

  def captions(examples: list[Example]) -> list[tuple[str, str]]:
    return [(one.label, number(one.value)) for one in examples]

  most = [with_box(one, image_size, side) for one in entry.most]
  found = [Part('most', most, captions(entry.most))]
  if made is not None:
    found.insert(0, Part('made for it', [thumbnail(made, side)], [('', '')]))
  if entry.least:  # it found nothing there, so there is no place to show
    least = [thumbnail(one.image, side) for one in entry.least]
    found.append(Part('least', least, captions(entry.least)))
  return found


def number(value: float) -> str:
  """Returns a value with three significant digits."""
  return f'{value:.3g}'.replace('-', '−')


def title(entry: Entry, image_size: int) -> str:
  """Returns the name of a channel, and how much of an image it sees."""
  height, width = entry.field.size
  return (
    f'{entry.channel.point}:{entry.channel.index}   receptive field '
    f'{height}x{width}, image {image_size}x{image_size}'
  )


def draw(rows: Iterable[tuple[str, list[Part]]], side: int) -> Image.Image:
  """Returns a picture of several rows, each below its title.

  Args:
    rows: title and parts of each.
    side: of a picture of the parts, in pixels.
  """
  return _stack([_row(name, parts, side) for name, parts in rows])


def _row(name: str, parts: list[Part], side: int) -> Image.Image:
  step, line = side + _GAP, round(1.3 * _TEXT)
  top = _GAP + 2 * line
  count = sum(len(part.pictures) for part in parts)
  width = count * step + (1 + 2 * (len(parts) - 1)) * _GAP
  bold, plain = font(_HEAD, 'Bold'), font(_TEXT)
  width = max(width, round(bold.getlength(name)) + 2 * _GAP)
  out = Image.new('RGB', (width, top + side + 2 * line + _GAP), _PAPER)
  pen = ImageDraw.Draw(out)
  pen.text((_GAP, _GAP // 2), name, _INK, bold)
  x = _GAP
  for part in parts:
    pen.text((x, _GAP // 2 + line), part.heading, _QUIET, plain)
    for picture, lines in zip(part.pictures, part.captions, strict=True):
      out.paste(picture.resize((side, side)), (x, top))
      for i, text in enumerate(lines):
        place = x, top + side + 2 + i * line
        pen.text(place, _shortened(text, plain, side), _QUIET, plain)
      x += step
    x += 2 * _GAP
  return out


def _stack(pictures: list[Image.Image]) -> Image.Image:
  width = max(picture.width for picture in pictures)
  height = sum(picture.height for picture in pictures)
  out, y = Image.new('RGB', (width, height), _PAPER), 0
  for picture in pictures:
    out.paste(picture, (0, y))
    y += picture.height
  return out


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
  """Returns a text that is at most `width` pixels wide, cut if it must be."""
  if font.getlength(text) <= width:
    return text
  while text and font.getlength(text + '…') > width:
    text = text[:-1]
  return text + '…'
