"""Transforms that give images of any size one size, on the host (Pillow).

A batch needs one shape. Sets whose images share a shape keep it and are resized
on the device (`preprocess`). For other sets, and for crops, the reader applies
one of these transforms.
"""

import io
import math
from typing import NamedTuple, Protocol

import ml_collections
import numpy as np
from PIL import Image

# Pillow's mode for a number of channels. Images stored in another mode (grey,
# palette, with alpha, CMYK) are converted to it.
MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}

Box = tuple[float, float, float, float]  # left, top, right, bottom

_CROP_TRIES = 10
# Keeps the random numbers of crops apart from those of the order of an epoch.
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
    box = (0, 0, *image.size)
    return pixels(image, num_channels, [box], self.sides)[0]


class CenterCrop(NamedTuple):
  """Resizes the short side to `resize`, then cuts a square from the centre."""

  size: int  # pixels of the square
  resize: int  # pixels, at least `size`

  is_random = False

  @property
  def sides(self) -> tuple[int, ...]:
    return (self.size, self.size)

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    width, height = image.size
    side = min(image.size) * self.size / self.resize
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return pixels(image, num_channels, [box], self.sides)[0]


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
    return pixels(image, num_channels, [box], self.sides)[0]


class Squares(NamedTuple):
  """Cuts one or three squares as large as the short side allows.

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
    width, height = image.size
    side = min(width, height)
    boxes = []
    for place in [0.0, 0.5, 1.0] if self.count == 3 else [0.5]:
      left, top = place * (width - side), place * (height - side)
      boxes.append((left, top, left + side, top + side))
    return pixels(image, num_channels, boxes, (self.side, self.side))


def make_transform(
  data_config: ml_collections.ConfigDict,
  augment_config: ml_collections.ConfigDict,
  seed: int,
  is_training: bool,
) -> Transform | None:
  """Returns the transform that the config asks for; None: keep the size."""
  size = data_config.image_size
  if augment_config.random_resized_crop and is_training:
    return random_resized_crop(size, augment_config, seed)
  if data_config.resize:
    return CenterCrop(size, data_config.resize)
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


def pixels(
  image: Image.Image,
  num_channels: int,
  boxes: list[Box],
  sides: tuple[int, int],
) -> np.ndarray:
  """Returns windows of an image, each resized to (H, W): uint8 [n, H, W, C].

  Resizing is bilinear, with a wider filter when it shrinks. A JPEG is decoded
  at 1/2, 1/4 or 1/8 of its size if that still has enough pixels.

  Args:
    image: an image that is not decoded yet.
    num_channels: 1, 3 or 4.
    boxes: windows of one size, in pixels of the image.
    sides: (H, W) of the result.

  Raises:
    OSError, SyntaxError: the image is damaged.
  """
  height, width = sides
  left, top, right, bottom = boxes[0]
  shrink = min((right - left) / width, (bottom - top) / height)
  scale = 1.0
  if shrink >= 2 and image.format == 'JPEG':
    full_width, full_height = image.size
    smallest = math.ceil(full_width / shrink), math.ceil(full_height / shrink)
    drafted = image.draft(None, smallest)
    if drafted:  # None: decoded already
      scale = drafted[1][2] / full_width
  if image.mode != MODES[num_channels]:
    image = image.convert(MODES[num_channels])
  windows = [
    image.resize(
      (width, height),
      Image.Resampling.BILINEAR,
      box=tuple(scale * edge for edge in box),
    )
    for box in boxes
  ]
  shape = (height, width, num_channels)
  return np.stack([np.asarray(window).reshape(shape) for window in windows])


def open_image(encoded: bytes) -> Image.Image:
  """Opens a PNG or JPEG; its pixels are decoded on first use.

  Other formats are refused: Pillow has 40 readers, and the one for PostScript
  starts a program.
  """
  return Image.open(io.BytesIO(encoded), formats=('PNG', 'JPEG'))
