"""Runs by name: those of pretrained/, and those that the cache holds."""

import os
import pathlib
import re

from googlenet.runtime import places
from googlenet.runtime.machine import DEFAULT_CACHE

# torchvision/googlenet, hf:OWNER/NAME; parts cannot be '.' or '..'.
_REMOTE = re.compile(
  r'(torchvision/|pytorch-fid/|hf:\w[\w.-]*/)\w[\w.-]*', re.ASCII
)


def is_remote(name: str) -> bool:
  """Whether a name is of the form of one that `googlenet.tools.hub` fetches."""
  return bool(_REMOTE.fullmatch(name)) and not os.path.exists(name)


def cache() -> pathlib.Path:
  """Returns the folder of what was downloaded."""
  return pathlib.Path(os.path.expanduser(DEFAULT_CACHE)) / 'hub'


def in_cache(name: str) -> pathlib.Path:
  """Returns the folder in the cache for a run that is fetched by its name."""
  return cache() / 'runs' / name.replace(':', '/')


def find(name: str | os.PathLike[str]) -> str:
  """Returns the folder of a run: that of a name, or the path itself.

  A folder that exists goes before a network of the same name.

  Args:
    name: a path; the name of a network in pretrained/, like 'fmnist28_best';
      or one that `is_remote`, which is in the cache once it has been fetched.
  """
  name = os.fspath(name)
  if is_remote(name):
    return str(in_cache(name))
  known = places.PRETRAINED / name
  is_name = re.fullmatch(r'\w+', name) and not os.path.exists(name)
  return str(known) if is_name and known.is_dir() else name
