"""Opens data sets: the bundled Fashion-MNIST, or any TFDS data set.

Both become a `Dataset`, which gives random access to one split.
"""

from typing import NamedTuple

import ml_collections
import numpy as np

from googlenet.data.bundled import open_bundled
from googlenet.data.images import Transform, Whole
from googlenet.data.splits import Read, resolve_split
from googlenet.data.tfds_reader import open_tfds
from googlenet.errors import UserError
from googlenet.runtime.progress import counted


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


def load_dataset(
  data_config: ml_collections.ConfigDict,
  split: str,
  transform: Transform | None = None,
  called: str = 'split',
) -> Dataset:
  """Opens one split of the data set that the config names.

  Args:
    data_config: the config's `data` section. `source` is 'bundled' or 'tfds';
      `name` is the data set; `data_dir` its folder, or '' for the default of
      the source. `image_size` is used only if images differ in size and there
      is no transform: they are squeezed into that square.
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
  name = data_config.name
  if data_config.source == 'bundled':
    source = open_bundled(name, data_config.data_dir)
  elif data_config.source == 'tfds':
    source = open_tfds(name, data_config.data_dir)
  else:
    raise UserError(
      f'config.data.source={data_config.source!r}; allowed is one of '
      'bundled, tfds'
    )
  split_name, start, stop = resolve_split(split, source.split_sizes, called)
  if transform is None and source.sides is None:
    transform = Whole(data_config.image_size)
  sides = source.sides if transform is None else transform.sides
  return Dataset(
    name=name,
    split=split,
    num_examples=stop - start,
    image_shape=(*sides, source.num_channels),
    num_classes=len(source.class_names),
    class_names=source.class_names,
    read=SliceReader(source.open_split(split_name, transform), start, stop),
    is_random=transform is not None and transform.is_random,
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
  starts = range(0, dataset.num_examples, chunk_size)
  what = f'read     {dataset.name} {dataset.split}'
  for start in counted(starts, len(starts), what, f'x {chunk_size:,} images'):
    indices = np.arange(start, min(start + chunk_size, dataset.num_examples))
    images[indices], labels[indices] = dataset.read(indices)
  return images, labels


def check_labels(
  labels: np.ndarray, num_classes: int, source_name: str
) -> None:
  """Checks that every label is a class of the model.

  Args:
    labels: integers of any shape.
    num_classes: number of classes of the model.
    source_name: name of the data set, for the message.

  Raises:
    UserError: a label is not in range(num_classes).
  """
  if labels.size == 0:
    return
  low, high = int(labels.min()), int(labels.max())
  if low < 0:
    raise UserError(
      f'config.model.num_classes={num_classes}: {source_name} has the label '
      f'{low} (seen: {low} to {high}), and no label may be negative; such a '
      'split holds no labels, choose another'
    )
  if high >= num_classes:
    raise UserError(
      f'config.model.num_classes={num_classes}: {source_name} has the label '
      f'{high} (seen: {low} to {high}); allowed is at least {high + 1}'
    )
