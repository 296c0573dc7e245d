"""Tests of the allocator settings."""

import ctypes
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

from googlenet.runtime.allocator import release_free_memory, tune_allocator


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


# In a process of its own: other tests leave free memory behind.
_FREE_128_MIB = """
import os, pathlib
from googlenet.runtime.allocator import release_free_memory, tune_allocator

def resident_bytes():
  pages = pathlib.Path('/proc/self/statm').read_text().split()[1]
  return int(pages) * os.sysconf('SC_PAGE_SIZE')

tune_allocator()
blocks = [bytearray(b'x' * 2**16) for _ in range(2**11)]
# Below this last one they stay in the heap until they are asked for.
last = bytearray(2**16)
del blocks
before = resident_bytes()
assert release_free_memory()
print(before - resident_bytes())
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='needs malloc_trim'
)
def test_free_memory_goes_back_to_the_system() -> None:
  done = subprocess.run(
    [sys.executable, '-c', _FREE_128_MIB],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  )
  assert int(done.stdout) > 0.9 * 2**27
