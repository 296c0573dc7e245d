"""Reads image files of any kind and prepares them like training images.

Every size, mode and orientation that Pillow reads becomes uint8 [H, W, C] of
one shape. The functions are those that read a data set.
"""

import collections
import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from googlenet.data.colours import GREY, tell_conversion
from googlenet.data.images import MODES, Transform, pixels
from googlenet.errors import UserError
from googlenet.runtime.files import open_regular

# Enough for photos of 108 megapixels. A larger image is refused by its header,
# before memory is allocated for its pixels.
MAX_PIXELS = 2**27
# Images of more pixels are decoded one at a time, to limit memory.
_LARGE = 2**24
# Memory that decoding takes, with copies in other modes, by format or mode, in
# bytes per pixel, measured: WebP keeps several canvases, 16 bits become 8.
_BYTES_PER_PIXEL = {'WEBP': 25, 'I': 16, 'F': 16}
_PLAIN_BYTES_PER_PIXEL = 8
_MAX_DECODED_BYTES = 2**31
# Formats that are not read: Pillow decodes them by another program,
# Ghostscript.
_REFUSED = {'EPS'}
# Some of Pillow's readers read a whole file before they look at its size. Raw
# images of `MAX_PIXELS` with four channels of 16 bits have 1 GiB.
_MAX_BYTES = 2**30
# Tags of TIFF: the bits of a sample, and what a sample of 0 is.
_BITS, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0
# What turns a stored image upright, by EXIF orientation.
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


_SIDEWAYS = tuple(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))


class UnreadableError(Exception):
  """A file cannot be read as an image; the message says why."""


class Squeezed(NamedTuple):
  """Transform that squeezes the whole image to (height, width)."""

  sides: tuple[int, int]

  is_random = False

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    return pixels(image, num_channels, (0, 0, *image.size), self.sides)


@functools.cache
def known_formats() -> tuple[str, ...]:
  """Returns the names of the formats that are read."""
  Image.init()
  return tuple(name for name in Image.ID if name not in _REFUSED)


@functools.cache
def suffixes() -> frozenset[str]:
  """Returns the suffixes of the formats that are read, like '.jpg'."""
  formats = known_formats()
  return frozenset(
    suffix
    for suffix, name in Image.registered_extensions().items()
    if name in formats
  )


def _file_of(
  path: str | os.PathLike[str] | BinaryIO,
) -> contextlib.AbstractContextManager[BinaryIO]:
  if isinstance(path, str | os.PathLike):
    return open_regular(path, _MAX_BYTES)
  return contextlib.nullcontext(path)


class Header(NamedTuple):
  """What a file says of its image before the pixels.

  Attributes:
    size: (height, width), upright by EXIF.
    is_grey: whether it has no colour.
  """

  size: tuple[int, int]
  is_grey: bool


def header(path: str | os.PathLike[str] | BinaryIO, decode: bool) -> Header:
  """Reads the header of an image.

  Args:
    path: of the file, or the file itself.
    decode: whether to decode the pixels too, which finds damage behind the
      header.

  Raises:
    UnreadableError: the file is missing, damaged, too large or not an image.
  """
  with _opened(path) as image:
    is_turned = _orientation(image) in _SIDEWAYS
    size = image.size if is_turned else image.size[::-1]
    found = Header(size, image.mode in GREY)
    if decode:
      _to_8_bits(image).load()
    return found


@contextlib.contextmanager
def _opened(
  path: str | os.PathLike[str] | BinaryIO,
) -> Iterator[Image.Image]:
  """Opens an image; turns errors in the block into an `UnreadableError`."""
  try:
    with (
      _file_of(path) as file,
      Image.open(file, formats=known_formats()) as image,
    ):
      _check_size(image)
      yield image
  except UnreadableError:
    raise
  except Exception as error:  # Pillow raises a dozen types
    text = ' '.join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
      text = error.strerror
    elif isinstance(error, Image.UnidentifiedImageError):
      text = 'not an image that Pillow can read'
    elif isinstance(error, Image.DecompressionBombError):
      text = f'more than {MAX_PIXELS:,} pixels'
    raise UnreadableError(
      text[:200] or f'damaged ({type(error).__name__})'
    ) from error


def _check_size(image: Image.Image) -> None:
  width, height = image.size
  if width * height > MAX_PIXELS:
    raise UnreadableError(
      f'{width}x{height} is more than {MAX_PIXELS:,} pixels: make it smaller'
    )
  if (needed := decoded_bytes(image)) > _MAX_DECODED_BYTES:
    raise UnreadableError(
      f'{width}x{height} pixels of {image.format} need {needed >> 20} MiB, '
      f'more than {_MAX_DECODED_BYTES >> 20}: make it smaller'
    )


def _orientation(image: Image.Image) -> Image.Transpose | None:
  """Returns what turns an image upright, by its EXIF; None: nothing."""
  try:
    return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
  except Exception:  # damaged EXIF: the image is taken as it is stored
    return None


