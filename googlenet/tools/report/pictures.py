"""Turns arrays into small pictures for the page, as data URIs."""

import base64
import io
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image

_GAP = 2  # pixels between the tiles of a mosaic
_NUM_CHANNELS = 16  # shown of a feature map


class Picture(NamedTuple):
  """A picture as a data URI, its description and its caption."""

  uri: str
  alt: str
  caption: str


def data_uri(image: Image.Image) -> str:
  """Returns a picture as a data URI: JPEG for larger photographs, else PNG."""
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
  """Shrinks an image, uint8 [H, W, C] with C 1 or 3, to `max_side` pixels."""
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  image.thumbnail((max_side, max_side))
  return image


def heat(values: np.ndarray) -> Image.Image:
  """Returns values [h, w] in 0..1 as colours from dark to bright."""
  return Image.fromarray(matplotlib.colormaps['viridis'](values, bytes=True))


def confusion(errors: np.ndarray) -> Image.Image:
  """Returns errors [K, K] in 0..1 as a picture with a grey diagonal."""
  places = np.rint(254 * errors).astype(np.uint8)
  np.fill_diagonal(places, 255)
  image = Image.fromarray(places)
  palette = matplotlib.colormaps['cividis'](np.arange(255) / 254, bytes=True)
  image.putpalette(palette[:, :3].tobytes() + bytes([128] * 3))
  return image


def feature_maps(
  maps: np.ndarray, columns: int = 8, tile: int = 48
) -> Image.Image:
  """Returns a mosaic of channels with the largest mean, scaled separately.

  Args:
    maps: activations [h, w, C] of one image.
    columns: of the mosaic.
    tile: side of a channel in pixels.
  """
  tiles = []
  for k in np.argsort(-maps.mean((0, 1)), kind='stable')[:_NUM_CHANNELS]:
    values = maps[..., k]
    low = min(values.min(), 0.0)
    tiles.append(heat((values - low) / max(values.max() - low, 1e-12)))
  return mosaic(tiles, columns, tile)


def filters(weights: np.ndarray, tile: int = 36) -> Image.Image:
  """Returns a mosaic of filters [kh, kw, C, N]; middle grey is zero.

  Filters of 3 channels are shown in colour, others as the mean over channels.
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
  """Returns an image with a class activation map drawn over it.

  Args:
    pixels: uint8 [H, W, C], the image.
    values: [h, w], the map; it is resized to the image.
    low: value of the darkest colour.
    high: value of the brightest colour.
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
  """Arranges pictures in a grid, each resized to a square of `tile` pixels."""
  columns = min(columns, len(tiles))
  rows = -(-len(tiles) // columns)
  step = tile + _GAP
  out = Image.new('RGBA', (columns * step - _GAP, rows * step - _GAP))
  for i, image in enumerate(tiles):
    row, column = divmod(i, columns)
    image = image.resize((tile, tile), Image.Resampling.NEAREST)
    out.paste(image, (column * step, row * step))
  return out
