"""Pictures of attributions: a map over its image, with a scale of colours.

Red speaks for the class and blue against it.
"""

from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image

from googlenet.tools.explain import methods
from googlenet.tools.explain.methods import CENTRED, MAGNITUDE, POSITIVE

_COLOURS = {True: 'RdBu_r', False: 'Reds'}  # by whether there is a sign
_SIDE = 168  # pixels that the longer side of a picture has at least
# Single pixels must not decide the scale: what lies beyond has its last colour.
_PERCENTILE = 99.5
_EQUAL = 1e-6  # relative difference of values that only rounding tells apart


class Scale(NamedTuple):
  """The colours of a map.

  Attributes:
    low: value of the first colour.
    high: value of the last colour.
    has_sign: whether white lies in the middle, not at the first colour.
  """

  low: float
  high: float
  has_sign: bool

  def colours(self, values: np.ndarray) -> np.ndarray:
    """Returns the colours of values [...], float [..., 3] in 0..1."""
    share = (values - self.low) / max(self.high - self.low, 1e-12)
    colours = matplotlib.colormaps[_COLOURS[self.has_sign]]
    return colours(np.clip(share, 0, 1))[..., :3]

  @property
  def stops(self) -> str:
    """Colours from low to high, as CSS writes them in a gradient."""
    values = np.linspace(self.low, self.high, 9)
    parts = np.rint(255 * self.colours(values)).astype(int)
    return ', '.join(f'rgb({r}, {g}, {b})' for r, g, b in parts.tolist())


def flat(values: np.ndarray, shows: str) -> np.ndarray:
  """Returns one value per position of a map, [h, w].

  Args:
    values: [h, w], or [h, w, C]: channels are added, or the largest is taken if
      magnitudes are shown. Maps that are centred lose their mean.
    shows: `Method.shows`.
  """
  if shows == MAGNITUDE:
    values = np.abs(values)
    return values.max(-1) if values.ndim == 3 else values
  values = values.sum(-1) if values.ndim == 3 else values
  return values - values.mean() if shows == CENTRED else values


def scale_of(values: np.ndarray, shows: str) -> Scale:
  """Returns the scale of a map [h, w] that `flat` returned.

  Maps with a sign and magnitudes have white at zero, and only few values lie
  beyond the scale. Others reach from their smallest to their largest value: a
  network that is sure of a class has a map that is large everywhere. A map that
  is the same everywhere begins at zero.
  """
  if shows == POSITIVE:
    low, high = float(values.min()), float(values.max())
    if high - low <= _EQUAL * abs(high):  # the same everywhere: not nothing
      low, high = 0.0, high or 1.0
    return Scale(low, high, False)
  size = np.abs(values)
  limit = float(np.percentile(size, _PERCENTILE) or size.max() or 1.0)
  return Scale(0.0 if shows == MAGNITUDE else -limit, limit, shows != MAGNITUDE)


def size_of(shape: tuple[int, ...]) -> tuple[int, int]:
  """Returns (width, height) at which an image (H, W, ...) is shown."""
  times = max(-(-_SIDE // max(shape[:2])), 1)
  return shape[1] * times, shape[0] * times


def photo(pixels: np.ndarray) -> Image.Image:
  """Returns an image, uint8 [H, W, C] with C 1 or 3, at the shown size."""
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  return image.resize(size_of(pixels.shape), Image.Resampling.NEAREST)


def overlay(
  pixels: np.ndarray, values: np.ndarray, scale: Scale
) -> Image.Image:
  """Returns a map over a faint image.

  Args:
    pixels: uint8 [H, W, C], the image.
    values: [h, w]; a map of another size than the image is interpolated.
    scale: its colours.
  """
  size = size_of(pixels.shape)
  is_same = values.shape == pixels.shape[:2]
  how = Image.Resampling.NEAREST if is_same else Image.Resampling.BILINEAR
  drawn = Image.fromarray(np.asarray(values, np.float32)).resize(size, how)
  grey = np.asarray(photo(pixels).convert('L'), np.float32)[..., None] / 255
  colours = scale.colours(np.asarray(drawn)) * (0.75 + 0.25 * grey)
  return Image.fromarray(np.rint(255 * colours).astype(np.uint8))


def as_pixels(images: np.ndarray) -> np.ndarray:
  """Returns images of 1, 3 or 4 channels as uint8 with 1 or 3."""
  images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
  return images[..., :3] if images.shape[-1] > 2 else images[..., :1]


def drawn(
  pixels: np.ndarray, values: np.ndarray, name: str
) -> tuple[Image.Image, Scale]:
  """Returns the picture and the scale of one map of a method.

  Args:
    pixels: uint8 [H, W, C], the image.
    values: [h, w] or [H, W, C], the map.
    name: key of `methods.METHODS`.
  """
  shows = methods.METHODS[name].shows
  values = flat(values, shows)
  scale = scale_of(values, shows)
  return overlay(pixels, values, scale), scale
