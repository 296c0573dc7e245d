"""Turns SIGTERM into an exception, so that results can be written first."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


class Terminated(BaseException):
  """Raised when this process receives SIGTERM."""


def _raise(*_: object) -> None:
  raise Terminated


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
  """Raises `Terminated` on SIGTERM, then ends the process by that signal.

  Outside the main thread it does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = signal.signal(signal.SIGTERM, _raise)
  try:
    yield
  except Terminated:
    print('ended by SIGTERM', file=sys.stderr, flush=True)
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
  finally:
    signal.signal(signal.SIGTERM, before)
