"""Signals that ask the process to end.

This file is the first that `launch.py` imports, and imports only what Python
has loaded by then: the module `signal` itself would take ten milliseconds, in
which Ctrl-C would show a traceback.
"""

import _signal as signal
import os

_EXIT_CONTINUE = 75  # that of `errors`


def asking_to_end() -> tuple[int, ...]:
  """Returns SIGTERM, SIGINT and SIGHUP, which a closed terminal sends.

  SIGHUP is left out where it is ignored: `nohup` asks for that.
  """
  found = [signal.SIGTERM, signal.SIGINT]
  hangup = getattr(signal, 'SIGHUP', None)  # Windows has none
  if hangup and signal.getsignal(hangup) != signal.SIG_IGN:
    found.append(hangup)
  return tuple(found)


def end_at_once() -> None:
  """Lets signals end the process without a traceback, as nothing can be saved.

  Ctrl-C ends the process as it does others (130 in a shell), other signals with
  the exit code for "run the same command again".
  """
  for number in asking_to_end():
    signal.signal(number, lambda *_: os._exit(_EXIT_CONTINUE))
  signal.signal(signal.SIGINT, signal.SIG_DFL)


def restore_defaults() -> None:
  """Lets signals other than Ctrl-C end the process as they do others."""
  for number in asking_to_end():
    if number != signal.SIGINT:
      signal.signal(number, signal.SIG_DFL)
