"""Where the files are that come with the project: in a clone or installed.

A clone has `configs/` and `pretrained/` beside the package. A wheel has the
same two folders in it, in `_share`, where pyproject.toml puts them.
"""

import contextlib
import os
import pathlib
import re
import sys
from collections.abc import Iterator

from googlenet.errors import UserError, shown

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_SHARE = _PACKAGE / '_share'

# The folder that holds configs/ and pretrained/.
ROOT = _SHARE if _SHARE.is_dir() else _PACKAGE.parent
CONFIGS = ROOT / 'configs'
PRETRAINED = ROOT / 'pretrained'
DEFAULTS = CONFIGS / 'fmnist96.py'
_MAX_NAME = 255  # bytes of a name in a folder, on nearly all file systems


def find_config(name: str) -> str:
  """Returns the path of a config file that a name stands for.

  Args:
    name: a path; or the name of a file in configs/, 'fmnist96' or
      'configs/fmnist96.py', which need not be below the current folder. What
      is at that path goes first. ':TEXT' after it is kept.

  Returns:
    The path of the file in configs/; `name` itself if there is none.
  """
  if os.path.exists(name):
    return name
  file, colon, text = name.partition(':')
  match = re.fullmatch(r'(\w+)|configs/(\w+)\.py', file)
  if match is None or os.path.exists(file):
    return name
  path = CONFIGS / f'{match[1] or match[2]}.py'
  return f'{path}{colon}{text}' if path.is_file() else name


def unusable(path: str) -> str:
  """Returns why no file or folder can have this path; '': one can."""
  if '\0' in path:
    return 'it holds the character NUL'
  try:
    longest = max(len(os.fsencode(part)) for part in path.split('/'))
  except UnicodeEncodeError:
    return 'it holds half a character (a lone surrogate)'
  if longest > _MAX_NAME:
    return f'File name too long: {longest} bytes, allowed are {_MAX_NAME}'
  return ''


def usable(path: str | os.PathLike[str], what: str) -> str:
  """Returns a path as text.

  Args:
    path: that somebody gave.
    what: how messages call it.

  Raises:
    UserError: no file or folder can have it.
  """
  text = os.fspath(path)
  if why := unusable(text):
    raise UserError(f'{what}={shown(text)} cannot be a path ({why})')
  return text


def launcher() -> list[str]:
  """Returns the command that starts the program in a process of its own.

  In a clone it is `python launch.py`, elsewhere `python -m googlenet`.
  """
  launch = _PACKAGE.parent / 'launch.py'
  if ROOT != _SHARE and launch.is_file():
    return [sys.executable, str(launch)]
  # -P: a folder `googlenet` in the current one is not taken for the package.
  return [sys.executable, '-P', '-m', 'googlenet']


def how_to_restore(path: pathlib.Path) -> str:
  """Returns what brings back a damaged file of the project, as a phrase."""
  if ROOT == _SHARE:
    return 'install this package again with `pip install --force-reinstall`'
  return f'restore it with `git checkout -- {path}`'


@contextlib.contextmanager
def importing_from(folder: str | os.PathLike[str]) -> Iterator[None]:
  """Lets a config file import its neighbours and `from configs import ...`.

  Args:
    folder: of the config file; its modules go before all others. The folder
      that holds configs/ comes last, so that a `configs` of the user's own is
      found as well: both are parts of one namespace package.
  """
  first, last = str(folder), str(ROOT)
  sys.path.insert(0, first)
  sys.path.append(last)
  try:
    yield
  finally:
    sys.path.remove(first)
    del sys.path[len(sys.path) - 1 - sys.path[::-1].index(last)]
