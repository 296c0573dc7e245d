"""A run that is cut off goes on, and ends with the same bits."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, SMALL, last_of_each
from run_files import assert_same_run, problems, records

import launch
from googlenet import config as config_lib
from googlenet.errors import Stopped
from googlenet.io import archive, checkpoint
from googlenet.io.saver import WriteError
from googlenet.io.workdir import Lock
from googlenet.train import hooks, loop, setup


class Killed(BaseException):
  """What nothing catches."""


def train(config, workdir, **options):
  resolved = config_lib.resolve(config)
  return loop.train_and_evaluate(resolved, workdir, **options)


def killed_at(monkeypatch, step):
  """Makes the program end before a step."""
  build = setup.build

  def broken(config, *options):
    run = build(config, *options)

    def train_step(state, *inputs):
      if int(state.step) + 1 == step:
        raise Killed
      return run.train_step(state, *inputs)

    return run._replace(train_step=train_step)

  monkeypatch.setattr(setup, 'build', broken)


@pytest.fixture
def small(config):
  """Three epochs of ten steps, recorded out of step with them."""
  config.data.train_split = 'train[:325]'
  config.data.eval_split = 'test[:100]'
  config.train.batch_size = 32
  config.train.epochs = 3
  config.train.max_steps = 0
  config.logging.every_steps = 3
  config.logging.images = 2
  config.logging.histograms = 2
  config.checkpoint.every_epochs = 1
  config.train.compilation_cache = ''
  return config


@pytest.fixture
def whole(small, tmp_path):
  """The workdir of an undisturbed run."""
  small.checkpoint.every_steps = 4
  train(small, tmp_path / 'whole')
  return tmp_path / 'whole'


def test_killed_at_any_step_it_ends_with_the_same_bits(
  small, whole, tmp_path, monkeypatch, capsys
):
  """Before the first checkpoint, after one, between two, at an epoch's end."""
  workdir = tmp_path / 'run'
  for step in (3, 5, 12, 21, 21, 30):
    with monkeypatch.context() as patch:
      killed_at(patch, step)
      with pytest.raises(Killed):
        train(small, workdir)
  train(small, workdir)
  assert 'resumed  after step 28' in capsys.readouterr().out
  assert_same_run(whole, workdir)


