"""Finds the image files that the value of --images names."""

import glob
import os
import pathlib
import re
from collections.abc import Iterator
from typing import TextIO

from googlenet.data.files import suffixes
from googlenet.errors import UserError, did_you_mean

# `**` as a whole part of a pattern, also several in a row.
_SLASH = '[' + re.escape(os.sep + (os.altsep or '')) + ']'
_ANY_FOLDERS = re.compile(rf'(?:^|(?<={_SLASH}))(?:\*\*(?:{_SLASH}+|$))+')


def find(images: str, stdin: TextIO, flag: str = '--images') -> list[str]:
  """Returns the paths of all files that the value of `--images` names.

  Args:
    images: a comma-separated list of files, patterns like photos/*.jpg (`**`
      matches nested folders), folders (all images in them, at any depth), and
      `-` for a list of paths on stdin, one per line.
    stdin: the stream that `-` reads.
    flag: name of the flag, for messages.

  Raises:
    UserError: `images` is empty, or a part of it names no file.
  """
  if not images:
    raise UserError(
      f"{flag} is missing: give files, folders or patterns, like {flag}='"
      "photos/*.jpg', or - for a list on stdin"
    )
  if os.path.exists(images):  # a name with a comma in it
    parts = [images]
  else:
    parts = [part for part in images.split(',') if part]
  paths = []
  for part in parts:
    part = os.path.expanduser(part)
    if part == '-':
      found = [line.rstrip('\r\n') for line in stdin]
      found = [line for line in found if line]
    elif os.path.isdir(part):
      found = _in_folder(part)
    elif os.path.exists(part):
      found = [part]
    elif glob.has_magic(part):
      found = sorted(path for path in _matching(part) if os.path.isfile(path))
    else:
      siblings = []
      folder = pathlib.Path(part).parent
      if folder.is_dir():
        siblings = [str(path) for path in folder.iterdir()]
      raise UserError(
        f'{flag}={part}: no such file{did_you_mean(part, siblings)}'
      )
    if not found:
      what = 'stdin lists no file' if part == '-' else 'no image found'
      raise UserError(
        f'{flag}={part}: {what}; allowed are files, folders, patterns like '
        "'photos/*.jpg', and - for a list of paths on stdin"
      )
    paths += found
  return paths


def _in_folder(folder: str) -> list[str]:
  """Returns the files below a folder that have a suffix of an image, sorted."""
  known = suffixes()
  return sorted(
    os.path.join(below, name)
    for below, names in _walk(str(pathlib.Path(folder)))
    for name in names
    if pathlib.Path(name).suffix.lower() in known
    and not name.startswith('.')
    and os.path.isfile(os.path.join(below, name))
  )


def _matching(pattern: str) -> set[str]:
  """Returns the paths that a pattern matches; `**` is any number of folders.

  Like `glob.glob` with `recursive=True`, which follows links in circles.
  """
  head, *rest = _ANY_FOLDERS.split(pattern, maxsplit=1)
  if not rest:
    return set(glob.glob(pattern))
  found = set()
  for root in glob.glob(head) if head else ['']:
    for folder, names in _walk(root, with_hidden=False):
      if rest == ['']:
        found |= {os.path.join(folder, n) for n in names if n[0] != '.'}
      else:
        found |= _matching(os.path.join(glob.escape(folder), *rest))
  return found


def _walk(
  root: str, with_hidden: bool = True
) -> Iterator[tuple[str, list[str]]]:
  """Yields the folders below `root` with the names of their other entries.

  Links to folders are followed, but every folder comes once: links may lead
  in circles.
  """
  seen = set()
  for folder, names, others in os.walk(root or os.curdir, followlinks=True):
    found = os.stat(folder)
    if (found.st_dev, found.st_ino) in seen:
      names.clear()
      continue
    seen.add((found.st_dev, found.st_ino))
    kept = [name for name in names if with_hidden or not name.startswith('.')]
    # Folders before links, so that a file keeps its plain path.
    names[:] = sorted(
      kept, key=lambda n: (os.path.islink(os.path.join(folder, n)), n)
    )
    below = os.path.relpath(folder) if not root else folder
    yield ('' if below == os.curdir else below), others
