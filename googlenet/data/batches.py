"""Batches on the devices: in an order set by (seed, epoch), split by process.

A batch is a dict of arrays whose leading axis D is this process's devices:
`image` uint8 [D, B, H, W, C]; `label`, `index` (of the example in its split,
-1: padding) and `epoch`, each int32 [D, B]. A set that fits is copied to every
device, which gathers its batches there. A larger set is streamed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.data.classes import check_labels
from googlenet.data.sources import Dataset, read_all
from googlenet.data.stream import IndexBatch, stream
from googlenet.runtime.parallel import PMAP, parallelize, replicated
from googlenet.runtime.progress import counted

Batch = dict[str, jax.Array]


class Pipeline(NamedTuple):
  """The input pipeline of a split: turns index batches into batches.

  Attributes:
    dataset: the split that batches are read from.
    batches: takes global index batches; returns an iterator with this process's
      share of each. Close the iterator if it is not used up, since it may own
      worker processes.
    on_device: whether all images are kept on the devices.
  """

  dataset: Dataset
  batches: Callable[[Sequence[IndexBatch]], Iterator[Batch]]
  on_device: bool


def make_pipeline(
  dataset: Dataset,
  num_classes: int,
  on_device_mb: int,
  num_workers: int,
  how: str = PMAP,
) -> Pipeline:
  """Makes the input pipeline; reads the whole set if it fits on a device.

  Args:
    dataset: one split.
    num_classes: number of classes of the model; labels must be below it.
    on_device_mb: size in MiB of the largest set to keep on the devices. A set
      with random crops is always streamed.
    num_workers: processes that read a streamed set; 0: a thread of this one.
    how: `train.parallel`.

  Raises:
    UserError: a label is outside range(num_classes).
  """
  num_bytes = dataset.num_examples * int(np.prod(dataset.image_shape))
  if num_bytes <= on_device_mb * 2**20 and not dataset.is_random:
    images, labels = read_all(dataset)
    check_labels(labels, num_classes, dataset.name)
    images, labels = replicated(images), replicated(labels)

    # A separate program, so that the training step is the same for both kinds.
    def gather(images, labels, indices):
      image = jnp.take(images, indices, axis=0, mode='clip')
      return {'image': image, 'label': jnp.take(labels, indices, mode='clip')}

    gather = parallelize(gather, in_axes=(None, None, 0), how=how)

    def resident(index_batches: Sequence[IndexBatch]) -> Iterator[Batch]:
      for index_batch in index_batches:
        numbers = _numbers(index_batch)
        yield {**gather(images, labels, numbers['index']), **numbers}

    return Pipeline(dataset, resident, True)

  def streamed(index_batches: Sequence[IndexBatch]) -> Iterator[Batch]:
    share = (jax.process_index(), jax.process_count())
    parts = stream(dataset, index_batches, share, num_workers)
    # Closes the stream also if the caller stops early.
    with contextlib.closing(parts):
      for index_batch, (images, labels) in zip(
        index_batches, parts, strict=True
      ):
        check_labels(labels, num_classes, dataset.name)
        shape = (jax.local_device_count(), -1)
        yield {
          'image': images.reshape(*shape, *images.shape[1:]),
          'label': labels.reshape(shape),
          **_numbers(index_batch),
        }

  return Pipeline(dataset, streamed, False)


def _numbers(index_batch: IndexBatch) -> dict[str, np.ndarray]:
  """Returns this process's share of `index` and `epoch`."""
  epochs = np.full_like(index_batch.indices, index_batch.epoch)
  numbers = {'index': index_batch.indices, 'epoch': epochs}
  return {name: device_share(array) for name, array in numbers.items()}


def device_share(indices: np.ndarray) -> np.ndarray:
  """Returns this process's share of a global batch, int [D, B / D_global]."""
  num_devices = jax.local_device_count()
  share = indices.reshape(jax.process_count(), num_devices, -1)
  return share[jax.process_index()]


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  """Returns the order of an epoch: int32 [num_examples], by (seed, epoch)."""
  rng = np.random.default_rng([seed, epoch])
  return rng.permutation(num_examples).astype(np.int32)


class TrainIndices(Sequence):
  """The index batches of a range of training steps, computed on demand.

  Each is a function of the step number, so a worker process that gets a pickled
  copy can compute any of them.
  """

  def __init__(
    self, seed: int, num_examples: int, batch_size: int, start: int, stop: int
  ):
    """Covers the steps start to stop - 1, counted from 0.

    To the training loop, which counts from 1, they are start + 1 to stop.
    """
    self._seed, self._num_examples = seed, num_examples
    self._batch_size, self._steps = batch_size, range(start, stop)
    self._epoch, self._order = -1, None

  def __len__(self) -> int:
    return len(self._steps)

  def __getitem__(self, place: int) -> IndexBatch:
    steps_per_epoch = self._num_examples // self._batch_size
    epoch, first = divmod(self._steps[place], steps_per_epoch)
    if epoch != self._epoch:
      self._epoch, self._order = epoch, self.order(epoch)
    return self._order.part(first, self._batch_size)

  def order(self, epoch: int) -> IndexBatch:
    """Returns the examples of an epoch."""
    return IndexBatch(epoch_order(self._seed, epoch, self._num_examples), epoch)

  def __getstate__(self) -> dict[str, object]:
    return {**self.__dict__, '_epoch': -1, '_order': None}


def eval_indices(
  num_examples: int, batch_size: int, num_devices: int
) -> list[IndexBatch]:
  """Returns every index once, in order; the last batch is padded with -1.

  Args:
    num_examples: number of examples in the split.
    batch_size: lowered to num_examples if that is less, then rounded up to a
      multiple of num_devices.
    num_devices: number of devices of all processes.
  """
  batch_size = min(batch_size, num_examples)  # no batch of padding alone
  batch_size = -(-batch_size // num_devices) * num_devices
  index_batches = []
  for first in range(0, num_examples, batch_size):
    indices = np.full(batch_size, -1, np.int32)
    count = min(batch_size, num_examples - first)
    indices[:count] = np.arange(first, first + count)
    index_batches.append(IndexBatch(indices))
  return index_batches


def eval_batches(feed: Pipeline, batch_size: int) -> Iterator[Batch]:
  """Yields evaluation batches with `mask`, float32 [D, B], 0 for padding."""
  index_batches = eval_indices(
    feed.dataset.num_examples, batch_size, jax.device_count()
  )
  with contextlib.closing(feed.batches(index_batches)) as batches:
    what = f'images   {feed.dataset.name} {feed.dataset.split}'
    shown = counted(index_batches, len(index_batches), what, 'batches')
    for index_batch, batch in zip(shown, batches, strict=True):
      mask = (device_share(index_batch.indices) >= 0).astype(np.float32)
      yield {'image': batch['image'], 'label': batch['label'], 'mask': mask}
