"""Transforms that give images of any size one size, on the host (Pillow).

A batch needs one shape. Sets whose images share a shape keep it and are resized
on the device (`preprocess`). For other sets, and for crops, the reader applies
one of these transforms.
"""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import ml_collections
import numpy as np
from PIL import Image

from googlenet.errors import UserError

# Keys are values of `data.interpolation`.
FILTERS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
}
# Pillow's mode for a number of channels. Images stored in another mode (grey,
# palette, with alpha, CMYK) are converted to it.
MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}

Box = tuple[float, float, float, float]  # left, top, right, bottom

# Images that are this many times as long as wide are not resized as a whole.
_LONGEST = 32
_CROP_TRIES = 10
# Keeps the random numbers of crops apart from those of the order of an epoch of
# the same seed.
_CROP_STREAM = 1


class Transform(Protocol):
  """A function of one image that gives it a fixed size.

  Attributes:
    sides: the shape of the result without its channels: (H, W), or (N, H, W)
      for several windows.
    is_random: whether the result differs from epoch to epoch.
  """

  sides: tuple[int, ...]
  is_random: bool

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    """Returns uint8 [*sides, C]; random numbers depend on epoch and index."""


class Whole(NamedTuple):
  """Squeezes the whole image into a square."""

  size: int  # pixels

  is_random = False

  @property
  def sides(self) -> tuple[int, ...]:
    return (self.size, self.size)

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    return pixels(image, num_channels, (0, 0, *image.size), self.sides)


class CenterCrop(NamedTuple):
  """Resizes the short side to `resize`, then cuts a square from the centre.

  Bit for bit what torchvision's Resize and CenterCrop make of a Pillow image.
  """

  size: int  # pixels of the square
  resize: int  # pixels, at least `size`
  interpolation: str = 'bilinear'  # a name in `FILTERS`
  is_squeezed: bool = False  # whether both sides become `resize` pixels long

  is_random = False

  @property
  def sides(self) -> tuple[int, ...]:
    return (self.size, self.size)

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    if self.is_squeezed:
      image = in_mode(image, num_channels).resize(
        (self.resize, self.resize), FILTERS[self.interpolation]
      )
    (square,) = cut(
      image, num_channels, self.resize, self.size, [0.5], self.interpolation
    )
    return square


class RandomResizedCrop(NamedTuple):
  """Resizes a window of random area and aspect ratio to a square.

  These are the training patches of Szegedy et al. (2014), section 6.
  """

  size: int  # pixels of the square
  area: tuple[float, float]  # smallest and largest fraction of the image's area
  aspect: tuple[float, float]  # smallest and largest width / height
  seed: int

  is_random = True

  @property
  def sides(self) -> tuple[int, ...]:
    return (self.size, self.size)

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    rng = np.random.default_rng([_CROP_STREAM, self.seed, epoch, index])
    box = random_box(rng, image.size, self.area, self.aspect)
    box = decode_small(image, box, self.sides)
    return pixels(image, num_channels, box, self.sides)


class Squares(NamedTuple):
  """Resizes the short side to `side`, then cuts one or three squares of it.

  Three are at the left, centre and right (or top, centre and bottom), as in
  Szegedy et al. (2014), section 7; one is in the centre.
  """

  side: int  # pixels of each
  count: int

  is_random = False

  @property
  def sides(self) -> tuple[int, ...]:
    return (self.count, self.side, self.side)

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    places = [0.0, 0.5, 1.0] if self.count == 3 else [0.5]
    return cut(image, num_channels, self.side, self.side, places)


def make_transform(
  data_config: ml_collections.ConfigDict,
  augment_config: ml_collections.ConfigDict,
  seed: int,
  is_training: bool,
) -> Transform | None:
  """Returns the transform that the config asks for; None: keep the size.

  Raises:
    UserError: a field says how to resize, but `data.resize` is 0.
  """
  size = data_config.image_size
  for name, default in (('interpolation', 'bilinear'), ('squeeze', False)):
    if not data_config.resize and data_config[name] != default:
      raise UserError(
        f'config.data.{name}={data_config[name]!r} is for images that the host '
        'resizes, and config.data.resize=0 leaves that to the device: give '
        f'config.data.resize, or config.data.{name}={default!r}',
        f'data.{name}',
      )
  if augment_config.random_resized_crop and is_training:
    return random_resized_crop(size, augment_config, seed)
  if data_config.resize:
    return CenterCrop(
      size,
      data_config.resize,
      data_config.interpolation,
      data_config.squeeze,
    )
  # Evaluation without `resize` needs the same shape as training.
  return Whole(size) if augment_config.random_resized_crop else None


def random_resized_crop(
  size: int, augment_config: ml_collections.ConfigDict, seed: int
) -> RandomResizedCrop:
  """Returns the random resized crop that an `augment` section describes."""
  return RandomResizedCrop(
    size,
    tuple(augment_config.crop_area),
    tuple(augment_config.crop_aspect),
    seed,
  )


