"""Files of named arrays with a checksum, so damaged files are never loaded.

A file is an .npz that `numpy.load` can read, without compression or pickle. Its
last 64 bytes, in the comment of the zip archive, are the SHA-256 of all bytes
before them. A file is written under a temporary name and then renamed, so an
interrupted write leaves no partial file.
"""

import contextlib
import hashlib
import math
import os
import pathlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from googlenet.errors import UnreadableError, UserError
from googlenet.runtime import files

_MARK = b'sha256:'
_DIGEST_CHARS = 64
_CHUNK = 2**20
# Upper bound for the name, header and padding of an array.
_ENTRY_BYTES = 4096
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


class DamagedError(UserError):
  """A file is incomplete, was changed, or has another format."""

  def __init__(self, path: Any, reason: str):
    super().__init__(f'checkpoint {path} is damaged ({reason})')
    self.path, self.reason = path, reason


class MismatchError(UserError):
  """An undamaged file holds arrays of another network or optimizer."""

  def __init__(self, path: Any, name: str, holds: str, wanted: str):
    super().__init__(
      f'checkpoint {path} is of another network: at {name} it holds {holds}, '
      f'the config asks for {wanted}'
    )
    self.path = path


def _digest(file: BinaryIO, size: int) -> bytes:
  """Returns the SHA-256 of the first `size` bytes, as hexadecimal digits."""
  sha = hashlib.sha256()
  file.seek(0)
  while size > 0:
    chunk = file.read(min(size, _CHUNK))
    if not chunk:
      break
    sha.update(chunk)
    size -= len(chunk)
  return sha.hexdigest().encode()


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a file atomically and waits until it is on disk.

  Raises:
    OSError: the file cannot be written; an existing `path` is unchanged.
  """
  with files.written_aside(path, 'w+b') as file:
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
      for name, array in arrays.items():
        with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
          np.lib.format.write_array(entry, array, allow_pickle=False)
      archive.comment = _MARK + b'0' * _DIGEST_CHARS
    file.flush()
    size = file.tell() if file.seek(0, os.SEEK_END) else 0
    digest = _digest(file, size - _DIGEST_CHARS)
    file.seek(size - _DIGEST_CHARS)
    file.write(digest)


def _check_seal(file: BinaryIO, size: int) -> None:
  seal = len(_MARK) + _DIGEST_CHARS
  file.seek(max(size - seal, 0))
  tail = file.read(seal)
  if not tail.startswith(_MARK):
    # An .npz of another program, or of an old version of this one, has no
    # comment; it is protected only by the CRC-32 of its entries.
    if tail[-22:-18] == b'PK\5\6' and tail[-2:] == b'\0\0':
      return
    raise ValueError('its end is missing or was changed')
  if _digest(file, size - _DIGEST_CHARS) != tail[len(_MARK) :]:
    raise ValueError('its checksum differs')


def _read_entry(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
  info = archive.getinfo(f'{name}.npy')
  # Without compression an entry cannot be larger than the file, so a damaged
  # size cannot make us allocate too much memory.
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f'{name} is compressed')
  if info.file_size != info.compress_size or info.file_size > limit:
    raise ValueError(f'{name} has {info.file_size} bytes')
  with archive.open(info) as entry:
    shape, is_fortran, dtype = read_header(entry, info.file_size)
    data = entry.read()
  array = np.frombuffer(data, dtype, math.prod(shape))
  return array.reshape(shape, order='F' if is_fortran else 'C')


def read_header(file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Reads the header of an .npy file, up to its first value.

  Args:
    file: open for reading bytes.
    size: of the whole file in bytes.

  Returns:
    The shape, whether the first index changes fastest, and the dtype.

  Raises:
    ValueError: the header is damaged, claims objects (pickle), or does not
      belong to a file of `size` bytes.
  """
  try:
    version = np.lib.format.read_magic(file)
    with warnings.catch_warnings():
      warnings.simplefilter('error')  # a header of Python 2, or a wrong escape
      shape, is_fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
      raise ValueError('it holds objects (pickle)')
    if min(shape, default=0) < 0:
      raise ValueError(f'its shape is {shape}')
    if size != file.tell() + math.prod(shape) * dtype.itemsize:
      raise ValueError('it does not have the size in its header')
  # The text is parsed as Python: SyntaxError, TokenError and a dozen others.
  except Exception as error:
    text = ' '.join(str(error).split())[:100]
    raise ValueError(
      f'bad header of an array: {type(error).__name__}: {text}'
    ) from error
  return shape, is_fortran, dtype


def kind(array: Any) -> str:
  """Returns dtype and shape as text."""
  return f'{np.dtype(array.dtype)} {tuple(array.shape)}'


def read(
  path: str | os.PathLike[str],
  expected: Mapping[str, Any],
  limits: Mapping[str, int] | None = None,
) -> tuple[dict[str, np.ndarray], set[str]]:
  """Reads arrays from a file after checking its checksum.

  Args:
    path: the file.
    expected: arrays or ShapeDtypeStructs by name; each array in the file must
      have the same dtype and shape. Arrays with other names are not read.
    limits: largest size of the data in bytes, by name, of optional arrays that
      may have any dtype and shape.

  Returns:
    The arrays, read-only, and the names of all arrays in the file.

  Raises:
    DamagedError: the file is missing, changed or incomplete.
    UnreadableError: the file may not be read.
    MismatchError: an expected array is missing or has another dtype or shape.
  """
  limits = limits or {}
  arrays = {}
  with _opened(path) as archive:
    names = {name.removesuffix('.npy') for name in archive.namelist()}
    for name, like in expected.items():
      if name not in names:
        raise MismatchError(path, name, 'nothing', kind(like))
      size = math.prod(like.shape) * np.dtype(like.dtype).itemsize
      info = archive.getinfo(f'{name}.npy')
      if info.file_size > size + _ENTRY_BYTES:
        holds = f'{info.file_size:,} bytes'
        raise MismatchError(path, name, holds, kind(like))
      arrays[name] = _read_entry(archive, name, size + _ENTRY_BYTES)
      if kind(arrays[name]) != kind(like):
        raise MismatchError(path, name, kind(arrays[name]), kind(like))
    for name in names & limits.keys():
      limit = limits[name] + _ENTRY_BYTES
      arrays[name] = _read_entry(archive, name, limit)
  return arrays, names


def read_kinds(
  path: str | os.PathLike[str],
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
  """Returns shape and dtype of each array in a file with a right checksum.

  Raises:
    DamagedError: the file is missing, changed or incomplete.
  """
  kinds = {}
  with _opened(path) as archive:
    for info in archive.infolist():
      with archive.open(info) as entry:
        shape, _, dtype = read_header(entry, info.file_size)
      kinds[info.filename.removesuffix('.npy')] = shape, dtype
  return kinds


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
  """Yields the archive in a file after checking its checksum.

  Raises:
    DamagedError: the file cannot be read, or the block raises an error that is
      not a UserError.
  """
  try:
    with files.open_regular(path) as file:
      _check_seal(file, os.fstat(file.fileno()).st_size)
      file.seek(0)
      with zipfile.ZipFile(file) as archive:
        yield archive
  except UserError:
    raise
  except FileNotFoundError as error:
    raise DamagedError(path, 'there is no such file') from error
  except PermissionError as error:
    raise UnreadableError(path, error) from error
  except Exception as error:  # zipfile and NumPy raise errors of many types
    text = getattr(error, 'strerror', '') or ' '.join(str(error).split())[:100]
    raise DamagedError(path, text or type(error).__name__) from error
