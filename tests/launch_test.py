"""The program as a user runs it: flags, screen, files, exit codes."""

import json
import os
import pty
import re
import subprocess
import sys
import termios

import numpy as np
import pytest
from conftest import ROOT, SMALL, config_flags, start
from photos import prepare
from run_files import arrays, files_under, losses
from sources_test import NUM_TEST, FashionSubset

# With the kernels that a user gets.
DEFAULT = (*SMALL, '--config.model.kernels=auto', '--config.seed=3')


@pytest.fixture(scope='module')
def run_by_user(tmp_path_factory, compilation_cache):
  """Returns the process that made a run, and its workdir: to read."""
  workdir = tmp_path_factory.mktemp('by_user') / 'run'
  given = config_flags('configs/fmnist96.py', compilation_cache)
  flags = (*given, *DEFAULT, f'--workdir={workdir}')
  return start(ROOT, *flags, optimized=True), workdir


def test_trains_then_evaluates_the_same_parameters(run_by_user, launch_py):
  trained, run = run_by_user
  assert trained.returncode == 0, trained.stderr
  for text in (
    'network  tiny, 28x28x1 -> 10 classes, 2,186 parameters',
    'devices  1 x cpu',
    '60,000 train and 1,000 test[:1000] images, 28x28x1, on the device',
    '10 epochs x 937 steps of 64 images, stops after 6',
    'step 6/6',
    'result   eval accuracy',
  ):
    assert text in trained.stdout
  for what in ('training', 'evaluation'):
    assert f'\ncompile  {what} step: compiled ' in trained.stdout
  assert re.search(
    r'\nstart    first step after [\d.]+ s, \d+\.\d s of them compiling\n',
    trained.stdout,
  )
  # Not a terminal: plain lines, no carriage returns, no colours.
  assert '\r' not in trained.stdout
  assert '\x1b' not in trained.stdout

  records = [
    json.loads(line)
    for line in (run / 'metrics.jsonl').read_text().split('\n')[:-1]
  ]
  train = [r for r in records if 'train/loss' in r]
  assert [r['step'] for r in train] == [2, 4, 6]
  assert set(train[0]) == {
    'step',
    'epoch',
    'train/loss',
    'train/accuracy',
    'train/learning_rate',
    'train/grad_norm',
    'train/images_per_second',
  }
  (evaluated,) = [r for r in records if 'eval/loss' in r]
  assert evaluated['eval/count'] == 1000
  stored = json.loads((run / 'config.json').read_text())
  assert stored['seed'] == 3
  assert stored['model']['variant'] == 'tiny'
  result = json.loads((run / 'result.json').read_text())
  assert result['step'] == 6
  assert result['eval/accuracy'] == evaluated['eval/accuracy']
  assert any('tfevents' in name for name in files_under(run / 'tensorboard'))
  assert files_under(run / 'checkpoints') == ['step_000000006.npz']

  before = files_under(run)
  evaluation = launch_py('--mode=evaluate', f'--workdir={run}', config='')
  assert evaluation.returncode == 0, evaluation.stderr
  accuracy = re.search(r'accuracy ([\d.]+)', evaluation.stdout)[1]
  assert accuracy == f'{result["eval/accuracy"]:.4f}'
  assert f'loss {result["eval/loss"]:.4f} on 1,000' in evaluation.stdout
  assert files_under(run) == before


def test_summary_prints_the_layer_table(launch_here, tmp_path):
  done = launch_here('--mode=summary')
  assert done.returncode == 0, done.stderr
  lines = [line.split() for line in done.stdout.splitlines()]
  assert ['inception_3a', '12x12x256', '163,696', '23,519,232'] in lines
  assert ['stage_4', '3x3x832', '2,809,168', '100,998,144'] in lines
  assert lines[-1] == ['total', '10', '5,977,530', '276,066,304']
  assert files_under(tmp_path) == []