def random_box(
  rng: np.random.Generator,
  image_size: tuple[int, int],
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> Box:
  """Draws a window of whole pixels: uniform in area, log-uniform in aspect.

  If ten draws do not fit, as in very long images, it returns the largest
  centred window of an allowed aspect ratio.

  Args:
    rng: the random number generator.
    image_size: (width, height) in pixels.
    area: smallest and largest fraction of the image's area.
    aspect: smallest and largest width / height.
  """
  width, height = image_size
  for _ in range(_CROP_TRIES):
    target = rng.uniform(*area) * width * height
    ratio = math.exp(rng.uniform(*np.log(aspect)))
    w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
    if 0 < w <= width and 0 < h <= height:
      left = int(rng.integers(width - w + 1))
      top = int(rng.integers(height - h + 1))
      return (left, top, left + w, top + h)
  ratio = min(max(width / height, aspect[0]), aspect[1])
  w, h = min(width, height * ratio), min(height, width / ratio)
  left, top = (width - w) / 2, (height - h) / 2
  return (left, top, left + w, top + h)


def resized_sides(size: tuple[int, int], short: int) -> tuple[int, int]:
  """Returns (width, height) with the short side resized, as in torchvision.

  Args:
    size: (width, height) of the image, in pixels.
    short: the new short side, in pixels.
  """
  width, height = size
  long = int(short * max(size) / min(size))
  return (short, long) if width <= height else (long, short)


def cut(
  image: Image.Image,
  num_channels: int,
  short: int,
  size: int,
  places: Sequence[float],
  interpolation: str = 'bilinear',
) -> np.ndarray:
  """Resizes the short side of an image, then cuts out squares.

  Args:
    image: the image.
    num_channels: 1, 3 or 4.
    short: the short side after resizing, in pixels.
    size: side of the squares in pixels, at most `short`.
    places: of the squares: 0 is left or above, 0.5 the centre, 1 right or
      below.
    interpolation: a name in `FILTERS`.

  Returns:
    uint8 [n, size, size, C].
  """
  width, height = resized_sides(image.size, short)
  image = in_mode(image, num_channels)
  corners = [
    (round(place * (width - size)), round(place * (height - size)))
    for place in places
  ]
  boxes = [(left, top, left + size, top + size) for left, top in corners]
  if max(width, height) <= _LONGEST * short:
    image = image.resize((width, height), FILTERS[interpolation])
  else:  # the whole strip could take gigabytes
    scale = image.width / width, image.height / height
    boxes = [tuple(np.multiply(box, scale * 2)) for box in boxes]
  return np.stack(
    [
      pixels(image, num_channels, box, (size, size), interpolation)
      for box in boxes
    ]
  )


def in_mode(image: Image.Image, num_channels: int) -> Image.Image:
  """Converts an image to the mode of 1, 3 or 4 channels."""
  mode = MODES[num_channels]
  if (image.mode, mode) == ('LAB', 'L'):  # which Pillow has no way for
    image = image.convert('RGB')
  return image if image.mode == mode else image.convert(mode)


def pixels(
  image: Image.Image,
  num_channels: int,
  box: Box,
  sides: tuple[int, int],
  interpolation: str = 'bilinear',
) -> np.ndarray:
  """Returns a window of an image, resized to (H, W): uint8 [H, W, C].

  The filter is wider when it shrinks.

  Args:
    image: the image.
    num_channels: 1, 3 or 4.
    box: the window, in pixels of the image.
    sides: (H, W) of the result.
    interpolation: a name in `FILTERS`.

  Raises:
    OSError, SyntaxError: the image is damaged.
  """
  height, width = sides
  window = in_mode(image, num_channels).resize(
    (width, height), FILTERS[interpolation], box=tuple(box)
  )
  return np.asarray(window).reshape(height, width, num_channels)


def decode_small(image: Image.Image, box: Box, sides: tuple[int, int]) -> Box:
  """Decodes a JPEG at 1/2, 1/4 or 1/8 of its size if that has enough pixels.

  This saves time in training, and changes pixels by a few grey levels.

  Args:
    image: an image that is not decoded yet; changed in place.
    box: a window, in pixels of the whole image.
    sides: (H, W) to which the window will be resized.

  Returns:
    The window in pixels of the decoded image.
  """
  left, top, right, bottom = box
  shrink = min((right - left) / sides[1], (bottom - top) / sides[0])
  if shrink < 2 or image.format != 'JPEG':
    return box
  full_width, full_height = image.size
  smallest = math.ceil(full_width / shrink), math.ceil(full_height / shrink)
  drafted = image.draft(None, smallest)
  if not drafted:  # decoded already
    return box
  scale = drafted[1][2] / full_width
  return tuple(scale * edge for edge in box)


def open_image(encoded: bytes) -> Image.Image:
  """Opens a PNG or JPEG; its pixels are decoded on first use.

  Other formats are refused: Pillow has 40 readers, and the one for PostScript
  starts a program.
  """
  return Image.open(io.BytesIO(encoded), formats=('PNG', 'JPEG'))
