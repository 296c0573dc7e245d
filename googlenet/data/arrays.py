"""Reads images that are stored as NumPy arrays.

One .npz with train_images, train_labels, test_images, ... (or x_train, y_train,
... as Keras has them), or a folder with a .npy file for each.
"""

import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from googlenet.data.folder import read_class_map
from googlenet.data.idx_folder import read_examples
from googlenet.data.images import Transform
from googlenet.data.splits import (
  ONE_SPLIT,
  Identity,
  Read,
  Source,
  check_distinct,
  count_classes,
  split_names,
)
from googlenet.errors import UserError
from googlenet.runtime.files import open_regular

# Names of the arrays of a split, and the optional one of the classes.
_NAMES = (('{}_images', '{}_labels'), ('x_{}', 'y_{}'))
_CLASSES = 'class_names'
_SAMPLE = 1000  # images that stand for all


def open_arrays(
  data_dir: str, train_split: str, eval_split: str, classes: str = ''
) -> Source:
  """Opens arrays of images; .npy files are mapped, .npz ones are read whole.

  Images are uint8 [N, H, W] or [N, H, W, C] with C 1 or 3, labels are integers
  [N] or [N, 1] from 0. Names of classes are an array `class_names` or come from
  `classes`; otherwise they are the numbers.

  Args:
    data_dir: a .npz file, or a folder with .npy files.
    train_split: name of a split, or a slice of it.
    eval_split: like `train_split`.
    classes: file with the names of the classes, one per line.

  Raises:
    UserError: a file or an array is missing or has another shape or dtype.
  """
  root = os.path.expanduser(data_dir)
  wanted = split_names(train_split, eval_split)
  try:
    paths = [root]
    if os.path.isdir(root):
      paths += [entry.path for entry in os.scandir(root)]
    stamp = tuple(os.stat(path).st_mtime_ns for path in paths)
  except OSError as error:
    raise UserError(
      f'config.data.data_dir={data_dir!r} cannot be read: {error.strerror}; '
      'config.data.source=arrays takes a .npz file or a folder of .npy files'
    ) from error
  return _open(root, wanted, classes, stamp)


@functools.lru_cache(maxsize=2)
def _open(
  root: str, wanted: tuple[str, ...], classes: str, stamp: tuple[int, ...]
) -> Source:
  """Opens the arrays once per process, since both splits need the classes."""
  del stamp  # part of the key: changed files are read again
  arrays = _load(root)
  splits = {name: _split(arrays, name, root) for name in wanted}
  shapes = {images.shape[1:] for images, _ in splits.values()}
  if len(shapes) > 1:
    raise UserError(
      f'{root} has images of different shapes: '
      f'{", ".join(map(str, sorted(shapes)))}; all splits need one'
    )
  (shape,) = shapes
  count = 1 + max(int(labels.max()) for _, labels in splits.values())
  names = tuple(map(str, range(count)))
  if classes:
    names = read_class_map(classes).names
  elif _CLASSES in arrays:
    names = tuple(map(str, arrays[_CLASSES].ravel()))
    check_distinct(names, f'{root}: {_CLASSES}')
  if len(names) < count:
    raise UserError(
      f'{root} has labels up to {count - 1}, but {len(names)} names of classes'
    )

  def open_split(name: str, transform: Transform | None) -> Read:
    images, labels = splits[name]
    return _Reader(images, labels, transform)

  return Source(
    split_sizes={name: len(labels) for name, (_, labels) in splits.items()},
    sides=shape[:2],
    num_channels=shape[2],
    class_names=names,
    open_split=open_split,
    identity={
      name: Identity(_digest(images, labels), count_classes(labels, names))
      for name, (images, labels) in splits.items()
    },
    labels={name: labels for name, (_, labels) in splits.items()},
  )


class _Reader:
  """Reads examples of a split: a `Read`.

  Pickled, it names the file of mapped images, which its process maps again.
  """

  def __init__(
    self,
    images: np.ndarray,
    labels: np.ndarray,
    transform: Transform | None,
  ):
    """Stores uint8 [N, H, W, C], int32 [N] and what is done to each image."""
    self._images, self._labels = images, labels
    self._transform = transform

  def __getstate__(self) -> dict[str, Any]:
    if not isinstance(self._images, np.memmap):
      return self.__dict__
    return {**self.__dict__, '_images': self._images.filename}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    if not isinstance(self._images, np.ndarray):
      self._images = _with_channels(np.load(self._images, mmap_mode='r'))

  def __call__(
    self, indices: np.ndarray, epoch: int
  ) -> tuple[np.ndarray, np.ndarray]:
    return read_examples(
      self._images, self._labels, self._transform, indices, epoch
    )


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
  """Returns the SHA-256 of all labels and of 1,000 evenly spaced images."""
  digest = hashlib.sha256(labels.astype('<i4').tobytes())
  count = min(len(images), _SAMPLE)
  for index in np.linspace(0, len(images) - 1, count).astype(int):
    digest.update(np.ascontiguousarray(images[index]))
  return digest.hexdigest()


