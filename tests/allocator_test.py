"""Tests of the allocator settings."""

import ctypes
import os
import pathlib
import platform

import pytest

from googlenet.allocator import release_free_memory, tune_allocator


def test_tune_allocator_works_with_glibc() -> None:
  tuned = tune_allocator()
  if platform.libc_ver()[0] == 'glibc':
    assert tuned


def test_tune_allocator_is_a_no_op_without_mallopt(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: object())
  assert not tune_allocator()
  assert not release_free_memory()


def _resident_bytes() -> int:
  pages = pathlib.Path('/proc/self/statm').read_text().split()[1]
  return int(pages) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='needs malloc_trim'
)
def test_free_memory_goes_back_to_the_system() -> None:
  tune_allocator()
  # Below this last one they stay in the heap until they are asked for.
  blocks = [bytearray(b'x' * 2**16) for _ in range(2**11)]
  last = bytearray(2**16)
  del blocks
  before = _resident_bytes()
  assert release_free_memory()
  assert before - _resident_bytes() > 2**26
  del last
