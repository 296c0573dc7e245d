"""Errors with a one-line message for the user, and exit codes of launch.py."""

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_CONTINUE = 75  # EX_TEMPFAIL of sysexits.h: run the same command again
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


class UserError(ValueError):
  """Bad input: its message is one line that says what to change.

  The message names the field or file, its value, what is allowed and how to fix
  it. `launch.py` prints it without a traceback and exits with code 2, as it
  does for an OSError (disk full, no permission). Any other exception is a bug
  and keeps its traceback.

  Attributes:
    field: the wrong config field, like 'train.batch_size'; '' if the error is
      not about a single field.
    exit_code: exit code of `launch.py`.
  """

  exit_code = EXIT_BAD_INPUT

  def __init__(self, message: str = '', field: str = ''):
    super().__init__(message)
    self.field = field


class Stopped(UserError):
  """A run ended because of a signal; it can be continued."""

  exit_code = EXIT_CONTINUE


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns ', did you mean ...?' for the nearest known name, or ''."""
  known = list(known)
  near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  if not near:  # 'optimiser.lr' matches no name, but 'lr' may match a leaf
    leaf = name.rsplit('.', 1)[-1]
    leaves = {field.rsplit('.', 1)[-1]: field for field in reversed(known)}
    near = [
      leaves[match]
      for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.5)
    ]
  return f', did you mean {near[0]!r}?' if near else ''
