"""The program as a user runs it: flags, screen, files, exit codes."""

import gzip
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios

import numpy as np
import photos
import pytest
from conftest import ROOT, SMALL
from data_test import NUM_TEST, FashionSubset, prepare

import launch
from googlenet.data import bundled

DATA = pathlib.Path(bundled.__file__).parent / 'fashion_mnist'


def files_under(folder: pathlib.Path) -> list[str]:
  return sorted(str(p.relative_to(folder)) for p in folder.rglob('*'))


def test_trains_then_evaluates_the_same_parameters(launch_py, tmp_path):
  trained = launch_py(*SMALL, '--workdir=run', '--config.seed=3')
  assert trained.returncode == 0, trained.stderr
  for text in (
    'network  tiny, 28x28x1 -> 10 classes, 2,186 parameters',
    'devices  1 x cpu',
    '60,000 train and 1,000 test[:1000] images, 28x28x1, on the device',
    '10 epochs x 937 steps of 64 images, stops after 6',
    'start    first step after',
    'step 6/6',
    'result   eval accuracy',
  ):
    assert text in trained.stdout
  # Not a terminal: plain lines, no carriage returns, no colours.
  assert '\r' not in trained.stdout
  assert '\x1b' not in trained.stdout

  run = tmp_path / 'run'
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
  evaluation = launch_py('--mode=evaluate', '--workdir=run', config='')
  assert evaluation.returncode == 0, evaluation.stderr
  accuracy = re.search(r'accuracy ([\d.]+)', evaluation.stdout)[1]
  assert accuracy == f'{result["eval/accuracy"]:.4f}'
  assert f'loss {result["eval/loss"]:.4f} on 1,000' in evaluation.stdout
  assert files_under(run) == before


def test_default_workdir_is_fresh_and_dated(launch_py, tmp_path):
  for _ in range(2):
    assert launch_py(*SMALL, '--config.train.max_steps=1').returncode == 0
  runs = files_under(tmp_path / 'runs')
  names = [name for name in runs if '/' not in name]
  assert len(names) == 2
  for name in names:
    assert re.fullmatch(r'fmnist96-\d{4}-\d\d-\d\d-\d{6}-\d+', name)


def test_summary_prints_the_layer_table(launch_py, tmp_path):
  done = launch_py('--mode=summary')
  assert done.returncode == 0, done.stderr
  lines = [line.split() for line in done.stdout.splitlines()]
  assert ['inception_3a', '12x12x256', '163,696', '23,519,232'] in lines
  assert ['stage_4', '3x3x832', '2,809,168', '100,998,144'] in lines
  assert lines[-1] == ['total', '10', '5,977,530', '276,066,304']
  assert files_under(tmp_path) == []


def test_terminal_shows_a_bar(tmp_path, compilation_cache):
  """On a pseudo-terminal: one bar redrawn in place, lines above it."""
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


def damaged(tmp_path: pathlib.Path, kind: str) -> str:
  folder = tmp_path / 'damaged'
  shutil.copytree(DATA, folder)
  path = folder / 't10k-images-idx3-ubyte.gz'
  if kind == 'missing':
    path.unlink()
  elif kind == 'truncated':
    path.write_bytes(path.read_bytes()[:100_000])
  elif kind == 'changed':
    pixels = bytearray(gzip.decompress(path.read_bytes()))
    pixels[5000] ^= 1
    path.write_bytes(gzip.compress(bytes(pixels), 1))
  return f'--config.data.data_dir={folder}'


def config_file(tmp_path: pathlib.Path, text: str) -> str:
  path = tmp_path / 'own.py'
  path.write_text(text)
  return f'--config={path}'


def changed(tmp_path: pathlib.Path, assignment: str) -> str:
  return config_file(
    tmp_path,
    'import numpy as np\n'
    'from ml_collections import ConfigDict\n'
    'from ml_collections.config_dict import required_placeholder\n'
    'from configs import fmnist96\n'
    'def get_config():\n'
    '  config = fmnist96.get_config().unlock()\n'
    f'  with config.ignore_type():\n    config.{assignment}\n'
    '  return config\n',
  )


def flag_file(tmp_path: pathlib.Path, text: str) -> str:
  path = tmp_path / 'flags.txt'
  path.write_text(text)
  return f'--flagfile={path}'


def no_torch(tmp_path: pathlib.Path) -> pathlib.Path:
  path = tmp_path / 'python'
  path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
  path.chmod(0o755)
  return path


