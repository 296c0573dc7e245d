"""Opens files without harm from links, pipes and devices in foreign folders.

A folder that was received may hold a symbolic link in place of a file that is
written, or a pipe or device in place of one that is read. All files of a run,
of a data set and of the user's images are opened here.
"""

import contextlib
import difflib
import errno
import glob
import os
import pathlib
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from googlenet.errors import UserError, writing
from googlenet.runtime import places

# A text larger than this is no config, list of classes or result.
MAX_TEXT_BYTES = 4 * 2**20
# Missing on Windows, which has neither such links nor pipes in folders.
_NO_FOLLOW = getattr(os, 'O_NOFOLLOW', 0)
_NO_WAIT = getattr(os, 'O_NONBLOCK', 0)
_BINARY = getattr(os, 'O_BINARY', 0)


def sync_folder(folder: str | os.PathLike[str]) -> None:
  """Flushes a folder's entries to disk, so a power loss keeps renamed files.

  Windows, which opens no folders, writes them by itself.
  """
  if not hasattr(os, 'O_DIRECTORY'):
    return
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def open_regular(
  path: str | os.PathLike[str], max_bytes: int | None = None
) -> BinaryIO:
  """Opens a regular file, or a link to one, for reading.

  Args:
    path: of the file.
    max_bytes: largest size; None: any.

  Raises:
    OSError: there is no such file, it may not be read, it is a folder, pipe,
      socket or device, or it is larger than `max_bytes`.
  """
  _check_regular(path, os.stat(path), max_bytes)
  # What is exchanged for a pipe in between cannot make this wait.
  descriptor = os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY)
  try:
    _check_regular(path, os.fstat(descriptor), max_bytes)
    return os.fdopen(descriptor, 'rb')
  except BaseException:
    os.close(descriptor)
    raise


