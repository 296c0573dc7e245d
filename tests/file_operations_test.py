"""A run that ends before any one of its file operations goes on.

One process plays all of them: from an operation on, this one and all that
follow fail, as they do for a killed process or on a full disk. The network is
compiled once. `soak_test.py` kills processes.

  python -m pytest -m slow -s tests/file_operations_test.py

takes every operation; otherwise it is some of them.
"""

import builtins
import errno
import functools
import io
import os
import pathlib
import threading

import pytest
from conftest import small_config
from run_files import assert_same_run

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import checkpoint, events, writer
from googlenet.io.saver import Saver
from googlenet.runtime.parallel import replicated
from googlenet.train import loop, setup, summaries


class Killed(BaseException):
  """What nothing catches."""


def full():
  return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
  """Counts the changes below a folder, and fails from one of them on.

  Attributes:
    done: names of the operations, such as 'replace run/config.json.tmp'.
    last: number of operations that succeed.
  """

  def __init__(self, folder: pathlib.Path, last=10**9, error=Killed):
    self._folder, self.last, self._error = folder, last, error
    self.done = []

  def count(self, name, target):
    path = pathlib.Path(target)
    if not path.is_relative_to(self._folder):
      return
    if len(self.done) >= self.last:
      raise self._error()
    self.done.append(f'{name} {path.relative_to(self._folder)}')

  def patch(self, patch: pytest.MonkeyPatch) -> None:
    """Replaces the functions that change files."""
    paths = {}  # of open files

    def wrap(module, name, changes=lambda *_: True):
      function = getattr(module, name)

      @functools.wraps(function)
      def wrapped(target, *args, **kwargs):
        is_path = isinstance(target, (str, os.PathLike))
        if is_path and changes(*args, *kwargs.values()):
          self.count(name, target)
        opened = function(target, *args, **kwargs)
        if name == 'open' and hasattr(opened, 'fileno') and is_path:
          paths[opened.fileno()] = target
        return opened

      patch.setattr(module, name, wrapped)

    for name in ('mkdir', 'replace', 'unlink', 'truncate'):
      wrap(os, name)
    wrap(os, 'open', lambda flags, *_: flags & (os.O_WRONLY | os.O_RDWR))
    for module in (builtins, io):
      wrap(module, 'open', lambda mode='r', *_: set(mode) & set('wax+'))

    fsync = os.fsync

    def synced(descriptor):
      if descriptor in paths:
        self.count('fsync', paths[descriptor])
      fsync(descriptor)

    patch.setattr(os, 'fsync', synced)
    for module in (events, writer):
      append = module.append

      def appended(file, data, append=append):
        self.count('write', file.name)
        append(file, data)

      patch.setattr(module, 'append', appended)

    save = Saver.save

    def save_now(self, *args):
      save(self, *args)
      self._thread.join()

    patch.setattr(Saver, 'save', save_now)
    patch.setattr(threading, 'excepthook', lambda _: None)


@pytest.fixture(scope='module')
def train():
  """Trains, as often as one likes: all but the first start takes no time.

  Two epochs of two steps, with all that a run writes.
  """
  config = small_config()
  config.data.train_split = 'train[:16]'
  config.data.eval_split = 'test[:8]'
  config.train.batch_size = config.eval.batch_size = 8
  config.train.epochs = 2
  config.logging.every_steps = 1
  config.logging.images = 2
  config.logging.histograms = 1
  config.train.compilation_cache = ''
  built = setup.build(config_lib.resolve(config))
  host = checkpoint.to_host(built.state)

  def build(config):
    count = built.train.dataset.num_examples
    durations = config_lib.durations(config.train, count, 1)
    state = replicated(host)
    return built._replace(config=config, durations=durations, state=state)

  def train(workdir, max_steps=0, **options):
    config.train.max_steps = max_steps
    loop.train_and_evaluate(config_lib.resolve(config), workdir, **options)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'build', build)
    once = functools.cache(summaries.make_show_inputs)
    patch.setattr(summaries, 'make_show_inputs', once)
    yield train


def half_then_whole(train):
  """Trains one epoch; returns what trains the other, with another config."""

  def begin(workdir):
    train(workdir, max_steps=2)

  return begin, functools.partial(train, allow_config_change=True)


@pytest.mark.parametrize(
  ('is_continued', 'error', 'every'),
  [
    (False, Killed, 3),
    (False, full, 10),
    (True, Killed, 9),
    *(
      pytest.param(is_continued, error, 1, marks=pytest.mark.slow)
      for is_continued in (False, True)
      for error in (Killed, full)
    ),
  ],
)
def test_what_ends_before_any_file_operation_goes_on(
  train, tmp_path, is_continued, error, every
):
  begin, end = lambda _: None, train
  if is_continued:
    begin, end = half_then_whole(train)

  def interrupted(workdir, *options):
    begin(workdir)
    disk = Disk(workdir, *options)
    with pytest.MonkeyPatch.context() as patch:
      disk.patch(patch)
      end(workdir)
    return disk

  whole, count = tmp_path / 'whole', tmp_path / 'count'
  begin(whole)
  end(whole)
  done = interrupted(count).done
  assert_same_run(whole, count)
  for last in range(0, len(done), every):
    workdir = tmp_path / f'run_{last}'
    with pytest.raises((Killed, UserError)) as caught:
      interrupted(workdir, last, error)
    if error is full:
      assert caught.value.exit_code == 74, done[last]
      assert str(workdir) in str(caught.value)
      assert '\n' not in str(caught.value)
    end(workdir)
    assert_same_run(whole, workdir)
    assert not list(workdir.rglob('*.tmp')), done[last]
  print(f'\n{error.__name__}: {len(done)} operations, {done}')
