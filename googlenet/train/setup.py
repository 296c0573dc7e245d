"""The parts of a run, made from the config: data, network, steps.

Everything that can be wrong with the input is found here, before anything is
compiled or written.
"""

from typing import Any, NamedTuple

import jax
import jmp
import ml_collections

from googlenet import config as config_lib
from googlenet import optimizer as optimizer_lib
from googlenet.data import batches, images, sources
from googlenet.errors import UserError
from googlenet.input import image_sizes
from googlenet.input.preprocess import num_channels
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init, init_from_numpy
from googlenet.optimizer import groups
from googlenet.optimizer.lookahead import with_lookahead
from googlenet.runtime import memory
from googlenet.runtime.parallel import PMAP_AXIS, replicated
from googlenet.train import finetune
from googlenet.train import step as step_lib
from googlenet.train.precise_bn import make_statistics_step
from googlenet.train.profiling import check_profile_steps
from googlenet.train.state import TrainState, make_train_state

Config = ml_collections.FrozenConfigDict


class Run(NamedTuple):
  """The parts of a training run, made from the config."""

  config: Config
  durations: config_lib.Durations
  train: batches.Feed
  evaluation: batches.Feed
  network: network_lib.Network
  state: TrainState
  train_step: Any
  eval_step: Any
  # Batch norm estimated anew, and on what; None: it is evaluated as it ran.
  statistics_step: Any = None
  statistics: batches.Feed | None = None
  lines: tuple[str, ...] = ()  # to tell of where it starts from


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
  try:
    dataset = sources.load_dataset(
      config.data, config.data[field], squares or transform
    )
  except UserError as error:
    text = str(error).replace('split=', f'config.data.{field}=', 1)
    raise UserError(text) from error
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
      replicated,
      PMAP_AXIS,
    )


def image_shape(
  config: Config, dataset: sources.Dataset
) -> tuple[int, int, int]:
  """Returns (H, W, C) of what the network sees of a data set."""
  channels = num_channels(config.data, dataset.image_shape[-1])
  return (config.data.image_size, config.data.image_size, channels)


def make_network(config: Config) -> network_lib.Network:
  """Returns the network of a config, on the kernels that suit its precision."""
  policy = jmp.get_policy(config.train.precision)
  return network_lib.make_network(
    config.model, policy.compute_dtype, config.finetune.frozen
  )


def check_image_sizes(
  config: Config, network: network_lib.Network, channels: int
) -> None:
  """Checks that `train.image_sizes` change no parameter.

  Raises:
    UserError: a fully connected layer of the network takes whole maps.
  """
  size = config.data.image_size
  for other, _ in image_sizes.parse_sizes(config.train.image_sizes):
    whole, part = (
      abstract_init(network, (side, side, channels))[0]
      for side in (size, other)
    )
    for module, leaves in whole.items():
      if leaves != part[module]:
        raise UserError(
          f'config.train.image_sizes: {module} of the network '
          f'{config.model.variant!r} has other parameters for images of '
          f'{other} pixels than of {size} (config.data.image_size): leave the '
          'sizes out, or take a network without it'
        )


def build(config: Config) -> Run:
  """Makes all parts of a run; compiles nothing of the network yet.

  Raises:
    UserError: the data, or data and config together, are not usable.
  """
  train = load_split(config, 'train_split')
  evaluation = load_split(config, 'eval_split')
  if train.image_shape != evaluation.image_shape:
    raise UserError(
      f'config.data.train_split={train.split!r} has images of '
      f'{train.image_shape}, config.data.eval_split={evaluation.split!r} of '
      f'{evaluation.image_shape}: they must be equal'
    )
  durations = config_lib.durations(
    config.train, train.num_examples, jax.device_count()
  )
  config_lib.check_pairs(config, jax.device_count())
  check_profile_steps(config.logging.profile_steps, durations)
  train_feed = make_feed(config, train)
  eval_feed = make_feed(config, evaluation)

  network = make_network(config)
  params, network_state = init_from_numpy(
    network, image_shape(config, train), config.seed
  )
  check_image_sizes(config, network, image_shape(config, train)[-1])
  schedule = optimizer_lib.make_schedule(
    config.optimizer, durations.steps_per_epoch, durations.total_steps
  )
  for field in ('rates', 'decays'):
    names = groups.parse_factors(config.optimizer[field], may_be_zero=True)
    groups.check_groups(f'optimizer.{field}', names, params)
  optimizer = optimizer_lib.make_optimizer(config.optimizer, schedule)
  params, network_state, optimizer, lines = finetune.apply(
    config.finetune, network, params, network_state, optimizer
  )
  optimizer = with_lookahead(
    optimizer,
    config.optimizer.lookahead_period,
    config.optimizer.lookahead_rate,
  )
  return Run(
    config,
    durations,
    train_feed,
    eval_feed,
    network,
    make_train_state(params, network_state, optimizer, config.train),
    step_lib.make_train_step(network, optimizer, schedule, config),
    step_lib.make_eval_step(network, config),
    *make_statistics(config, train_feed),
    lines,
  )


def make_statistics(
  config: Config, train: batches.Feed | None = None
) -> tuple[Any, batches.Feed | None]:
  """Makes what estimates batch norm anew, where the config asks for it.

  Args:
    config: resolved.
    train: of the training data, where there is one already.

  Returns:
    The step and the training images as evaluation sees them, or (None, None).
  """
  if not config.eval.batch_norm_batches:
    return None, None
  # Random crops of the host are another data set, and a few batches no reason
  # to put it on the devices.
  is_cropped = config.augment.random_resized_crop
  if train is None or is_cropped:
    split = load_split(config, 'train_split', is_augmented=False)
    train = make_feed(config, split, on_device_mb=0 if is_cropped else None)
  return make_statistics_step(config), train