class Reader:
  """Reads one image file per call; threads may share it."""

  def __init__(
    self, transform: Transform, num_channels: int, tells: bool = False
  ):
    """Stores what to do with each image.

    Args:
      transform: gives every image the same size; not random.
      num_channels: 1, 3 or 4: the channels of the result.
      tells: whether the images are for a trained network, so that a warning
        says if they are converted between grey and colour.
    """
    self._transform, self._num_channels = transform, num_channels
    self._tells = tells
    self._large = threading.Lock()

  @property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the returned arrays; (n, R, R, C) for squares."""
    return (*self._transform.sides, self._num_channels)

  def __call__(
    self,
    path: str | os.PathLike[str] | BinaryIO,
    epoch: int = 0,
    index: int = 0,
  ) -> np.ndarray:
    """Returns the image in a file, or in one that is open: uint8 [H, W, C].

    Of a file with several pictures the first is read. Transparency is dropped,
    as in data sets.

    Args:
      path: of the file, or the file itself.
      epoch: for the random numbers of a transform, like `index`.
      index: of the image in its split.

    Raises:
      UnreadableError: the file is missing, damaged, too large or not an image.
    """
    with _opened(path) as image:
      width, height = image.size
      if width * height > _LARGE:
        with self._large:
          return self._convert(image, epoch, index)
      return self._convert(image, epoch, index)

  def _convert(self, image: Image.Image, epoch: int, index: int) -> np.ndarray:
    turn = _orientation(image) if image.format == 'JPEG' else None
    if (
      turn is not None
      or image.format != 'JPEG'
      or not self._transform.is_random
    ):
      image.load()  # other formats may have their EXIF after the pixels
      turn = _orientation(image)
    image = _to_8_bits(image)
    if turn is not None:
      image = image.transpose(turn)
    if self._tells:
      tell_conversion(image, self._num_channels)
    array = self._transform(image, self._num_channels, epoch, index)
    return np.ascontiguousarray(array)


def decoded_bytes(image: Image.Image) -> int:
  """Returns how much memory decoding an image takes."""
  width, height = image.size
  plain = _BYTES_PER_PIXEL.get(image.mode[:1], _PLAIN_BYTES_PER_PIXEL)
  return width * height * _BYTES_PER_PIXEL.get(image.format, plain)


def _to_8_bits(image: Image.Image) -> Image.Image:
  """Keeps the upper 8 bits of 12 or 16; Pillow would clip at 255.

  Raises:
    UnreadableError: the values are not integers of at most 16 bits, or fill
      only 8 bits of a TIFF's 32, so their range is unknown; or 0 is white.
  """
  if not image.mode.startswith(('I', 'F')):
    return image
  tags = getattr(image, 'tag_v2', {})
  if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits only
    raise UnreadableError(
      f'mode {image.mode} with 0 as white: save it with 0 as black'
    )
  array = np.asarray(image)
  is_integer = np.issubdtype(array.dtype, np.integer)
  is_wide = (image.mode, image.format) == ('I', 'TIFF')
  is_dark = is_wide and 0 < array.max() < 2**8  # would all become black
  if not is_integer or is_dark or array.min() < 0 or array.max() >= 2**16:
    raise UnreadableError(
      f'mode {image.mode} with values from {array.min():g} to '
      f'{array.max():g}: save it with whole numbers of 8 or 16 bits'
    )
  # Pillow stretches samples of 12 bits to 16 in other formats than TIFF.
  is_12_bits = tags.get(_BITS) == (12,)
  return Image.fromarray((array >> (4 if is_12_bits else 8)).astype(np.uint8))


def make_reader(
  transform: Transform | None, stored_shape: tuple[int, int, int]
) -> Reader:
  """Makes a reader that prepares files like the images of training.

  Args:
    transform: what the host does to the set's images, as
      `images.make_transform` returns it.
    stored_shape: (H, W, C) of the set's images before they reach the device.
  """
  *sides, num_channels = stored_shape
  return Reader(transform or Squeezed(tuple(sides)), num_channels, tells=True)


def check_channels(num_channels: int) -> None:
  """Checks that image files can be read with a number of channels.

  Raises:
    UserError: Pillow has no mode with `num_channels` channels.
  """
  if num_channels not in MODES:
    raise UserError(
      f'the network takes images of {num_channels} channels; image files can '
      f'be read with {", ".join(map(str, MODES))}'
    )


class Item(NamedTuple):
  """A file, and its image or the reason why it cannot be read."""

  path: str
  image: np.ndarray | None  # uint8 [H, W, C]
  problem: str = ''


def read_ahead(
  paths: Iterable[str],
  read: Callable[[str], np.ndarray],
  ahead: int,
  num_threads: int | None = None,
) -> Iterator[Item]:
  """Reads files in several threads and yields them in order.

  Args:
    paths: the files.
    read: a `Reader`.
    ahead: largest number of files to read in advance.
    num_threads: number of threads; None: one per processor, at most 32.
  """
  if num_threads is None:
    num_threads = min(os.cpu_count() or 1, 32)

  def attempt(path: str) -> Item:
    try:
      return Item(path, read(path))
    except UnreadableError as error:
      return Item(path, None, str(error))

  waiting: collections.deque[futures.Future] = collections.deque()
  pool = futures.ThreadPoolExecutor(num_threads, 'read')
  with warnings.catch_warnings():
    # Pillow warns of odd metadata, and of large images that are allowed here.
    warnings.filterwarnings('ignore', module=r'PIL\.')
    try:
      for path in paths:
        waiting.append(pool.submit(attempt, path))
        if len(waiting) > ahead:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      pool.shutdown(cancel_futures=True)


def batches(
  items: Iterable[Item],
  size: int,
  on_problem: Callable[[Item], None],
) -> Iterator[tuple[list[str], np.ndarray]]:
  """Joins images to batches, without those that cannot be read.

  Args:
    items: files with their images.
    size: largest number of images in a batch.
    on_problem: called with each file that cannot be read.

  Yields:
    Paths, and uint8 [n, H, W, C] with 0 < n <= size.
  """
  paths: list[str] = []
  images: Sequence[np.ndarray] = []
  for item in items:
    if item.image is None:
      on_problem(item)
      continue
    paths.append(item.path)
    images.append(item.image)
    if len(paths) == size:
      yield paths, np.stack(images)
      paths, images = [], []
  if paths:
    yield paths, np.stack(images)