def _check_regular(
  path: str | os.PathLike[str], found: os.stat_result, max_bytes: int | None
) -> None:
  name = os.fspath(path)
  if stat.S_ISDIR(found.st_mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
  if not stat.S_ISREG(found.st_mode):
    raise OSError(errno.EINVAL, 'not a regular file', name)
  if max_bytes is not None and found.st_size > max_bytes:
    raise OSError(
      errno.EINVAL,
      f'{found.st_size:,} bytes are more than the {max_bytes:,} allowed',
      name,
    )


def read_text(
  path: str | os.PathLike[str], max_bytes: int = MAX_TEXT_BYTES
) -> str:
  """Reads a text in UTF-8, without the byte-order mark of some editors.

  Raises:
    OSError: see `open_regular`.
    UnicodeDecodeError: the text is not UTF-8.
  """
  with open_regular(path, max_bytes) as file:
    # Not `read()`: a file may grow meanwhile, and some of the system never end.
    size = os.fstat(file.fileno()).st_size
    return file.read(size).decode('utf-8-sig')


def named_lines(text: str) -> list[str]:
  """Returns the lines of a text that has a class per line, stripped.

  An empty line leaves a class its number; those at the end do not count.
  """
  lines = text.rstrip().splitlines()
  return [line.strip() or str(k) for k, line in enumerate(lines)]


def open_new(
  path: str | os.PathLike[str], mode: str = 'wb', buffering: int = -1
) -> Any:
  """Creates a file; never opens one that exists, nor follows a link.

  Args:
    path: of the file.
    mode: 'wb', 'w+b' or, for UTF-8 without changed line ends, 'w'.
    buffering: as for `open`.

  Raises:
    OSError: there is something at `path`, or it cannot be created.
  """
  flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY
  descriptor = os.open(path, flags, 0o666)
  options = {}
  if 'b' not in mode:  # names of files that are not UTF-8 get escapes
    options = {'encoding': 'utf-8', 'errors': 'backslashreplace', 'newline': ''}
  opener = _opener(descriptor)
  return open(path, mode, buffering, opener=opener, **options)


def _opener(descriptor: int) -> Callable[[str, int], int]:
  """For `open`: the file knows its path, unlike one of `os.fdopen`."""
  return lambda *_: descriptor


def check_own(path: str | os.PathLike[str]) -> None:
  """Checks that a file that is changed in place is no link, pipe or device.

  Raises:
    UserError: it is.
  """
  if os.path.islink(path) or (os.path.exists(path) and not _is_regular(path)):
    raise UserError(
      f'{path} is a link or no regular file and is not written to: remove it'
    )


def _is_regular(path: str | os.PathLike[str]) -> bool:
  return stat.S_ISREG(os.stat(path).st_mode)


def open_append(path: str | os.PathLike[str]) -> BinaryIO:
  """Opens a regular file to append to it unbuffered; creates it if missing.

  Raises:
    UserError: `path` is a link or no regular file.
    OSError: it cannot be written.
  """
  check_own(path)
  flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
  flags |= _NO_FOLLOW | _NO_WAIT | _BINARY
  descriptor = os.open(path, flags, 0o666)
  try:
    _check_regular(path, os.fstat(descriptor), None)
    return open(path, 'ab', buffering=0, opener=_opener(descriptor))
  except BaseException:
    os.close(descriptor)
    raise


@contextlib.contextmanager
def name_aside(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a path beside `path`, renamed to it if the block ends well.

  Nobody can guess the name, so no link waits there. If the block raises, what
  it has written is removed and an old file at `path` is unchanged.
  """
  path = pathlib.Path(path)
  aside = path.with_name(f'{path.name}.{secrets.token_hex(4)}.tmp')
  try:
    with writing(path):
      yield aside
      os.replace(aside, path)
  except BaseException:
    aside.unlink(missing_ok=True)
    raise
  sync_folder(path.parent)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
  """Removes what killed processes have left beside `path`.

  Only where no other process may be writing `path`.
  """
  path = pathlib.Path(path)
  for aside in path.parent.glob(glob.escape(path.name) + '.????????.tmp'):
    aside.unlink(missing_ok=True)


@contextlib.contextmanager
def written_aside(
  path: str | os.PathLike[str], mode: str = 'wb'
) -> Iterator[Any]:
  """Yields a file that gets its name when it is whole and on disk.

  Args:
    path: of the file; a link there is replaced, not followed.
    mode: 'wb', 'w+b' or, for UTF-8 without changed line ends, 'w'.

  Raises:
    OSError: the file cannot be written; an old file at `path` is unchanged.
  """
  with name_aside(path) as aside, open_new(aside, mode) as file:
    yield file
    file.flush()
    os.fsync(file.fileno())


def near_path(
  path: str | os.PathLike[str],
  is_meant: Callable[[pathlib.Path], bool] = lambda _: True,
  names: Iterable[str] = (),
) -> str:
  """Suggests a similar name in the same folder: ', did you mean ...?' or ''.

  Args:
    path: where nothing is.
    is_meant: whether a path beside it may be suggested.
    names: that may be suggested too.
  """
  path = pathlib.Path(path)
  known = {name: name for name in names}
  with contextlib.suppress(OSError):
    known |= {
      other.name: str(other)
      for other in sorted(path.parent.iterdir())
      if other != path and is_meant(other)
    }
  near = difflib.get_close_matches(path.name, known, n=1)
  return f', did you mean {known[near[0]]!r}?' if near else ''


def near_run(workdir: str | os.PathLike[str]) -> str:
  """Suggests a run with a similar name, or returns ''.

  It is in the same folder; for a bare name also one of pretrained/.
  """

  def is_run(path: pathlib.Path) -> bool:
    return (path / 'config.json').exists()

  names = []
  if os.path.basename(workdir) == os.fspath(workdir):
    names = [x.parent.name for x in places.PRETRAINED.glob('*/config.json')]
  return near_path(workdir, is_run, names)
