"""Streams the batches of a large data set, read ahead by Grain.

A batch is read in small parts. Each part depends only on its index batch, so
any number of worker processes gives the same bits in the same order.
"""

import contextlib
import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from types import ModuleType
from typing import NamedTuple

import numpy as np
from absl import flags

from googlenet.data.sources import Dataset
from googlenet.errors import UserError

# Examples per part: few, so that the first part arrives soon, but enough that
# passing parts between processes costs little.
_PART_SIZE = 32
_SHARED_MEMORY = '/dev/shm'


class IndexBatch(NamedTuple):
  """The examples of a batch.

  Attributes:
    indices: int32 [B], of all processes together; -1: padding.
    epoch: counted from 0, or one number for each example, int32 [B]; random
      crops differ from epoch to epoch.
  """

  indices: np.ndarray
  epoch: int | np.ndarray = 0

  def part(self, place: int, size: int) -> 'IndexBatch':
    """Returns the part at `place`, counted in parts of `size` examples."""
    chosen = slice(place * size, (place + 1) * size)
    return IndexBatch(
      self.indices[chosen],
      self.epoch if np.ndim(self.epoch) == 0 else self.epoch[chosen],
    )


class _Parts(Sequence):
  """The parts of all index batches that one process has to read."""

  def __init__(
    self, index_batches: Sequence[IndexBatch], share: tuple[int, int]
  ):
    self._index_batches = index_batches
    self._process, self._num_processes = share
    num_indices = len(index_batches[0].indices)
    self.share_size = num_indices // self._num_processes
    self.per_batch = math.ceil(self.share_size / _PART_SIZE)

  def __len__(self) -> int:
    return len(self._index_batches) * self.per_batch

  def __getitem__(self, place: int) -> IndexBatch:
    batch, part = divmod(place, self.per_batch)
    share = self._index_batches[batch].part(self._process, self.share_size)
    return share.part(part, _PART_SIZE)


class ReadPart:
  """Reads a part of a batch, with example 0 in place of padding."""

  def __init__(self, dataset: Dataset):
    self._read = dataset.read

  def __call__(self, part: IndexBatch) -> tuple[np.ndarray, np.ndarray]:
    indices = np.maximum(part.indices, 0)
    if np.ndim(part.epoch) == 0:
      return self._read(indices, part.epoch)
    order = np.argsort(part.epoch, kind='stable')
    numbers, starts = np.unique(part.epoch[order], return_index=True)
    found = [
      self._read(indices[places], int(number))
      for number, places in zip(
        numbers, np.split(order, starts[1:]), strict=True
      )
    ]
    back = np.argsort(order)
    images, labels = map(np.concatenate, zip(*found, strict=True))
    return images[back], labels[back]


def stream(
  dataset: Dataset,
  index_batches: Sequence[IndexBatch],
  share: tuple[int, int],
  num_workers: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields this process's share of each index batch; reads some ahead.

  Args:
    dataset: the split to read from.
    index_batches: index batches of equal size.
    share: (index of this process, number of processes); each process takes an
      equal part of every batch, in order.
    num_workers: number of worker processes; 0: a thread of this process reads.

  Yields:
    Images, uint8 [n, H, W, C], and labels, int32 [n].

  Raises:
    UserError: an image is damaged, a worker ended, there is too little shared
      memory for the workers, or Grain is missing.
  """
  grain = _import_grain()

  # Grain reads absl flags, which are unparsed unless launch.py has run.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  if not index_batches:
    return
  parts = _Parts(index_batches, share)
  source = grain.MapDataset.source(parts).map(ReadPart(dataset))
  num_workers = min(num_workers, len(parts))
  if num_workers:
    ahead = math.ceil(parts.per_batch / num_workers)
    _check_shared_memory(dataset, num_workers, ahead)
    _start_resource_tracker()
    ready = source.to_iter_dataset(grain.ReadOptions(0, 0)).mp_prefetch(
      grain.MultiprocessingOptions(num_workers, ahead), _start_worker
    )
  else:
    # One thread reads the files in order while the device computes.
    ready = source.to_iter_dataset(grain.ReadOptions(1, 2 * parts.per_batch))
  iterator = iter(ready)
  try:
    for _ in range(len(index_batches)):
      images = np.empty((parts.share_size, *dataset.image_shape), np.uint8)
      labels = np.empty(parts.share_size, np.int32)
      for first in range(0, parts.share_size, _PART_SIZE):
        some_images, some_labels = _next(iterator)
        images[first : first + len(some_labels)] = some_images
        labels[first : first + len(some_labels)] = some_labels
      yield images, labels
  finally:
    # Grain closes only workers that have been asked for a part. `get_state`
    # asks all of them, also after an error in the first part.
    iterator.get_state()
    iterator.close()


def _import_grain() -> ModuleType:
  """Imports Grain late: it is slow, and most sets fit on the device."""
  try:
    import grain
  except ImportError as error:
    raise UserError(
      f'sets that are streamed need Grain, which cannot be imported ({error}): '
      'pip install grain, or raise config.data.on_device_mb, so that the set '
      'is kept on the device'
    ) from error
  return grain


def _next(iterator: Iterator) -> tuple[np.ndarray, np.ndarray]:
  try:
    with _interrupts_blocked():  # the first call starts the workers
      return next(iterator)
  except RuntimeError as error:
    if 'Worker process was terminated' not in str(error):
      raise
    raise UserError(
      f'a process of config.data.workers ended: {error} A negative exit code '
      'is the signal that ended it; -9 often means too little memory: '
      'choose fewer workers'
    ) from error


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
  """Blocks SIGINT in this thread and in processes that it starts meanwhile.

  Ctrl-C reaches every process of a terminal, but the parent ends the workers.
  """
  if not hasattr(signal, 'pthread_sigmask'):  # Windows
    yield
    return
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(index: int, count: int) -> None:
  """Makes a worker end when its parent is killed; runs first in each worker."""
  del index, count
  parent = multiprocessing.parent_process()

  def follow() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def _start_resource_tracker() -> None:
  """Starts Python's resource tracker with its warnings turned off.

  The tracker frees shared memory that is left when reading ends early. Its
  warning would appear below the line that says why a run has ended.
  """
  if os.name != 'posix':  # Windows has none
    return
  name, value = 'PYTHONWARNINGS', 'ignore:resource_tracker'
  before = os.environ.get(name)
  os.environ[name] = f'{before},{value}' if before else value
  try:
    resource_tracker.ensure_running()
  finally:
    if before is None:
      del os.environ[name]
    else:
      os.environ[name] = before


def _check_shared_memory(
  dataset: Dataset, num_workers: int, ahead: int
) -> None:
  """Checks that there is enough shared memory for the workers' images.

  Otherwise the system would kill workers, for instance in a container.

  Raises:
    UserError: there is too little shared memory.
  """
  if not os.path.isdir(_SHARED_MEMORY):  # not Linux
    return
  # Parts that a worker is writing, in its queue, and in this process's queue.
  part_bytes = _PART_SIZE * math.prod(dataset.image_shape)
  needed = num_workers * (2 * ahead + 2) * part_bytes
  free = shutil.disk_usage(_SHARED_MEMORY).free
  if needed > free:
    raise UserError(
      f'config.data.workers={num_workers} may need {needed >> 20} MiB of '
      f'shared memory, {_SHARED_MEMORY} has {free >> 20} MiB free: choose '
      'fewer workers, or give a container more (docker run --shm-size)'
    )
