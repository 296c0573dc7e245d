"""Finds the image files that the value of --images names."""

import glob
import os
import pathlib
import re
from typing import TextIO

from googlenet.data.files import suffixes
from googlenet.data.walk import is_hidden, passed_over, walk
from googlenet.errors import UserError
from googlenet.runtime.files import near_path
from googlenet.runtime.terminal import tell

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
      raise UserError(f'{flag}={part}: no such file{near_path(part)}')
    if not found:
      what = 'stdin lists no file' if part == '-' else 'no image found'
      raise UserError(
        f'{flag}={part}: {what}; allowed are files, folders, patterns like '
        "'photos/*.jpg', and - for a list of paths on stdin"
      )
    paths += found
  return paths


def _in_folder(folder: str) -> list[str]:
  """Returns the files below a folder that have a suffix of an image, sorted.

  A line on stderr tells how many others there are.
  """
  known, found, hidden, foreign = suffixes(), [], 0, 0
  for _, entries in walk(str(pathlib.Path(folder))):
    for entry in entries:
      if not os.path.isfile(entry.path):
        continue
      if is_hidden(entry.name):
        hidden += 1
      elif os.path.splitext(entry.name)[1].lower() not in known:
        foreign += 1
      else:
        found.append(entry.path)
  if found and (told := passed_over(hidden, foreign)):
    tell(f'{folder}: {told}')
  return sorted(found)


def _matching(pattern: str) -> set[str]:
  """Returns the paths that a pattern matches; `**` is any number of folders.

  Like `glob.glob` with `recursive=True`, which follows links in circles.
  """
  head, *rest = _ANY_FOLDERS.split(pattern, maxsplit=1)
  if not rest:
    return set(glob.glob(pattern))
  found = set()
  for root in glob.glob(head) if head else ['']:
    for folder, entries in walk(root or os.curdir):
      if not root:  # photos/a.jpg, not ./photos/a.jpg
        folder = os.path.relpath(folder).removeprefix(os.curdir)
      if rest == ['']:
        names = [e.name for e in entries if not is_hidden(e.name)]
        found |= {os.path.join(folder, name) for name in names}
      else:
        found |= _matching(os.path.join(glob.escape(folder), *rest))
  return found
