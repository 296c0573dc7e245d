"""Turns signals into an exception, so that results can be written first."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from googlenet.runtime import signals
from googlenet.runtime.terminal import tell


class Terminated(BaseException):
  """Raised when this process receives SIGTERM or SIGHUP."""


def _raise(number: int, _: object) -> None:
  raise Terminated(number)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
  """Raises `Terminated` on a signal, then ends the process by that signal.

  Outside the main thread it does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = {
    number: signal.signal(number, _raise)
    for number in signals.asking_to_end()
    if number != signal.SIGINT  # raises KeyboardInterrupt
  }
  try:
    yield
  except Terminated as ended:
    (number,) = ended.args
    tell(f'ended by {signal.Signals(number).name}')
    sys.stdout.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
