"""What a run lives through, many times over, each start a process of its own.

  python -m pytest -m slow -s tests/soak_test.py

prints the figures of docs/reliability.md (tens of minutes). The other tests
hold a short form of each.
"""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT
from run_files import assert_same_end, assert_same_run, problems

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import checkpoint
from googlenet.train import loop, resume, setup

pytestmark = pytest.mark.slow

# Two thousand steps with many records and a checkpoint every ten of them.
FLAGS = (
  f'--config={ROOT}/configs/fmnist96.py',
  '--config.model.variant=tiny',
  '--config.model.kernels=cpu',
  '--config.data.image_size=28',
  '--config.data.train_split=train[:8000]',
  '--config.data.eval_split=test[:1000]',
  '--config.train.batch_size=64',
  '--config.train.precision=float32',
  '--config.train.epochs=16',
  '--config.train.ema_decay=0.99',
  '--config.augment.flip=true',
  '--config.logging.every_steps=7',
  '--config.checkpoint.every_steps=10',
  '--config.checkpoint.best_metric=eval/accuracy',
)


@pytest.fixture
def start(tmp_path, compilation_cache):
  def start(workdir, *flags, stdout=subprocess.DEVNULL, program=(), base=FLAGS):
    return subprocess.Popen(
      [
        sys.executable,
        *program,
        str(ROOT / 'launch.py'),
        *base,
        f'--config.train.compilation_cache={compilation_cache}',
        f'--workdir={workdir}',
        *flags,
      ],
      cwd=tmp_path,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      stdout=stdout,
      stderr=subprocess.PIPE,
      text=True,
    )

  return start


def finish(process: subprocess.Popen) -> tuple[int, str]:
  err = process.communicate()[1]
  return process.returncode, err


def is_saving(workdir: pathlib.Path) -> bool:
  return any((workdir / 'checkpoints').glob('*.tmp'))


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_twenty_signals_leave_no_trace(start, tmp_path, number):
  """At random moments of a start, from its first import on; half of the kills
  wait for a checkpoint that is being written."""
  code, err = finish(start('whole'))
  assert code == 0, err
  workdir, rng = tmp_path / 'run', random.Random(0)
  same = assert_same_end if number == signal.SIGTERM else assert_same_run
  seconds, mid_save, codes = [], 0, []
  while len(codes) < 20:
    process = start('run')
    moment = time.monotonic() + rng.uniform(0.5, 9.0)
    at_save = number == signal.SIGKILL and len(codes) % 2
    while process.poll() is None and time.monotonic() < moment + 60:
      if time.monotonic() >= moment and (not at_save or is_saving(workdir)):
        break
      time.sleep(0.0005)
    if process.poll() is not None:  # it was faster: the run starts again
      code, err = finish(process)
      assert code == 0, err
      same(tmp_path / 'whole', workdir)
      shutil.rmtree(workdir)
      continue
    mid_save += is_saving(workdir)
    sent = time.monotonic()
    process.send_signal(number)
    code, err = finish(process)
    seconds.append(time.monotonic() - sent)
    codes.append(code)
    assert 'Traceback' not in err
  if number == signal.SIGTERM:
    # -15: before the first line of the program.
    assert set(codes) <= {75, -signal.SIGTERM}, codes
  code, err = finish(start('run'))
  assert code == 0, err
  same(tmp_path / 'whole', workdir)
  print(
    f'\n{number.name}: {len(codes)} times, {mid_save} of them during a save, '
    f'codes {sorted(set(codes))}, ended after {np.median(seconds):.2f} s '
    f'(median), {max(seconds):.2f} s (at most)'
  )


