"""The input pipeline of a config: opens and checks a split, makes its batches.

Data that does not fit the config is found here, before anything is compiled or
written.
"""

import ml_collections

from googlenet.data import batches, classes, constants, images, sources
from googlenet.errors import UserError
from googlenet.input.preprocess import num_channels
from googlenet.runtime import memory

Config = ml_collections.FrozenConfigDict


def load_split(
  config: Config,
  field: str,
  squares: images.Squares | None = None,
  is_augmented: bool | None = None,
) -> sources.Dataset:
  """Returns the data set of `data.train_split` or `data.eval_split`.

  Args:
    config: a resolved config.
    field: 'train_split' or 'eval_split'.
    squares: a transform that replaces the one of the config.
    is_augmented: whether the host augments images; None: only in training.

  Raises:
    UserError: `load_dataset` fails; or the classes (those of training), the
      channels or size of the images do not fit the config.
  """
  if is_augmented is None:
    is_augmented = field == 'train_split'
  transform = images.make_transform(
    config.data, config.augment, config.seed, is_augmented
  )
  dataset = sources.load_dataset(
    config.data,
    config.data[field],
    squares or transform,
    f'config.data.{field}',
  )
  if field == 'train_split' and config.data.per_class:
    dataset = classes.first_of_each_class(dataset, config.data.per_class)
  if is_augmented and dataset.num_classes > config.model.num_classes:
    raise UserError(
      f'config.model.num_classes={config.model.num_classes}: {dataset.name} '
      f'has {dataset.num_classes} classes; allowed is at least '
      f'{dataset.num_classes}'
    )
  stored = dataset.image_shape[-1]
  channels = num_channels(config.data, stored)
  if channels != stored and (channels, stored) not in ((1, 3), (3, 1)):
    raise UserError(
      f'config.data.channels={channels}: {dataset.name} has images of {stored} '
      f'channels, which cannot be converted; give 0 to keep them'
    )
  constants.check_counts(config.data, channels)
  if squares is None:
    check_pixels_are_left(config, field, dataset.image_shape)
  return dataset


def check_pixels_are_left(
  config: Config, field: str, stored_shape: tuple[int, ...]
) -> None:
  """Checks that crops, cutout and shifts leave some pixels of each image.

  Args:
    config: a resolved config.
    field: 'train_split' or 'eval_split'.
    stored_shape: (H, W, C) of the images.

  Raises:
    UserError: `augment.crop_padding`, `augment.cutout_size` or `eval.shift`
      could remove a whole image.
  """
  side = min(stored_shape[:2])
  if field == 'eval_split':
    limits = {'eval.shift': side - 1}
  else:  # cutout can be centred on any pixel, so it may be larger
    limits = {
      'augment.crop_padding': side - 1,
      'augment.cutout_size': 2 * side - 1,
    }
  for name, largest in limits.items():
    section, _, key = name.partition('.')
    value = config[section][key]
    if value > largest:
      raise UserError(
        f'config.{name}={value} is too large for stored images of '
        f'{stored_shape[0]}x{stored_shape[1]} pixels: choose at most {largest}'
      )


def make_pipeline(
  config: Config, dataset: sources.Dataset, on_device_mb: int | None = None
) -> batches.Pipeline:
  """Makes the input pipeline that gives a data set as batches on the devices.

  Args:
    config: a resolved config.
    dataset: the data set.
    on_device_mb: replaces `data.on_device_mb`.

  Raises:
    OutOfMemoryError: the data set does not fit into the devices' memory.
  """
  with memory.explained('data'):
    return batches.make_pipeline(
      dataset,
      config.model.num_classes,
      config.data.on_device_mb if on_device_mb is None else on_device_mb,
      config.data.workers,
      config.train.parallel,
    )


def image_shape(
  config: Config, dataset: sources.Dataset
) -> tuple[int, int, int]:
  """Returns (H, W, C) of the images that the network sees of a data set."""
  channels = num_channels(config.data, dataset.image_shape[-1])
  return (config.data.image_size, config.data.image_size, channels)
