"""Reads folders of four IDX files, as MNIST and sets of its format have them.

Such sets are MNIST, Fashion-MNIST, KMNIST and those that others store alike:
`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same two with
`t10k` for the test images; each of them packed (`.gz`) or not.
"""

import functools
import os
import pathlib

import numpy as np
from PIL import Image

from googlenet.data.idx import damaged_file, read_idx, read_shape
from googlenet.data.images import Transform
from googlenet.data.splits import Read, Source, some
from googlenet.errors import UserError

_PREFIXES = {'train': 'train', 'test': 't10k'}
_KINDS = {'images': 3, 'labels': 1}  # number of dimensions
_SUFFIXES = ('.gz', '')

# Names of the classes of known sets; those of others are their numbers.
CLASSES = {
  'mnist': tuple('0123456789'),
  'fashion_mnist': (
    *('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat'),
    *('Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'),
  ),
  'kmnist': ('o', 'ki', 'su', 'tsu', 'na', 'ha', 'ma', 'ya', 're', 'wo'),
}


def open_idx_folder(name: str, data_dir: str) -> Source:
  """Opens a folder of IDX files.

  Args:
    name: of the data set; decides the names of classes if it is in `CLASSES`.
    data_dir: the folder. Files of one split are enough.

  Returns:
    The source; opening one of its splits reads that split into memory.

  Raises:
    UserError: the folder or one of its files is missing or damaged, or images
      and labels do not belong together.
  """
  folder = folder_of(data_dir)
  found = {
    split: {kind: _find(folder, split, kind) for kind in _KINDS}
    for split in _PREFIXES
  }
  found = {k: v for k, v in found.items() if any(v.values())}
  if not found:
    raise UserError(
      f'config.data.data_dir={data_dir!r} holds no {_name("train", "images")} '
      f'and no {_name("test", "images")}, packed (.gz) or not: give the folder '
      'of the IDX files'
    )
  shapes, labels = {}, {}
  for split, files in found.items():
    for kind, path in files.items():
      if path is None:
        raise UserError(
          f'config.data.data_dir={data_dir!r} lacks {_name(split, kind)}, '
          'packed (.gz) or not: images and labels belong together'
        )
    shapes[split] = _checked_shape(files['images'], 'images')
    labels[split] = _read_labels(files['labels'], name, shapes[split][0])
  sides = {shape[1:] for shape in shapes.values()}
  if len(sides) > 1:
    sizes = ', '.join(f'{k}: {v[1]}x{v[2]}' for k, v in shapes.items())
    raise UserError(
      f'config.data.data_dir={data_dir!r} holds images of different sizes '
      f'({sizes} pixels): they are of different sets'
    )
  most = max(int(values.max()) for values in labels.values())
  names = CLASSES.get(name) or tuple(map(str, range(most + 1)))

  # Only told: known sets (EMNIST's letters) count from 1.
  empty = sorted({*range(most + 1)} - {*labels.get('train', ())})
  notes = ()
  if 'train' in labels and name not in CLASSES and empty:
    notes = (f'no training image has label {some([*map(str, empty)])}',)

  def open_split(split: str, transform: Transform | None) -> Read:
    images = read_idx(found[split]['images'])[..., np.newaxis]
    return functools.partial(read_examples, images, labels[split], transform)

  return Source(
    split_sizes={split: shape[0] for split, shape in shapes.items()},
    sides=sides.pop(),
    num_channels=1,
    class_names=names,
    open_split=open_split,
    notes=notes,
  )


def folder_of(data_dir: str) -> pathlib.Path:
  """Returns the folder that `data.data_dir` names.

  Raises:
    UserError: it does not exist, or the field is empty.
  """
  folder = pathlib.Path(os.path.expanduser(data_dir))
  if not data_dir or not folder.is_dir():
    raise UserError(
      f'config.data.data_dir={data_dir!r}: '
      + ('no such folder' if data_dir else 'no folder is given')
      + f': give the one with {_name("train", "images")}.gz and its like'
    )
  return folder


def read_examples(
  images: np.ndarray,
  labels: np.ndarray,
  transform: Transform | None,
  indices: np.ndarray,
  epoch: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Reads examples of uint8 [N, H, W, C], in memory or mapped: a `Read`."""
  if transform is None:
    return np.asarray(images[indices]), labels[indices]
  channels = images.shape[3]
  out = np.empty((len(indices), *transform.sides, channels), np.uint8)
  for place, index in enumerate(map(int, indices)):
    pixels = np.asarray(images[index])
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    out[place] = transform(image, channels, epoch, index)
  return out, labels[indices]


def _name(split: str, kind: str) -> str:
  return f'{_PREFIXES[split]}-{kind}-idx{_KINDS[kind]}-ubyte'


def _find(folder: pathlib.Path, split: str, kind: str) -> pathlib.Path | None:
  paths = [folder / (_name(split, kind) + suffix) for suffix in _SUFFIXES]
  return next((path for path in paths if path.exists()), None)


def _checked_shape(path: pathlib.Path, kind: str) -> tuple[int, ...]:
  shape = read_shape(path)
  if len(shape) != _KINDS[kind]:
    raise damaged_file(
      path, f'holds the shape {shape}', f'{_KINDS[kind]} dimensions of {kind}'
    )
  return shape


def _read_labels(path: pathlib.Path, name: str, num_images: int) -> np.ndarray:
  """Reads labels as int32 and checks their number and, if known, the range."""
  (count,) = _checked_shape(path, 'labels')
  if count != num_images:
    raise damaged_file(
      path, f'holds {count} labels', f'{num_images}, a label for each image'
    )
  labels = read_idx(path).astype(np.int32)
  if name in CLASSES and labels.max() >= len(CLASSES[name]):
    raise damaged_file(
      path,
      f'holds the label {labels.max()}',
      f'labels below {len(CLASSES[name])}, because config.data.name={name!r}',
    )
  return labels
