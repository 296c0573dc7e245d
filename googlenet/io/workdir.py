"""The workdir, the folder of a run: its files and its lock."""

import errno
import json
import os
import pathlib
import socket
from collections.abc import Iterable
from typing import Any, BinaryIO

import filelock

from googlenet.errors import (
  UnreadableError,
  UserError,
  unwritable,
  writing,
)
from googlenet.runtime import files

# A workdir holds a run if it has one of these files.
RUN_FILES = (
  'config.json',
  'classes.txt',
  'metrics.jsonl',
  'checkpoints',
  'tensorboard',
  'profile',
  'result.json',
  'benchmark.json',
  'sweep.json',
)
_FIRST_FILES = ('config.json', 'classes.txt')
# On a file system without locks, a run works without one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_LOCK_FILE = 'lock'


def holds_a_run(workdir: pathlib.Path, name: str) -> str:
  """Returns the error message for a workdir that already holds a run."""
  return (
    f'--workdir={workdir} already holds a run ({name}), which is never '
    'overwritten: give another folder, or none for a fresh one'
  )


def is_begun(workdir: pathlib.Path) -> bool:
  """Returns whether a run has written more than its first files.

  `Writer` makes the folder of the checkpoints before anything that could be
  lost. A run that ended before it starts again.
  """
  later = [name for name in RUN_FILES if name not in _FIRST_FILES]
  return any((workdir / name).exists() for name in later)


def check_workdir(workdir: str | os.PathLike[str]) -> None:
  """Checks that a new run can be written to a folder; creates nothing.

  Raises:
    UserError: the workdir already holds a run, or cannot be created.
  """
  path = pathlib.Path(workdir)
  try:
    made = [p for p in (path, *path.parents) if not p.exists()]
    for name in RUN_FILES:
      if (path / name).exists():
        raise UserError(holds_a_run(path, name))
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
      folder.rmdir()
    check_writable(path if not made else made[-1].parent)
  except OSError as error:
    raise unwritable(
      f'--workdir={workdir} cannot be made or written to', error
    ) from error


def check_writable(folder: pathlib.Path) -> None:
  """Raises PermissionError if no file can be created in a folder."""
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def read_object(path: pathlib.Path, what: str) -> dict[str, Any]:
  """Reads a JSON file that is written at the end of a run or trial.

  Args:
    path: of the file.
    what: 'run' or 'trial', for the error message.

  Raises:
    UserError: the file is damaged, or may not be read.
    FileNotFoundError: there is no such file.
  """
  try:
    result = json.loads(files.read_text(path))
  except FileNotFoundError:
    raise
  except PermissionError as error:
    raise UnreadableError(path, error) from error
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(
      f'{path} is damaged ({type(error).__name__}): delete it, and the {what} '
      'continues from its last checkpoint'
    ) from error
  return result if isinstance(result, dict) else {}


