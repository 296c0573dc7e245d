"""Mistakes of the user, told in one line, and the exit codes of launch.py."""

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_CONTINUE = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on
EXIT_INTERRUPTED = 130  # 128 + SIGINT


class UserError(ValueError):
  """Bad input: its message is one line that says what to change.

  It names the field or file, its value, what is allowed and how to mend it.
  `launch.py` prints it without a traceback and exits with code 2, as it does
  for an OSError (disk full, no permission); every other exception is a bug and
  keeps its traceback.

  Attributes:
    field: the config field that is wrong, like 'train.batch_size'; '' where no
      single field is.
    exit_code: what `launch.py` exits with.
  """

  exit_code = EXIT_BAD_INPUT

  def __init__(self, message: str = '', field: str = ''):
    super().__init__(message)
    self.field = field


class Stopped(UserError):
  """A run ended because a signal asked for it; it can be continued."""

  exit_code = EXIT_CONTINUE


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns ', did you mean ...?' for the nearest known name, or ''."""
  known = list(known)
  near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  if not near:  # 'optimiser.lr' is far from all; 'lr' alone may not be
    leaf = name.rsplit('.', 1)[-1]
    leaves = {field.rsplit('.', 1)[-1]: field for field in reversed(known)}
    near = [
      leaves[match]
      for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.5)
    ]
  return f', did you mean {near[0]!r}?' if near else ''
