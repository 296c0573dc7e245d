"""Labelled images in files of any format and size, as a `Source`.

Folders, CSV and Parquet files differ in where an encoded image and its label
come from; everything after that is here: a look at every header, images that
cannot be read, the order of classes, and reading.
"""

import contextlib
import hashlib
import io
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple, Protocol

import numpy as np

from googlenet.data import files
from googlenet.data.images import Transform
from googlenet.data.splits import (
  Identity,
  Read,
  Source,
  count_classes,
  some,
)
from googlenet.errors import UserError
from googlenet.runtime.progress import working

# From so many images on, a call decodes in several threads: then a whole set is
# read, not a part of a stream.
_MANY = 64
_PART = 256  # headers that a thread reads at a time
_SLOW = 5000  # so many take seconds, which are shown
_THREADS = min(os.cpu_count() or 1, 32)


class Encoded(Protocol):
  """The encoded images of a split. Can be pickled for a worker process."""

  def __len__(self) -> int:
    """Returns the number of images."""

  def __getitem__(self, index: int) -> str | io.BytesIO:
    """Returns an image as `PIL.Image.open` takes it."""

  def name(self, index: int) -> str:
    """Returns what to call an image in messages: its path, or file and row."""

  def stamp(self) -> str:
    """Returns a text that is another one when files have changed."""

  def identity(self) -> str:
    """Returns a text of names and sizes, the same for a copy of the files."""

  def subset(self, indices: np.ndarray) -> 'Encoded':
    """Returns the images of some indices."""


class Labelled(NamedTuple):
  """The images of a split with their classes.

  Attributes:
    images: the encoded images.
    labels: int32 [N], indices into the names of classes.
  """

  images: Encoded
  labels: np.ndarray


def natural_key(name: str) -> list[tuple[bool, Any]]:
  """Sorts names as people do: 'class 2' before 'class 10'."""
  parts = re.split(r'(\d+)', name)
  return [
    (False, int(part)) if part.isdecimal() else (True, part)
    for part in parts
    if part
  ]


class Look(NamedTuple):
  """What the headers of a split say.

  Attributes:
    sizes: the (height, width) that occur, upright by EXIF.
    is_grey: whether all images are grey.
    problems: reason by index, for images that cannot be read.
  """

  sizes: frozenset[tuple[int, int]]
  is_grey: bool
  problems: Mapping[int, str]


def look(images: Encoded, decode: bool) -> Look:
  """Reads the header of every image, in threads.

  Args:
    images: of one split.
    decode: whether to decode the pixels too, which finds damage behind the
      header.
  """

  def look_at(indices: range) -> Look:
    headers, problems = [], {}
    for index in indices:
      try:
        headers.append(files.header(images[index], decode))
      except files.UnreadableError as error:
        problems[index] = str(error)
    sizes = frozenset(header.size for header in headers)
    return Look(sizes, all(header.is_grey for header in headers), problems)

  parts = [
    range(len(images))[first : first + _PART]
    for first in range(0, len(images), _PART)
  ]
  with warnings.catch_warnings(), futures.ThreadPoolExecutor(_THREADS) as pool:
    warnings.filterwarnings('ignore', module=r'PIL\.')
    return joined(list(pool.map(look_at, parts)))


# Both splits are opened for each of them, as their images must be alike.
_seen: dict[tuple[str, bool], Look] = {}
_MOST_SEEN = 8


def _look_once(images: Encoded, decode: bool) -> Look:
  """Returns what `look` finds, from memory if the files are unchanged."""
  key = images.stamp(), decode
  if key not in _seen:
    while len(_seen) >= _MOST_SEEN:
      _seen.pop(next(iter(_seen)))
    told = contextlib.nullcontext()
    if len(images) >= _SLOW or decode:
      what = 'pixels' if decode else 'headers'
      told = working(f'read     {what} of {len(images):,} images')
    with told:
      _seen[key] = look(images, decode)
  return _seen[key]


def joined(looks: Sequence[Look]) -> Look:
  """Joins what the headers of several parts say."""
  return Look(
    frozenset().union(*(part.sizes for part in looks)),
    all(part.is_grey for part in looks),
    {i: why for part in looks for i, why in part.problems.items()},
  )


