"""Ways to resize images for the Inception network, which change FID.

Parmar et al. (2022, arXiv 2104.11222) show by how much: without a filter that
grows as an image shrinks, aliasing is measured. `clean` is theirs; the others
repeat numbers that were measured in older ways.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from googlenet.data.images import in_mode
from googlenet.errors import UserError, did_you_mean

# (pixels as floats [H, W, C], (height, width)) -> float32 [height, width, C].
Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
Colour = tuple[float, ...]


def clean(pixels: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
  """Resizes by Pillow's bicubic filter, in floats, as clean-fid does."""
  channels = [
    Image.fromarray(pixels[..., i]).resize(
      sides[::-1], Image.Resampling.BICUBIC
    )
    for i in range(pixels.shape[-1])
  ]
  return np.stack([np.asarray(x) for x in channels], -1).clip(0, 255)


def legacy_pytorch(pixels: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
  """Resizes as F.interpolate(mode='bilinear', align_corners=False) does."""
  return _bilinear(pixels, sides, lambda i, scale: (i + 0.5) * scale - 0.5)


def legacy_tensorflow(pixels: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
  """Resizes as ResizeBilinear of TensorFlow 1 does, align_corners=False.

  Pixels are points at whole numbers, so the result is shifted by up to half a
  pixel.
  """
  return _bilinear(pixels, sides, lambda i, scale: i * scale)


def _bilinear(
  pixels: np.ndarray,
  sides: tuple[int, int],
  place: Callable[[np.ndarray, np.float32], np.ndarray],
) -> np.ndarray:
  """Interpolates between two neighbours along each axis, without a filter.

  Args:
    pixels: float32 [H, W, C].
    sides: (height, width) of the result.
    place: (index of a new pixel, old pixels per new one) -> place in the old
      image.
  """
  for axis, new in enumerate(sides):
    old = pixels.shape[axis]
    scale = np.float32(old) / np.float32(new)
    places = place(np.arange(new, dtype=np.float32), scale)
    places = np.maximum(places, 0).astype(np.float32)
    low = np.minimum(places.astype(int), old - 1)
    high = np.minimum(low + 1, old - 1)
    share = np.expand_dims(places - low, [i for i in range(3) if i != axis])
    before, after = pixels.take(low, axis), pixels.take(high, axis)
    pixels = before + (after - before) * share.astype(np.float32)
  return pixels


class Way(NamedTuple):
  """How images are resized and scaled for the network.

  Attributes:
    resize: the function.
    words: what it is, for the output.
    mean: subtracted from pixels in 0..1.
    std: by which they are divided then.
    scale: the same, for the output.
  """

  resize: Resize
  words: str
  mean: float
  std: float
  scale: str


# Mean and deviation of pixels in 0..1 of the graph's nodes Sub and Mul.
GRAPH = 128 / 255, 128 / 255
_GRAPH = (*GRAPH, '(x - 128) / 128')
CLEAN = 'clean'
WAYS = {
  CLEAN: Way(clean, 'bicubic with antialiasing, as in clean-fid', *_GRAPH),
  'legacy_pytorch': Way(
    legacy_pytorch,
    'bilinear without antialiasing, as in pytorch-fid',
    *(0.5, 0.5, '2 x / 255 - 1'),
  ),
  'legacy_tensorflow': Way(
    legacy_tensorflow,
    'bilinear of TensorFlow 1, as in the first FID and torch-fidelity',
    *_GRAPH,
  ),
}


def way_of(name: str) -> Way:
  """Returns the way of a name.

  Raises:
    UserError: there is none.
  """
  if name not in WAYS:
    raise UserError(
      f'--resize={name} is not allowed{did_you_mean(name, WAYS)}: it takes one '
      f'of {", ".join(WAYS)}'
    )
  return WAYS[name]


class Resized(NamedTuple):
  """Transform to float32 [size, size, C] in 0..255; the size may be kept."""

  size: int  # pixels
  resize: Resize

  is_random = False

  @property
  def sides(self) -> tuple[int, ...]:
    return (self.size, self.size)

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    pixels = np.asarray(in_mode(image, num_channels), np.float32)
    pixels = pixels.reshape(*pixels.shape[:2], num_channels)
    return self.resize(pixels, self.sides)
