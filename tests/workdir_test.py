"""The lock of a workdir: one owner at a time, released when a process ends."""

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io.workdir import (
  Lock,
  is_locked,
  read_classes,
  write_classes,
)

# Takes the lock, says so, and ends with its standard input.
HOLD = """
import os, sys
from googlenet.io.workdir import Lock
lock = Lock(sys.argv[1])
if 'fork' in sys.argv and os.fork() == 0:
  print('ready', flush=True)
else:
  print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def owner(workdir, *arguments):
  """Another process that owns a workdir; what it printed first."""
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(workdir), *arguments],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    lines = [process.stdout.readline().strip() for _ in ('', *arguments)]
    yield process, lines
    process.stdin.close()


def test_another_process_is_refused_and_told_the_owner(tmp_path):
  assert not is_locked(tmp_path)
  assert list(tmp_path.iterdir()) == []
  with owner(tmp_path) as (_, (pid,)):
    before = (tmp_path / 'lock').read_bytes()
    assert is_locked(tmp_path)
    with pytest.raises(UserError) as error:
      Lock(tmp_path)
    assert str(error.value) == (
      f'--workdir={tmp_path} is in use by another process (process {pid} on '
      f'{socket.gethostname()}): wait until that has ended, or give another '
      'folder'
    )
    assert (tmp_path / 'lock').read_bytes() == before
  assert not is_locked(tmp_path)
  with Lock(tmp_path):
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match=f'process {os.getpid()} on'):
      Lock(tmp_path)
  assert not is_locked(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['lock']


@pytest.mark.parametrize('arguments', [(), ('fork',)])
def test_a_killed_process_gives_its_lock_back(tmp_path, arguments):
  """Even while a child of it is alive."""
  with owner(tmp_path, *arguments) as (process, _):
    assert is_locked(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / 'lock').exists()
    assert not is_locked(tmp_path)
    Lock(tmp_path).release()


def test_waiting_ends_with_the_owner(tmp_path):
  taken = threading.Event()

  def wait():
    with Lock(tmp_path, wait=True):
      taken.set()

  waiting = threading.Thread(target=wait)
  with owner(tmp_path) as (process, _):
    waiting.start()
    assert not taken.is_set()
    process.kill()
    process.wait()
    waiting.join(timeout=60)
  assert taken.is_set()


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
  def flock(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', flock)
  with Lock(tmp_path), Lock(tmp_path):
    assert not is_locked(tmp_path)


def test_a_lock_file_that_cannot_be_made(tmp_path):
  (tmp_path / 'lock').mkdir()
  with pytest.raises(UserError, match='lock is a link or no regular file'):
    Lock(tmp_path)


def test_no_module_of_ours_needs_fcntl():
  """Windows has none; filelock does without."""
  code = (
    'import sys, warnings; sys.modules["fcntl"] = None; '
    'warnings.simplefilter("ignore"); import googlenet.io.workdir'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
  ('data', 'names'),
  [
    (b'', ('0', '1', '2')),
    (b'Tee\nBag\nBoot\n', ('Tee', 'Bag', 'Boot')),
    (b'\xef\xbb\xbfTee\r\nBag\r\nBoot\r\n', ('Tee', 'Bag', 'Boot')),
    (b'Tee\nBag\nBoot\n\n \n\n', ('Tee', 'Bag', 'Boot')),
    (b' Tee \n\nBoot', ('Tee', '1', 'Boot')),
    (b'Tee', ('Tee', '1', '2')),
  ],
)
def test_class_names_as_editors_leave_them(tmp_path, data, names):
  (tmp_path / 'classes.txt').write_bytes(data)
  assert read_classes(tmp_path, 3) == names


def test_a_config_with_a_byte_order_mark(config, tmp_path):
  path = tmp_path / 'config.json'
  path.write_text(config_lib.to_json(config), encoding='utf-8-sig')
  assert config_lib.load(path).to_dict() == config.to_dict()


def test_class_names_that_are_not_utf_8(tmp_path):
  """As folders may have; a line each, whatever breaks lines elsewhere."""
  write_classes(tmp_path, ['a\udcff', 'b\u2028c\x85 d', 'Größe'])
  found = read_classes(tmp_path, 4)
  assert found == ('a\\udcff', 'b c d', 'Größe', '3')
