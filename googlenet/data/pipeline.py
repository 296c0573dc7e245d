"""The input pipeline of a config: a split, its checks, its batches on devices.

Everything that can be wrong with the data is found here, before anything is
compiled or written.
"""

import ml_collections

from googlenet.data import batches, images, sources
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
    config: resolved.
    field: 'train_split' or 'eval_split'.
    squares: what to make of each image in place of what the config says.
    is_augmented: whether the host augments; None: as in training.

  Raises:
    UserError: as `load_dataset`; and where classes, channels or sides of the
      images do not fit the config.
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
  if dataset.num_classes > config.model.num_classes:
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
      f'channels, which can be turned into nothing else; give 0'
    )
  for name in ('mean', 'std'):
    value = tuple(config.data[name])
    if len(value) not in (1, channels):
      raise UserError(
        f'config.data.{name}={value} has {len(value)} numbers for images of '
        f'{channels} channel(s): give 1 or {channels}'
      )
  if squares is None:
    check_pixels_are_left(config, field, dataset.image_shape)
  return dataset


def check_pixels_are_left(
  config: Config, field: str, stored_shape: tuple[int, ...]
) -> None:
  """Checks that the fields that take pixels off images leave some.

  Args:
    config: resolved.
    field: as for `load_split`.
    stored_shape: (H, W, C).

  Raises:
    UserError: a border, a shift or a square takes an image as a whole.
  """
  side = min(stored_shape[:2])
  if field == 'eval_split':
    limits = {'eval.shift': side - 1}
  else:  # the centre of a square lies anywhere in the image
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


def make_feed(
  config: Config, dataset: sources.Dataset, on_device_mb: int | None = None
) -> batches.Feed:
  """Returns the data set as batches on the devices.

  Args:
    config: resolved.
    dataset: the data set.
    on_device_mb: takes the place of `data.on_device_mb`.

  Raises:
    OutOfMemoryError: the devices have not the memory for the set.
  """
  with memory.explained('data'):
    return batches.make_feed(
      dataset,
      config.model.num_classes,
      config.data.on_device_mb if on_device_mb is None else on_device_mb,
      config.data.workers,
      config.train.parallel,
    )


def image_shape(
  config: Config, dataset: sources.Dataset
) -> tuple[int, int, int]:
  """Returns (H, W, C) of what the network sees of a data set."""
  channels = num_channels(config.data, dataset.image_shape[-1])
  return (config.data.image_size, config.data.image_size, channels)
