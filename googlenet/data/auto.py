"""Fills in the fields that a data set decides: classes, mean and deviation."""

from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from googlenet.data import images, sources
from googlenet.input.preprocess import LUMA, num_channels

AUTO = ('auto',)
# So many images, evenly spaced, give mean and deviation to three digits.
_MOST_MEASURED = 10_000
_CHUNK = 500


def complete(
  config: ml_collections.FrozenConfigDict,
  stored: Mapping[str, Any] | None = None,
) -> ml_collections.FrozenConfigDict:
  """Returns the config with the fields that the data set decides.

  `model.num_classes` 0 becomes the number of classes; `data.mean` and
  `data.std` ('auto',) become those of the training images.

  Args:
    config: resolved.
    stored: config of a run that goes on, whose values are taken; None: they
      come from the data set.

  Raises:
    UserError: the data set cannot be read.
  """
  wanted = [
    (section, field)
    for section, field, is_open in (
      ('model', 'num_classes', config.model.num_classes == 0),
      ('data', 'mean', tuple(config.data.mean) == AUTO),
      ('data', 'std', tuple(config.data.std) == AUTO),
    )
    if is_open
  ]
  if not wanted:
    return config
  changed = ml_collections.ConfigDict(config.to_dict())
  if stored is not None:
    for section, field in wanted:
      changed[section][field] = stored[section][field]
    return ml_collections.FrozenConfigDict(changed)
  if not config.model.num_classes:
    _, source = sources.open_source(config.data)
    changed.model.num_classes = len(source.class_names)
  fields = [field for section, field in wanted if section == 'data']
  if fields:
    measured = dict(zip(('mean', 'std'), measure(config), strict=True))
    for field in fields:
      changed.data[field] = measured[field]
  return ml_collections.FrozenConfigDict(changed)


def measure(
  config: ml_collections.FrozenConfigDict,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Measures mean and deviation of the training images as a network sees them.

  Of more than 10,000 images, as many are read, evenly spaced.

  Args:
    config: resolved.

  Returns:
    Mean and deviation of pixels in 0 to 1, a number per channel each, with four
    digits.

  Raises:
    UserError: an image cannot be read.
  """
  data = config.data
  transform = images.make_transform(data, config.augment, config.seed, False)
  dataset = sources.load_dataset(
    data, data.train_split, transform, 'config.data.train_split'
  )
  count = min(dataset.num_examples, _MOST_MEASURED)
  indices = np.linspace(0, dataset.num_examples - 1, count).round().astype(int)
  channels = num_channels(data, dataset.image_shape[-1])
  total, squares, pixels = np.zeros(channels), np.zeros(channels), 0
  for first in range(0, count, _CHUNK):
    stored, _ = dataset.read(indices[first : first + _CHUNK])
    x = stored.reshape(-1, stored.shape[-1]) / 255.0
    if channels < x.shape[1]:
      x = x @ np.array(LUMA)[:, np.newaxis]
    total += x.sum(0)
    squares += (x**2).sum(0)
    pixels += len(x)
  mean = total / pixels
  # A constant channel would divide by 0.
  std = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-4**2))
  return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