def damage(rng, paths: list[pathlib.Path], strangers: list[bytes]) -> str:
  """Damages some of the checkpoints of a run."""
  kind = rng.choice(['cut', 'flip', 'missing', 'stranger', 'zeros'])
  for path in paths[: rng.randint(1, len(paths))]:
    data = bytearray(path.read_bytes())
    if kind == 'cut':
      path.write_bytes(data[: rng.randrange(len(data))])
    elif kind == 'flip':
      for _ in range(rng.choice([1, 1, 2, 100])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
      path.write_bytes(data)
    elif kind == 'zeros':  # what a loss of power leaves
      first = rng.randrange(len(data))
      data[first : first + 4096] = bytes(len(data[first : first + 4096]))
      path.write_bytes(data)
    elif kind == 'missing':
      path.unlink()
    else:
      path.write_bytes(rng.choice(strangers))
  return kind


def test_two_hundred_damaged_checkpoints(config, tmp_path):
  config.train.epochs = 2
  config.data.train_split = 'train[:325]'
  config.train.batch_size = 32
  config.train.max_steps = 0
  config.model.kernels = 'cpu'
  config.checkpoint.every_steps = 5
  config.checkpoint.keep = 3
  strangers = []
  for number, change in enumerate(
    [{'model.variant': 'tiny', 'seed': 1}, {'optimizer.name': 'adam'}]
  ):
    with config.unlocked():
      other = config.copy_and_resolve_references()
      other.update_from_flattened_dict(change)
    loop.train_and_evaluate(config_lib.resolve(other), tmp_path / f's{number}')
    newest = checkpoint.paths(tmp_path / f's{number}')[0]
    strangers.append(newest.read_bytes())
  config = config_lib.resolve(config)
  loop.train_and_evaluate(config, tmp_path / 'run')
  run = setup.build(config)
  whole = {
    path.name: (
      path.read_bytes(),
      checkpoint.restore_state(path, run.state)[0],
    )
    for path in checkpoint.paths(tmp_path / 'run')
  }
  rng, outcomes = random.Random(0), {}
  for _ in range(200):
    shutil.rmtree(tmp_path / 'run/checkpoints')
    (tmp_path / 'run/checkpoints').mkdir()
    for name, (content, _) in whole.items():
      (tmp_path / 'run/checkpoints' / name).write_bytes(content)
    kind = damage(rng, checkpoint.paths(tmp_path / 'run'), strangers)
    before = {p: p.read_bytes() for p in checkpoint.paths(tmp_path / 'run')}
    lines = []
    try:
      begin = resume.restore(tmp_path / 'run', run, False, lines.append)
    except UserError as error:
      lines.append(str(error))
      outcome = 'refused'
      assert {p: p.read_bytes() for p in before} == before
    else:
      outcome = 'older one' if lines or kind == 'missing' else 'newest'
      if begin.path:
        name = pathlib.Path(begin.path).name
        assert before[pathlib.Path(begin.path)] == whole[name][0]
        expected = whole[name][1]
        assert begin.step == int(expected.step)
        for ours, theirs in zip(
          jax_leaves(begin.state), jax_leaves(expected), strict=True
        ):
          assert ours.tobytes() == theirs.tobytes()
      else:
        outcome = 'from the start'
        assert not before
    assert all('\n' not in line for line in lines)
    key = (kind, outcome)
    outcomes[key] = outcomes.get(key, 0) + 1
  print(f'\n200 damaged folders: {outcomes}')


def jax_leaves(state):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture
def disk(tmp_path):
  """A disk of 400 KiB, where mounting is allowed."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mounted = subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', str(folder)],
    capture_output=True,
  )
  if mounted.returncode:
    pytest.skip('no permission to mount a small disk')
  yield folder
  subprocess.run(['umount', '-l', str(folder)], check=True)


def until_step(process: subprocess.Popen, step: int) -> None:
  for line in process.stdout:
    if line.startswith(f'step {step}/'):
      return
  pytest.fail(process.communicate()[1])


def test_a_full_disk(start, tmp_path, disk):
  code, err = finish(start('whole'))
  assert code == 0, err
  process = start(disk / 'run', stdout=subprocess.PIPE)
  until_step(process, 210)
  with (
    open(disk / 'filler', 'wb', buffering=0) as file,
    contextlib.suppress(OSError),
  ):
    while True:
      file.write(bytes(1024))
  _, err = process.communicate()
  print(f'\nfull disk: exit code {process.returncode}, last line\n{err}')
  # By the metrics, which a disk with no byte left cannot take either.
  assert process.returncode == 74
  assert 'No space left on device' in err
  assert 'Traceback' not in err
  newest = checkpoint.paths(disk / 'run')[0]
  assert int(newest.stem.removeprefix('step_')) >= 200
  (disk / 'filler').unlink()
  code, err = finish(start(disk / 'run'))
  assert code == 0, err
  assert_same_run(tmp_path / 'whole', disk / 'run')


# A start that kills itself before one of its file operations.
KILLED = """
import os, runpy, signal, sys
left, folder, *argv = sys.argv[1:]
left, folder = int(left), os.path.abspath(folder)
names = {'os.mkdir', 'os.rename', 'os.remove', 'os.truncate'}

def watch(event, args):
  global left
  if event != 'open' and event not in names:
    return
  if event == 'open' and not args[2] & (os.O_WRONLY | os.O_RDWR):
    return
  if isinstance(args[0], int):
    return
  if os.path.abspath(os.fsdecode(args[0])).startswith(folder):
    left -= 1
    if left < 0:
      os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
sys.argv = argv
sys.path.insert(0, os.path.dirname(argv[0]))
runpy.run_path(argv[0], run_name='__main__')
"""
# Two epochs of two steps, with all that a run writes.
SHORT = (
  f'--config={ROOT}/configs/fmnist96.py',
  '--config.model.variant=tiny',
  '--config.model.kernels=xla',
  '--config.data.image_size=28',
  '--config.data.train_split=train[:16]',
  '--config.data.eval_split=test[:8]',
  '--config.train.batch_size=8',
  '--config.train.precision=float32',
  '--config.train.epochs=2',
  '--config.logging.every_steps=1',
  '--config.logging.images=2',
  '--config.logging.histograms=1',
)


def test_kills_before_each_file_operation(start, tmp_path):
  """From the first folder of a run to its result."""
  code, err = finish(start('whole', base=SHORT))
  assert code == 0, err
  for left in range(200):
    workdir = tmp_path / f'run_{left}'
    begun = start(
      workdir, program=('-c', KILLED, str(left), workdir), base=SHORT
    )
    code, err = finish(begun)
    assert 'Traceback' not in err
    if code == 0:
      break
    assert code == -signal.SIGKILL, err
    code, err = finish(start(workdir, base=SHORT))
    assert code == 0, (left, err)
    assert_same_run(tmp_path / 'whole', workdir)
  assert 20 < left < 200
  print(f'\nkilled before each of {left} file operations')


@pytest.mark.parametrize('count', range(2, 14))
def test_a_disk_without_inodes(start, tmp_path, disk, count):
  """Each file and folder takes one."""
  subprocess.run(
    ['mount', '-o', f'remount,size=4m,nr_inodes={count}', str(disk)], check=True
  )
  code, err = finish(start('whole', base=SHORT))
  assert code == 0, err
  code, err = finish(start(disk / 'run', base=SHORT))
  print(f'\n{count} inodes: exit code {code}, {err}')
  if code:
    assert code == 74
    assert 'No space left on device' in err
    assert 'Traceback' not in err
    subprocess.run(
      ['mount', '-o', 'remount,nr_inodes=100', str(disk)], check=True
    )
    code, err = finish(start(disk / 'run', base=SHORT))
    assert code == 0, err
  assert_same_run(tmp_path / 'whole', disk / 'run')


def test_a_folder_that_becomes_read_only(start, tmp_path, disk):
  """The checkpoints alone: a mount of their own, which root obeys too."""
  code, err = finish(start('whole'))
  assert code == 0, err
  workdir = tmp_path / 'run'
  process = start(workdir, stdout=subprocess.PIPE)
  until_step(process, 210)
  folder = str(workdir / 'checkpoints')
  for options in (
    ['--bind', folder, folder],
    ['-o', 'remount,bind,ro', folder],
  ):
    subprocess.run(['mount', *options], check=True)
  try:
    until_step(process, 700)
    saved = checkpoint.paths(workdir)
  finally:
    subprocess.run(['umount', '-l', folder], check=True)
  _, err = process.communicate()
  print(f'\nread-only: exit code {process.returncode}, first line\n{err[:300]}')
  assert process.returncode == 0
  assert 'Read-only file system' in err
  assert all(x.startswith('warning: ') for x in problems(err).splitlines())
  assert len(saved) >= 2
  assert_same_run(tmp_path / 'whole', workdir)