def check_not_of_another(workdir: pathlib.Path) -> None:
  """Checks that no link makes the checkpoints those of another run.

  They would be renamed and removed as if they were this run's. A link to any
  other folder is allowed, like one on a larger disk.

  Raises:
    UserError: the folder of the checkpoints lies in another run.
  """
  owner = os.path.dirname(os.path.realpath(workdir / 'checkpoints'))
  has_run = os.path.exists(os.path.join(owner, 'config.json'))
  if has_run and owner != os.path.realpath(workdir):
    raise UserError(
      f'{workdir / "checkpoints"} is a link into another run, {owner}: remove '
      'it, or copy the folder there'
    )


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file atomically; on failure an old file is unchanged."""
  with files.written_aside(path, 'w') as file:
    file.write(text)


def write_classes(
  workdir: str | os.PathLike[str], names: Iterable[str]
) -> None:
  """Writes classes.txt: one class name per line, starting with class 0."""
  text = ''.join(' '.join(name.split()) + '\n' for name in names)
  # Names of folders need not be UTF-8.
  text = text.encode(errors='backslashreplace').decode()
  write_text(pathlib.Path(workdir) / 'classes.txt', text)


def read_classes(
  workdir: str | os.PathLike[str], num_classes: int
) -> tuple[str, ...]:
  """Returns a name for each class: from classes.txt, or its number.

  An empty line leaves a class its number, see `files.named_lines`.

  Raises:
    UserError: classes.txt cannot be read, is not UTF-8, or has more than
      `num_classes` lines.
  """
  path, names = pathlib.Path(workdir) / 'classes.txt', []
  try:
    if os.path.lexists(path):
      names = files.named_lines(files.read_text(path))
  except UnicodeDecodeError as error:
    raise UserError(
      f'{path} is not UTF-8 text: give one class name per line'
    ) from error
  except OSError as error:
    raise UserError(
      f'{path} cannot be read ({error.strerror}): give a text with one class '
      'name per line, or remove it'
    ) from error
  if len(names) > num_classes:
    raise UserError(
      f'{path} has {len(names)} lines, but the network has {num_classes} '
      'classes: give one class name per line'
    )
  return (*names, *map(str, range(len(names), num_classes)))


def append(file: BinaryIO, data: bytes) -> None:
  """Writes all of `data` to an unbuffered file.

  A buffered file would raise a write error again when it is closed.
  """
  with writing(file.name):
    while data:
      data = data[file.write(data) :]


class Lock:
  """A lock on a workdir, so only one process writes to it.

  The operating system releases the lock when the process ends for any reason.
  The file `lock` stays; its existence does not mean that the workdir is locked.
  """

  def __init__(self, workdir: str | os.PathLike[str], wait: bool = False):
    """Acquires the lock.

    Args:
      workdir: the folder.
      wait: whether to wait while another process has the lock.

    Raises:
      UserError: another process has the lock, and `wait` is false; or the
        lock file is a link or no regular file.
      OSError: the lock file cannot be created.
    """
    path = pathlib.Path(workdir) / _LOCK_FILE
    files.check_own(path)
    self._lock = filelock.FileLock(
      path,
      blocking=wait,
      thread_local=False,  # another thread may release it
      preserve_lock_file=True,
      on_acquired=_write_owner,
    )
    try:
      self._lock.acquire()
    except filelock.Timeout as error:
      raise UserError(
        f'--workdir={workdir} is in use by another process '
        f'({_read_owner(path)}): wait until that has ended, or give another '
        'folder'
      ) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise

  def release(self) -> None:
    """Releases the lock."""
    self._lock.release()

  def __enter__(self) -> 'Lock':
    return self

  def __exit__(self, *_: object) -> None:
    self.release()


def _write_owner(descriptor: int) -> None:
  """Writes the name of this process to the lock file.

  The first byte is a space, because on Windows other processes cannot read it
  while the file is locked.
  """
  os.ftruncate(descriptor, 0)
  owner = f' process {os.getpid()} on {socket.gethostname()}\n'
  os.write(descriptor, owner.encode())


def _read_owner(path: pathlib.Path) -> str:
  with files.open_regular(path) as file:
    file.seek(1)
    owner = file.read(200).decode(errors='replace')
  return ' '.join(owner.split()) or 'unknown'


def is_locked(workdir: str | os.PathLike[str]) -> bool:
  """Returns whether a process has locked the workdir; writes nothing."""
  path = pathlib.Path(workdir) / _LOCK_FILE
  try:
    files.check_own(path)
    # NFS grants an exclusive lock only on a file that is open for writing.
    with open(path, 'r+b') as file:
      return not filelock.lock_descriptor(file.fileno(), blocking=False)
  except (OSError, UserError):  # none, or a file system without locks
    return False


def differing_class(
  theirs: Iterable[str], ours: Iterable[str]
) -> tuple[int, str, str] | None:
  """Returns the first class to which two networks give different names.

  A class whose name one of them does not know, so that it has its number there,
  does not count; nor does a class that only one of them has.

  Args:
    theirs: names of classes, starting with class 0.
    ours: the same of the other network.

  Returns:
    The number of the class and its two names; None: there is no such class.
  """
  for number, names in enumerate(zip(theirs, ours, strict=False)):
    their, our = (' '.join(name.split()) for name in names)
    if their != our and str(number) not in (their, our):
      return number, their, our
  return None
