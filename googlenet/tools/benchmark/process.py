"""Runs one job in a process of its own, within a time limit.

The process gets its job as JSON on stdin and writes lines of JSON to stdout,
each as soon as there is something to tell. Together they are its report:

  {"sizes": {"128": {"train_images_per_s": ..., "compile_s": ...,
                     "peak_bytes": ..., "infer_images_per_s": ...}, ...},
   "start_s": ..., "framework": ..., ...}

and, where something stopped it, "error" with "is_bad_input" (the user can mend
it) or "is_cut_off" (the time was up). Other lines on stdout are ignored.
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
# How long to wait for the end of the output of a process that was killed.
_LAST_WORDS_S = 10


def run(
  contender: Contender,
  seconds: float,
  tell: Callable[[Message], None],
  clock: Callable[[], float] = time.monotonic,
) -> None:
  """Runs a job to its end, or until the time is up.

  Its process is killed with all that it has started, also if an exception (as
  of Ctrl-C) ends this function; if this whole process is killed, too.

  Args:
    contender: what to start.
    seconds: the time limit, `benchmark.seconds`.
    tell: gets each message as it comes; at the end an error, if any.
    clock: of the time limit, in seconds.
  """
  job = {**contender.job, 'started': time.time()}
  with (
    tempfile.TemporaryFile('w+') as stdin,
    tempfile.TemporaryFile('w+', errors='replace') as stderr,
  ):
    stdin.write(json.dumps(job))
    stdin.seek(0)
    group = _Group(contender, stdin, stderr)
    told = {}
    try:
      for line in group.lines(seconds, clock):
        if message := parse(line):
          told |= message
          tell(message)
    finally:
      returncode = group.kill()
    if group.is_late:
      tell({'error': cut_off(seconds), 'is_cut_off': True})
    elif 'error' not in told and (returncode or not told):
      stderr.seek(0)
      tell({'error': reason(returncode, stderr.read())})


class _Group:
  """A process and all that it starts, but what leaves its process group."""

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
        start_new_session=True,  # signals of a terminal do not reach it
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
    """Kills what the process leaves behind, which may hold its stdout."""
    self._process.wait()
    self._kill()

  def _kill(self) -> None:
    # The second process of `lifeline` keeps the number of the group taken.
    # macOS has the other error where nobody is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(self._process.pid, signal.SIGKILL)

  def lines(self, seconds: float, clock: Callable[[], float]) -> Iterator[str]:
    """Yields lines of stdout as they come, until the end or the time is up.

    Then the process is killed; `is_late` says which it was.
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
    # What it wrote before that. A process that has left the group may hold the
    # pipe for longer.
    with contextlib.suppress(queue.Empty):
      while (line := self._lines.get(timeout=_LAST_WORDS_S)) is not None:
        yield line

  def kill(self) -> int:
    """Ends the process, if it has not ended; returns its return code."""
    self._kill()
    returncode = self._process.wait()
    os.close(self._held)
    return returncode


def parse(line: str) -> Message | None:
  """Returns the message of a line of stdout; None if it is something else."""
  try:
    message = json.loads(line)
  except ValueError:  # a library says something
    return None
  return message if isinstance(message, dict) else None


def merge(report: Report, message: Message) -> None:
  """Adds a message to a report, in place."""
  sizes = report.setdefault('sizes', {})
  for size, measured in message.get('sizes', {}).items():
    sizes.setdefault(size, {}).update(measured)
  report.update({k: v for k, v in message.items() if k != 'sizes'})


def cut_off(seconds: float) -> str:
  """Returns what is said of a process that was not done in time."""
  return (
    f'cut off after {seconds:g} s (config.benchmark.seconds); what it had '
    'measured stays'
  )


def reason(returncode: int, stderr: str) -> str:
  """Returns why a process ended that did not say so itself."""
  if returncode >= 0:
    return f'exit code {returncode}: {last_line(stderr)}'
  text = f'ended by signal {-returncode}'
  if returncode == -signal.SIGKILL:
    text += ' (out of memory?)'
  return text
