"""A run, made from the config: data, network, state, steps.

Everything that can be wrong with the input is found here, before anything is
compiled or written.
"""

from typing import Any, NamedTuple

import jax
import ml_collections

from googlenet import config as config_lib
from googlenet import optimizer as optimizer_lib
from googlenet.data import batches, pipeline
from googlenet.errors import UserError
from googlenet.input import image_sizes
from googlenet.model import groups
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init, init_from_numpy
from googlenet.optimizer.lookahead import with_lookahead
from googlenet.train import finetune, precise_bn
from googlenet.train import step as step_lib
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
  train = pipeline.load_split(config, 'train_split')
  evaluation = pipeline.load_split(config, 'eval_split')
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
  train_feed = pipeline.make_feed(config, train)
  eval_feed = pipeline.make_feed(config, evaluation)

  network = network_lib.from_config(config)
  params, network_state = init_from_numpy(
    network, pipeline.image_shape(config, train), config.seed
  )
  check_image_sizes(config, network, pipeline.image_shape(config, train)[-1])
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
    *precise_bn.make_statistics(config, train_feed),
    lines,
  )
