"""Arrays as small pictures within the page, each a data: URI."""

import base64
import io
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image

_GAP = 2  # pixels between the tiles of a mosaic


class Picture(NamedTuple):
  """A picture, what it shows in words, and the text below it."""

  uri: str
  alt: str
  caption: str


def data_uri(image: Image.Image) -> str:
  """Returns a picture as text: JPEG for a larger photograph, else PNG."""
  file = io.BytesIO()
  if image.mode in ('RGB', 'L') and min(image.size) > 64:
    image.save(file, 'JPEG', quality=85)
    kind = 'jpeg'
  else:
    image.save(file, 'PNG', optimize=True)
    kind = 'png'
  return (
    f'data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}'
  )


def photograph(pixels: np.ndarray, max_side: int = 160) -> Image.Image:
  """Returns a smaller picture of pixels, uint8 [H, W, C] with C 1 or 3."""
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  image.thumbnail((max_side, max_side))
  return image


def heat(values: np.ndarray, colours: str = 'viridis') -> Image.Image:
  """Returns values [h, w] from 0 to 1 in a colour map of matplotlib."""
  rgba = matplotlib.colormaps[colours](values, bytes=True)
  return Image.fromarray(rgba)


def indexed(values: np.ndarray, colours: str = 'cividis') -> Image.Image:
  """Returns the same as a picture with a palette, a quarter of the size."""
  image = Image.fromarray(np.rint(255 * values).astype(np.uint8))
  palette = matplotlib.colormaps[colours](np.arange(256), bytes=True)
  image.putpalette(palette[:, :3].tobytes())
  return image


def feature_maps(
  maps: np.ndarray, count: int = 16, columns: int = 8, tile: int = 48
) -> Image.Image:
  """Returns a mosaic of the strongest channels, each scaled by itself.

  Args:
    maps: activations [h, w, C] of one image.
    count: how many channels are shown, those with the largest mean.
    columns: of the mosaic.
    tile: side of a channel in pixels.
  """
  order = np.argsort(-maps.mean((0, 1)), kind='stable')[:count]
  return mosaic(
    [heat(_scaled(maps[..., k], min(maps[..., k].min(), 0.0))) for k in order],
    columns,
    tile,
  )


def filters(weights: np.ndarray, tile: int = 36) -> Image.Image:
  """Returns a mosaic of filters [kh, kw, C, N]; middle grey is zero.

  Filters of 3 channels are shown in colour, others as the mean of theirs.
  """
  if weights.shape[2] != 3:
    weights = weights.mean(2, keepdims=True)
  tiles = []
  for k in range(min(weights.shape[-1], 128)):
    one = weights[..., k]
    scaled = one / (2 * max(np.abs(one).max(), 1e-12)) + 0.5
    pixels = (255 * scaled).round().astype(np.uint8)
    tiles.append(photograph(pixels).convert('RGBA'))
  return mosaic(tiles, 8, tile)


def overlay(
  pixels: np.ndarray, values: np.ndarray, low: float, high: float
) -> Image.Image:
  """Returns a picture under its class activation map.

  Args:
    pixels: uint8 [H, W, C].
    values: [h, w], stretched over the picture.
    low: value of the darkest colour.
    high: value of the brightest.
  """
  side = max(112, min(max(pixels.shape[:2]), 224))
  ratio = side / max(pixels.shape[:2])
  size = tuple(max(round(n * ratio), 1) for n in pixels.shape[1::-1])
  base = photograph(pixels, side).convert('L').resize(size, Image.BILINEAR)
  span = max(high - low, 1e-12)
  scaled = ((values - low) / span).astype(np.float32)
  smooth = Image.fromarray(scaled).resize(size, Image.BILINEAR)
  colour = heat(np.clip(np.asarray(smooth), 0, 1)).convert('RGB')
  return Image.blend(base.convert('RGB'), colour, 0.6)


def mosaic(tiles: list[Image.Image], columns: int, tile: int) -> Image.Image:
  """Returns pictures in rows as squares of `tile` pixels, with gaps."""
  columns = min(columns, len(tiles))
  rows = -(-len(tiles) // columns)
  step = tile + _GAP
  out = Image.new('RGBA', (columns * step - _GAP, rows * step - _GAP))
  for i, image in enumerate(tiles):
    row, column = divmod(i, columns)
    image = image.resize((tile, tile), Image.Resampling.NEAREST)
    out.paste(image, (column * step, row * step))
  return out


def _scaled(values: np.ndarray, low: float) -> np.ndarray:
  return (values - low) / max(values.max() - low, 1e-12)
