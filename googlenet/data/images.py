"""From an image of any size to pixels of one size, on the host (Pillow).

A batch needs one shape. Sets whose images share theirs keep it and are resized
on the device (`preprocess`); for the others one of these is chosen, and is
handed to the reader.
"""

import io
import math
from typing import NamedTuple, Protocol

import ml_collections
import numpy as np
from PIL import Image

# Pillow's mode for a number of channels; whatever an image is stored as (grey,
# palette, with alpha, CMYK) becomes that.
MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}

Box = tuple[float, float, float, float]  # left, top, right, bottom

_CROP_TRIES = 10
# Sets the numbers of crops apart from those of the order of an epoch.
_CROP_STREAM = 1


class Transform(Protocol):
  """What is done to one image.

  Attributes:
    sides: the shape of the result without its channels, (H, W).
    is_random: whether it differs from epoch to epoch.
  """

  sides: tuple[int, ...]
  is_random: bool

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    """Returns uint8 [*sides, C]; random numbers follow epoch and index."""


class Whole(NamedTuple):
  """The whole image, squeezed into a square."""

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
  """Resized to a short side of `resize`; of that a square from the centre."""

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
  """A window of random area and shape, resized to a square.

  The training patches of Szegedy et al. (2014), section 6.
  """

  size: int  # pixels of the square
  area: tuple[float, float]  # smallest and largest part of the image's area
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
  """One or three squares as high as the image, or as wide where it is upright.

  Three lie left, in the centre and right (above, centre, below), as in Szegedy
  et al. (2014), section 7; one lies in the centre.
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
  """Returns what the config asks the host to do, or None."""
  size = data_config.image_size
  if augment_config.random_resized_crop and is_training:
    return random_resized_crop(size, augment_config, seed)
  if data_config.resize:
    return CenterCrop(size, data_config.resize)
  # One shape for training and evaluation.
  return Whole(size) if augment_config.random_resized_crop else None


def random_resized_crop(
  size: int, augment_config: ml_collections.ConfigDict, seed: int
) -> RandomResizedCrop:
  """Returns the crop of an `augment` section."""
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

  After ten that do not fit, as with very long images, it is the largest window
  of an allowed aspect, from the centre.

  Args:
    rng: where random numbers come from.
    image_size: (width, height).
    area: smallest and largest part of the image's area.
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

  Bilinear, over all pixels under the filter where it shrinks. A JPEG is decoded
  at 1/2, 1/4 or 1/8 where that has no fewer pixels than are asked for.

  Args:
    image: not decoded yet.
    num_channels: 1, 3 or 4.
    boxes: windows of one size.
    sides: (H, W).

  Raises:
    OSError, SyntaxError: it is damaged.
  """
  height, width = sides
  left, top, right, bottom = boxes[0]
  shrink = min((right - left) / width, (bottom - top) / height)
  scale = 1.0
  if shrink >= 2 and image.format == 'JPEG':
    full_width, full_height = image.size
    smallest = math.ceil(full_width / shrink), math.ceil(full_height / shrink)
    drafted = image.draft(None, smallest)
    if drafted:  # not None: decoded already
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
  """Opens a PNG or JPEG; its pixels are decoded when they are asked for.

  No other kind: Pillow has 40 readers, and for PostScript starts a program.
  """
  return Image.open(io.BytesIO(encoded), formats=('PNG', 'JPEG'))
