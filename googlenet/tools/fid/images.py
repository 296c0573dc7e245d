"""Sets of images as streams: folders and files, .npz files, arrays."""

import contextlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from googlenet.data import files, find
from googlenet.data.colours import tell_conversion
from googlenet.data.images import Transform
from googlenet.errors import UserError
from googlenet.io import archive
from googlenet.runtime.files import open_regular
from googlenet.tools.inference.trained import refuse

_SHOWN = 5  # names of arrays that an error lists


class Prepare(NamedTuple):
  """What is done to each image before the network.

  Attributes:
    transform: gives every image the same size.
    num_channels: of the result.
    tells: whether to warn if images are converted between grey and colour.
  """

  transform: Transform
  num_channels: int
  tells: bool = False

  def of_pixels(self, pixels: np.ndarray) -> np.ndarray:
    """Does it to uint8 [H, W, C], as to an image file of these pixels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if self.tells:
      tell_conversion(image, self.num_channels)
    return self.transform(image, self.num_channels, 0, 0)


class Images(NamedTuple):
  """A set of images, which is read in order.

  Attributes:
    name: as the user wrote it.
    count: number of images.
    read: `Prepare` -> an iterator of `files.Item`, one for each image.
  """

  name: str
  count: int
  read: Callable[[Prepare, int], Iterator[files.Item]]

  def batches(self, prepare: Prepare, size: int) -> Iterator[np.ndarray]:
    """Yields prepared images [n, H, W, C], n <= size; threads read ahead.

    Raises:
      UserError: an image cannot be read; the message names its file.
    """
    with contextlib.closing(self.read(prepare, 2 * size)) as items:
      for _, images in files.batches(items, size, refuse):
        yield images


class Header(NamedTuple):
  """What an .npz file says of an array before its numbers."""

  shape: tuple[int, ...]
  is_fortran: bool
  dtype: np.dtype


def open_images(
  source: str | os.PathLike[str] | Sequence[str] | np.ndarray,
  flag: str = '--images',
) -> Images:
  """Opens a set of images.

  Args:
    source: what `data.find.find` takes: folders, files, patterns; an .npz file
      that holds one array of images; a list of paths; or an array of images.
      Arrays are uint8 [N, H, W, C] or [N, H, W], C 1 or 3.
    flag: for error messages.

  Raises:
    UserError: there are no images, or they are of another kind.
  """
  if isinstance(source, np.ndarray):
    shape = _checked(flag, 'array', source.shape, source.dtype)
    return _of_arrays(flag, shape, lambda: iter(source.reshape(shape)))
  if not isinstance(source, str | os.PathLike):
    return _of_files(', '.join(source[:2]), list(source))
  source = os.path.expanduser(source)
  if source.endswith('.npz') and os.path.isfile(source):
    return _of_npz(source, flag)
  if source.endswith('.npy') and os.path.isfile(source):
    raise UserError(
      f'{flag}={source} is an array without a name, which is not read: allowed '
      f"is an .npz file, np.savez('{source[:-4]}.npz', np.load('{source}'))"
    )
  return _of_files(source, find.find(source, sys.stdin, flag))


def headers(path: str, flag: str) -> dict[str, Header]:
  """Returns the headers of the arrays of an .npz file, by name.

  Raises:
    UserError: the file cannot be read, is damaged or holds Python objects.
  """
  try:
    found = {}
    with open_regular(path) as file, zipfile.ZipFile(file) as zipped:
      for info in zipped.infolist():
        with zipped.open(info) as entry:
          header = archive.read_header(entry, info.file_size)
        found[info.filename.removesuffix('.npy')] = Header(*header)
    return found
  except Exception as error:  # zipfile and NumPy raise a dozen types
    text = ' '.join(str(error).split())[:200]
    raise UserError(
      f'{flag}={path} cannot be read ({text or type(error).__name__}): allowed '
      'is an .npz file without Python objects'
    ) from error


def _of_files(name: str, paths: list[str]) -> Images:
  def read(prepare: Prepare, ahead: int) -> Iterator[files.Item]:
    files.check_channels(prepare.num_channels)
    reader = files.Reader(*prepare)
    return files.read_ahead(paths, reader, ahead)

  if not paths:
    raise UserError('no images are given')
  return Images(name, len(paths), read)


def _of_arrays(
  name: str,
  shape: tuple[int, ...],
  arrays: Callable[[], Iterable[np.ndarray]],
) -> Images:
  def read(prepare: Prepare, ahead: int) -> Iterator[files.Item]:
    # What is read ahead are pixels, where `read_ahead` has paths.
    return files.read_ahead(arrays(), prepare.of_pixels, ahead)

  return Images(name, shape[0], read)


def _of_npz(path: str, flag: str) -> Images:
  known = headers(path, flag)
  names = [
    name
    for name, header in known.items()
    if header.dtype == np.uint8 and len(header.shape) in (3, 4)
  ]
  if len(names) != 1:
    listed = ', '.join(
      f'{name} {header.dtype} {list(header.shape)}'
      for name, header in list(known.items())[:_SHOWN]
    )
    raise UserError(
      f'{flag}={path} holds {len(names) or "no"} arrays of images ({listed}): '
      'allowed is one, uint8 [N, H, W, C] with 1 or 3 channels, 0 to 255'
    )
  (name,) = names
  header = known[name]
  shape = _checked(f'{flag}={path}', name, header.shape, header.dtype)
  if header.is_fortran:
    raise UserError(
      f'{flag}={path}: {name} is stored with the first index fastest: save '
      'np.ascontiguousarray(images)'
    )
  return _of_arrays(path, shape, lambda: _stream(path, flag, name, shape))


def _checked(
  what: str, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[int, ...]:
  """Returns the shape with channels.

  Raises:
    UserError: these are no images.
  """
  full = (*shape, 1) if len(shape) == 3 else shape
  is_right = len(full) == 4 and full[-1] in (1, 3) and min(full) > 0
  if dtype != np.uint8 or not is_right:
    raise UserError(
      f'{what}: {name} is {dtype} {list(shape)}; allowed is uint8 '
      '[N, H, W, C] with 1 or 3 channels, 0 to 255'
    )
  return full


def _stream(
  path: str, flag: str, name: str, shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
  """Yields the images of an array one by one, however large it is."""
  size = int(np.prod(shape[1:]))
  with (
    open_regular(path) as file,
    zipfile.ZipFile(file) as zipped,
    zipped.open(f'{name}.npy') as entry,
  ):
    archive.read_header(entry, zipped.getinfo(f'{name}.npy').file_size)
    for _ in range(shape[0]):
      data = _read(entry, size, f'{flag}={path}')
      yield np.frombuffer(data, np.uint8).reshape(shape[1:])


def _read(entry: BinaryIO, size: int, what: str) -> bytes:
  try:
    data = entry.read(size)
  except Exception as error:  # zlib.error, BadZipFile: a wrong checksum
    raise UserError(f'{what} is damaged ({error}): make it again') from error
  if len(data) < size:
    raise UserError(f'{what} is damaged (it ends early): make it again')
  return data
