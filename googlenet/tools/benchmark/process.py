"""Runs the job of one peer in its own process, within a time limit.

The process reads its job as JSON from stdin and writes each result as a line of
JSON to stdout as soon as it is measured. Merged, these lines are its report:

  {"sizes": {"128": {"train_images_per_s": ..., "compile_s": ...,
                     "peak_bytes": ..., "infer_images_per_s": ...}, ...},
   "start_s": ..., "framework": ..., ...}

and, if something stopped it, "error". "is_bad_input" is added if the user can
fix the error, "is_cut_off" if the time limit was reached. Other lines on stdout
are ignored.
"""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from googlenet.tools.benchmark.contenders import Contender, last_line

Report = dict[str, Any]
Message = dict[str, Any]

_LIFELINE = pathlib.Path(__file__).with_name('lifeline.py')
# How many seconds to wait for the remaining output of a killed process.
_LAST_OUTPUT_S = 10


def run(
  contender: Contender,
  seconds: float,
  tell: Callable[[Message], None],
  clock: Callable[[], float] = time.monotonic,
) -> None:
  """Runs the job of a peer to its end or to the time limit.

  The peer's process and all processes that it started are killed at the end,
  also if an exception like KeyboardInterrupt ends this function or if this
  process itself is killed.

  Args:
    contender: the peer.
    seconds: the time limit, `benchmark.seconds`.
    tell: receives each message as it arrives, and at last an error, if any.
    clock: returns seconds, for the time limit.
  """
  job = {**contender.job, 'started': time.monotonic()}
  with (
    tempfile.TemporaryFile('w+', encoding='utf-8') as stdin,
    tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace') as stderr,
  ):
    stdin.write(json.dumps(job))
    stdin.seek(0)
    group = _Group(contender, stdin, stderr)
    report = {}
    try:
      for line in group.lines(seconds, clock):
        if message := parse(line):
          report |= message
          tell(message)
    finally:
      returncode = group.kill()
    if group.is_late:
      tell({'error': cut_off(seconds), 'is_cut_off': True})
    elif 'error' not in report and (returncode or not report):
      stderr.seek(0)
      tell({'error': reason(returncode, stderr.read())})


class _Group:
  """A process and its descendants that stay in its process group."""

  def __init__(self, contender: Contender, stdin: TextIO, stderr: TextIO):
    self.is_late = False
    lifeline, self._held = os.pipe()
    try:
      self._process = subprocess.Popen(
        [
          *(sys.executable, '-I', '-S', str(_LIFELINE), str(lifeline)),
          *contender.command,
        ],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding='utf-8',
        errors='replace',
        env={**os.environ, **contender.environment},
        start_new_session=True,  # Ctrl-C does not reach it
        pass_fds=(lifeline,),
      )
    except BaseException:
      os.close(self._held)
      raise
    finally:
      os.close(lifeline)
    self._lines = queue.SimpleQueue()
    for target in (self._read, self._reap):
      threading.Thread(target=target, daemon=True).start()

  def _read(self) -> None:
    with self._process.stdout as stream:
      for line in stream:
        self._lines.put(line)
    self._lines.put(None)

  def _reap(self) -> None:
    """Kills the processes left over, since they may hold stdout open."""
    self._process.wait()
    self._kill()

  def _kill(self) -> None:
    # The second process of `lifeline` keeps the group number in use. If the
    # group is empty, Linux raises the first error and macOS the second.
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(self._process.pid, signal.SIGKILL)

  def lines(self, seconds: float, clock: Callable[[], float]) -> Iterator[str]:
    """Yields lines of stdout as they arrive, until the end or the time limit.

    At the time limit the process is killed; `is_late` is True if it was still
    running.
    """
    end = clock() + seconds
    while (left := end - clock()) > 0:
      try:
        line = self._lines.get(timeout=left)
      except queue.Empty:
        continue
      if line is None:
        return
      yield line
    self.is_late = self._process.poll() is None
    self._kill()
    # Read what it wrote before. A process that left the group may hold the pipe
    # open, hence the timeout.
    with contextlib.suppress(queue.Empty):
      while (line := self._lines.get(timeout=_LAST_OUTPUT_S)) is not None:
        yield line

  def kill(self) -> int:
    """Kills the process if it is still running; returns its return code."""
    self._kill()
    returncode = self._process.wait()
    os.close(self._held)
    return returncode


def parse(line: str) -> Message | None:
  """Returns the message in a line of stdout, or None if it holds none."""
  try:
    message = json.loads(line)
  except ValueError:  # output of a library
    return None
  return message if isinstance(message, dict) else None


def merge(report: Report, message: Message) -> None:
  """Adds a message to a report, in place."""
  sizes = report.setdefault('sizes', {})
  for size, measured in message.get('sizes', {}).items():
    sizes.setdefault(size, {}).update(measured)
  report.update({k: v for k, v in message.items() if k != 'sizes'})


def cut_off(seconds: float) -> str:
  """Returns the error of a process that reached the time limit."""
  return (
    f'cut off after {seconds:g} s (config.benchmark.seconds); what it had '
    'measured stays'
  )


def reason(returncode: int, stderr: str) -> str:
  """Returns the error of a process that failed without reporting one."""
  if returncode >= 0:
    return f'exit code {returncode}: {last_line(stderr)}'
  text = f'ended by signal {-returncode}'
  if returncode == -signal.SIGKILL:
    text += ' (out of memory?)'
  return text
