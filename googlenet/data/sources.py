"""Opens data sets: the bundled Fashion-MNIST, TFDS's, or the user's own files.

All become a `Dataset`, which gives random access to one split.
"""

from typing import NamedTuple

import ml_collections
import numpy as np

from googlenet.data import own
from googlenet.data.bundled import open_bundled
from googlenet.data.images import Transform, Whole
from googlenet.data.splits import Identity, Read, Source, resolve_split
from googlenet.data.tfds_reader import open_tfds


class Dataset(NamedTuple):
  """One split of an image-classification data set, with random access."""

  name: str  # 'fashion_mnist'
  split: str  # as written in the config, e.g. 'train[:50000]'
  num_examples: int
  image_shape: tuple[int, ...]  # (H, W, C)
  num_classes: int
  class_names: tuple[str, ...]
  # (int indices [n], each 0 <= i < num_examples, epoch=0)
  # -> (images uint8 [n, H, W, C], labels int32 [n])
  read: 'SliceReader'
  is_random: bool = False  # whether images differ from epoch to epoch
  notes: tuple[str, ...] = ()  # lines for the console
  identity: Identity | None = None  # of the user's own files
  labels: np.ndarray | None = None  # int32 [num_examples]; None: not known yet


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


def open_source(data_config: ml_collections.ConfigDict) -> tuple[str, Source]:
  """Opens the data set that the config names; returns its name too.

  Raises:
    UserError: as `load_dataset`.
  """
  kind, folder = data_config.source, data_config.data_dir
  if kind == 'bundled':
    return data_config.name, open_bundled(data_config.name, folder)
  if kind == 'tfds':
    return data_config.name, open_tfds(data_config.name, folder)
  return own.name(folder), own.open_own(data_config)


def load_dataset(
  data_config: ml_collections.ConfigDict,
  split: str,
  transform: Transform | None = None,
  called: str = 'split',
) -> Dataset:
  """Opens one split of the data set that the config names.

  Args:
    data_config: the config's `data` section. `source` is its kind; `name` is
      the data set of 'bundled' and 'tfds'; `data_dir` its folder, or '' for the
      default of the source. `image_size` is used only if images differ in size
      and there is no transform: they are squeezed into that square.
    split: a split's name, alone or sliced, with TFDS's meaning for both
      sources: 'train', 'train[:50000]', 'train[-5000:]', 'train[10%:90%]'.
    transform: what the host does to each image; None: images keep their native
      size if they share one.
    called: name of the split in errors, like 'config.data.eval_split'.

  Returns:
    The split. A bundled set is read as a whole by this call, a TFDS set example
    by example by calls of `read`.

  Raises:
    UserError: the source, name or split is unknown, or the data is missing or
      damaged.
  """
  name, source = open_source(data_config)
  split_name, start, stop = resolve_split(split, source.split_sizes, called)
  if transform is None and source.sides is None:
    transform = Whole(data_config.image_size)
  sides = source.sides if transform is None else transform.sides
  labels = source.labels.get(split_name)
  return Dataset(
    name=name,
    split=split,
    num_examples=stop - start,
    image_shape=(*sides, source.num_channels),
    num_classes=len(source.class_names),
    class_names=source.class_names,
    read=SliceReader(source.open_split(split_name, transform), start, stop),
    is_random=transform is not None and transform.is_random,
    notes=source.notes,
    identity=source.identity.get(split_name),
    labels=None if labels is None else labels[start:stop],
  )


def read_all(
  dataset: Dataset, chunk_size: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a whole split into memory, `chunk_size` examples at a time.

  Returns:
    Images, uint8 [num_examples, H, W, C], and labels, int32 [num_examples].

  Raises:
    UserError: an example is damaged.
  """
  images = np.empty((dataset.num_examples, *dataset.image_shape), np.uint8)
  labels = np.empty(dataset.num_examples, np.int32)
  for start in range(0, dataset.num_examples, chunk_size):
    indices = np.arange(start, min(start + chunk_size, dataset.num_examples))
    images[indices], labels[indices] = dataset.read(indices)
  return images, labels
