"""Where a run goes on, and what it believes of the files that it finds.

One process plays all starts of a run; the network is compiled once. From one of
its file operations on, this one and all that follow fail, as they do for a
killed process or on a full disk. `soak_test.py` kills processes.

  python -m pytest -m slow -s tests/continued_test.py

takes every operation; otherwise it is some of them.
"""

import builtins
import errno
import functools
import io
import os
import pathlib
import shutil
import threading

import pytest
from conftest import small_config
from run_files import assert_same_run, records

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import checkpoint, compare, events, writer
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
  config.train.max_steps = 0
  config.logging.every_steps = 1
  config.logging.images = 2
  config.logging.histograms = 1
  config.train.compilation_cache = ''
  built = setup.build(config_lib.resolve(config))
  host = checkpoint.to_host(built.state)

  def build(config, *_):
    count = built.train.dataset.num_examples
    durations = config_lib.durations(config.train, count, 1)
    state = replicated(host)
    return built._replace(config=config, durations=durations, state=state)

  @functools.cache
  def resolved(**changes):
    fields = {name.replace('__', '.'): value for name, value in changes.items()}
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(fields)
    return config_lib.resolve(changed)

  def train(workdir, allow_config_change=False, **changes):
    return loop.train_and_evaluate(
      resolved(**changes), workdir, allow_config_change=allow_config_change
    )

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'build', build)
    once = functools.cache(summaries.make_show_inputs)
    patch.setattr(summaries, 'make_show_inputs', once)
    yield train


def stages(train, begun, folder):
  """Returns what makes a workdir, and what goes on there to the same end.

  Args:
    train: see there.
    begun: 'new': there is no workdir; 'named': config.json only, because the
      run ended at once; 'half': one epoch, the other has another config.
    folder: for a run of its own.
  """
  if begun == 'half':
    begin = functools.partial(train, train__max_steps=2)
    return begin, functools.partial(train, allow_config_change=True)
  train(folder)
  text = (folder / 'config.json').read_text()

  def begin(workdir):
    if begun == 'named':
      workdir.mkdir()
      (workdir / 'config.json').write_text(text)

  return begin, train


@pytest.mark.parametrize(
  ('begun', 'error', 'every'),
  [
    ('new', Killed, 5),
    ('new', full, 29),
    ('named', Killed, 12),
    ('half', Killed, 20),
    *(
      pytest.param(begun, error, 1, marks=pytest.mark.slow)
      for begun in ('new', 'named', 'half')
      for error in (Killed, full)
    ),
  ],
)
def test_what_ends_before_any_file_operation_goes_on(
  train, tmp_path, begun, error, every
):
  begin, end = stages(train, begun, tmp_path / 'other')

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
    with pytest.raises(UserError if error is full else Killed) as caught:
      interrupted(workdir, last, error)
    if error is full:
      assert caught.value.exit_code == 74, done[last]
      assert str(workdir) in str(caught.value)
      assert '\n' not in str(caught.value)
    end(workdir)
    assert_same_run(whole, workdir)
    assert not list(workdir.rglob('*.tmp')), done[last]
  print(f'\n{error.__name__}: {len(done)} operations, {done}')


# A checkpoint of each step, all of them kept.
ALL = {'checkpoint__every_steps': 1, 'checkpoint__keep': 9}


