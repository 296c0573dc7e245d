"""TFDS data sets, read without TensorFlow and without the network.

They must be prepared on this machine in the format array_record, which gives
random access.
"""

import io
import os
import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from googlenet.data.splits import Read, Source
from googlenet.errors import UserError, did_you_mean

if TYPE_CHECKING:  # importing TFDS takes 0.5 s, and 'bundled' never needs it
  import tensorflow_datasets as tfds

# No namespaces ('huggingface:mnist', 'kubric:...'): these use the network.
_TFDS_NAME = re.compile(
  r'(?P<base>\w+)(/[\w.+-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?', re.ASCII
)
_PILLOW_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}


def open_tfds(name: str, data_dir: str, image_size: int) -> Source:
  """Opens a prepared TFDS data set with the features 'image' and 'label'.

  Args:
    name: 'cifar10', 'name/config', 'name:1.0.0' or 'name/config:1.0.0'.
    data_dir: TFDS's folder, or '' for its default one.
    image_size: height and width that images are resized to, if they differ
      in size; otherwise they keep their native size.

  Returns:
    The source; its splits are read from disk as indices are asked for.

  Raises:
    UserError: no such data set, not prepared for random access, or not made
      of uint8 images and labels; on reading, damaged files.
  """
  builder = _tfds_builder(name, data_dir)
  image, label = _image_and_label(builder, name)
  height, width, num_channels = image.shape
  if height is None or width is None:
    height = width = image_size
  image_shape = (height, width, num_channels or 3)

  def open_split(split_name: str) -> Read:
    return _open_split(builder, name, split_name, image_shape)

  return Source(
    split_sizes={k: v.num_examples for k, v in builder.info.splits.items()},
    image_shape=image_shape,
    class_names=tuple(label.names),
    open_split=open_split,
  )


def _open_split(
  builder: 'tfds.core.DatasetBuilder',
  name: str,
  split_name: str,
  image_shape: tuple[int, int, int],
) -> Read:
  """Opens the files of one whole split."""
  import tensorflow_datasets as tfds

  again = 'delete that folder and prepare the data set again'
  # Images are decoded here, not by TFDS: its result depends on whether OpenCV
  # is installed, and keeps a grey JPEG grey in a set of colour images.
  with_bytes = {'image': tfds.decode.SkipDecoding()}
  try:
    source = builder.as_data_source(split_name, decoders=with_bytes)
  except NotImplementedError as error:
    raise UserError(
      f'config.data.name={name!r} is stored in {builder.data_dir} as '
      f'{builder.info.file_format.value}, which has no random access; '
      f'{_how_to_prepare(name, "ANOTHER_FOLDER")} and set config.data.data_dir '
      'to that folder'
    ) from error
  except Exception as error:  # TFDS and array_record raise a dozen types
    raise _unreadable(name, builder.data_dir, error, again) from error

  def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(indices), *image_shape), np.uint8)
    labels = np.empty(len(indices), np.int32)
    try:
      examples = source.__getitems__(indices.tolist())
      for i, example in enumerate(examples):
        images[i] = _decode_image(example['image'], image_shape)
        labels[i] = example['label']
    except Exception as error:  # as above, and Pillow's
      raise _unreadable(name, builder.data_dir, error, again) from error
    return images, labels

  return read


def _tfds_builder(name: str, data_dir: str) -> 'tfds.core.DatasetBuilder':
  """Finds a prepared data set on disk; never uses the network."""
  import tensorflow_datasets as tfds

  parsed = _TFDS_NAME.fullmatch(name)
  if parsed is None:
    raise UserError(
      f'config.data.name={name!r} is no TFDS name; allowed is name, '
      'name/config, name:1.0.0 or name/config:1.0.0'
    )
  if '://' in data_dir:
    raise UserError(
      f'config.data.data_dir={data_dir!r}; allowed is a folder of this machine'
    )
  folder = os.path.expanduser(data_dir) or tfds.core.constants.DATA_DIR
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
  """Returns the two features that image classification needs."""
  import tensorflow_datasets as tfds

  features = builder.info.features
  is_mapping = isinstance(features, tfds.features.FeaturesDict)
  found = dict(features.items()) if is_mapping else {}
  image, label = found.get('image'), found.get('label')
  if not (
    isinstance(image, tfds.features.Image)
    and image.np_dtype == np.uint8
    and image.shape[-1] in (None, *_PILLOW_MODES)
    and isinstance(label, tfds.features.ClassLabel)
    and label.num_classes
  ):
    raise UserError(
      f'config.data.name={name!r} is not for image classification: needed are '
      "the features 'image' (Image, uint8) and 'label' (ClassLabel), it has "
      f'{", ".join(map(repr, found))}; choose another data set'
    )
  return image, label


def _decode_image(
  encoded: bytes, image_shape: tuple[int, int, int]
) -> np.ndarray:
  """Decodes a PNG or JPEG to uint8 [H, W, C], resizing it if it differs."""
  height, width, num_channels = image_shape
  with Image.open(io.BytesIO(encoded)) as image:
    image = image.convert(_PILLOW_MODES[num_channels])
    if image.size != (width, height):
      image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_shape)


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
  """Returns the one-line error for a data set that TFDS fails to read."""
  reason = ' '.join(str(error).split())
  if len(reason) > 300:
    reason = reason[:300] + ' ...'
  return UserError(
    f'config.data.name={name!r} cannot be read from {folder}: '
    f'{type(error).__name__}: {reason}; {mend}'
  )
