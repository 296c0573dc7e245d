"""The state of a trial, and the process that trains it.

A trial is a run like any other, so `launch.py --workdir=...` can continue it.
Each trial has its own process, so that a crash or lack of memory does not
affect the others. The process of the sweep uses no device.
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
from googlenet.io import compare
from googlenet.io.workdir import is_locked, read_object
from googlenet.io.writer import DIVERGED
from googlenet.runtime import places, signals, supervisor
from googlenet.runtime.terminal import paint
from googlenet.tools import runs
from googlenet.tools.sweep.grid import Trial


class State(NamedTuple):
  """The state of a trial.

  Attributes:
    name: 'finished', 'diverged', 'in use', 'begun' or 'to do'.
    result: content of result.json, or the error of a trial that diverged.
  """

  name: str
  result: dict[str, Any]


def look(folder: pathlib.Path, trial: Trial) -> State:
  """Returns the state of a trial.

  Raises:
    UserError: the folder holds a run with another config, or a damaged file.
  """
  if (folder / 'config.json').exists():
    stored = config_lib.load(folder / 'config.json', with_local=True)
    stored = config_lib.resolve(stored)
    # Fields that the data set decides have their values in the run only.
    compare.check_config(
      folder, stored, runs.as_decided_in(trial.config, stored), False
    )
  if is_locked(folder):
    return State('in use', {})
  for name, file in (('finished', 'result.json'), ('diverged', DIVERGED)):
    if (folder / file).exists():
      return State(name, read_object(folder / file, 'trial'))
  return State('begun' if (folder / 'config.json').exists() else 'to do', {})


def command(
  workdir: pathlib.Path, trial: Trial, flags: Sequence[str], operations: str
) -> list[str]:
  """Returns the command that trains a trial, or continues its training.

  Args:
    workdir: of the sweep.
    trial: one of its trials.
    flags: for all trials.
    operations: file that registers operations, or ''.
  """
  # Several sweeps started by one cluster launcher do not form a distributed
  # run.
  alone = ['--num_processes=1'] if supervisor.in_cluster(os.environ) else []
  return [
    *places.launcher(),
    f'--config={workdir / "config.json"}',
    f'--workdir={workdir / trial.name}',
    *flags,
    *as_flags(trial.values),
    *([f'--operations={operations}'] if operations else []),
    *alone,
  ]


class End(NamedTuple):
  """How the process of a trial ended."""

  exit_code: int  # negative: the signal that killed it
  error: str  # the last error that the process wrote to stderr, or ''

  @property
  def words(self) -> str:
    """The reason why a trial failed."""
    if self.exit_code < 0:
      name = signal.Signals(-self.exit_code).name
      memory = ' (out of memory?)' if name == 'SIGKILL' else ''
      return f'ended by {name}{memory}'
    return self.error or f'exit code {self.exit_code}'


class Process:
  """Runs commands one after another, and passes on signals.

  Within its context SIGTERM, SIGINT and SIGHUP are sent to the running process,
  and the name of the first one is stored in `signal_name`.
  """

  def __init__(self):
    self.signal_name = ''  # of the first signal
    self._child: subprocess.Popen | None = None
    self._before = {}

  def __enter__(self) -> 'Process':
    if threading.current_thread() is threading.main_thread():
      for number in signals.asking_to_end():
        self._before[number] = signal.signal(number, self._take)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _take(self, number: int, _: object) -> None:
    self.signal_name = self.signal_name or signal.Signals(number).name
    if self._child is not None:
      supervisor.pass_on(number, self._child)

  def run(self, command: Sequence[str]) -> End:
    """Runs a command to its end."""
    child = supervisor.start_child(
      command, stderr=subprocess.PIPE, text=True, errors='replace'
    )
    self._child = child
    if self.signal_name:  # the signal came before the process had started
      child.send_signal(signal.SIGTERM)
    errors: list[str] = []
    thread = threading.Thread(target=_pass_on, args=(child.stderr, errors))
    thread.daemon = True
    thread.start()
    exit_code = child.wait()
    self._child = None
    # Processes that it started may still run and hold the pipe open.
    thread.join(timeout=10)
    return End(exit_code, errors[-1] if errors else '')


def _pass_on(stream: TextIO, errors: list[str]) -> None:
  """Copies the stderr of a process to ours; appends its errors to `errors`."""
  with stream:
    for line in stream:
      prefix, colon, text = line.partition(': ')
      if prefix == 'error' and colon:
        errors.append(text.strip())
      if prefix in ('error', 'warning') and colon:
        line = f'{paint(prefix + ":", prefix, sys.stderr)} {text}'
      sys.stderr.write(line)
      sys.stderr.flush()
