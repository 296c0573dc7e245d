"""Reads a folder of images, one folder per class.

Either the classes lie in a folder of each split, photos/train/cat/1.jpg, or
directly in the data set's, photos/cat/1.jpg; then `all` is the only split.
"""

import collections
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from googlenet.data import files, walk
from googlenet.data.encoded import Labelled, make_source, natural_key
from googlenet.data.splits import (
  ONE_SPLIT,
  Source,
  check_distinct,
  some,
  split_names,
)
from googlenet.errors import UserError
from googlenet.runtime.files import named_lines, read_text

ALL = 'all'
# What people call the folder of the images that a network is not trained on.
_EVALUATED = ('test', 'testing', 'val', 'valid', 'validation', 'dev', 'eval')
# A folder of ImageNet's own layout, named by its WordNet id.
_WORDNET = re.compile(r'(n\d{8})\s+(.+)')


class ImageFiles:
  """Image files below a folder; only their names are kept in memory."""

  def __init__(self, folder: str, names: Sequence[str]):
    """Stores the folder and the paths below it, with '/'."""
    self._folder, self._names = folder, names

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index: int) -> str:
    return os.path.join(self._folder, self._names[index])

  def name(self, index: int) -> str:
    return self[index]

  def stamp(self) -> str:
    return f'{self._folder} {self._digest(True)}'

  def identity(self) -> str:
    return self._digest(False)

  def _digest(self, with_times: bool) -> str:
    digest = hashlib.sha256()
    for index, name in enumerate(self._names):
      try:
        stat = os.stat(self[index])
        state = f'{stat.st_size} {stat.st_mtime_ns if with_times else ""}'
      except OSError:  # told of by the look
        state = 'missing'
      digest.update(f'{name}\0{state}\0'.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()

  def subset(self, indices: np.ndarray) -> 'ImageFiles':
    return ImageFiles(self._folder, [self._names[i] for i in indices])


class ClassMap(NamedTuple):
  """The classes in a fixed order.

  Attributes:
    folders: the folder of each class.
    names: the name of each class.
  """

  folders: tuple[str, ...]
  names: tuple[str, ...]


def read_class_map(path: str) -> ClassMap:
  """Reads `data.classes`: a class per line, in the order of labels.

  A line is the name of the class and its folder, or the two separated by a tab
  (folder first), or a WordNet id and the name, as in ImageNet's own list. As in
  classes.txt of a run, an empty line leaves a class its number, but at the end.
  To a name that several classes have the folder is added.

  Raises:
    UserError: the file cannot be read, is empty, or names a class twice.
  """
  shown = f'config.data.classes={path!r}'
  try:
    lines = named_lines(read_text(os.path.expanduser(path)))
  except (OSError, UnicodeError) as error:
    raise UserError(
      f'{shown} cannot be read: {getattr(error, "strerror", None) or error}; '
      'it takes a text file with a class per line'
    ) from error
  pairs = []
  for line in lines:
    folder, tab, name = line.partition('\t')
    if not tab and (found := _WORDNET.fullmatch(line)):
      folder, name = found.groups()
    pairs.append((folder.strip(), name.strip() or folder.strip()))
  folders = [folder for folder, _ in pairs]
  twice = sorted({name for name in folders if folders.count(name) > 1})
  if not pairs or twice:
    what = f'names {some(twice)} twice' if twice else 'names no class'
    raise UserError(f'{shown} {what}; it takes one line per class')
  # ImageNet's own list has two cranes, and a run tells classes by their names.
  counts = collections.Counter(name for _, name in pairs)
  names = tuple(
    name if counts[name] == 1 else f'{name} ({folder})'
    for folder, name in pairs
  )
  check_distinct(names, shown)
  return ClassMap(tuple(folders), names)


def open_folder(
  data_dir: str,
  train_split: str,
  eval_split: str,
  classes: str = '',
  on_bad_image: str = 'stop',
) -> Source:
  """Opens a folder of images.

  The images of a split are in an order that looks shuffled and depends only on
  their names: the SHA-256 of each path. So slices have all classes, and are
  the same for every process and everybody with the same files.

  Args:
    data_dir: the folder.
    train_split: its folders are the classes, unless `classes` names them. The
      split of both fields that is not 'all' is a folder in `data_dir`.
    eval_split: may be a slice, like `train_split`.
    classes: file with the classes in a fixed order; '': natural order.
    on_bad_image: 'stop', or 'skip' to leave out images that cannot be read.

  Raises:
    UserError: a folder is missing, a class is empty or only in another split
      than that of training, or an image cannot be read.
  """
  root = os.path.expanduser(data_dir)
  wanted = split_names(train_split, eval_split)
  if not os.path.isdir(root):
    raise UserError(
      f'config.data.data_dir={data_dir!r} is not a folder; '
      'config.data.source=folder takes one with a folder of images per class'
    )
  folders = _split_folders(root, wanted)
  class_map = _class_map(folders, classes)
  splits, hidden, foreign = {}, 0, 0
  for split, folder in folders.items():
    found, labels = _list_split(folder, class_map)
    hidden, foreign = hidden + found.hidden, foreign + found.foreign
    order = sorted(range(len(labels)), key=lambda i: _shuffled(found.names[i]))
    splits[split] = Labelled(
      ImageFiles(folder, [found.names[i] for i in order]),
      np.array(labels, np.int32)[order],
    )
  notes = [*filter(None, [walk.passed_over(hidden, foreign)])]
  return make_source(splits, class_map.names, on_bad_image, root, notes)


def _class_map(folders: Mapping[str, str], classes: str) -> ClassMap:
  """Returns the classes of a data set, in the order of their labels.

  Args:
    folders: the folder of each split, that of training first.
    classes: file with the classes; '': the folders of the first split.

  Raises:
    UserError: a split has a folder of another class.
  """
  listed = {folder: _folders(folder) for folder in folders.values()}
  first = next(iter(listed))
  if classes:
    class_map = read_class_map(classes)
  else:
    class_map = ClassMap(tuple(listed[first]), tuple(listed[first]))
  known = set(class_map.folders)
  for folder, found in listed.items():
    more = [name for name in found if name not in known]
    if more:
      raise UserError(
        f'{folder} has folders of classes that {classes or first} lacks: '
        f'{some(more)}; remove them, or add them there'
      )
  return class_map


def _list_split(folder: str, class_map: ClassMap) -> tuple['_Found', list[int]]:
  """Returns the images of a split, class by class, and their labels.

  Raises:
    UserError: a class has a folder without images, or no class has a folder.
  """
  there = set(_folders(folder))
  names, labels, hidden, foreign = [], [], 0, 0
  for label, name in enumerate(class_map.folders):
    if name not in there:
      continue
    found = _images(os.path.join(folder, name))
    hidden, foreign = hidden + found.hidden, foreign + found.foreign
    if not found.names:
      raise UserError(
        f'{os.path.join(folder, name)} is a class without images; remove the '
        'folder, or add images of a format that Pillow reads'
      )
    names += found.names
    labels += [label] * len(found.names)
  if not names:
    raise UserError(
      f'{folder} has no folder of a class: it takes a folder with images for '
      'each class'
    )
  return _Found(names, hidden, foreign), labels


def _shuffled(name: str) -> bytes:
  return hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()


def _split_folders(root: str, wanted: tuple[str, ...]) -> dict[str, str]:
  """Returns the folder of each split.

  Raises:
    UserError: there is no such folder.
  """
  there = _folders(root)
  if wanted == (ALL,) and ALL not in there:
    _check_are_classes(root, there)
    return {ALL: root}
  missing = [name for name in wanted if name not in there]
  if not missing:
    return {name: os.path.join(root, name) for name in wanted}
  raise UserError(
    f'config.data.data_dir={root!r} has no folder {missing[0]!r} for the split '
    f'of that name, it has {some(there) or "no folders"}: name those as '
    'config.data.train_split and config.data.eval_split; or, if they are '
    "classes, give --config.data.train_split='all[:90%]' "
    f"--config.data.eval_split='all[90%:]'; {ONE_SPLIT}"
  )


def _check_are_classes(root: str, there: Sequence[str]) -> None:
  """Checks that the folders of `all` are not rather splits by their names.

  Raises:
    UserError: all of them are.
  """
  of_training = [
    name for name in there if name.lower() in ('train', 'training')
  ]
  others = [name for name in there if name.lower() in _EVALUATED]
  if of_training and len(of_training) + len(others) == len(there):
    evaluated = (*others, *of_training)[0]
    raise UserError(
      f"config.data.train_split='all' takes the folders of {root} for classes, "
      f'and they are {some(there)}: give --config.data.train_split='
      f'{of_training[0]} --config.data.eval_split={evaluated}, or rename them '
      'if they are classes',
      'data.train_split',
    )


def _folders(folder: str) -> list[str]:
  """Returns the names of the visible folders in a folder, in natural order."""
  names = [
    entry.name
    for entry in walk.listed(folder)
    if walk.is_folder(entry) and not walk.is_hidden(entry.name)
  ]
  return sorted(names, key=natural_key)


class _Found(NamedTuple):
  names: list[str]  # paths, beginning with the class's folder
  hidden: int
  foreign: int


def _images(folder: str) -> _Found:
  """Lists the images below the folder of a class."""
  suffixes = files.suffixes()
  found, hidden, foreign = [], 0, 0
  for place, entries in walk.walk(folder):
    below = os.path.relpath(place, os.path.dirname(folder)).replace(os.sep, '/')
    for entry in entries:
      if not entry.is_symlink() and not entry.is_file():
        continue  # a pipe; a dead link is told of later
      if walk.is_hidden(entry.name):
        hidden += 1
      elif os.path.splitext(entry.name)[1].lower() not in suffixes:
        foreign += 1
      else:
        found.append(f'{below}/{entry.name}')
  return _Found(found, hidden, foreign)
