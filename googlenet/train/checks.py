"""Whether a config fits the images and the network of its run."""

import ml_collections

from googlenet import config as config_lib
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.input import image_sizes
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init

Config = ml_collections.FrozenConfigDict

# Steps before a trace: the first waits for the compiler, the second uses
# memory for the first time.
WARM_UP_STEPS = 2


def check_shapes(train: Dataset, evaluation: Dataset) -> None:
  """Checks that the images of both splits have one shape.

  Raises:
    UserError: they differ.
  """
  if train.image_shape != evaluation.image_shape:
    raise UserError(
      f'config.data.train_split={train.split!r} has images of '
      f'{train.image_shape}, config.data.eval_split={evaluation.split!r} of '
      f'{evaluation.image_shape}: they must be equal'
    )


def check_best_metric(config: Config) -> None:
  """Checks that evaluations can differ in the score that chooses the best.

  Raises:
    UserError: a score is 1 whatever the network says.
  """
  classes = config.model.num_classes
  if config.checkpoint.best_metric == 'eval/top_5' and classes <= 5:
    raise UserError(
      "config.checkpoint.best_metric='eval/top_5' is always 1 with "
      f'config.model.num_classes={classes}: give eval/accuracy or eval/loss',
      'checkpoint.best_metric',
    )


def check_profile_steps(
  profile_steps: int, durations: config_lib.Durations
) -> None:
  """Checks that the first epoch of a run has enough steps to trace.

  A longer trace would include evaluation and saving.

  Raises:
    UserError: the first epoch is too short.
  """
  steps = min(durations.steps_per_epoch, durations.num_steps)
  if profile_steps and profile_steps + WARM_UP_STEPS > steps:
    most = max(steps - WARM_UP_STEPS, 0)
    raise UserError(
      f'config.logging.profile_steps={profile_steps}, with {WARM_UP_STEPS} '
      f'warm-up steps before, must fit into the first epoch of this run, which '
      f'has {steps} steps: choose '
      + (f'at most {most}' if most else '0, or a longer run')
    )


def check_image_sizes(
  config: Config, network: network_lib.Network, channels: int
) -> None:
  """Checks that parameter shapes are the same for all `train.image_sizes`.

  Raises:
    UserError: a layer's parameters depend on the image size.
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
          f'{other} pixels than of {size} (config.data.image_size): give no '
          'image_sizes, or choose a network without this layer'
        )
