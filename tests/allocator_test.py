"""Tests of the allocator settings."""

import ctypes
import platform

import pytest

from googlenet.allocator import tune_allocator


def test_tune_allocator_works_with_glibc() -> None:
  tuned = tune_allocator()
  if platform.libc_ver()[0] == 'glibc':
    assert tuned


def test_tune_allocator_is_a_no_op_without_mallopt(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: object())
  assert not tune_allocator()
