"""Batches on the devices: order by (seed, epoch), shares by process.

A batch is a dict of arrays with a leading axis of this process's devices,
`image` uint8 [D, B, H, W, C] and `label` int32 [D, B]. A set that fits lives
on every device and a batch is gathered there; a larger one is read by the
host, two batches ahead.
"""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.data.sources import Dataset, check_labels, read_all

Batch = dict[str, jax.Array]


class Feed(NamedTuple):
  """A data set, ready to give batches.

  Attributes:
    dataset: what it was made from.
    batches: an iterable of global index arrays int [B] (-1: padding) -> an
      iterator of batches of this process's share, one for each.
    on_device: whether the images live on the devices.
  """

  dataset: Dataset
  batches: Callable[[Iterable[np.ndarray]], Iterator[Batch]]
  on_device: bool


def make_feed(
  dataset: Dataset,
  num_classes: int,
  on_device_mb: int,
  place: Callable[[jax.Array], jax.Array],
  axis_name: str,
) -> Feed:
  """Makes a feed; reads the whole set if it fits on a device.

  Args:
    dataset: one split.
    num_classes: labels must be below it.
    on_device_mb: the largest set, in MiB, that is put on the devices.
    place: puts an array on every local device, as `pmap` returns it.
    axis_name: the name of the device axis of the training step.

  Raises:
    UserError: a label is outside range(num_classes).
  """
  num_bytes = dataset.num_examples * int(np.prod(dataset.image_shape))
  if num_bytes <= on_device_mb * 2**20:
    images, labels = read_all(dataset)
    check_labels(labels, num_classes, dataset.name)
    images, labels = place(images), place(labels)

    # A pmap of its own: the step sees batches and not where they come from.
    def gather(images, labels, indices):
      image = jnp.take(images, indices, axis=0, mode='clip')
      return {'image': image, 'label': jnp.take(labels, indices, mode='clip')}

    gather = jax.pmap(gather, axis_name=axis_name, in_axes=(None, None, 0))

    def resident(index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
      for indices in index_batches:
        yield gather(images, labels, device_share(indices))

    return Feed(dataset, resident, True)

  def read(indices: np.ndarray) -> Batch:
    share = device_share(indices)
    image, label = dataset.read(np.maximum(share.reshape(-1), 0))
    check_labels(label, num_classes, dataset.name)
    return {
      'image': image.reshape(*share.shape, *image.shape[1:]),
      'label': label.reshape(share.shape),
    }

  def streamed(index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
    yield from read_ahead(read, index_batches)

  return Feed(dataset, streamed, False)


def read_ahead(
  read: Callable[[np.ndarray], Batch],
  index_batches: Iterable[np.ndarray],
  depth: int = 2,
) -> Iterator[Batch]:
  """Yields read(indices) in order, `depth` of them read ahead in a thread."""
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
    pending = collections.deque()
    for indices in index_batches:
      pending.append(executor.submit(read, indices))
      if len(pending) > depth:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()


def device_share(indices: np.ndarray) -> np.ndarray:
  """Returns this process's part of a global batch, int [D, B / D_global]."""
  num_devices = jax.local_device_count()
  share = indices.reshape(jax.process_count(), num_devices, -1)
  return share[jax.process_index()]


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  """Returns the order of an epoch, a function of (seed, epoch) alone."""
  rng = np.random.default_rng([seed, epoch])
  return rng.permutation(num_examples).astype(np.int32)


def train_indices(
  seed: int, num_examples: int, batch_size: int, start: int, stop: int
) -> Iterator[np.ndarray]:
  """Yields the int32 [batch_size] indices of steps start to stop - 1."""
  steps_per_epoch = num_examples // batch_size
  order_of, order = -1, None
  for step in range(start, stop):
    epoch, place = divmod(step, steps_per_epoch)
    if epoch != order_of:
      order_of, order = epoch, epoch_order(seed, epoch, num_examples)
    yield order[place * batch_size : (place + 1) * batch_size]


def eval_indices(
  num_examples: int, batch_size: int, num_devices: int
) -> Iterator[np.ndarray]:
  """Yields every index once, in order; the last batch is padded with -1.

  Args:
    num_examples: of the split.
    batch_size: at most; then rounded up to a multiple of num_devices.
    num_devices: of all processes.
  """
  batch_size = min(batch_size, num_examples)  # no batch of padding alone
  batch_size = -(-batch_size // num_devices) * num_devices
  for first in range(0, num_examples, batch_size):
    indices = np.full(batch_size, -1, np.int32)
    count = min(batch_size, num_examples - first)
    indices[:count] = np.arange(first, first + count)
    yield indices


def eval_batches(feed: Feed, batch_size: int) -> Iterator[Batch]:
  """Yields batches with `mask` float32 [D, B], 0 for padding."""
  all_indices = list(
    eval_indices(feed.dataset.num_examples, batch_size, jax.device_count())
  )
  for indices, batch in zip(
    all_indices, feed.batches(all_indices), strict=True
  ):
    mask = (device_share(indices) >= 0).astype(np.float32)
    yield {**batch, 'mask': mask}
