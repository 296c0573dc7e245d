"""Errors with a one-line message for the user, and exit codes of launch.py."""

import contextlib
import difflib
import errno
import os
from collections.abc import Iterable, Iterator

_MAX_SHOWN = 200  # letters of a value in a message

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_CANNOT_WRITE = 74  # EX_IOERR: the same command goes on once it can
EXIT_CONTINUE = 75  # EX_TEMPFAIL of sysexits.h: run the same command again
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


class UserError(ValueError):
  """Bad input: its message is one line that says what to change.

  The message names the field or file, its value, what is allowed and how to fix
  it. `launch.py` prints it without a traceback and exits with code 2, as it
  does for an OSError (no permission), or with 74 if a disk is full. Any other
  exception is a bug and keeps its traceback.

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


# Errors of a full or failing disk, which are not the user's input.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
  """Adds the path to the OSError of a full disk: that of a write has none."""
  try:
    yield
  except OSError as error:
    if is_full(error):
      error.filename = os.fspath(path)
    raise


def is_full(error: BaseException) -> bool:
  """Whether an output cannot be written because the disk is full or fails."""
  return isinstance(error, OSError) and error.errno in FULL


def write_failure(error: OSError) -> str:
  """Returns the line about an output that cannot be written."""
  name = 'stdout' if error.filename is None else error.filename
  return (
    f'{name} cannot be written ({error.strerror}): free disk space, then give '
    'the same command again'
  )


class WriteError(UserError):
  """A file of the run cannot be written; the run can be continued later."""

  exit_code = EXIT_CANNOT_WRITE


class UnreadableError(UserError):
  """A file or folder exists, but may not be read."""

  def __init__(self, path: object, error: OSError):
    super().__init__(
      f'{path} is there but cannot be read ({error.strerror}): nothing was '
      'changed; mend its permissions, then give the same command'
    )


def unwritable(message: str, error: OSError) -> UserError:
  """Returns the error for a folder that cannot be made or written to.

  Args:
    message: what cannot be written.
    error: why. On a full disk the same command works once there is space, which
      the exit code says.
  """
  message = f'{message} ({error.strerror})'
  if is_full(error):
    return WriteError(f'{message}: make space, or give another folder')
  return UserError(f'{message}: give another folder')


def shown(value: object) -> str:
  """Returns the repr of a value for a message, shortened if it is long."""
  text = repr(value)
  return text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}...'


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
  """Returns ', did you mean ...?' for the nearest known name, or ''.

  Args:
    name: unknown.
    known: all names.
    cutoff: smallest similarity, 0 to 1.
  """
  known, name = list(known), str(name)  # users give other types, too
  if name.lower() in known:
    return f', did you mean {name.lower()!r}?'
  near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
  if not near:  # 'optimiser.lr' matches no name, but 'lr' may match a leaf
    leaf = name.rsplit('.', 1)[-1]
    leaves = {field.rsplit('.', 1)[-1]: field for field in reversed(known)}
    near = [
      leaves[match]
      for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=cutoff)
    ]
  return f', did you mean {near[0]!r}?' if near else ''
