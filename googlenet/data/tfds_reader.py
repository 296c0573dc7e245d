"""Reads TFDS data sets without TensorFlow and without network access.

They must be prepared on this machine in the format array_record, which gives
random access.
"""

import functools
import os
import pathlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from googlenet.data.images import MODES, Transform, open_image, pixels
from googlenet.data.splits import Read, Source
from googlenet.errors import UserError, did_you_mean

if TYPE_CHECKING:  # importing TFDS takes 0.5 s, and 'bundled' never needs it
  import tensorflow_datasets as tfds

# No namespaces ('huggingface:mnist', 'kubric:...'): they need the network.
_TFDS_NAME = re.compile(
  r'(?P<base>\w+)(/[\w.+-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?', re.ASCII
)
_FEATURES = 'tensorflow_datasets.core.features.'
_AGAIN = 'delete that folder and prepare the data set again'


def open_tfds(name: str, data_dir: str) -> Source:
  """Opens a prepared TFDS data set with the features 'image' and 'label'.

  Args:
    name: 'cifar10', 'name/config', 'name:1.0.0' or 'name/config:1.0.0'.
    data_dir: TFDS's folder, or '' for its default.

  Returns:
    The source; each call of a reader reads the requested examples from disk.

  Raises:
    UserError: the data set does not exist, is not prepared for random access,
      or has no uint8 images with labels; or, on reading, a file is damaged.
  """
  builder = _tfds_builder(name, data_dir)
  image, label = _image_and_label(builder, name)
  height, width, num_channels = image.shape
  sides = None if height is None or width is None else (height, width)
  num_channels = num_channels or 3

  def open_split(split_name: str, transform: Transform | None) -> Read:
    reader = TfdsReader(
      name, str(builder.data_dir), split_name, sides, num_channels, transform
    )
    reader.open(builder)
    return reader

  return Source(
    split_sizes={k: v.num_examples for k, v in builder.info.splits.items()},
    sides=sides,
    num_channels=num_channels,
    class_names=tuple(label.names),
    open_split=open_split,
  )


@functools.cache
def _import_tfds() -> Any:
  """Imports TFDS and makes it import no module that a data set names.

  The features.json of a data set names a class for each feature, and TFDS would
  import the module of any name. Features of the user's own count if their
  module has been imported before.
  """
  import tensorflow_datasets as tfds

  connector = tfds.features.FeatureConnector
  find = connector.cls_from_name

  def find_known(name: str) -> type:
    is_known = name in connector._registered_features
    if not is_known and not name.startswith(_FEATURES):
      raise ValueError(
        f'its features.json names {name!r}, which is no feature of TFDS and is '
        'not imported, as it could run code'
      )
    return find(name)

  connector.cls_from_name = staticmethod(find_known)
  return tfds


class TfdsReader:
  """Reads examples of one whole split: a `Read`.

  A pickled copy opens the files again in its process.
  """

  def __init__(
    self,
    name: str,
    folder: str,
    split_name: str,
    sides: tuple[int, int] | None,
    num_channels: int,
    transform: Transform | None,
  ):
    """Stores what to read; `open` or the first call opens the files.

    Args:
      name: name of the data set, for messages.
      folder: folder with its files.
      split_name: name of a whole split.
      sides: (H, W) of all stored images; None: they differ.
      num_channels: number of channels of the returned images.
      transform: what is done to each image; None: images keep their size.
    """
    self._name, self._folder, self._split_name = name, folder, split_name
    self._sides, self._num_channels = sides, num_channels
    self._transform = transform
    self._source = None

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_source': None}

  def open(self, builder: 'tfds.core.DatasetBuilder | None' = None) -> None:
    """Opens the files.

    Args:
      builder: TFDS's builder of the data set; None: it is made from the folder.

    Raises:
      UserError: the files are missing, damaged or without random access.
    """
    tfds = _import_tfds()
    # Images are decoded here, not by TFDS: TFDS's result depends on whether
    # OpenCV is installed, and a grey JPEG in a set of colour images stays grey.
    with_bytes = {'image': tfds.decode.SkipDecoding()}
    try:
      builder = builder or tfds.builder_from_directory(self._folder)
      self._source = builder.as_data_source(
        self._split_name, decoders=with_bytes
      )
    except NotImplementedError as error:
      raise UserError(
        f'config.data.name={self._name!r} is stored in {self._folder} as '
        f'{builder.info.file_format.value}, which has no random access; '
        f'{_how_to_prepare(self._name, "ANOTHER_FOLDER")} and set '
        'config.data.data_dir to that folder'
      ) from error
    except Exception as error:  # TFDS and array_record raise a dozen types
      raise _unreadable(self._name, self._folder, error, _AGAIN) from error

  def __call__(
    self, indices: np.ndarray, epoch: int
  ) -> tuple[np.ndarray, np.ndarray]:
    if self._source is None:
      self.open()
    sides = self._transform.sides if self._transform else self._sides
    shape = (len(indices), *sides, self._num_channels)
    images, labels = np.empty(shape, np.uint8), np.empty(len(indices), np.int32)
    try:
      examples = self._source.__getitems__(indices.tolist())
    except Exception as error:  # as above
      raise _unreadable(self._name, self._folder, error, _AGAIN) from error
    for i, (index, example) in enumerate(zip(indices, examples, strict=True)):
      labels[i] = example['label']
      try:
        images[i] = self._decode(example['image'], epoch, int(index))
      except Exception as error:  # Pillow raises a dozen types
        raise self._damaged(int(index), example, error) from error
    return images, labels

  def _decode(self, encoded: bytes, epoch: int, index: int) -> np.ndarray:
    with open_image(encoded) as image:
      if self._transform:
        return self._transform(image, self._num_channels, epoch, index)
      whole = (0, 0, *image.size)
      return pixels(image, self._num_channels, whole, self._sides)

  def _damaged(
    self, index: int, example: dict[str, Any], error: Exception
  ) -> UserError:
    file_name = example.get('file_name', b'')
    if isinstance(file_name, bytes):
      file_name = file_name.decode(errors='replace')
    called = f' ({file_name})' if file_name else ''
    return UserError(
      f'config.data.name={self._name!r}: image {index}{called} of the split '
      f'{self._split_name!r} in {self._folder} cannot be decoded: '
      f'{_reason(error)}; {_AGAIN}, or leave it out with a slice of the split'
    )


