"""Programs that take the place of those that measure, and how they end."""

import os
import pathlib
import select
import sys

from googlenet.tools.benchmark.contenders import Contender

# `what` in the job says how it behaves; `pipe` is the path of `Pulse`.
PROGRAM = """
import json, os, signal, subprocess, sys

def tell(**message):
  print(json.dumps(message), flush=True)

signal.alarm(300)  # where nobody ends it, it ends
job = json.load(sys.stdin)
what = job.get('what', 'hangs')
pipe = os.environ.get('STUB_PIPE')
size = str(job.get('batch_sizes', [4])[0])
if what == 'noise':
  print('a library says something')
  print('[1, 2]')
  tell(what=what, x=os.environ['STUB'], started=job['started'])
  print('and more', flush=True)
if what == 'killed':
  os.kill(os.getpid(), signal.SIGKILL)
if what == 'raises':
  tell(sizes={size: {'train_images_per_s': 7.0}})
  raise ValueError('no compiler')
if what == 'refuses':
  tell(error='config.x: no', is_bad_input=True)
  sys.exit(2)
if what in ('hangs', 'leaves'):
  # A process that holds the pipe and stdout, and is there before we go on.
  held = open(pipe, 'wb', buffering=0)
  held.write(b'x')
  ready, ready_end = os.pipe()
  grandchild = (
    'import os, signal; signal.alarm(300); '
    f'os.write({held.fileno()}, b"y"); os.write({ready_end}, b"r"); '
    'signal.pause()')
  subprocess.Popen([sys.executable, '-c', grandchild],
    pass_fds=(held.fileno(), ready_end))
  os.read(ready, 1)
  tell(framework='stub 1', dtype='float32')
  tell(sizes={size: {'train_images_per_s': 7.0, 'peak_bytes': 2**30}})
if what == 'hangs':
  signal.pause()
if what == 'waits':  # for somebody who has seen the first result
  tell(sizes={size: {'train_images_per_s': 7.0}})
  open(pipe, 'rb').read()
  tell(sizes={size: {'infer_images_per_s': 9.0}})
"""


def write_program(folder: pathlib.Path) -> pathlib.Path:
  path = folder / 'stub.py'
  path.write_text(PROGRAM)
  return path


def stub(
  folder: pathlib.Path, what: str, name: str = 'stub', pipe: str = ''
) -> Contender:
  """Returns a program that behaves as `what` says."""
  command = [sys.executable, str(write_program(folder))]
  environment = {'STUB': 'y', 'STUB_PIPE': pipe}
  return Contender(name, command, environment, {'what': what})


def write_torch_python(folder: pathlib.Path) -> str:
  """Returns the path of a `Python` that has torch, as it seems, and hangs."""
  path = folder / 'torch_python'
  program = f'exec {sys.executable} {write_program(folder)}'
  path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\n{program}\n')
  path.chmod(0o755)
  return str(path)


class Pulse:
  """A pipe that a stub and the process that it starts hold open."""

  def __init__(self, folder: pathlib.Path):
    self.path = str(folder / 'pulse')
    os.mkfifo(self.path)
    self._end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

  def assert_both_were_there_and_are_gone(self, timeout: float = 60) -> None:
    """Waits for the end of the pipe, which is there when both have ended."""
    found = b''
    while True:
      assert select.select([self._end], [], [], timeout)[0], 'one still lives'
      data = os.read(self._end, 100)
      if not data:
        break
      found += data
    os.close(self._end)
    assert sorted(found) == sorted(b'xy')
