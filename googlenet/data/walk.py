"""Walks through folders that may be linked, each of them once."""

import os
from collections.abc import Iterator

from googlenet.errors import UserError

# Folders that programs leave beside those of people.
_FOREIGN = ('__MACOSX', '__pycache__')


def is_hidden(name: str) -> bool:
  """Returns whether a file or folder of this name is passed over."""
  return name.startswith('.') or name in _FOREIGN


def passed_over(hidden: int, foreign: int) -> str:
  """Says how many files of a folder are not read; '' if there are none."""
  count = hidden + foreign
  kinds = {'hidden': hidden, 'without the suffix of an image': foreign}
  parts = [f'{number:,} {kind}' for kind, number in kinds.items() if number]
  files = f'{count:,} file{"" if count == 1 else "s"}'
  return f'{files} passed over: {", ".join(parts)}' if count else ''


def is_folder(entry: os.DirEntry[str]) -> bool:
  """Returns whether it is a folder, or a link that leads to one."""
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def listed(folder: str) -> list[os.DirEntry[str]]:
  """Returns what is in a folder, by name.

  Raises:
    UserError: the folder cannot be read.
  """
  try:
    with os.scandir(folder) as entries:
      return sorted(entries, key=lambda entry: entry.name)
  except OSError as error:
    raise UserError(f'{folder} cannot be read: {error.strerror}') from error


def walk(root: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
  """Yields a folder and the visible ones below, with what is no folder there.

  Links to folders are followed, but every folder comes once: links may lead in
  circles, and many that lead to each other make very many paths.

  Raises:
    UserError: a folder cannot be read.
  """
  seen: set[tuple[int, int]] = set()
  # Folders before links, so that a file keeps its plain path.
  folders, links = [root], []
  while folders or links:
    folder = folders.pop() if folders else links.pop(0)
    found = listed(folder)
    state = os.stat(folder)
    if (state.st_dev, state.st_ino) in seen:
      continue
    seen.add((state.st_dev, state.st_ino))
    yield folder, [entry for entry in found if not is_folder(entry)]
    below = [e for e in found if is_folder(e) and not is_hidden(e.name)]
    folders += [e.path for e in reversed(below) if not e.is_symlink()]
    links += [e.path for e in below if e.is_symlink()]