def _load(root: str) -> Mapping[str, np.ndarray]:
  """Reads the arrays of a .npz file, or maps the .npy files of a folder.

  Raises:
    UserError: a file is damaged or holds Python objects.
  """
  path = root
  try:
    if not os.path.isdir(root):
      with open_regular(root) as data, np.load(data) as file:
        return {name: file[name] for name in file.files}
    found = {}
    for name in sorted(os.listdir(root)):
      path = os.path.join(root, name)
      if name.endswith('.npy'):
        open_regular(path).close()  # no pipe
        found[name.removesuffix('.npy')] = np.load(path, mmap_mode='r')
    return found
  except Exception as error:  # a damaged header raises a dozen types
    raise UserError(
      f'{path} cannot be read: {" ".join(str(error).split())[:200]}; '
      'config.data.source=arrays takes a .npz file or a folder of .npy files, '
      'without Python objects'
    ) from error


def _with_channels(images: np.ndarray) -> np.ndarray:
  return images[..., np.newaxis] if images.ndim == 3 else images


def _split(
  arrays: Mapping[str, np.ndarray], name: str, root: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns images, uint8 [N, H, W, C], and labels, int32 [N], of a split.

  Raises:
    UserError: an array is missing or has another shape or dtype.
  """
  pairs = [tuple(x.format(name) for x in pair) for pair in _NAMES]
  found = [pair for pair in pairs if all(x in arrays for x in pair)]
  if not found:
    raise UserError(
      f'{root} has no arrays of the split {name!r}: it needs '
      f'{" or ".join(" and ".join(pair) for pair in pairs)}, and has '
      f'{", ".join(arrays) or "none"}; {ONE_SPLIT}'
    )
  (image_name, label_name), *_ = found
  stored, labels = arrays[image_name], arrays[label_name]
  images = _with_channels(stored)
  is_shape = images.ndim == 4 and images.shape[3] in (1, 3)
  if images.dtype != np.uint8 or not is_shape:
    raise UserError(
      f'{root}: {image_name} is {stored.dtype} {stored.shape}; images are '
      'uint8 [N, H, W] or [N, H, W, C] with 1 or 3 channels, 0 to 255'
      f'{_mend_of_images(stored)}'
    )
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]
  if (
    labels.shape != images.shape[:1]
    or not np.issubdtype(labels.dtype, np.integer)
    or not len(labels)
    or labels.min() < 0
  ):
    raise UserError(
      f'{root}: {label_name} is {labels.dtype} {labels.shape}; labels are '
      f'whole numbers from 0, one for each of the {len(images)} images'
      f'{_mend_of_labels(labels, len(images))}'
    )
  return images, labels.astype(np.int32)


def _mend_of_images(stored: np.ndarray) -> str:
  """Returns ': store ...', what makes images of an array; '' if not known."""
  mend = 'x'
  if np.issubdtype(stored.dtype, np.floating) and stored.size:
    # A sample tells the range: a mapped file may be larger than memory.
    mend = '(x * 255)' if np.nanmax(stored[:_SAMPLE]) <= 1 else 'x'
    mend += '.round()'
  if stored.dtype != np.uint8 and np.issubdtype(stored.dtype, np.number):
    mend += ".astype('uint8')"
  is_last = stored.ndim != 4 or stored.shape[3] in (1, 3)
  if not is_last and stored.shape[1] in (1, 3):
    mend += '.transpose(0, 2, 3, 1)'
  elif not is_last:  # of neither order
    return ''
  return f': store {mend}' if mend != 'x' else ''


def _mend_of_labels(labels: np.ndarray, num_images: int) -> str:
  """Returns ': store ...', what makes labels of an array; '' if not known."""
  if labels.ndim == 2 and len(labels) == num_images:
    return ': store x.argmax(1)'
  if labels.shape == (num_images,) and np.issubdtype(labels.dtype, np.floating):
    return ": store x.astype('int32')"
  return ''
