"""Output files of a mode: written completely or not at all."""

import contextlib
import os
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from googlenet.errors import UserError, did_you_mean
from googlenet.runtime import files, signals


def format_of(
  output: str, format: str, suffixes: dict[str, str], default: str = ''
) -> str:
  """Returns the format of an output file.

  Args:
    output: path of the file, or ''.
    format: value of --format; '': the ending of the path decides.
    suffixes: maps each ending to a format.
    default: the format if neither path nor --format is given; '': there is no
      default.

  Raises:
    UserError: the format is unknown, or neither path nor flag names one.
  """
  known = tuple(dict.fromkeys(suffixes.values()))
  if format:
    if format not in known:
      raise UserError(
        f'--format={format} is not allowed{did_you_mean(format, known)}: it '
        f'takes one of {", ".join(known)}'
      )
    return format
  suffix = pathlib.Path(output).suffix
  if suffix in suffixes:
    return suffixes[suffix]
  if default and not output:
    return default
  raise UserError(
    f'--output={output} has no known ending: choose one of '
    f'{", ".join(suffixes)}, or give --format={"|".join(known)}'
  )


def check_new(path: str | os.PathLike[str], flag: str = '--output') -> None:
  """Checks that a new file can be written there.

  Raises:
    UserError: the path is empty, the file exists, or its folder does not exist
      or is not writable.
  """
  if not os.fspath(path):
    raise UserError(f'{flag} is missing: it names the file to write')
  if os.path.lexists(path):
    raise UserError(
      f'{flag}={path} exists already and is never overwritten: give another '
      'name'
    )
  folder = pathlib.Path(path).parent
  if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
    raise UserError(f'{flag}={path}: there is no writable folder {folder}')


@contextlib.contextmanager
def terminates_cleanly() -> Iterator[None]:
  """Raises KeyboardInterrupt on signals, so that no temporary file is left."""

  def interrupt(*_):
    raise KeyboardInterrupt

  before = {}
  if threading.current_thread() is threading.main_thread():
    for number in signals.asking_to_end():
      before[number] = signal.signal(number, interrupt)
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def written_aside(
  path: str | os.PathLike[str], mode: str = 'wb'
) -> Iterator[Any]:
  """Yields a file that gets its name when the block ends without an error.

  Raises:
    OSError: the file cannot be written; it is removed.
  """
  with terminates_cleanly(), files.written_aside(path, mode) as file:
    yield file


def check_one_process(mode: str, num_processes: int) -> None:
  """Raises UserError if a mode that needs one process runs in several."""
  if num_processes > 1:
    raise UserError(
      f'--mode={mode} runs in one process, on all of its devices: leave out '
      '--num_processes, or start it outside of srun and mpirun'
    )
