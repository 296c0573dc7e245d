"""Fills in the fields that a data set decides: classes, mean and deviation."""

import os
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.data import classes, images, sources
from googlenet.errors import UserError
from googlenet.fields import LOCAL
from googlenet.input.preprocess import LUMA, num_channels
from googlenet.runtime import distributed
from googlenet.runtime.progress import working
from googlenet.runtime.terminal import tell

AUTO = ('auto',)
BALANCED = ('balanced',)
# So many images, evenly spaced, give mean and deviation to three digits.
_MOST_MEASURED = 10_000
_CHUNK = 500


def complete(
  config: ml_collections.FrozenConfigDict,
  stored: Mapping[str, Any] | None = None,
) -> ml_collections.FrozenConfigDict:
  """Returns the config with the fields that the data set decides.

  `model.num_classes` 0 becomes the number of classes; `data.mean` and
  `data.std` ('auto',) become those of the training images;
  `train.class_weights` ('balanced',) becomes numbers.

  Args:
    config: resolved.
    stored: config of a run that goes on, whose values are kept, except class
      weights where it has none; None: all come from the data set.

  Raises:
    UserError: the data set cannot be read, or classes are balanced twice.
  """
  wanted = open_fields(config)
  if (
    'train',
    'class_weights',
  ) in wanted and config.train.sampling == 'balanced':
    raise UserError(
      'config.train.class_weights=balanced and config.train.sampling=balanced '
      'would balance classes twice: choose one'
    )
  kept = {}
  for section, field in wanted:
    if stored is not None and stored[section][field] not in ((), []):
      kept[section, field] = stored[section][field]
  found = _decided(config, [name for name in wanted if name not in kept])
  changed = ml_collections.ConfigDict(config.to_dict())
  for (section, field), value in (found | kept).items():
    changed[section][field] = value
  for field in ('mean', 'std'):
    if ('data', field) in wanted:
      what = 'kept    ' if ('data', field) in kept else 'measured'
      tell(f'{what} config.data.{field}={tuple(changed.data[field])}')
  config = ml_collections.FrozenConfigDict(changed)
  _check_weights(config)
  return config


def complete_run(
  config: ml_collections.FrozenConfigDict, workdir: str | os.PathLike[str]
) -> ml_collections.FrozenConfigDict:
  """Returns `complete` for a run, which keeps its own values when it goes on.

  Process 0 alone needs to see the run; the others take the values that it
  finds, and keep their own folders.

  Args:
    config: resolved.
    workdir: folder of the run, which may be new; '': none.

  Raises:
    UserError: the data set or the config of the run cannot be read.
  """
  if not open_fields(config):
    return complete(config)

  def at_process_0() -> str:
    path = os.path.join(workdir or os.devnull, 'config.json')
    is_run = bool(workdir) and os.path.isfile(path)  # False: too long a name
    stored = config_lib.load(path) if is_run else None
    return config_lib.to_json(complete(config, stored))

  # Where there is one process, JAX is not asked: it would take a device.
  if distributed.is_one_of_several():
    text = distributed.on_process_0(at_process_0)
  else:
    text = at_process_0()
  completed = config_lib.from_json(text, 'config', True)
  ours = config_lib.flatten(config)
  completed.update_from_flattened_dict({name: ours[name] for name in LOCAL})
  return config_lib.resolve(completed)


def open_fields(
  config: ml_collections.FrozenConfigDict,
) -> list[tuple[str, str]]:
  """Returns section and name of the fields that the data set decides."""
  fields = {
    ('model', 'num_classes'): config.model.num_classes == 0,
    ('data', 'mean'): tuple(config.data.mean) == AUTO,
    ('data', 'std'): tuple(config.data.std) == AUTO,
    ('train', 'class_weights'): tuple(config.train.class_weights) == BALANCED,
  }
  return [name for name, is_open in fields.items() if is_open]


def _decided(
  config: ml_collections.FrozenConfigDict, wanted: list[tuple[str, str]]
) -> dict[tuple[str, str], Any]:
  """Returns the values of fields that the data set decides."""
  found = {}
  if ('model', 'num_classes') in wanted:
    _, source = sources.open_source(config.data)
    found['model', 'num_classes'] = len(source.class_names)
  if ('train', 'class_weights') in wanted:
    found['train', 'class_weights'] = tuple(_weights(config))
  if ('data', 'mean') in wanted or ('data', 'std') in wanted:
    with working('measure  mean and deviation of the training images'):
      mean, std = measure(config)
    measured = {('data', 'mean'): mean, ('data', 'std'): std}
    found |= {k: v for k, v in measured.items() if k in wanted}
  return found


def _check_weights(config: ml_collections.FrozenConfigDict) -> None:
  """Checks that there is a weight for each class.

  Raises:
    UserError: there are more or fewer.
  """
  count, classes_ = len(config.train.class_weights), config.model.num_classes
  if count not in (0, classes_):
    raise UserError(
      f'config.train.class_weights has {count} numbers for {classes_} classes: '
      'give one for each class, balanced, or () for none'
    )


def _training_images(
  data: ml_collections.FrozenConfigDict,
  transform: images.Transform | None = None,
) -> sources.Dataset:
  """Returns `data.train_split`, or `data.per_class` of each of its classes."""
  dataset = sources.load_dataset(
    data, data.train_split, transform, 'config.data.train_split'
  )
  if data.per_class:
    return classes.first_of_each_class(dataset, data.per_class)
  return dataset


def _weights(config: ml_collections.FrozenConfigDict) -> list[float]:
  """Returns class weights by the numbers of training images."""
  dataset = _training_images(config.data)
  count = config.model.num_classes or dataset.num_classes
  return classes.balanced_weights(classes.read_labels(dataset), count)


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
  dataset = _training_images(data, transform)
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
