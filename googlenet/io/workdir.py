"""The folder of a run: what it holds, and which process owns it."""

import errno
import json
import os
import pathlib
import socket
from collections.abc import Iterable
from typing import Any, BinaryIO

import filelock

from googlenet.errors import UserError
from googlenet.io.archive import sync_folder

# A workdir with one of these holds a run.
RUN_FILES = (
  'config.json',
  'metrics.jsonl',
  'checkpoints',
  'tensorboard',
  'profile',
  'result.json',
  'benchmark.json',
  'sweep.json',
)
# On a file system that has no locks, a run goes on without one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_LOCK_FILE = 'lock'


def holds_a_run(workdir: pathlib.Path, name: str) -> str:
  """Returns the refusal of a workdir in which a file of a run was found."""
  return (
    f'--workdir={workdir} already holds a run ({name}), which is never '
    'overwritten: give another folder, or none for a fresh one'
  )


def check_workdir(workdir: str | os.PathLike[str]) -> None:
  """Checks that a run can be written to a folder; leaves nothing behind.

  Raises:
    UserError: the workdir holds a run already, or cannot be made.
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
    raise UserError(
      f'--workdir={workdir} cannot be made or written to '
      f'({error.strerror}): give another folder'
    ) from error


def check_writable(folder: pathlib.Path) -> None:
  """Raises PermissionError where no file can be made."""
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def read_object(path: pathlib.Path, what: str) -> dict[str, Any]:
  """Reads a JSON file that is written at the end of a run or trial.

  Args:
    path: of the file.
    what: 'run' or 'trial', for the message.

  Raises:
    UserError: the file is damaged.
    FileNotFoundError: there is no such file.
  """
  try:
    result = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(
      f'{path} is damaged ({type(error).__name__}): delete it, and the {what} '
      'goes on from its last checkpoint'
    ) from error
  return result if isinstance(result, dict) else {}


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file; if that fails, the file stays as it was before."""
  aside = path.with_name(path.name + '.tmp')
  with open(aside, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(aside, path)
  sync_folder(path.parent)


def write_classes(
  workdir: str | os.PathLike[str], names: Iterable[str]
) -> None:
  """Writes classes.txt: the name of a class in each line, the first is 0."""
  lines = [' '.join(name.split()) + '\n' for name in names]
  write_text(pathlib.Path(workdir) / 'classes.txt', ''.join(lines))


def read_classes(
  workdir: str | os.PathLike[str], num_classes: int
) -> tuple[str, ...]:
  """Returns a name for each class: from classes.txt, or else its number.

  Raises:
    UserError: classes.txt is not UTF-8, or has more names than there are
      classes.
  """
  path, names = pathlib.Path(workdir) / 'classes.txt', []
  try:
    if path.exists():
      names = path.read_text(encoding='utf-8').splitlines()
  except UnicodeDecodeError as error:
    raise UserError(
      f'{path} is no UTF-8 text: it holds the name of a class in each line'
    ) from error
  if len(names) > num_classes:
    raise UserError(
      f'{path} has {len(names)} lines, the network {num_classes} classes: give '
      'the name of a class in each line'
    )
  numbers = range(len(names), num_classes)
  return (*names, *(str(number) for number in numbers))


def append(file: BinaryIO, data: bytes) -> None:
  """Writes all of `data` to an unbuffered file.

  A buffered file would raise the same error a second time when it is closed.
  """
  while data:
    data = data[file.write(data) :]


class Lock:
  """The ownership of a workdir, by one process at a time.

  The operating system releases the lock when the process ends, however it
  ends. The file `lock` stays behind: its presence alone means nothing.
  """

  def __init__(self, workdir: str | os.PathLike[str], wait: bool = False):
    """Takes the lock.

    Args:
      workdir: the folder.
      wait: whether to wait while another process has the lock.

    Raises:
      UserError: another process has the lock, and `wait` is false.
      OSError: the file cannot be made.
    """
    path = pathlib.Path(workdir) / _LOCK_FILE
    self._lock = filelock.FileLock(
      path,
      blocking=wait,
      thread_local=False,  # one thread takes it, another may release it
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
    """Lets another process own the workdir."""
    self._lock.release()

  def __enter__(self) -> 'Lock':
    return self

  def __exit__(self, *_: object) -> None:
    self.release()


def _write_owner(descriptor: int) -> None:
  """Names this process in the lock file.

  The first byte stays blank: Windows keeps other processes from reading it
  while the file is locked.
  """
  os.ftruncate(descriptor, 0)
  owner = f' process {os.getpid()} on {socket.gethostname()}\n'
  os.write(descriptor, owner.encode())


def _read_owner(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    file.seek(1)
    owner = file.read(200).decode(errors='replace')
  return ' '.join(owner.split()) or 'unknown'


def is_locked(workdir: str | os.PathLike[str]) -> bool:
  """Returns whether a process owns the workdir; writes nothing."""
  try:
    # NFS lends an exclusive lock only on a file that is open for writing.
    with open(pathlib.Path(workdir) / _LOCK_FILE, 'r+b') as file:
      return not filelock.lock_descriptor(file.fileno(), blocking=False)
  except OSError:  # no process has been there, or there are no locks
    return False