class EncodedReader:
  """Reads images of a split: a `Read`. A pickled copy works in its process."""

  def __init__(
    self,
    split: Labelled,
    transform: Transform | None,
    sides: tuple[int, int] | None,
    num_channels: int,
  ):
    """Stores what to read.

    Args:
      split: images and labels.
      transform: what is done to each image; None: images keep their size.
      sides: (H, W) of all images; needed without a transform.
      num_channels: 1 or 3: the channels of the result.
    """
    self._images, self._labels = split
    self._transform = transform or files.Squeezed(sides)
    self._num_channels = num_channels
    self._reader = files.Reader(self._transform, num_channels)

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_reader': None}  # its lock cannot be pickled

  def __call__(
    self, indices: np.ndarray, epoch: int
  ) -> tuple[np.ndarray, np.ndarray]:
    if self._reader is None:
      self._reader = files.Reader(self._transform, self._num_channels)
    out = np.empty((len(indices), *self._reader.shape), np.uint8)

    def read(place: int) -> None:
      out[place] = self._read(int(indices[place]), epoch)

    with warnings.catch_warnings():
      warnings.filterwarnings('ignore', module=r'PIL\.')
      if len(indices) < _MANY:
        for place in range(len(indices)):
          read(place)
      else:
        with futures.ThreadPoolExecutor(_THREADS) as pool:
          list(pool.map(read, range(len(indices))))
    return out, self._labels[indices]

  def _read(self, index: int, epoch: int) -> np.ndarray:
    try:
      return self._reader(self._images[index], epoch, index)
    except files.UnreadableError as error:
      raise UserError(
        f'{self._images.name(index)} cannot be read: {error}; restore it; or '
        'remove it or give --config.data.on_bad_image=skip, after which a run '
        'that has begun needs a new --workdir'
      ) from error


def make_source(
  splits: Mapping[str, Labelled],
  class_names: tuple[str, ...],
  on_bad_image: str,
  where: str,
  notes: Sequence[str] = (),
) -> Source:
  """Makes a source of encoded images; looks at each of them.

  Args:
    splits: by name.
    class_names: of all splits.
    on_bad_image: 'stop', or 'skip' to leave out images that cannot be read.
    where: folder or file of the images, for messages.
    notes: lines about what was left out.

  Raises:
    UserError: images cannot be read.
  """
  looks = {
    name: _look_once(split.images, on_bad_image == 'skip')
    for name, split in splits.items()
  }
  bad = [
    f'{splits[name].images.name(i)} ({why})'
    for name, seen in looks.items()
    for i, why in seen.problems.items()
  ]
  notes, them = list(notes), 'it' if len(bad) == 1 else 'them'
  if bad and on_bad_image == 'stop':
    raise UserError(
      f'{len(bad):,} of the images in {where} cannot be read: {some(bad)}; '
      f'mend or remove {them}, or give --config.data.on_bad_image=skip to '
      f'leave {them} out'
    )
  if bad:
    notes.append(f'{len(bad):,} left out that cannot be read: {some(bad)}')
  splits = {
    name: _without(split, looks[name].problems)
    for name, split in splits.items()
  }
  for name, split in splits.items():
    if not len(split.labels):
      raise UserError(f'no image of the split {name!r} in {where} can be read')
  sizes = frozenset().union(*(seen.sizes for seen in looks.values()))
  sides = next(iter(sizes)) if len(sizes) == 1 else None
  num_channels = 1 if all(seen.is_grey for seen in looks.values()) else 3

  def open_split(name: str, transform: Transform | None) -> Read:
    return EncodedReader(splits[name], transform, sides, num_channels)

  return Source(
    split_sizes={name: len(split.labels) for name, split in splits.items()},
    sides=sides,
    num_channels=num_channels,
    class_names=class_names,
    open_split=open_split,
    notes=tuple(notes),
    identity={
      name: _identity(split, class_names) for name, split in splits.items()
    },
    labels={name: split.labels for name, split in splits.items()},
  )


def _without(split: Labelled, problems: Mapping[int, str]) -> Labelled:
  """Returns the split without the images that have a problem."""
  if not problems:
    return split
  kept = np.setdiff1d(np.arange(len(split.labels)), list(problems))
  return Labelled(split.images.subset(kept), split.labels[kept])


def _identity(split: Labelled, class_names: Sequence[str]) -> Identity:
  """Returns what a checkpoint keeps of a split."""
  digest = hashlib.sha256(split.labels.astype('<i4').tobytes())
  digest.update(split.images.identity().encode('utf-8', 'surrogateescape'))
  return Identity(digest.hexdigest(), count_classes(split.labels, class_names))
