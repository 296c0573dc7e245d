"""The interface of a data source, and the parser of splits."""

import collections
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from googlenet.data.images import Transform
from googlenet.errors import UserError, did_you_mean

# (int indices [n], epoch) -> (images uint8 [n, H, W, C], labels int32 [n]).
# Only random crops depend on the epoch. Can be pickled for a worker process.
Read = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


# How to use a set that lacks a split; both are opened, also for evaluation.
ONE_SPLIT = (
  'to evaluate on a set of one split, name it in config.data.train_split as '
  'well as in config.data.eval_split'
)

# Names in a message; the others are counted.
_SHOWN = 10


class Identity(NamedTuple):
  """What tells whether a split of the user's own files has changed.

  Attributes:
    sha256: of all labels, and of the names and sizes of files or a sample of
      the pixels.
    classes: number of images by name of the class.
  """

  sha256: str
  classes: Mapping[str, int]

  def to_json(self) -> dict[str, Any]:
    """Returns what a checkpoint keeps."""
    return {'files': self.sha256, 'classes': dict(self.classes)}


def changed_files(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
  """Says in words how two sets differ; '' if they do not.

  Args:
    there: has what `Identity.to_json` returns, if the set is of own files.
    here: likewise.
  """
  if there.get('files') == here.get('files'):
    return ''
  there, here = there.get('classes', {}), here.get('classes', {})
  names = dict.fromkeys([*there, *here])
  changes = [
    f'{name} had {there.get(name, 0):,} images and has {here.get(name, 0):,}'
    for name in names
    if there.get(name, 0) != here.get(name, 0)
  ]
  return some(changes, '; ') or (
    'each class has as many as before, but some have other names, labels or '
    'file sizes'
  )


def some(names: Sequence[str], between: str = ', ') -> str:
  """Joins names for a message: the first ten, and how many more there are."""
  shown = between.join(names[:_SHOWN])
  left = len(names) - _SHOWN
  return shown if left <= 0 else f'{shown} and {left:,} more'


def check_distinct(class_names: Sequence[str], where: str) -> None:
  """Checks that no two classes have one name, by which runs tell them apart.

  Raises:
    UserError: two classes have.
  """
  counts = collections.Counter(class_names)
  if twice := [name for name, count in counts.items() if count > 1]:
    raise UserError(
      f'{where} has several classes of the name {some(twice)}: give each class '
      'a name of its own, there or in a file for config.data.classes'
    )


def count_classes(
  labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, int]:
  """Returns the number of images by name of the class."""
  counts = np.bincount(labels, minlength=len(class_names))
  return dict(zip(class_names, counts.tolist(), strict=True))


class Source(NamedTuple):
  """An image-classification data set whose splits can be opened."""

  split_sizes: Mapping[str, int]  # number of examples of each split
  sides: tuple[int, int] | None  # (H, W) of every image; None: they differ
  num_channels: int
  class_names: tuple[str, ...]
  # Opens a whole split by its name. Without a transform images keep their
  # native size; a source whose sides are None needs a transform.
  open_split: Callable[[str, Transform | None], Read]
  # Lines for the console, like how many files were left out.
  notes: tuple[str, ...] = ()
  # By split; empty where others guarantee that a set never changes.
  identity: Mapping[str, Identity] = {}
  # int32 [N] by split, where they are known without reading images.
  labels: Mapping[str, np.ndarray] = {}


_BOUND = r'-?[0-9]{1,12}(?:(?:\.[0-9]{1,12})?%)?'
_SPLIT = re.compile(
  rf'(?P<name>[\w-]+)(?:\[(?P<start>{_BOUND})?:(?P<stop>{_BOUND})?\])?',
  re.ASCII,
)

_PLUS = re.compile(r'\s*\+\s*')


class Part(NamedTuple):
  """The examples `start` to `stop` - 1 of the split `name`."""

  name: str
  start: int
  stop: int


class SliceReader(NamedTuple):
  """Restricts `read` to the examples start to stop - 1, counted from 0."""

  read: Read
  start: int
  stop: int

  def __call__(
    self, indices: np.ndarray, epoch: int = 0
  ) -> tuple[np.ndarray, np.ndarray]:
    indices = np.asarray(indices)
    size = self.stop - self.start
    if indices.size and not 0 <= indices.min() <= indices.max() < size:
      # Otherwise examples outside of the slice would be returned.
      raise IndexError(f'indices must be in range({size}): {indices}')
    return self.read(indices + self.start, epoch)


class Parts(NamedTuple):
  """Joins the examples of several readers, one after another."""

  readers: tuple[Read, ...]
  sizes: tuple[int, ...]  # number of examples of each

  def __call__(
    self, indices: np.ndarray, epoch: int = 0
  ) -> tuple[np.ndarray, np.ndarray]:
    indices = np.asarray(indices)
    ends = np.cumsum(self.sizes)
    if indices.size and not 0 <= indices.min() <= indices.max() < ends[-1]:
      raise IndexError(f'indices must be in range({ends[-1]}): {indices}')
    places = np.searchsorted(ends, indices, side='right')
    order = np.argsort(places, kind='stable')
    starts = ends - self.sizes
    found = [
      self.readers[i](indices[places == i] - starts[i], epoch)
      for i in (np.unique(places) if indices.size else [0])
    ]
    images, labels = (
      np.concatenate(arrays) for arrays in zip(*found, strict=True)
    )
    back = np.argsort(order)
    return images[back], labels[back]


def split_names(*fields: str) -> tuple[str, ...]:
  """Returns the names of the splits in fields, each once, in their order.

  'train[:10%]+extra' and 'train[10%:]' give ('train', 'extra').
  """
  parts = [part for field in fields for part in field.split('+')]
  return tuple(dict.fromkeys(part.partition('[')[0].strip() for part in parts))


def resolve_split(
  split: str, sizes: Mapping[str, int], called: str = 'split'
) -> tuple[Part, ...]:
  """Returns the examples that a split like 'train[:10%]+train[20%:]' means.

  All sources share this parser, so that they cannot differ. It agrees with TFDS
  (a percentage is rounded to the closest example, parts stay in the given
  order), but does not support 'all' and shards.

  Args:
    split: the split as written in the config.
    sizes: number of examples of each existing split.
    called: name of the field in errors, like 'config.data.eval_split'.

  Returns:
    Its parts, without empty ones, each with
    0 <= start < stop <= sizes[name].

  Raises:
    UserError: the split is malformed, unknown, empty or out of range.
  """
  shown = f'{called}={split!r}'
  # Of ten folds, the first is train[:0%]+train[10%:].
  found = [_part(part, sizes, shown) for part in _PLUS.split(split)]
  parts = tuple(part for part in found if part.start < part.stop)
  if not parts:
    name, start, stop = found[0]
    raise UserError(
      f'{shown} is empty: {name!r} has {sizes[name]} images, and the slice '
      f'goes from {start} to {stop}'
    )
  return parts


def join(
  source: Source, parts: tuple[Part, ...], transform: Transform | None
) -> SliceReader | Parts:
  """Opens parts of a data set as one; each split is opened once."""
  opened = {p.name: source.open_split(p.name, transform) for p in parts}
  readers = tuple(SliceReader(opened[p.name], p.start, p.stop) for p in parts)
  if len(readers) == 1:
    return readers[0]
  return Parts(readers, tuple(p.stop - p.start for p in parts))


def count_common(some: tuple[Part, ...], others: tuple[Part, ...]) -> int:
  """Returns how many examples two splits have in common."""
  return sum(
    max(min(a.stop, b.stop) - max(a.start, b.start), 0)
    for a in some
    for b in others
    if a.name == b.name
  )


def trained_on(
  parts: tuple[Part, ...], called: str, trained: tuple[Part, ...], split: str
) -> str:
  """Says that images that are scored were trained on; '' if none was.

  Args:
    parts: the examples that are scored.
    called: what their split is called.
    trained: the examples of training.
    split: `data.train_split`.
  """
  common = count_common(parts, trained)
  if not common:
    return ''
  return (
    f'{called} has {common:,} images of config.data.train_split={split!r}: '
    'where a network was trained it is more often right than elsewhere'
  )


def labels_of(source: Source, parts: tuple[Part, ...]) -> np.ndarray | None:
  """Returns the labels of parts, int32 [N]; None if they are not known."""
  if not source.labels:
    return None
  return np.concatenate(
    [source.labels[p.name][p.start : p.stop] for p in parts]
  )


def identity_of(source: Source, parts: tuple[Part, ...]) -> Identity | None:
  """Returns the identity of the splits that parts belong to, as one."""
  if not source.identity:
    return None
  first, *others = (
    source.identity[name] for name in dict.fromkeys(p.name for p in parts)
  )
  for other in others:
    both = (first.sha256 + other.sha256).encode()
    classes = {k: n + other.classes[k] for k, n in first.classes.items()}
    first = Identity(hashlib.sha256(both).hexdigest(), classes)
  return first


def _part(split: str, sizes: Mapping[str, int], shown: str) -> Part:
  """Resolves a split without a plus; `start` may equal `stop`."""
  known = ', '.join(f'{name} ({size} images)' for name, size in sizes.items())
  parsed = _SPLIT.fullmatch(split)
  if parsed is None:
    raise UserError(
      f'{shown} is malformed; allowed is one of {known}, alone or '
      'sliced like train[:50000], train[-5000:] or train[10%:90%], or '
      'several joined by +'
    )
  name, start, stop = parsed.group('name', 'start', 'stop')
  if name not in sizes:
    raise UserError(
      f'{shown}: there is no split {name!r}'
      f'{did_you_mean(name, sizes)}; allowed is one of {known}'
    )
  if start and stop and start.endswith('%') != stop.endswith('%'):
    raise UserError(  # TFDS would take both for percentages
      f'{shown} mixes a number and a percentage; give both bounds in '
      'examples or both in percent'
    )
  size = sizes[name]
  first = 0 if start is None else _bound_to_index(start, size, shown)
  end = size if stop is None else _bound_to_index(stop, size, shown)
  if first > end:
    raise UserError(
      f'{shown} is empty: {name!r} has {size} images, and the slice '
      f'goes from {first} to {end}'
    )
  return Part(name, first, end)


def _bound_to_index(bound: str, size: int, shown: str) -> int:
  """Turns '-5000' or '10%' into an index from 0 to `size`."""
  if bound.endswith('%'):
    index = round(float(bound[:-1]) * size / 100)
    in_range = abs(float(bound[:-1])) <= 100
    allowed = 'from -100% to 100%'
  else:
    index = int(bound)
    in_range = abs(index) <= size
    allowed = f'from -{size} to {size}'
  if not in_range:
    raise UserError(
      f'{shown}: the bound {bound} is out of range; allowed is {allowed}'
    )
  return index + size if index < 0 else index
