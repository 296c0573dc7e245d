"""The IDX reader: any bytes are read rightly or refused in one line."""

import gzip
import pathlib
import struct
import tracemalloc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from googlenet.data.idx import idx_header, read_idx
from googlenet.errors import UserError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
VALID = gzip.compress(idx_header(IMAGES.shape) + IMAGES.tobytes(), mtime=0)


def _write(folder: pathlib.Path, data: bytes) -> pathlib.Path:
  path = folder / 'images.gz'
  path.write_bytes(data)
  return path


def _pack(header: bytes, values: bytes = IMAGES.tobytes()) -> bytes:
  return gzip.compress(header + values, mtime=0)


def _flip_bit(data: bytes, position: int) -> bytes:
  flipped = bytearray(data)
  flipped[position] ^= 1
  return bytes(flipped)


def test_reads_what_was_written(tmp_path: pathlib.Path) -> None:
  array = read_idx(_write(tmp_path, VALID))
  assert array.dtype == np.uint8
  np.testing.assert_array_equal(array, IMAGES)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'starts with nothing, expected 00 00 08'),
    (b'not gzip at all', 'cannot be unpacked'),
    (idx_header((24,)) + IMAGES.tobytes(), 'cannot be unpacked'),
    (VALID[:-12], 'cannot be unpacked'),
    (VALID[:-1], 'cannot be unpacked'),
    (_flip_bit(VALID, 30), 'cannot be unpacked'),
    (_flip_bit(VALID, len(VALID) - 8), 'cannot be unpacked (CRC check failed'),
    (VALID + b'rest', 'cannot be unpacked'),
    (gzip.compress(b'', mtime=0), 'starts with nothing, expected 00 00 08'),
    (gzip.compress(b'\0\0', mtime=0), 'starts with 00 00, expected 00 00 08'),
    (_pack(b'\0\0\x0d\3'), 'starts with 00 00 0d 03, expected 00 00 08'),
    (_pack(b'\1\0\x08\1'), 'starts with 01 00 08 01, expected 00 00 08'),
    (_pack(b'\0\0\x08\0'), 'starts with 00 00 08 00, expected 00 00 08'),
    (_pack(b'\0\0\x08\xff'), 'starts with 00 00 08 ff, expected 00 00 08'),
    (_pack(b'\0\0\x08\3', b'\0\0\0\2'), 'ends inside its header'),
    (
      _pack(idx_header((2, 3, 5))),
      'ends after 24 bytes of values, expected 30',
    ),
    (_pack(idx_header((2, 3, 3))), 'goes on after its last value'),
    (VALID + VALID, 'goes on after its last value'),
    (_pack(idx_header((0, 3, 4))), 'claims the shape (0, 3, 4)'),
    (_pack(idx_header((2**20, 2**20))), 'claims the shape (1048576, 1048576)'),
    (_pack(idx_header((2**32 - 1,) * 4)), 'claims the shape (4294967295,'),
  ],
)
def test_refuses_damage_in_one_line(
  tmp_path: pathlib.Path, data: bytes, message: str
) -> None:
  path = _write(tmp_path, data)
  with pytest.raises(UserError) as caught:
    read_idx(path)
  text = str(caught.value)
  assert text.startswith(f'{path}: ')
  assert message in text
  assert 'expected' in text
  assert 'copy it again' in text
  assert '\n' not in text


def test_refuses_missing_file_and_folder(tmp_path: pathlib.Path) -> None:
  with pytest.raises(UserError, match='no such file, expected .*copy it'):
    read_idx(tmp_path / 'images.gz')
  with pytest.raises(UserError, match='is not a file, expected'):
    read_idx(tmp_path)


@pytest.mark.parametrize('shape', [(2**28,), (2**40 // 2**20, 2**20), (1,)])
def test_memory_does_not_follow_claims(
  tmp_path: pathlib.Path, shape: tuple[int, ...]
) -> None:
  """A header that claims much, or a gzip bomb behind one that claims little."""
  bomb = bytes(2**26 if shape == (1,) else 10)
  path = _write(tmp_path, _pack(idx_header(shape), bomb))
  del bomb
  tracemalloc.start()
  try:
    with pytest.raises(UserError):
      read_idx(path)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 2**23


MUTATIONS = st.lists(
  st.tuples(
    st.sampled_from(['set', 'insert', 'delete', 'truncate']),
    st.integers(0, len(VALID)),
    st.integers(0, 255),
  ),
  max_size=4,
)


def _mutate(data: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
  mutated = bytearray(data)
  for kind, position, value in mutations:
    if kind == 'set':
      mutated[position : position + 1] = bytes([value])
    elif kind == 'insert':
      mutated[position:position] = bytes([value])
    elif kind == 'delete':
      del mutated[position : position + 1]
    else:
      del mutated[position:]
  return bytes(mutated)


@hypothesis.settings(
  max_examples=300,
  deadline=None,
  derandomize=True,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(mutations=MUTATIONS, inside=st.booleans())
def test_mutated_files_are_read_or_refused(
  tmp_path: pathlib.Path,
  mutations: list[tuple[str, int, int]],
  inside: bool,
) -> None:
  """Mutates the packed bytes, or the contents below an intact gzip layer."""
  if inside:
    data = gzip.compress(_mutate(gzip.decompress(VALID), mutations))
  else:
    data = _mutate(VALID, mutations)
  path = _write(tmp_path, data)
  try:
    array = read_idx(path)
  except UserError as error:
    assert '\n' not in str(error)  # noqa: PT017
  else:
    contents = idx_header(array.shape) + array.tobytes()
    assert contents == gzip.decompress(data)


def test_header_is_big_endian() -> None:
  expected = struct.pack('>BBBBII', 0, 0, 8, 2, 60000, 28)
  assert idx_header((60000, 28)) == expected