def _tfds_builder(name: str, data_dir: str) -> 'tfds.core.DatasetBuilder':
  """Finds a prepared data set on disk, without network access."""
  tfds = _import_tfds()
  parsed = _TFDS_NAME.fullmatch(name)
  if parsed is None:
    raise UserError(
      f'config.data.name={name!r} is not a TFDS name; allowed is name, '
      'name/config, name:1.0.0 or name/config:1.0.0'
    )
  if '://' in data_dir:
    raise UserError(
      f'config.data.data_dir={data_dir!r}; allowed is a folder of this machine'
    )
  folder = os.path.expanduser(data_dir) or tfds.core.constants.DATA_DIR
  # TFDS would wait for ever where a pipe is in place of a file.
  for path in pathlib.Path(folder, parsed.group('base')).rglob('*'):
    if not (path.is_file() or path.is_dir()):
      raise UserError(
        f'config.data.name={name!r}: {path} is no regular file; {_AGAIN}'
      )
  try:
    builder = tfds.builder(name, data_dir=folder, try_gcs=False)
  except tfds.core.DatasetNotFoundError as error:
    registered = tfds.list_builders(with_community_datasets=False)
    raise UserError(
      f'config.data.name={name!r}: neither a data set that TFDS knows nor one '
      f'prepared in {folder}{did_you_mean(parsed.group("base"), registered)}'
    ) from error
  except Exception as error:  # TFDS raises a dozen types
    raise _unreadable(
      name, folder, error, 'check the name and that folder'
    ) from error
  if not builder.info.splits:
    raise UserError(
      f'config.data.name={name!r} is not prepared in {builder.data_dir}; '
      f'{_how_to_prepare(name, folder if data_dir else "")}'
    )
  return builder


def _image_and_label(
  builder: 'tfds.core.DatasetBuilder', name: str
) -> tuple['tfds.features.Image', 'tfds.features.ClassLabel']:
  """Returns the features `image` and `label` of a data set."""
  tfds = _import_tfds()
  features = builder.info.features
  is_mapping = isinstance(features, tfds.features.FeaturesDict)
  found = dict(features.items()) if is_mapping else {}
  image, label = found.get('image'), found.get('label')
  if not (
    isinstance(image, tfds.features.Image)
    and image.np_dtype == np.uint8
    and image.shape[-1] in (None, *MODES)
    and isinstance(label, tfds.features.ClassLabel)
    and label.num_classes
  ):
    raise UserError(
      f'config.data.name={name!r} is not for image classification: it needs '
      "the features 'image' (Image, uint8) and 'label' (ClassLabel), but has "
      f'{", ".join(map(repr, found))}; choose another data set'
    )
  return image, label


def _how_to_prepare(name: str, data_dir: str) -> str:
  """Returns the command that writes a TFDS data set for random access."""
  folder = f'data_dir={data_dir!r}, ' if data_dir else ''
  return (
    'prepare it once, with TensorFlow and the network: pip install tensorflow '
    '&& python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder({name!r}, {folder}file_format='array_record')"
    '.download_and_prepare()"'
  )


def _unreadable(
  name: str, folder: str, error: Exception, mend: str
) -> UserError:
  """Returns the error for a data set that TFDS cannot read."""
  return UserError(
    f'config.data.name={name!r} cannot be read from {folder}: '
    f'{_reason(error)}; {mend}'
  )


def _reason(error: Exception) -> str:
  """Returns an error's type and text in one line, shortened if it is long."""
  text = ' '.join(str(error).split())
  text = text if len(text) <= 300 else text[:300] + ' ...'
  return f'{type(error).__name__}: {text}'
