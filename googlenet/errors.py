"""Mistakes of the user, told in one line."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """Bad input: its message is one line that says what to change.

  It names the field or file, its value, what is allowed and how to mend it.
  `launch.py` prints it without a traceback and exits with code 2, as it does
  for an OSError (disk full, no permission); every other exception is a bug and
  keeps its traceback.
  """


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