@pytest.mark.slow
def test_augmentation_average_and_adam_go_on_too(small, tmp_path, monkeypatch):
  small.augment.flip = 'alternating'
  small.augment.crop_padding = 2
  small.augment.cutout_size = 4
  small.augment.cutmix_alpha = 1.0
  small.optimizer.name = 'muon'
  small.optimizer.muon_rest = 'adamw'
  small.optimizer.rates = ('*/b=2',)
  small.optimizer.lookahead_period = 3
  small.optimizer.learning_rate = 1e-3
  small.train.ema_decay = 0.9
  small.model.normalization = 'batch'
  small.eval.batch_norm_batches = 2
  small.train.precision = 'params=float32,compute=float16,output=float32'
  small.train.loss_scale = 'dynamic'
  small.train.on_nonfinite = 'skip'
  small.logging.images = small.logging.histograms = 0
  small.checkpoint.best_metric = 'eval/loss'
  small.checkpoint.every_steps = 7
  train(small, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    killed_at(patch, 17)
    with pytest.raises(Killed):
      train(small, tmp_path / 'run')
  train(small, tmp_path / 'run')
  assert_same_run(tmp_path / 'whole', tmp_path / 'run')
  best = json.loads((tmp_path / 'run/result.json').read_text())['best/step']
  assert checkpoint.path_of(tmp_path / 'run', best).exists()


def start(tmp_path, *flags):
  """Starts the program with its screen in a pipe."""
  return subprocess.Popen(
    [sys.executable, str(ROOT / 'launch.py'), *last_of_each(flags)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=tmp_path,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def wait_for(process, text):
  for line in process.stdout:
    if text in line:
      return
  pytest.fail(process.communicate()[1])


@pytest.mark.parametrize(
  'number',
  [
    signal.SIGTERM,
    pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
  ],
)
def test_a_signal_ends_it_and_the_workdir_alone_continues_it(
  tmp_path, compilation_cache, number
):
  flags = (
    *SMALL,
    f'--config.train.compilation_cache={compilation_cache}',
    '--config.train.max_steps=3000',
    '--config.logging.every_steps=1000',
    '--workdir=run',
  )
  process = start(tmp_path, f'--config={ROOT}/configs/fmnist96.py', *flags)
  wait_for(process, 'first step')
  process.send_signal(number)
  out, err = process.communicate()
  assert process.returncode == 75, err
  assert f'{number.name}: this step is finished' in err
  assert 'the same command with this --workdir continues the run' in err
  assert problems(err).count('\n') == 2
  (path,) = checkpoint.paths(tmp_path / 'run')
  again = start(tmp_path, '--workdir=run')
  wait_for(again, f'from run/checkpoints/{path.name}')
  again.send_signal(signal.SIGTERM)
  again.communicate()
  assert again.returncode == 75


STOPPER = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup pytest` ignores it
from googlenet.runtime.preemption import PreemptionHandler
with PreemptionHandler() as stopper:
  if sys.argv[1] == 'can_save':
    stopper.can_save()
  print('ready', flush=True)
  input()
"""


@pytest.mark.parametrize(
  ('when', 'signals', 'code'),
  [
    ('compiling', [signal.SIGTERM], 75),
    ('compiling', [signal.SIGINT], 75),
    ('can_save', [signal.SIGINT, signal.SIGINT], 130),
    ('can_save', [signal.SIGHUP, signal.SIGINT], 130),
  ],
)
def test_signals_while_python_waits_for_something_else(when, signals, code):
  """A thread takes them: the main one may be in the compiler for minutes."""
  process = subprocess.Popen(
    [sys.executable, '-c', STOPPER, when],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  process.stdout.readline()
  lines = []
  for number in signals:
    process.send_signal(number)
    lines.append(process.stderr.readline())
  assert process.wait() == code
  process.communicate()
  assert signals[0].name in lines[0]


IN_A_NOTEBOOK = """
import signal, time
from googlenet.runtime.preemption import PreemptionHandler

def send(number):  # and wait for the thread that takes it
  signal.raise_signal(number)
  time.sleep(0.2)

for number in signal.SIGINT, signal.SIGTERM:
  for can_save in False, True:
    try:
      with PreemptionHandler(owns_process=False) as stopper:
        if can_save:
          stopper.can_save()
        send(number)
        print(stopper.reason, stopper.poll())
        send(number)
    except BaseException as error:
      print(type(error).__name__)
"""


def test_signals_do_not_end_a_notebook():
  """Without a step they raise at once, otherwise when they come again."""
  done = subprocess.run(
    [sys.executable, '-c', IN_A_NOTEBOOK],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.stdout.splitlines() == [
    'KeyboardInterrupt',
    *('SIGINT True', 'KeyboardInterrupt'),
    'Stopped',
    *('SIGTERM True', 'Stopped'),
  ]


@pytest.fixture
def run_launch(tmp_path, monkeypatch, capfd, compilation_cache):
  """Runs `launch.main` here on a small config; returns code and screen."""
  monkeypatch.chdir(tmp_path)

  def run(*flags, config=True):
    argv = ['launch.py']
    if config:
      argv += [f'--config={ROOT}/configs/fmnist96.py', *SMALL]
      argv.append(f'--config.train.compilation_cache={compilation_cache}')
    code = launch.main(last_of_each([*argv, *flags]))
    captured = capfd.readouterr()
    return code, captured.out, captured.err

  return run


def test_a_finished_run_says_so(run_launch, tmp_path):
  assert run_launch('--workdir=run')[0] == 0
  before = contents(tmp_path / 'run')
  for given in (True, False):
    code, out, err = run_launch('--workdir=run', config=given)
    assert (code, err) == (0, '')
    assert 'holds a finished run of 6 steps' in out
  assert contents(tmp_path / 'run') == before

  code, _, err = run_launch(
    '--workdir=run',
    '--config.train.max_steps=8',
    '--config.optimizer.momentum=0.8',
  )
  assert code == 2
  assert 'config.train.max_steps is 6 there and 8 here' in err
  assert 'config.optimizer.momentum is 0.9 there and 0.8 here' in err
  assert '--allow_config_change' in err
  assert err.count('\n') == 1
  for flag in ('seed=1', 'model.variant=plain', 'train.batch_size=32'):
    code, _, err = run_launch(
      '--workdir=run', f'--config.{flag}', '--allow_config_change'
    )
    assert code == 2
    assert f'A run keeps {flag.partition("=")[0]}' in err
  assert contents(tmp_path / 'run') == before

  # Where the data lie is no change of the run.
  assert run_launch('--workdir=run', '--config.data.on_device_mb=1')[0] == 0
  code, out, err = run_launch(
    '--workdir=run', '--config.train.max_steps=8', '--allow_config_change'
  )
  assert code == 0, err
  assert 'resumed  after step 6' in out
  assert records(tmp_path / 'run')[-1]['step'] == 8
  stored = json.loads((tmp_path / 'run/config.json').read_text())
  assert stored['train']['max_steps'] == 8


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  # A lock is taken to look.
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in folder.rglob('*')
    if p.is_file() and p.name != 'lock'
  }


def unfinished(run_launch, tmp_path):
  """Leaves a run without its result."""
  flags = ('--workdir=run', '--config.checkpoint.every_steps=2')
  assert run_launch(*flags)[0] == 0
  (tmp_path / 'run/result.json').unlink()
  return tmp_path / 'run', flags


def test_one_process_owns_a_workdir(run_launch, tmp_path):
  workdir, flags = unfinished(run_launch, tmp_path)
  before = contents(workdir)
  lock = Lock(workdir)
  code, _, err = run_launch(*flags)
  assert code == 2
  assert f'is in use by another process (process {os.getpid()} on' in err
  assert contents(workdir) == before
  lock.release()  # as the system does at the end of a process
  assert run_launch(*flags)[0] == 0


@pytest.mark.parametrize(
  ('before', 'field', 'after', 'evaluated'),
  [
    (1, 'eval.every_epochs', 2, [10, 20, 30]),
    (5, 'train.max_steps', 12, [5, 10, 12]),
  ],
)
def test_an_evaluation_that_was_cut_off_is_made_up_for(
  small, tmp_path, monkeypatch, before, field, after, evaluated
):
  """Also where the config that goes on would not evaluate there."""
  small.update_from_flattened_dict({field: before})
  with monkeypatch.context() as patch:
    patch.setattr(hooks, 'evaluate', lambda *inputs: None)  # asked to stop
    with pytest.raises(Stopped):
      train(small, tmp_path / 'run')
  small.update_from_flattened_dict({field: after})
  train(small, tmp_path / 'run', allow_config_change=True)
  found = [r['step'] for r in records(tmp_path / 'run') if 'eval/loss' in r]
  assert found == evaluated


def test_damaged_checkpoints_are_passed_over(run_launch, tmp_path):
  workdir, flags = unfinished(run_launch, tmp_path)
  newest, older = checkpoint.paths(workdir)
  data = newest.read_bytes()
  newest.write_bytes(data[:-100])
  code, out, err = run_launch(*flags)
  assert code == 0, err
  assert f'{newest.name} is damaged' in err
  assert f'going on from {older.name}' in err
  assert err.count('\n') == 1
  assert 'resumed  after step 4' in out
  assert newest.read_bytes()[-64:] != data[-164:-100]
  assert newest.with_name(newest.name + '.unusable').exists()

  (workdir / 'result.json').unlink()
  for path in checkpoint.paths(workdir):
    path.write_bytes(path.read_bytes()[:-1])
  before = contents(workdir)
  code, _, err = run_launch(*flags)
  assert code == 2
  assert 'is damaged' in err
  assert 'nothing was changed' in err
  assert err.count('\n') == 1
  assert contents(workdir) == before
  (workdir / 'checkpoints').rename(tmp_path / 'gone')
  code, _, err = run_launch(*flags)
  assert code == 2
  assert 'its folder checkpoints is missing' in err


def test_a_checkpoint_of_another_run_is_passed_over(
  small, tmp_path, monkeypatch, capsys
):
  train(small, tmp_path / 'run')
  (tmp_path / 'run/result.json').unlink()
  small.seed = 1
  train(small, tmp_path / 'other')
  stranger = checkpoint.paths(tmp_path / 'other')[0]
  shutil.copy(stranger, checkpoint.path_of(tmp_path / 'run', 99))
  small.seed = 0
  train(small, tmp_path / 'run')
  captured = capsys.readouterr()
  assert 'step_000000099.npz is of another run: config.seed' in captured.err
  assert 'resumed  after step 30' in captured.out


def fail(monkeypatch, number, steps):
  """Makes the checkpoints of some steps fail as a system call does."""
  write = archive.write

  def broken(path, arrays):
    if int(arrays['step']) in steps:
      path.with_suffix('.tmp').write_bytes(b'half')
      raise OSError(number, os.strerror(number))
    write(path, arrays)

  monkeypatch.setattr(archive, 'write', broken)


def test_a_save_that_fails_costs_a_line(small, tmp_path, monkeypatch, capsys):
  train(small, tmp_path / 'whole')
  fail(monkeypatch, errno.ENOSPC, {20})
  train(small, tmp_path / 'run')
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  assert 'warning: the checkpoint of step 20 cannot be written' in err
  assert 'No space left on device' in err
  assert_same_run(tmp_path / 'whole', tmp_path / 'run')


def test_a_last_save_that_fails_ends_the_run_unfinished(
  small, tmp_path, monkeypatch
):
  train(small, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    fail(patch, errno.EROFS, {30})
    with pytest.raises(WriteError, match='step 30 .*Read-only file system'):
      train(small, tmp_path / 'run')
  assert WriteError.exit_code == 74
  assert not (tmp_path / 'run/result.json').exists()
  train(small, tmp_path / 'run')
  assert_same_run(tmp_path / 'whole', tmp_path / 'run')
  assert not list((tmp_path / 'run/checkpoints').glob('*.tmp'))


def test_a_folder_that_goes_away_ends_the_run_with_a_line(
  small, tmp_path, monkeypatch, capsys
):
  build = setup.build

  def broken(config, *options):
    run = build(config, *options)

    def train_step(state, *inputs):
      if int(state.step) == 15:
        shutil.rmtree(tmp_path / 'run/checkpoints')
      return run.train_step(state, *inputs)

    return run._replace(train_step=train_step)

  monkeypatch.setattr(setup, 'build', broken)
  with pytest.raises(WriteError, match='step 30 .*No such file') as error:
    train(small, tmp_path / 'run')
  assert '\n' not in str(error.value)
  assert 'checkpoint of step 20' in capsys.readouterr().err


def test_seconds_ask_for_checkpoints(small, tmp_path, monkeypatch):
  small.checkpoint.every_seconds = 1e-6
  small.checkpoint.every_epochs = 0
  small.checkpoint.keep = 40
  train(small, tmp_path / 'run')
  assert len(checkpoint.paths(tmp_path / 'run')) == 30
