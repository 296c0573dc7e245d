"""Opens data sets: Fashion-MNIST, IDX files, TFDS's, or the user's own images.

All become a `Dataset`, which gives random access to one split.
"""

from typing import NamedTuple

import ml_collections
import numpy as np

from googlenet.data import own
from googlenet.data.bundled import open_bundled
from googlenet.data.idx_folder import open_idx_folder
from googlenet.data.images import Transform, Whole
from googlenet.data.splits import (
  Identity,
  Part,
  Parts,
  SliceReader,
  Source,
  identity_of,
  join,
  labels_of,
  resolve_split,
)
from googlenet.data.tfds_reader import open_tfds
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
  read: SliceReader | Parts
  is_random: bool = False  # whether images differ from epoch to epoch
  notes: tuple[str, ...] = ()  # lines for the console
  identity: Identity | None = None  # of the user's own files
  labels: np.ndarray | None = None  # int32 [num_examples]; None: not known yet
  parts: tuple[Part, ...] = ()  # the examples of the source's splits


def open_source(data_config: ml_collections.ConfigDict) -> tuple[str, Source]:
  """Opens the data set that the config names; returns its name too.

  Raises:
    UserError: as `load_dataset`.
  """
  kind, name, folder = (data_config[x] for x in ('source', 'name', 'data_dir'))
  if kind == 'bundled':
    return name, open_bundled(name, folder)
  if kind == 'idx':
    return name, open_idx_folder(name, folder)
  if kind == 'tfds':
    return name, open_tfds(name, folder)
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
      the data set of 'bundled', 'idx' and 'tfds'; `data_dir` its folder, or ''
      for the default of the source. `image_size` is used only if images differ
      in size and there is no transform: they are squeezed into that square.
    split: a split's name, alone or sliced, or several joined by +, with TFDS's
      meaning: 'train', 'train[:50000]', 'train[:10%]+train[20%:]'.
    transform: what the host does to each image; None: images keep their native
      size if they share one.
    called: name of the split in errors, like 'config.data.eval_split'.

  Returns:
    The split. Fashion-MNIST, IDX files and .npz are in memory, others are read
    by calls of `read`.

  Raises:
    UserError: the source, name or split is unknown, or the data is missing or
      damaged.
  """
  name, source = open_source(data_config)
  parts = resolve_split(split, source.split_sizes, called)
  if transform is None and source.sides is None:
    transform = Whole(data_config.image_size)
  sides = source.sides if transform is None else transform.sides
  return Dataset(
    name=name,
    split=split,
    num_examples=sum(part.stop - part.start for part in parts),
    image_shape=(*sides, source.num_channels),
    num_classes=len(source.class_names),
    class_names=source.class_names,
    read=join(source, parts, transform),
    is_random=transform is not None and transform.is_random,
    notes=source.notes,
    identity=identity_of(source, parts),
    labels=labels_of(source, parts),
    parts=parts,
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
