"""How far a trial is, and the process that trains it.

A trial is a run like any other: `launch.py --workdir=...` goes on with it, and
owns its folder meanwhile. It is a process of its own, so that its memory, a
crash, or a device out of memory do not touch the others; this process uses no
device.
"""

import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from googlenet import config as config_lib
from googlenet.cli.overrides import as_flags
from googlenet.io.workdir import is_locked, read_object
from googlenet.io.writer import DIVERGED
from googlenet.runtime import supervisor
from googlenet.runtime.terminal import paint
from googlenet.tools.sweep.grid import Trial
from googlenet.train import resume

LAUNCH = pathlib.Path(__file__).resolve().parents[3] / 'launch.py'


class State(NamedTuple):
  """How far a trial is.

  Attributes:
    name: 'finished', 'diverged', 'in use', 'begun' or 'to do'.
    result: what result.json holds, or the error of a trial that diverged.
  """

  name: str
  result: dict[str, Any]


def look(folder: pathlib.Path, trial: Trial) -> State:
  """Returns how far a trial is; writes nothing.

  Raises:
    UserError: its folder holds a run with another config, or a damaged file.
  """
  if (folder / 'config.json').exists():
    stored = config_lib.resolve(config_lib.load(folder / 'config.json'))
    resume.check_config(folder, stored, trial.config, False)
  if is_locked(folder):
    return State('in use', {})
  for name, file in (('finished', 'result.json'), ('diverged', DIVERGED)):
    if (folder / file).exists():
      return State(name, read_object(folder / file, 'trial'))
  return State('begun' if (folder / 'config.json').exists() else 'to do', {})


def command(
  workdir: pathlib.Path, trial: Trial, flags: Sequence[str]
) -> list[str]:
  """Returns the command line that trains a trial, or goes on with it.

  Args:
    workdir: of the sweep.
    trial: one of its trials.
    flags: of all of them.
  """
  # A launcher may have started several sweeps: that is not one run of several.
  alone = ['--num_processes=1'] if supervisor.in_cluster(os.environ) else []
  return [
    sys.executable,
    str(LAUNCH),
    f'--config={workdir / "config.json"}',
    f'--workdir={workdir / trial.name}',
    *flags,
    *as_flags(trial.values),
    *alone,
  ]


class End(NamedTuple):
  """How the process of a trial ended."""

  exit_code: int  # negative: the signal that killed it
  error: str  # the last line of an error that it wrote, to be passed on, or ''

  @property
  def words(self) -> str:
    """Why a trial failed."""
    if self.exit_code < 0:
      name = signal.Signals(-self.exit_code).name
      memory = ' (out of memory?)' if name == 'SIGKILL' else ''
      return f'ended by {name}{memory}'
    return self.error or f'exit code {self.exit_code}'


class Process:
  """Runs commands one after another, and passes on SIGTERM and SIGINT.

  While it is used as a context, the first such signal asks the running process
  to end, and stands in `signal_name`.
  """

  def __init__(self):
    self.signal_name = ''  # of the first signal
    self._child: subprocess.Popen | None = None
    self._before = {}

  def __enter__(self) -> 'Process':
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._take)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _take(self, number: int, _: object) -> None:
    self.signal_name = self.signal_name or signal.Signals(number).name
    if self._child is not None:
      self._child.send_signal(number)

  def run(self, command: Sequence[str]) -> End:
    """Runs a command to its end."""
    child = supervisor.start_child(
      command, stderr=subprocess.PIPE, text=True, errors='replace'
    )
    self._child = child
    if self.signal_name:  # it came while the process was started
      child.send_signal(signal.SIGTERM)
    errors: list[str] = []
    thread = threading.Thread(target=_pass_on, args=(child.stderr, errors))
    thread.daemon = True
    thread.start()
    exit_code = child.wait()
    self._child = None
    # Processes that it started may live on, and hold the pipe.
    thread.join(timeout=10)
    return End(exit_code, errors[-1] if errors else '')


def _pass_on(stream: TextIO, errors: list[str]) -> None:
  """Shows what a process writes to stderr; keeps its lines of errors."""
  with stream:
    for line in stream:
      prefix, colon, text = line.partition(': ')
      if prefix == 'error' and colon:
        errors.append(text.strip())
      if prefix in ('error', 'warning') and colon:
        line = f'{paint(prefix + ":", prefix, sys.stderr)} {text}'
      sys.stderr.write(line)
      sys.stderr.flush()