def photo_flags(
  tmp_path: pathlib.Path, builder_cls: type = photos.Photos
) -> list[str]:
  """Flags for a set of JPEGs, which is written outside of tmp_path."""
  folder = tmp_path.parent / f'{tmp_path.name}_{builder_cls.__name__}'
  if not folder.exists():
    photos.prepare(builder_cls, folder)
  return [
    '--config.data.source=tfds',
    f'--config.data.name={builder_cls.name}',
    f'--config.data.data_dir={folder}',
    '--config.data.eval_split=validation',
    '--config.data.resize=32',
    '--config.data.mean=(0.5,)',
    '--config.augment.random_resized_crop=true',
    '--config.augment.flip=true',
  ]


FINITE = '--config.optimizer.grad_clip_norm=0'

# flags (or a function of tmp_path that makes them), what the line must say.
BAD_INPUT = {
  'unknown field': (
    ['--config.train.epoch=2'],
    ['config.train.epoch is not a field', "'train.epochs'"],
  ),
  'unknown section': (
    ['--config.optimiser.learning_rate=1'],
    ['config.optimiser.learning_rate', "'optimizer.learning_rate'"],
  ),
  'a section as a field': (['--config.train=2'], ['config.train']),
  'unknown flag': (['--workdri=x'], ['--workdri', "'workdir'"]),
  'unknown mode': (
    ['--mode=trian'],
    [
      '--mode=trian',
      "'train'",
      'allowed is one of train, sweep, benchmark, summary, evaluate, ',
    ],
  ),
  'a word without a flag': (['train'], ["'train'", '--flag=value']),
  'no config': (None, ['--config is missing', 'configs/fmnist96.py']),
  'text for an int': (
    ['--config.train.epochs=two'],
    ['config.train.epochs', "'two'", 'whole number'],
  ),
  'float for an int': (
    ['--config.train.batch_size=12.5'],
    ['config.train.batch_size', '12.5', 'whole number'],
  ),
  'text for a float': (
    ['--config.optimizer.learning_rate=fast'],
    ['config.optimizer.learning_rate', "'fast'", 'a number > 0'],
  ),
  'bad bool': (
    ['--config.optimizer.nesterov=maybe'],
    ['config.optimizer.nesterov', "'maybe'", 'true or false'],
  ),
  'bad tuple': (
    ['--config.data.mean=(0.1,"x")'],
    ['config.data.mean', 'numbers'],
  ),
  'below the range': (
    ['--config.train.epochs=0'],
    ['config.train.epochs=0', 'from 1'],
  ),
  'not finite': (
    ['--config.optimizer.learning_rate=nan'],
    ['config.optimizer.learning_rate=nan', 'a number > 0'],
  ),
  'negative': (
    ['--config.optimizer.weight_decay=-1'],
    ['config.optimizer.weight_decay=-1.0', '>= 0'],
  ),
  'unknown variant': (
    ['--config.model.variant=plian'],
    ['config.model.variant', "'plian'", "'plain'"],
  ),
  'a comparison of runs': (
    ['--mode=train', '--compare'],
    ['--compare', '--mode=summary'],
  ),
  'no place for LRN': (
    ['--config.model.variant=vgg16', '--config.model.normalization=lrn'],
    ["config.model.normalization='lrn'", 'vgg16', 'auto, none, batch'],
  ),
  'unknown normalization': (
    ['--config.model.normalization=bn'],
    ["config.model.normalization='bn'", 'auto, none, lrn, batch'],
  ),
  'no auxiliary heads': (
    ['--config.model.variant=nin', '--config.model.aux_heads=on'],
    ["config.model.aux_heads='on'", 'nin', 'auto, off'],
  ),
  'heads switched by a boolean': (
    ['--config.model.aux_heads=true'],
    ["config.model.aux_heads='true'", 'auto, on, off'],
  ),
  'image too small for heads': (
    [
      '--config.model.variant=plain',
      '--config.model.aux_heads=on',
      '--config.data.image_size=64',
    ],
    ['config.data.image_size=64', 'auxiliary heads', 'that works is 65'],
  ),
  'unknown activation': (
    ['--config.model.activation=rellu'],
    ["config.model.activation='rellu'", "did you mean 'relu'"],
  ),
  'dropout of everything': (
    ['--config.model.dropout=1'],
    ['config.model.dropout=1', 'below 1'],
  ),
  'no width': (
    ['--config.model.width_multiplier=0'],
    ['config.model.width_multiplier=0', 'a number > 0'],
  ),
  'no decay of statistics': (
    ['--config.model.batch_norm_decay=1'],
    ['config.model.batch_norm_decay=1', 'below 1'],
  ),
  'negative loss of heads': (
    ['--config.train.aux_loss_weight=-0.3'],
    ['config.train.aux_loss_weight=-0.3', '>= 0'],
  ),
  'two channels': (
    ['--config.data.channels=2'],
    ['config.data.channels=2', '0, 1 or 3'],
  ),
  'unknown optimizer': (
    ['--config.optimizer.name=adamm'],
    ['config.optimizer.name', "did you mean 'adam'"],
  ),
  'resized smaller than the crop': (
    ['--config.data.resize=20'],
    ['config.data.resize=20', 'config.data.image_size=28', '0 or at least 28'],
  ),
  'a side that is negative': (
    ['--config.data.resize=-1'],
    ['config.data.resize=-1', 'from 0 to 4096'],
  ),
  'negative number of workers': (
    ['--config.data.workers=-1'],
    ['config.data.workers=-1', 'from 0 to 1024'],
  ),
  'random crop neither on nor off': (
    ['--config.augment.random_resized_crop=2'],
    ['config.augment.random_resized_crop', "'2'", 'true or false'],
  ),
  'crop larger than the image': (
    ['--config.augment.crop_area=(0.08,1.5)'],
    ['config.augment.crop_area=(0.08, 1.5)', 'like (0.08, 1.0)'],
  ),
  'crop aspects the wrong way round': (
    ['--config.augment.crop_aspect=(1.3,0.7)'],
    ['config.augment.crop_aspect=(1.3, 0.7)', 'smallest and the largest'],
  ),
  'crop of one number': (
    ['--config.augment.crop_area=(0.5,)'],
    ['config.augment.crop_area=(0.5,)', 'smallest and the largest'],
  ),
  'unknown number of crops': (
    ['--mode=evaluate', '--workdir=run', '--config.eval.crops=12'],
    ['config.eval.crops=12', 'one of 1, 10, 144'],
  ),
  'a damaged image': (
    lambda tmp_path: [
      *photo_flags(tmp_path, photos.DamagedPhotos),
      '--config.augment.random_resized_crop=false',
    ],
    ["config.data.name='damaged_photos': image ", '(photo_5.jpg)'],
  ),
  'a damaged image, read by workers': (
    lambda tmp_path: [
      *photo_flags(tmp_path, photos.DamagedPhotos),
      '--config.data.workers=2',
    ],
    [
      "config.data.name='damaged_photos': image ",
      '(photo_5.jpg)',
      'truncated',
      'delete that folder',
    ],
  ),
  'an ensemble of which one is missing': (
    ['--mode=evaluate', '--workdir=one,two'],
    ['--workdir=one holds no checkpoint'],
  ),
  'unknown kernels': (
    ['--config.model.kernels=gpu'],
    ['config.model.kernels', 'auto, xla, onednn, cpu'],
  ),
  'unknown precision': (
    ['--config.train.precision=float31'],
    ['config.train.precision', 'jmp policy'],
  ),
  'image too small': (
    ['--config.model.variant=plain', '--config.data.image_size=16'],
    ['config.data.image_size=16', 'smallest size that works is 17'],
  ),
  'batch not divisible': (
    ['--config.train.batch_size=65', '--config.train.microbatches=2'],
    ['config.train.batch_size=65', 'microbatches=2'],
  ),
  'batch larger than the data': (
    ['--config.data.train_split=train[:50]'],
    ['config.train.batch_size=64', '50 images'],
  ),
  'more steps traced than made': (
    ['--config.logging.profile_steps=5'],
    ['config.logging.profile_steps=5', 'has 6 steps', 'at most 4'],
  ),
  'mean for other channels': (
    ['--config.data.mean=(0.1,0.2)'],
    ['config.data.mean', '1 channel'],
  ),
  'unknown split': (
    ['--config.data.train_split=trian'],
    ["config.data.train_split='trian'", "'train'"],
  ),
  'malformed slice': (
    ['--config.data.eval_split=test[5'],
    ["config.data.eval_split='test[5'", 'malformed'],
  ),
  'unknown source': (
    ['--config.data.source=web'],
    ['config.data.source', "'web'", 'bundled, tfds'],
  ),
  'set that is not bundled': (
    ['--config.data.name=cifar10'],
    ['config.data.name', 'cifar10', '--config.data.source=tfds'],
  ),
  'set that is not prepared': (
    lambda tmp_path: [
      '--config.data.source=tfds',
      '--config.data.name=cifar10',
      f'--config.data.data_dir={tmp_path}',
    ],
    ['cifar10', 'not prepared', 'download_and_prepare'],
  ),
  'labels outside num_classes': (
    ['--config.model.num_classes=9'],
    ['config.model.num_classes=9', '10 classes', 'at least 10'],
  ),
  'missing data file': (
    lambda tmp_path: [damaged(tmp_path, 'missing')],
    ['t10k-images-idx3-ubyte.gz', 'no such file'],
  ),
  'truncated data file': (
    lambda tmp_path: [damaged(tmp_path, 'truncated')],
    ['t10k-images-idx3-ubyte.gz', 'cannot be unpacked'],
  ),
  'changed data file': (
    lambda tmp_path: [damaged(tmp_path, 'changed')],
    ['t10k-images-idx3-ubyte.gz', 'SHA-256'],
  ),
  'config file does not exist': (
    ['--config=configs/fmnist69.py'],
    ['--config=configs/fmnist69.py', 'no such file'],
  ),
  'config file without get_config': (
    lambda tmp_path: [config_file(tmp_path, 'x = 1\n')],
    ['own.py has no get_config()'],
  ),
  'config file that is no Python': (
    lambda tmp_path: [config_file(tmp_path, 'def (:\n')],
    ['own.py cannot be loaded', 'SyntaxError'],
  ),
  'config file that raises': (
    lambda tmp_path: [
      config_file(tmp_path, 'def get_config():\n  raise ValueError("no\\nway")')
    ],
    ['own.py cannot be loaded', 'ValueError: no way'],
  ),
  'config file without a field': (
    lambda tmp_path: [
      config_file(
        tmp_path,
        'import ml_collections\n'
        'def get_config():\n  return ml_collections.ConfigDict({"seed": 1})',
      )
    ],
    ['is missing', 'configs/fmnist96.py'],
  ),
  'loss that is not finite': (
    ['--config.optimizer.learning_rate=1e30', FINITE],
    [
      'train/loss is nan at step 2 (first the output of inception_2a)',
      'config.optimizer.learning_rate',
    ],
  ),
  'workdir under a file': (
    lambda tmp_path: [f'--workdir={config_file(tmp_path, "")[9:]}/run'],
    ['own.py/run', 'Not a directory'],
  ),
  'fields in a flag file': (
    lambda tmp_path: [flag_file(tmp_path, '--config.train.epoch=2')],
    ['config.train.epoch is not a field', "'train.epochs'"],
  ),
  'no flag file': (['--flagfile=none'], ['none']),
  'a value after a space': (
    ['--config.train.epochs', 'two'],
    ['config.train.epochs', "'two'", 'whole number'],
  ),
  'a bool denied twice': (
    ['--noconfig.optimizer.nesterov=true'],
    ['config.optimizer.nesterov', 'true or false'],
  ),
  'a field without a name': (['--config.=2'], ['config. is not a field']),
  'a value that is empty': (
    ['--config.train.epochs='],
    ['config.train.epochs', 'whole number'],
  ),
  'larger than float32': (
    ['--config.optimizer.learning_rate=1e39'],
    ['config.optimizer.learning_rate=1e+39', 'a number > 0'],
  ),
  'more classes than memory': (
    ['--config.model.num_classes=2147483647'],
    ['config.model.num_classes=2147483647', '100000'],
  ),
  'more steps than are counted': (
    ['--config.train.epochs=2147483647'],
    ['config.train.epochs=2147483647', 'choose at most'],
  ),
  'precision that JAX has not': (
    ['--config.train.precision=params=float32,compute=float64,output=float32'],
    ['config.train.precision', 'float32, bfloat16 or float16'],
  ),
  'epochs that do not rise': (
    ['--config.optimizer.step_epochs=(6.0,3.0)'],
    ['config.optimizer.step_epochs=(6.0, 3.0)', 'rise'],
  ),
  'cache that is a file': (
    lambda tmp_path: [
      '--config.train.compilation_cache='
      + config_file(tmp_path, '').removeprefix('--config=')
    ],
    ['config.train.compilation_cache', 'own.py'],
  ),
  'workdir that nobody can make': (
    ['--workdir=/proc/run'],
    ['--workdir=/proc/run', 'cannot be made'],
  ),
  'workdir with too long a name': (
    ['--workdir=' + 300 * 'x'],
    ['--workdir=xxx', 'too long'],
  ),
  'config file that is no .py': (
    lambda tmp_path: [f'--config={tmp_path}'],
    ['no such file ending in .py'],
  ),
  'config file that exits': (
    lambda tmp_path: [config_file(tmp_path, 'import sys; sys.exit(0)')],
    ['own.py cannot be loaded', 'SystemExit'],
  ),
  'config file of another type': (
    lambda tmp_path: [
      config_file(tmp_path, 'def get_config():\n  return {"seed": 1}')
    ],
    ['own.py', 'returns a dict', 'ConfigDict'],
  ),
  'config file with a placeholder': (
    lambda tmp_path: [changed(tmp_path, 'seed = required_placeholder(int)')],
    ['own.py', 'RequiredValueError'],
  ),
  'config file with a NumPy number': (
    lambda tmp_path: [
      changed(tmp_path, 'optimizer.learning_rate = np.float32(1)')
    ],
    ['config.optimizer.learning_rate', 'a number > 0'],
  ),
  'config file with another section': (
    lambda tmp_path: [changed(tmp_path, 'extra = ConfigDict()')],
    ['config.extra is not a field'],
  ),
  'config file that holds itself': (
    lambda tmp_path: [changed(tmp_path, 'extra = config')],
    ['own.py', 'RecursionError'],
  ),
  'unknown loss scale': (
    ['--config.train.loss_scale=auto'],
    ['config.train.loss_scale', "'auto'", 'a number > 0 or dynamic'],
  ),
  'loss scale of nothing': (
    ['--config.train.loss_scale=0'],
    ['config.train.loss_scale=0 ', 'a number > 0 or dynamic'],
  ),
  'unknown policy for what is not finite': (
    ['--config.train.on_nonfinite=ignore'],
    ['config.train.on_nonfinite', "'ignore'", 'stop, skip'],
  ),
  'no step that is not finite': (
    ['--config.train.max_nonfinite=0'],
    ['config.train.max_nonfinite=0', 'from 1'],
  ),
  'average that never moves': (
    ['--config.train.ema_decay=1'],
    ['config.train.ema_decay=1.0', 'from 0 to below 1'],
  ),
  'checkpoints of negative epochs': (
    ['--config.checkpoint.every_epochs=-1'],
    ['config.checkpoint.every_epochs=-1', 'from 0'],
  ),
  'checkpoints of negative steps': (
    ['--config.checkpoint.every_steps=-1'],
    ['config.checkpoint.every_steps=-1', 'from 0'],
  ),
  'checkpoints of negative seconds': (
    ['--config.checkpoint.every_seconds=-1'],
    ['config.checkpoint.every_seconds=-1.0', '>= 0'],
  ),
  'no checkpoint kept': (
    ['--config.checkpoint.keep=0'],
    ['config.checkpoint.keep=0', 'from 1'],
  ),
  'best by an unknown metric': (
    ['--config.checkpoint.best_metric=accuracy'],
    ['config.checkpoint.best_metric', "'accuracy'", 'eval/accuracy'],
  ),
  'change of config in another mode': (
    ['--mode=summary', '--allow_config_change'],
    ['--allow_config_change', '--mode=train'],
  ),
  'no address of the coordinator': (
    ['--num_processes=2', '--process_id=0'],
    ['--coordinator_address is missing', 'host:port'],
  ),
  'address without a port': (
    ['--coordinator_address=node1', '--num_processes=2', '--process_id=0'],
    ['--coordinator_address=node1', 'host:port'],
  ),
  'process beyond the last': (
    ['--coordinator_address=a:1', '--num_processes=2', '--process_id=2'],
    ['--process_id=2', '0 to 1'],
  ),
  'no process': (
    ['--coordinator_address=a:1', '--num_processes=0', '--process_id=0'],
    ['--num_processes=0', '1 or more'],
  ),
  'number of processes that is none': (
    ['--num_processes=two'],
    ['num_processes', 'two'],
  ),
  'heartbeat of no second': (
    ['--heartbeat_timeout_seconds=0'],
    ['heartbeat_timeout_seconds', '0'],
  ),
  'benchmark of no batch': (
    ['--mode=benchmark', '--config.benchmark.batch_sizes=()'],
    ['config.benchmark.batch_sizes=()', 'like (32, 128)'],
  ),
  'benchmark of a batch of nothing': (
    ['--mode=benchmark', '--config.benchmark.batch_sizes=(8,0)'],
    ['config.benchmark.batch_sizes=(8, 0)', 'whole numbers from 1'],
  ),
  'benchmark of an unknown precision': (
    ['--mode=benchmark', '--config.benchmark.precisions=("float31",)'],
    ["config.benchmark.precisions=('float31',)", 'jmp policies'],
  ),
  'benchmark of no step': (
    ['--mode=benchmark', '--config.benchmark.steps=0'],
    ['config.benchmark.steps=0', 'from 1'],
  ),
  'benchmark of no round': (
    ['--mode=benchmark', '--config.benchmark.rounds=0'],
    ['config.benchmark.rounds=0', 'from 1'],
  ),
  'benchmark of batches larger than the data': (
    ['--mode=benchmark', '--config.benchmark.batch_sizes=(60001,)'],
    ['config.benchmark.batch_sizes: 60001', '60000 images'],
  ),
  'benchmark of batches that do not divide': (
    [
      '--mode=benchmark',
      '--config.benchmark.batch_sizes=(7,)',
      '--config.train.microbatches=2',
    ],
    ['config.benchmark.batch_sizes: 7', 'microbatches=2'],
  ),
  'benchmark of data that is not there': (
    ['--mode=benchmark', '--config.data.train_split=trian'],
    ["config.data.train_split='trian'", "'train'"],
  ),
  'benchmark with a Python that is not there': (
    ['--mode=benchmark', '--config.benchmark.torch_python=/nowhere/python'],
    ["config.benchmark.torch_python='/nowhere/python'", 'no such program'],
  ),
  'benchmark with a Python that has no torch': (
    lambda tmp_path: [
      '--mode=benchmark',
      f'--config.benchmark.torch_python={no_torch(tmp_path)}',
    ],
    ['config.benchmark.torch_python', "No module named 'torch'"],
  ),
  'benchmark with a Python that is no program': (
    lambda tmp_path: [
      '--mode=benchmark',
      f'--config.benchmark.torch_python={tmp_path}',
    ],
    ['config.benchmark.torch_python', 'no such program'],
  ),
  'benchmark into a folder that nobody can make': (
    ['--mode=benchmark', '--workdir=/proc/run'],
    ['--workdir=/proc/run', 'cannot be made'],
  ),
  'no run to start from': (
    ['--config.finetune.from_workdir=nothing'],
    ["config.finetune.from_workdir='nothing'", 'no checkpoint'],
  ),
  'frozen part that is not there': (
    ['--config.finetune.frozen=("inception_2b",)'],
    ['config.finetune.frozen', "'inception_2b'", "mean 'inception_2a'"],
  ),
  'the same part frozen twice': (
    ['--config.finetune.frozen=("conv_1","conv_1")'],
    ['config.finetune.frozen', 'different parts'],
  ),
  'everything frozen': (
    ['--config.finetune.frozen=("conv_1","inception_2a","logits")'],
    ['config.finetune.frozen', 'nothing to train'],
  ),
  'rate of a part that is not there': (
    ['--config.finetune.learning_rates=("logit=10",)'],
    ['config.finetune.learning_rates', "'logit'", "did you mean 'logits'"],
  ),
  'rate that is none': (
    ['--config.finetune.learning_rates=("logits=0",)'],
    ['config.finetune.learning_rates', 'factor > 0'],
  ),
  'rate of a frozen part': (
    [
      '--config.finetune.frozen=("conv_1",)',
      '--config.finetune.learning_rates=("conv_1/conv_7x7=2",)',
    ],
    ['config.finetune.learning_rates', "'conv_1/conv_7x7' is frozen"],
  ),
  'weights for another mode': (
    ['--weights=a.pth'],
    ['--weights is a flag of', 'import_weights', 'not of --mode=train'],
  ),
  'import of nothing': (
    ['--mode=import_weights', '--config.model.variant=tiny'],
    ['--weights is missing'],
  ),
  'import of a network that no one else has': (
    ['--mode=import_weights', '--weights=a.pth'],
    ["config.model.variant='tiny'", 'paper', 'torchvision', 'inception_v3'],
  ),
  'import of a file that is not there': (
    [
      '--mode=import_weights',
      '--weights=a.safetensors',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--weights=a.safetensors', 'no such file'],
  ),
  'import of another kind of file': (
    [
      '--mode=import_weights',
      '--weights=a.caffemodel',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--weights=a.caffemodel', '.safetensors, .pth, .pt'],
  ),
  'export without workdir': (
    ['--mode=export_weights', '--weights=a.pth'],
    ['--workdir is missing', 'export_weights'],
  ),
  'export to another kind of file': (
    [
      '--mode=export_weights',
      '--weights=a.npz',
      '--workdir=nothing',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--weights=a.npz', '.safetensors, .pth, .pt'],
  ),
  'export of no run': (
    [
      '--mode=export_weights',
      '--weights=a.safetensors',
      '--workdir=nothing',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--workdir=nothing', 'no checkpoint'],
  ),
  'evaluate without workdir': (
    ['--mode=evaluate'],
    ['--workdir is missing'],
  ),
  'evaluate an empty workdir': (
    ['--mode=evaluate', '--workdir=nothing'],
    ['--workdir=nothing', 'no checkpoint'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(
  case, tmp_path, monkeypatch, capfd, compilation_cache
):
  """In this process: `launch.main` is all that `python launch.py` calls."""
  flags, words = BAD_INPUT[case]
  given = flags(tmp_path) if callable(flags) else flags or []
  argv = ['launch.py']
  if flags is not None:
    argv += [
      f'--config={ROOT}/configs/fmnist96.py',
      f'--config.train.compilation_cache={compilation_cache}',
      *SMALL,
    ]
  monkeypatch.chdir(tmp_path)
  before = files_under(tmp_path)
  exit_code = launch.main([*argv, *given])
  stderr = capfd.readouterr().err
  assert exit_code == 2, stderr
  assert stderr.startswith('error: ')
  assert stderr.count('\n') == 1, stderr
  for word in words:
    assert word in stderr
  assert [f for f in files_under(tmp_path) if '__pycache__' not in f] == before


def test_a_loss_that_ends_a_longer_run_keeps_its_curve(launch_py, tmp_path):
  """What was recorded before is the user's; result and parameters are not."""
  done = launch_py(
    *SMALL,
    '--workdir=run',
    '--config.logging.every_steps=1',
    '--config.optimizer.learning_rate=1e30',
    FINITE,
  )
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'train/loss is nan at step 2' in done.stderr
  files = files_under(tmp_path / 'run')
  assert {'config.json', 'metrics.jsonl'} <= set(files)
  assert 'result.json' not in files
  assert not [name for name in files if name.endswith('.npz')]
  (line,) = (tmp_path / 'run/metrics.jsonl').read_text().splitlines()
  assert json.loads(line)['step'] == 1


def test_evaluation_takes_overrides_of_the_runs_config(launch_py, tmp_path):
  assert launch_py(*SMALL, '--workdir=run').returncode == 0
  done = launch_py(
    '--mode=evaluate',
    '--workdir=run',
    '--config.data.eval_split=train[50000:50300]',
    config='',
  )
  assert done.returncode == 0, done.stderr
  assert 'train[50000:50300]: accuracy' in done.stdout
  assert 'on 300 images' in done.stdout


def test_batch_that_does_not_divide_by_devices(launch_py, tmp_path):
  done = launch_py(*SMALL, '--config.train.batch_size=66', devices=4)
  assert done.returncode == 2
  assert 'config.train.batch_size=66' in done.stderr
  assert '4 devices' in done.stderr
  assert 'choose 64 or 68' in done.stderr
  assert 'first step' not in done.stdout
  assert files_under(tmp_path) == []


def losses(workdir: pathlib.Path) -> np.ndarray:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  return np.array(
    [
      [r['train/loss'], r['train/grad_norm']]
      for r in records
      if 'train/loss' in r
    ]
  )


@pytest.mark.parametrize(
  ('devices', 'flags'),
  [
    ((1, 2, 4, 8), ()),
    (
      (1, 4),
      (
        '--config.model.normalization=batch',
        '--config.model.aux_heads=on',
        '--config.model.dropout=0.4',
      ),
    ),
  ],
  ids=['plain', 'batch norm, heads, dropout'],
)
def test_losses_do_not_depend_on_the_number_of_devices(
  launch_py, tmp_path, devices, flags
):
  """With augmentation: what happens to an image is not the device's choice."""
  flags = (
    *SMALL,
    *flags,
    '--config.train.max_steps=20',
    '--config.logging.every_steps=1',
    '--config.augment.flip=alternating',
    '--config.augment.crop_padding=2',
    '--config.augment.erase_probability=0.5',
    '--config.augment.mixup_alpha=0.5',
    '--config.augment.cutmix_alpha=0.5',
    '--config.optimizer.warmup_steps=5',
  )
  for count in devices:
    done = launch_py(*flags, f'--workdir={count}', devices=count)
    assert done.returncode == 0, done.stderr
    assert f'devices  {count} x cpu' in done.stdout
  one = losses(tmp_path / '1')
  assert one.shape == (20, 2)
  assert one[-1, 0] < one[0, 0]
  for count in devices[1:]:
    np.testing.assert_allclose(losses(tmp_path / f'{count}'), one, rtol=2e-4)


def test_same_seed_same_bits(launch_py, tmp_path):
  for name in ('a', 'b'):
    assert launch_py(*SMALL, f'--workdir={name}').returncode == 0
  assert launch_py(*SMALL, '--workdir=c', '--config.seed=1').returncode == 0
  arrays = {}
  for name in 'abc':
    with np.load(tmp_path / name / 'checkpoints/step_000000006.npz') as file:
      # What it tells of the run holds times.
      arrays[name] = {
        key: file[key].tobytes() for key in file.files if key != 'about'
      }
  assert arrays['a'] == arrays['b']
  assert arrays['a'] != arrays['c']


def test_streamed_data_gives_the_bits_of_resident_data(launch_py, tmp_path):
  for name, size in (('device', 2048), ('host', 0)):
    done = launch_py(
      *SMALL, f'--workdir={name}', f'--config.data.on_device_mb={size}'
    )
    assert done.returncode == 0, done.stderr
    assert {'device': 'on the device', 'host': 'streamed'}[name] in done.stdout
  np.testing.assert_array_equal(
    losses(tmp_path / 'device'), losses(tmp_path / 'host')
  )


def test_trains_on_a_tfds_set_and_scores_another_split(launch_py, tmp_path):
  prepare(FashionSubset, tmp_path / 'tfds')
  tfds_flags = (
    *SMALL,
    '--config.data.source=tfds',
    '--config.data.name=fashion_subset',
    '--config.data.data_dir=tfds',
    '--config.data.eval_split=test',
    '--workdir=run',
  )
  done = launch_py(*tfds_flags, '--config.data.train_split=train[:80%]')
  assert done.returncode == 0, done.stderr
  assert 'fashion_subset (tfds): 240 train[:80%]' in done.stdout
  assert f'on {NUM_TEST} images after 6 steps' in done.stdout
  done = launch_py(
    '--mode=evaluate', *tfds_flags, '--config.data.eval_split=train[80%:]'
  )
  assert done.returncode == 0, done.stderr
  assert 'fashion_subset train[80%:]: accuracy' in done.stdout
  assert 'on 60 images' in done.stdout


def checkpoint_bytes(workdir: pathlib.Path) -> dict[str, bytes]:
  """Of the last one, but for the config in it."""
  path = max((workdir / 'checkpoints').iterdir())
  with np.load(path) as file:
    return {k: file[k].tobytes() for k in file.files if k != 'about'}


def test_trains_on_jpegs_with_the_same_bits_from_any_workers(
  launch_py, tmp_path
):
  flags = (*SMALL, *photo_flags(tmp_path))
  for num_workers in (0, 2):
    done = launch_py(
      *flags,
      f'--workdir={num_workers}',
      f'--config.data.workers={num_workers}',
      '--config.data.on_device_mb=0',
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert 'photos (tfds): 200 train' in done.stdout
    assert '28x28x3, streamed' in done.stdout
    assert 'on 37 images after 6 steps' in done.stdout
  assert checkpoint_bytes(tmp_path / '0') == checkpoint_bytes(tmp_path / '2')

  for crops in (10, 144):
    done = launch_py(
      '--mode=evaluate',
      '--workdir=0',
      f'--config.eval.crops={crops}',
      config='',
    )
    assert done.returncode == 0, done.stderr
    assert f'on 37 images, {crops} crops' in done.stdout
  # Two networks that are the same, the average of which is too.
  one = launch_py('--mode=evaluate', '--workdir=0', config='')
  both = launch_py('--mode=evaluate', '--workdir=0,2', config='')
  assert both.returncode == 0, both.stderr
  assert 'on 37 images, 2 networks averaged' in both.stdout
  scores = [
    re.search('accuracy.*loss [0-9.]*', done.stdout)[0] for done in (one, both)
  ]
  assert scores[0] == scores[1]

  done = launch_py(
    '--mode=evaluate', '--workdir=0,2,3', '--config.eval.crops=10', config=''
  )
  assert done.returncode == 2
  assert done.stderr.startswith('error: --workdir=3 holds no run')


def test_ctrl_c_ends_the_workers_too(tmp_path, compilation_cache):
  process = subprocess.Popen(
    [
      sys.executable,
      str(ROOT / 'launch.py'),
      f'--config={ROOT}/configs/fmnist96.py',
      f'--config.train.compilation_cache={compilation_cache}',
      *SMALL,
      *photo_flags(tmp_path),
      '--config.data.workers=2',
      '--config.train.max_steps=0',
      '--config.train.epochs=100000',
      '--config.eval.every_epochs=100000',
      '--config.checkpoint.every_epochs=100000',
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=tmp_path,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    start_new_session=True,
  )
  for line in process.stdout:
    if line.startswith('step 4/'):
      break
  os.killpg(process.pid, signal.SIGINT)  # as a terminal does
  # Workers inherit its output, which ends with the last process that holds it.
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 75
  _, line = errors.splitlines()  # the first says that it is heard
  assert line.startswith('ended on SIGINT after step')


DAMAGE = {
  'truncated': ('checkpoints/step_000000006.npz', 'is damaged'),
  'of another network': ('checkpoints/step_000000006.npz', 'another network'),
  'not finite': ('checkpoints/step_000000006.npz', 'loss of these'),
  'config damaged': ('config.json', 'is damaged'),
  'config gone': ('config.json', 'holds no run'),
  'checkpoint gone': ('checkpoints', 'holds no checkpoint'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_evaluating_a_damaged_run(launch_py, tmp_path, damage):
  assert launch_py(*SMALL, '--workdir=run').returncode == 0
  name, words = DAMAGE[damage]
  path, flags = tmp_path / 'run' / name, []
  if damage == 'truncated':
    path.write_bytes(path.read_bytes()[:5000])
  elif damage == 'of another network':
    flags.append('--config.model.num_classes=12')
  elif damage == 'not finite':
    with np.load(path) as file:
      arrays = dict(file)
    arrays['params/logits/b'][0] = np.nan
    np.savez(path, **arrays)
  elif damage == 'config damaged':
    path.write_bytes(b'\xff\xfe{}')
  else:
    path.rename(tmp_path / 'elsewhere')
  done = launch_py('--mode=evaluate', '--workdir=run', *flags, config='')
  assert done.returncode == 2
  assert done.stderr.startswith('error: ')
  assert done.stderr.count('\n') == 1, done.stderr
  assert words in done.stderr
  assert 'run' in done.stderr
