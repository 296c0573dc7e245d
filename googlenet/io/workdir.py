"""The folder of a run: what it holds, who owns it."""

import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterable
from typing import Any, BinaryIO, TextIO

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
# Where the file system knows no locks a run goes on without one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def holds_a_run(workdir: pathlib.Path, name: str) -> str:
  """Returns the refusal of a workdir in which a file of a run was found."""
  return (
    f'--workdir={workdir} already holds a run ({name}), which is never '
    'overwritten: give another folder, or none for a fresh one'
  )


def check_workdir(workdir: str | os.PathLike[str]) -> None:
  """Checks that a run can be written there, and leaves nothing behind.

  Raises:
    UserError: it holds a run already, or cannot be made.
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
  """Returns what a file of JSON that was written at the end of `what` holds.

  Raises:
    UserError: it is damaged.
    FileNotFoundError: there is none.
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
  """Writes a file that is there whole, or as it was before."""
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
  """Returns the names of all classes; those that are not known are numbers.

  Raises:
    UserError: classes.txt is no text, or has more names than there are classes.
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
  """Writes to a file without a buffer: one would fail once more on closing."""
  while data:
    data = data[file.write(data) :]


class Lock:
  """The ownership of a workdir, by one process at a time.

  The system gives it back when the process ends, however it does; the file
  `lock` stays, and says nothing by being there.
  """

  def __init__(self, workdir: str | os.PathLike[str], wait: bool = False):
    """Takes the lock.

    Args:
      workdir: a folder that is there.
      wait: until the process that has it gives it back.

    Raises:
      UserError: another process has it.
      OSError: the file cannot be made.
    """
    self._file: TextIO = open(  # noqa: SIM115
      pathlib.Path(workdir) / 'lock', 'a+', encoding='utf-8'
    )
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
      self._file.seek(0)
      owner = ' '.join(self._file.read(200).split()) or 'unknown'
      self._file.close()
      raise UserError(
        f'--workdir={workdir} is in use by another process ({owner}): wait '
        'until that has ended, or give another folder'
      ) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        self._file.close()
        raise
    self._file.truncate(0)
    self._file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    self._file.flush()

  def release(self) -> None:
    """Lets another process own the workdir."""
    self._file.close()

  def __enter__(self) -> 'Lock':
    return self

  def __exit__(self, *_: object) -> None:
    self.release()


def is_locked(workdir: str | os.PathLike[str]) -> bool:
  """Returns whether a process owns the workdir; writes nothing."""
  try:
    with open(pathlib.Path(workdir) / 'lock', 'rb') as file:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:  # nobody was there yet, or there are no locks
    return False
  return False