@pytest.fixture(scope='module')
def whole(train, tmp_path_factory):
  """A finished run of all steps, to read."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  train(workdir, **ALL)
  return workdir


@pytest.fixture
def half(whole, tmp_path):
  """A run without what the last two steps have left."""
  workdir = tmp_path / 'run'
  shutil.copytree(whole, workdir)
  for step in (3, 4):
    checkpoint.path_of(workdir, step).unlink()
  (workdir / 'result.json').unlink()
  return workdir


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  files = (p for p in folder.rglob('*') if p.is_file() and p.name != 'lock')
  return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_a_config_that_was_edited_is_named(train, whole, half, tmp_path):
  """The checkpoint knows what it was trained with."""
  workdir, path = half, half / 'config.json'
  text = path.read_text()
  edited = text.replace('"learning_rate": 0.05', '"learning_rate": 0.45')
  path.write_text(edited)
  before = contents(workdir)
  changes = ALL | {'optimizer__learning_rate': 0.45}
  with pytest.raises(UserError) as error:
    train(workdir, **changes)
  assert str(error.value) == (
    f'{path} is not what {checkpoint.path_of(workdir, 2)} was trained with: '
    'config.optimizer.learning_rate was 0.05 and is 0.45. Put the old values '
    'back to continue the run, or give --allow_config_change to continue with '
    'the new ones'
  )
  assert contents(workdir) == before
  shutil.copytree(workdir, tmp_path / 'asked')
  train(tmp_path / 'asked', allow_config_change=True, **changes)
  newest = checkpoint.read_about(checkpoint.paths(tmp_path / 'asked')[0])
  assert newest['config']['optimizer']['learning_rate'] == 0.45
  path.write_text(text)
  train(workdir, **ALL)
  assert_same_run(whole, workdir)


def test_a_mode_tells_that_its_network_is_not_what_was_trained(half):
  path, newest = half / 'config.json', checkpoint.path_of(half, 2)
  text = path.read_text()
  path.write_text(text.replace('"epochs": 2', '"epochs": 3'))
  assert list(compare.edited(half, newest)) == []
  path.write_text(text.replace('"activation": "relu"', '"activation": "elu"'))
  assert list(compare.edited(half, newest)) == [
    f'{path} is not what {newest} was trained with: '
    "config.model.activation was 'relu' and is 'elu'"
  ]


@pytest.mark.parametrize(
  ('cut', 'kept'),
  [
    (lambda lines: None, []),
    (lambda lines: lines[0], [0]),
    (lambda lines: lines[0] + lines[1][:40], [0]),
    (lambda lines: b''.join(lines)[:-1], [0, 1]),
    (lambda lines: lines[0] + lines[2] + bytes(999), [0, 2]),
  ],
)
def test_what_the_log_lacks_is_told(train, whole, half, capsys, cut, kept):
  """Its last line is whole, so that it does not merge with the next one."""
  path = half / 'metrics.jsonl'
  lines = path.read_bytes().splitlines(keepends=True)[:3]
  data = cut(lines)
  if data is None:
    path.unlink()
  else:
    path.write_bytes(data)
  train(half, **ALL)
  assert capsys.readouterr().err == (
    f'warning: {path} holds {len(kept)} records where 3 were written before '
    'the checkpoint: the run continues, but its curves have a gap\n'
  )
  written = records(whole)
  assert records(half) == [written[n] for n in kept] + written[3:]


def test_classes_that_were_edited_are_kept(train, half):
  (half / 'classes.txt').write_text('mine\n')
  train(half, **ALL)
  assert (half / 'classes.txt').read_text() == 'mine\n'


def test_the_classes_of_someone_else_are_not_overwritten(train, tmp_path):
  (tmp_path / 'classes.txt').write_text('mine\n')
  with pytest.raises(UserError, match=r'holds a run \(classes.txt\)'):
    train(tmp_path)
  assert contents(tmp_path) == {'classes.txt': b'mine\n'}


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'train__epochs': 1}, 'config.train.epochs=1 ends after step 2'),
    ({'train__max_steps': 3}, 'config.train.max_steps=3 ends after step 3'),
  ],
)
def test_a_run_does_not_end_before_the_steps_it_has_made(
  train, whole, change, words
):
  """Its result would have the scores of another step."""
  before = contents(whole)
  with pytest.raises(UserError) as error:
    train(whole, allow_config_change=True, **ALL, **change)
  assert str(error.value) == (
    f'{words}, but the run in {whole} has made 4 steps: choose more, or '
    'give another folder'
  )
  assert contents(whole) == before


def test_a_run_that_ends_where_it_stands_is_evaluated_there(
  train, whole, tmp_path
):
  """In the middle of an epoch, or with other images to evaluate on."""
  shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
  checkpoint.path_of(tmp_path, 4).unlink()
  (tmp_path / 'result.json').unlink()
  options = ALL | {'allow_config_change': True, 'train__max_steps': 3}
  result = train(tmp_path, **options)
  assert result['step'] == records(tmp_path)[-1]['step'] == 3
  assert result['eval/loss'] == records(tmp_path)[-1]['eval/loss']
  count = len(records(tmp_path))
  train_loss = result['train/loss']
  result = train(tmp_path, data__eval_split='test[:9]', **options)
  assert len(records(tmp_path)) == count + 1
  assert 'eval/loss' in records(tmp_path)[-1]
  assert result['train/loss'] == train_loss
  train(tmp_path, data__eval_split='test[:9]', **options)
  assert len(records(tmp_path)) == count + 1


def test_another_metric_begins_the_best_anew(train, tmp_path, capsys):
  """A loss is no accuracy, nor one of other images."""
  train(tmp_path, checkpoint__best_metric='eval/accuracy', train__epochs=1)
  options = ALL | {'allow_config_change': True}
  result = train(tmp_path, checkpoint__best_metric='eval/loss', **options)
  assert capsys.readouterr().err == (
    "warning: config.checkpoint.best_metric was 'eval/accuracy' and is "
    "'eval/loss': the best evaluation is chosen anew, and the checkpoint of "
    'step 2 is no longer kept as the best\n'
  )
  assert result['best/step'] == 4
  assert result['best/eval/loss'] == result['eval/loss']
  about = checkpoint.read_about(checkpoint.paths(tmp_path)[0])
  assert about['progress']['best'] == {'step': 4, 'value': result['eval/loss']}
  # A change of something else keeps it.
  train(
    tmp_path,
    checkpoint__best_metric='eval/loss',
    logging__every_steps=2,
    **options,
  )
  assert capsys.readouterr().err == ''


def test_what_may_not_be_read_is_an_error(train, half, monkeypatch):
  """Nothing is begun anew or passed over. Root may read everything."""
  before = contents(half)

  def refuse(place):
    """Refuses a place to whatever function opens it."""

    def make(function):
      def refused(target, *args, **kwargs):
        if str(target) == str(place):
          raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
        return function(target, *args, **kwargs)

      return refused

    for module, name in (
      (os, 'listdir'),
      (os, 'open'),
      (builtins, 'open'),
      (io, 'open'),
    ):
      patch.setattr(module, name, make(getattr(module, name)))

  newest = checkpoint.path_of(half, 2)
  for place in (newest.parent, newest, half / 'config.json'):
    with monkeypatch.context() as patch:
      refuse(place)
      with pytest.raises((UserError, PermissionError)) as error:
        train(half, **ALL)
      assert f'{place}' in str(error.value)
      assert 'Permission denied' in str(error.value)
    assert contents(half) == before
  (half / 'result.json').write_text('{}')
  with monkeypatch.context() as patch:
    refuse(half / 'result.json')
    with pytest.raises(UserError, match='is there but cannot be read'):
      train(half, **ALL)
