"""Makes the optimizer of a run from the sections of its config."""

import haiku as hk
import ml_collections
import optax

from googlenet import config as config_lib
from googlenet import optimizer as optimizer_lib
from googlenet.model import groups
from googlenet.optimizer.lookahead import with_lookahead
from googlenet.train import finetune


def make_optimizer(
  config: ml_collections.FrozenConfigDict,
  durations: config_lib.Durations,
  params: hk.Params,
) -> tuple[optax.GradientTransformation, optax.Schedule, tuple[str, ...]]:
  """Makes the whole optimizer of a run.

  Args:
    config: resolved; the `optimizer` and `finetune` sections are read.
    durations: length of the run in steps.
    params: parameters of the network, or their shapes.

  Returns:
    The optimizer, its schedule (updates made -> learning rate), and console
    lines about what it does differently from the plain sections.

  Raises:
    UserError: a group of parameters is not in the network, or nothing is left
      to train.
  """
  schedule = optimizer_lib.make_schedule(
    config.optimizer, durations.steps_per_epoch, durations.total_steps
  )
  for field in ('rates', 'decays'):
    names = groups.parse_factors(config.optimizer[field], may_be_zero=True)
    groups.check_groups(f'optimizer.{field}', names, params)
  optimizer = optimizer_lib.make_optimizer(config.optimizer, schedule)
  optimizer, lines = finetune.adapt_optimizer(
    config.finetune, params, optimizer
  )
  optimizer = with_lookahead(
    optimizer,
    config.optimizer.lookahead_period,
    config.optimizer.lookahead_rate,
  )
  return optimizer, schedule, lines
