"""Other systems: what Windows and macOS lack is not needed to train.

One process plays a system without the modules and functions of POSIX, and
without the libraries that have no wheels everywhere.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import FEW_OPTIMIZATIONS, ROOT, environment

# Lines of standard output: a JSON object per check.
PROGRAM = """
import json, os, pkgutil, signal, sys

# Libraries know their systems: they are imported before.
import asyncio, filelock, haiku, matplotlib.figure, optax, tensorflow_datasets
import tensorboardX, tqdm

for name in ('array_record', 'fcntl', 'grain', 'pwd', 'resource', 'termios'):
  sys.modules[name] = None
flags = {name: getattr(os, name) for name in ('O_NOFOLLOW', 'O_NONBLOCK')}
for name in (
  *flags, 'O_DIRECTORY', 'fork', 'getuid', 'killpg', 'register_at_fork',
  'sched_getaffinity', 'setsid', 'statvfs',
  'sysconf',
):
  delattr(os, name)
import _signal
for name in ('SIGHUP', 'SIGKILL', 'pthread_sigmask'):
  delattr(signal, name)
  delattr(_signal, name)

sys.path.insert(0, ROOT)
import googlenet

def tell(**facts):
  print(json.dumps(facts), file=sys.__stdout__, flush=True)

# torch_peer is a program of its own for a Python that has torch.
torch = {'googlenet.tools.benchmark.torch_peer'}
optional = {'googlenet.tools.demo.server'}  # starlette
names = [
  found.name
  for found in pkgutil.walk_packages(googlenet.__path__, 'googlenet.')
  if found.name not in torch | optional
]
for name in names:
  __import__(name)
tell(imported=len(names))

for name, value in flags.items():  # filelock asks for them when it locks
  setattr(os, name, value)

from googlenet.cli import main

def run(*flags):
  return main.main(['googlenet', *flags])

tell(version=run('--version'))
SMALL = [
  '--config=fmnist96', '--config.model.variant=tiny',
  '--config.model.kernels=xla', '--config.data.image_size=28',
  '--config.data.eval_split=test[:100]', '--config.train.batch_size=32',
  '--config.train.max_steps=2', '--config.logging.images=0',
  '--config.train.compilation_cache=',
]
tell(train=run(*SMALL, '--workdir=run'))
tell(summary=run('--mode=summary', '--workdir=run'))
tell(evaluate=run('--mode=evaluate', '--workdir=run'))
tell(benchmark=run('--mode=benchmark', *SMALL, '--workdir=benchmark'))
tell(streamed=run(*SMALL, '--config.data.on_device_mb=0', '--workdir=stream'))
tell(records=run(
  '--mode=features', '--workdir=run', '--output=features.array_record'
))
"""


@pytest.fixture(scope='module')
def played(tmp_path_factory):
  """What the program says, its errors, and its folder."""
  folder = tmp_path_factory.mktemp('system')
  done = subprocess.run(
    [sys.executable, '-c', f'ROOT = {str(ROOT)!r}\n{PROGRAM}'],
    cwd=folder,
    env={**os.environ, **environment(1), FEW_OPTIMIZATIONS: 'true'},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr
  lines = [line for line in done.stdout.splitlines() if line.startswith('{"')]
  facts = {}
  for line in lines:
    facts |= json.loads(line)
  return facts, done.stderr, folder


def test_everything_is_imported(played):
  assert played[0]['imported'] > 100


@pytest.mark.parametrize('mode', ['version', 'train', 'summary', 'evaluate'])
def test_it_works(played, mode):
  facts, errors, folder = played
  assert facts[mode] == 0, errors
  assert json.loads((folder / 'run/result.json').read_text())['step'] == 2


@pytest.mark.parametrize(
  ('mode', 'word'),
  [('benchmark', 'WSL'), ('streamed', 'Grain'), ('records', '.npz')],
)
def test_what_is_missing_is_told_in_a_line(played, mode, word):
  facts, errors, _ = played
  assert facts[mode] == 2
  told = [line for line in errors.splitlines() if line.startswith('error: ')]
  assert len(told) == 3
  assert sum(word in line for line in told) == 1
  assert 'Traceback' not in errors


# A child as on macOS, where no system call ends it with its parent.
CHILD = """
import ctypes, sys, time
sys.path.insert(0, sys.argv[1])
from googlenet.runtime import supervisor
ctypes.CDLL = lambda name: object()
supervisor._WATCH_SECONDS = 0.05
supervisor.supervise(is_alone=True)
print('ready', flush=True)
time.sleep(60)
"""
PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from googlenet.runtime import supervisor
supervisor.start_child([sys.executable, '-c', sys.argv[2], sys.argv[1]])
time.sleep(60)
"""


def test_a_child_ends_with_a_killed_parent_without_prctl():
  with subprocess.Popen(
    [sys.executable, '-c', PARENT, str(ROOT), CHILD],
    stdout=subprocess.PIPE,
    text=True,
  ) as parent:
    assert parent.stdout.readline() == 'ready\n'
    parent.send_signal(signal.SIGKILL)
    started = time.monotonic()
    # The child holds the pipe open until it ends.
    assert parent.stdout.read() == ''
  assert time.monotonic() - started < 30
