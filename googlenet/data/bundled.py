"""Fashion-MNIST, bundled with this package as IDX files."""

import functools
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from googlenet.data.idx import damaged_file, idx_header, read_idx
from googlenet.data.idx_folder import CLASSES, folder_of, read_examples
from googlenet.data.images import Transform
from googlenet.data.splits import Read, Source
from googlenet.errors import UserError
from googlenet.runtime import places


class _IdxFile(NamedTuple):
  name: str
  shape: tuple[int, ...]
  sha256: str  # of the unpacked file, including its header


class _IdxSplit(NamedTuple):
  images: _IdxFile
  labels: _IdxFile


_FASHION_MNIST = {
  'train': _IdxSplit(
    _IdxFile(
      'train-images-idx3-ubyte.gz',
      (60000, 28, 28),
      'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
    ),
    _IdxFile(
      'train-labels-idx1-ubyte.gz',
      (60000,),
      'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
    ),
  ),
  'test': _IdxSplit(
    _IdxFile(
      't10k-images-idx3-ubyte.gz',
      (10000, 28, 28),
      '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
    ),
    _IdxFile(
      't10k-labels-idx1-ubyte.gz',
      (10000,),
      '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
    ),
  ),
}


def open_bundled(name: str, data_dir: str) -> Source:
  """Opens the bundled Fashion-MNIST.

  Args:
    name: 'fashion_mnist', the only bundled data set.
    data_dir: a folder with the four files, or '' for those of this package.

  Returns:
    The source; opening one of its splits reads that split into memory.

  Raises:
    UserError: `name` is another one; or, when a split is opened, its files are
      missing or damaged.
  """
  if name != 'fashion_mnist':
    raise UserError(
      f'config.data.name={name!r}; allowed is fashion_mnist, the only bundled '
      'data set: for others add --config.data.source=idx (a folder of IDX '
      'files) or --config.data.source=tfds'
    )
  read = _read_packaged
  if data_dir:
    read = functools.partial(_read_checked, folder_of(data_dir))

  def open_split(split_name: str, transform: Transform | None) -> Read:
    idx_split = _FASHION_MNIST[split_name]
    images = read(idx_split.images)[..., np.newaxis]
    labels = read(idx_split.labels).astype(np.int32)
    return functools.partial(read_examples, images, labels, transform)

  return Source(
    split_sizes={k: v.labels.shape[0] for k, v in _FASHION_MNIST.items()},
    sides=(28, 28),
    num_channels=1,
    class_names=CLASSES['fashion_mnist'],
    open_split=open_split,
  )


@functools.cache
def _read_packaged(idx_file: _IdxFile) -> np.ndarray:
  """Reads a bundled file once per process, as a read-only array.

  Unpacking and checking the training images takes 0.3 s, and a process that
  works with several runs opens the same split for each of them.
  """
  folder = pathlib.Path(__file__).parent / 'fashion_mnist'
  try:
    array = _read_checked(folder, idx_file)
  except UserError as error:
    restore = places.how_to_restore(folder / idx_file.name)
    raise UserError(f'{error}, or {restore}') from error
  array.flags.writeable = False
  return array


def _read_checked(folder: pathlib.Path, idx_file: _IdxFile) -> np.ndarray:
  """Reads an IDX file and checks it against the published SHA-256."""
  path = folder / idx_file.name
  array = read_idx(path)
  if array.shape != idx_file.shape:
    raise damaged_file(
      path, f'holds the shape {array.shape}', f'{idx_file.shape}'
    )
  contents = hashlib.sha256(idx_header(array.shape))
  contents.update(array)
  if contents.hexdigest() != idx_file.sha256:
    raise damaged_file(
      path,
      f'its unpacked contents have the SHA-256 {contents.hexdigest()}',
      idx_file.sha256,
    )
  return array