def test_terminal_shows_a_bar_and_workdirs_are_dated(
  tmp_path, compilation_cache, launch_here
):
  """On a pseudo-terminal: one bar redrawn in place, lines above it.

  Without --workdir: a fresh folder, in a second of two processes too.
  """
  main, terminal = pty.openpty()
  termios.tcsetwinsize(terminal, (24, 120))
  process = subprocess.Popen(
    [
      sys.executable,
      str(ROOT / 'launch.py'),
      f'--config={ROOT}/configs/fmnist96.py',
      f'--config.train.compilation_cache={compilation_cache}',
      *SMALL,
    ],
    stdout=terminal,
    stderr=terminal,
    cwd=tmp_path,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  os.close(terminal)
  shown = b''
  while True:
    try:
      chunk = os.read(main, 65536)
    except OSError:  # Linux: the other end is closed
      break
    if not chunk:
      break
    shown += chunk
  assert process.wait() == 0
  text = shown.decode()
  assert re.search(r'\r *67%\|.*\| 4/6  loss \d\.\d+  accuracy', text)
  assert re.search(r'images/s  \d\d:\d\d left', text)
  assert 'epoch 0.0064/10' in text

  assert launch_here(*SMALL, '--config.train.max_steps=1').returncode == 0
  runs = files_under(tmp_path / 'runs')
  names = [name for name in runs if '/' not in name]
  assert len(names) == 2
  for name in names:
    assert re.fullmatch(r'fmnist96-\d{4}-\d\d-\d\d-\d{6}-\d+', name)
  ends = {int(name.rpartition('-')[2]) for name in names}
  assert ends == {process.pid, os.getpid()}


def test_a_loss_that_ends_a_longer_run_keeps_its_curve(launch_here, tmp_path):
  """What was recorded before is the user's; result and parameters are not."""
  done = launch_here(
    *SMALL,
    '--workdir=run',
    '--config.logging.every_steps=1',
    '--config.optimizer.learning_rate=1e30',
    '--config.optimizer.grad_clip_norm=0',
  )
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'train/loss is nan at step 2' in done.stderr
  files = files_under(tmp_path / 'run')
  assert {'config.json', 'metrics.jsonl'} <= set(files)
  assert 'result.json' not in files
  (told,) = json.loads((tmp_path / 'run/diverged.json').read_text()).values()
  assert told.startswith('train/loss is nan at step 2')
  assert not [name for name in files if name.endswith('.npz')]
  (line,) = (tmp_path / 'run/metrics.jsonl').read_text().splitlines()
  assert json.loads(line)['step'] == 1


def test_batch_that_does_not_divide_by_devices(launch_py, tmp_path):
  done = launch_py(*SMALL, '--config.train.batch_size=66', devices=4)
  assert done.returncode == 2
  assert 'config.train.batch_size=66' in done.stderr
  assert '4 devices' in done.stderr
  assert 'choose 64 or 68' in done.stderr
  assert 'first step' not in done.stdout
  assert files_under(tmp_path) == []


def test_losses_do_not_depend_on_the_number_of_devices(
  launch_py, launch_here, tmp_path
):
  """With augmentation, batch norm over all devices, dropout and heads.

  Of what is drawn by the place of an image, one of a kind: compiling is what
  takes time, and augment_test.py and mixing_test.py have them all.
  """
  flags = (
    *SMALL,
    '--config.model.normalization=batch',
    '--config.model.aux_heads=on',
    '--config.model.dropout=0.4',
    '--config.logging.every_steps=1',
    '--config.augment.crop_padding=2',
    '--config.augment.mixup_alpha=0.5',
    '--config.optimizer.warmup_steps=5',
  )
  one = launch_here(*flags, '--workdir=1')
  four = launch_py(*flags, '--workdir=4', devices=4)
  for done in (one, four):
    assert done.returncode == 0, done.stderr
  assert 'devices  4 x cpu' in four.stdout
  one = losses(tmp_path / '1')
  assert one.shape == (6, 2)
  np.testing.assert_allclose(losses(tmp_path / '4'), one, rtol=2e-4)


@pytest.mark.slow  # sweep_test.py has it with kernels that are quick to compile
def test_same_seed_same_bits(run_by_user, launch_py, tmp_path):
  again = launch_py(*DEFAULT, '--workdir=again', optimized=True)
  assert again.returncode == 0, again.stderr
  last = 'checkpoints/step_000000006.npz'
  assert arrays(run_by_user[1] / last) == arrays(tmp_path / 'again' / last)


def test_other_seed_other_bits(trained_run, launch_here, tmp_path):
  done = launch_here(*SMALL, '--workdir=other', '--config.seed=1')
  assert done.returncode == 0, done.stderr
  last = 'checkpoints/step_000000006.npz'
  assert arrays(trained_run / last) != arrays(tmp_path / 'other' / last)


def test_streamed_data_gives_the_bits_of_resident_data(launch_here, tmp_path):
  for name, size in (('device', 2048), ('host', 0)):
    done = launch_here(
      *SMALL, f'--workdir={name}', f'--config.data.on_device_mb={size}'
    )
    assert done.returncode == 0, done.stderr
    assert {'device': 'on the device', 'host': 'streamed'}[name] in done.stdout
  np.testing.assert_array_equal(
    losses(tmp_path / 'device'), losses(tmp_path / 'host')
  )


def test_trains_on_a_tfds_set_and_scores_another_split(launch_here, tmp_path):
  prepare(FashionSubset, tmp_path / 'tfds')
  tfds_flags = (
    *SMALL,
    '--config.data.source=tfds',
    '--config.data.name=fashion_subset',
    '--config.data.data_dir=tfds',
    '--config.data.eval_split=test',
    '--workdir=run',
  )
  done = launch_here(*tfds_flags, '--config.data.train_split=train[:80%]')
  assert done.returncode == 0, done.stderr
  assert 'fashion_subset (tfds): 240 train[:80%]' in done.stdout
  assert f'on {NUM_TEST} images after 6 steps' in done.stdout
  done = launch_here(
    '--mode=evaluate', *tfds_flags, '--config.data.eval_split=train[80%:]'
  )
  assert done.returncode == 0, done.stderr
  assert 'fashion_subset train[80%:]: accuracy' in done.stdout
  assert 'on 60 images' in done.stdout
