"""Strict reader of IDX files, the format of the MNIST family.

An IDX file is: two zero bytes, a code of the data type (0x08: uint8), the
number of dimensions, each dimension as a big-endian uint32, the values. A file
whose name ends in `.gz` is unpacked first.
"""

import contextlib
import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from googlenet.errors import UserError
from googlenet.runtime import files

_UINT8 = 0x08
_MAX_RANK = 4
# Five times the largest file of the MNIST family. A header that claims more is
# taken for damaged, so it cannot make this program allocate that memory.
_MAX_BYTES = 2**28
_CHUNK_BYTES = 2**20


def idx_header(shape: tuple[int, ...]) -> bytes:
  """Returns the IDX header of a uint8 array of the given shape."""
  return struct.pack(f'>HBB{len(shape)}I', 0, _UINT8, len(shape), *shape)


def damaged_file(
  path: str | os.PathLike[str], found: str, expected: str
) -> UserError:
  """Returns the error for a data file with unexpected contents."""
  return UserError(
    f'{path}: {found}, expected {expected}; copy it again from its source'
  )


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
  """Reads an IDX file of uint8 values.

  Memory grows with the values that are read, never with the size that a header
  claims or that a small file could unpack to.

  Args:
    path: the file, e.g. `train-images-idx3-ubyte.gz`; packed if its name ends
      in `.gz`.

  Returns:
    uint8 array of the shape that the header gives, e.g. [60000, 28, 28].

  Raises:
    UserError: the file is missing, unreadable, damaged (gzip's CRC-32
      differs), or not exactly one IDX array of uint8.
  """
  with _opened(path) as stream:
    shape = _read_shape(stream, path)
    values = _read_values(stream, path, shape)
  return np.frombuffer(values, np.uint8).reshape(shape)


def read_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
  """Reads only the shape of an IDX file, from its header.

  Raises:
    UserError: as of `read_idx`, but the values are not checked.
  """
  with _opened(path) as stream:
    return _read_shape(stream, path)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
  is_packed = str(path).endswith('.gz')
  what = 'a gzip-compressed IDX file' if is_packed else 'an IDX file'
  # Opening anything but a plain file (a folder, a pipe) could block, or fail
  # with other errors.
  if not os.path.isfile(path):
    found = 'is not a file' if os.path.exists(path) else 'no such file'
    raise damaged_file(path, found, what)
  try:
    with files.open_regular(path) as file:
      yield gzip.GzipFile(fileobj=file) if is_packed else file
  except (OSError, EOFError, zlib.error) as error:
    # Truncated, corrupted, not gzip, or no permission to read.
    how = 'unpacked' if is_packed else 'read'
    raise damaged_file(path, f'cannot be {how} ({error})', what) from error


def _read_shape(
  stream: BinaryIO, path: str | os.PathLike[str]
) -> tuple[int, ...]:
  """Reads and checks the header, leaving `stream` at the first value."""
  magic = stream.read(4)
  expected = f'00 00 08 and 01 to {_MAX_RANK:02}, the magic number of uint8 IDX'
  if len(magic) < 4 or magic[:3] != bytes([0, 0, _UINT8]):
    raise damaged_file(path, f'starts with {_hex(magic)}', expected)
  rank = magic[3]
  if not 1 <= rank <= _MAX_RANK:
    raise damaged_file(path, f'starts with {_hex(magic)}', expected)
  dimensions = stream.read(4 * rank)
  if len(dimensions) < 4 * rank:
    raise damaged_file(path, 'ends inside its header', f'{rank} dimensions')
  shape = struct.unpack(f'>{rank}I', dimensions)
  if not 1 <= math.prod(shape) <= _MAX_BYTES:
    raise damaged_file(
      path,
      f'its header claims the shape {shape}',
      f'from 1 to {_MAX_BYTES} bytes of values',
    )
  return shape


def _read_values(
  stream: BinaryIO, path: str | os.PathLike[str], shape: tuple[int, ...]
) -> bytearray:
  """Reads the values of a uint8 array; they must reach to the stream's end."""
  num_bytes = math.prod(shape)
  values = bytearray()
  while len(values) < num_bytes:
    chunk = stream.read(min(_CHUNK_BYTES, num_bytes - len(values)))
    if not chunk:
      raise damaged_file(
        path,
        f'ends after {len(values)} bytes of values',
        f'{num_bytes} for the shape {shape}',
      )
    values += chunk
  # Reading one byte more detects trailing data, and makes gzip reach the end of
  # its stream, where it compares the CRC-32.
  if stream.read(1):
    raise damaged_file(
      path,
      'goes on after its last value',
      f'{num_bytes} bytes for the shape {shape}',
    )
  return values


def _hex(data: bytes) -> str:
  return data.hex(' ') or 'nothing'
