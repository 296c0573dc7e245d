"""Named arrays in one file, sealed: what was not written is never read.

The file is an .npz as `numpy.load` reads it, without compression or pickle. Its
last 64 bytes, within the comment of the zip archive, are the SHA-256 of all
bytes before them. A file is written aside and renamed, so a name stands for a
whole file or for none.
"""

import hashlib
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from googlenet.errors import UserError

_MARK = b'sha256:'
_DIGEST_CHARS = 64
_CHUNK = 2**20
# Names, headers and padding of arrays, beyond their bytes.
_ENTRY_BYTES = 4096


class DamagedError(UserError):
  """A file that was not written like this, or not to its end."""

  def __init__(self, path: Any, reason: str):
    super().__init__(f'checkpoint {path} is damaged ({reason})')
    self.path, self.reason = path, reason


class MismatchError(UserError):
  """A whole file, of another network or optimizer."""

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


def sync_folder(folder: str | os.PathLike[str]) -> None:
  """Makes the names in a folder outlast a loss of power."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a file aside, renames it, and waits until the disk has it.

  Raises:
    OSError: the disk is full, the folder read-only or gone; what `path` named
      before is as it was.
  """
  aside = path.with_suffix('.tmp')
  try:
    with open(aside, 'w+b') as file:
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
      file.flush()
      os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)
  except OSError:
    # On a full disk half of a file would keep the next one from fitting.
    aside.unlink(missing_ok=True)
    raise


def _check_seal(file: BinaryIO, size: int) -> None:
  seal = len(_MARK) + _DIGEST_CHARS
  file.seek(max(size - seal, 0))
  tail = file.read(seal)
  if not tail.startswith(_MARK):
    # An .npz made by other hands, or by us before there were seals, ends
    # without any comment; the CRC-32 of its entries has to do.
    if tail[-22:-18] == b'PK\5\6' and tail[-2:] == b'\0\0':
      return
    raise ValueError('it does not end as it was written')
  if _digest(file, size - _DIGEST_CHARS) != tail[len(_MARK) :]:
    raise ValueError('its checksum differs')


def _read_entry(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
  info = archive.getinfo(f'{name}.npy')
  # Of stored entries the size in the directory is the size in the file, so no
  # memory is allocated that the file does not fill.
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f'{name} is compressed')
  if info.file_size != info.compress_size or info.file_size > limit:
    raise ValueError(f'{name} has {info.file_size} bytes')
  with archive.open(info) as entry:
    version = np.lib.format.read_magic(entry)
    if version != (1, 0):
      raise ValueError(f'{name} has a header of version {version}')
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(entry)
    count = math.prod(shape)
    if dtype.hasobject or entry.tell() + count * dtype.itemsize != (
      info.file_size
    ):
      raise ValueError(f'{name} is not of the size in its header')
    data = entry.read()
  array = np.frombuffer(data, dtype, count)
  return array.reshape(shape, order='F' if is_fortran else 'C')


def kind(array: Any) -> str:
  """Returns dtype and shape in words."""
  return f'{np.dtype(array.dtype)} {tuple(array.shape)}'


def read(
  path: str | os.PathLike[str],
  expected: Mapping[str, Any],
  limits: Mapping[str, int] | None = None,
) -> tuple[dict[str, np.ndarray], set[str]]:
  """Reads arrays from a file that is whole.

  Args:
    path: the file.
    expected: by name, what dtype and shape an array must have (an array or a
      ShapeDtypeStruct); the others are not read.
    limits: by name, arrays of any dtype and shape to be read where they are
      there, and their largest size in bytes.

  Returns:
    The arrays, read-only, and the names of all that are there.

  Raises:
    DamagedError: the file was changed, cut off, or is no such file.
    MismatchError: an expected array is not there or of another kind.
  """
  limits = limits or {}
  try:
    with open(path, 'rb') as file:
      _check_seal(file, os.fstat(file.fileno()).st_size)
      file.seek(0)
      with zipfile.ZipFile(file) as archive:
        names = {name.removesuffix('.npy') for name in archive.namelist()}
        arrays = {}
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
          arrays[name] = _read_entry(archive, name, limits[name])
  except UserError:
    raise
  except FileNotFoundError as error:
    raise DamagedError(path, 'there is no such file') from error
  except Exception as error:  # zipfile and NumPy raise whatever they meet
    text = ' '.join(str(error).split())[:100] or type(error).__name__
    raise DamagedError(path, text) from error
  return arrays, names
