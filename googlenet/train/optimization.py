"""Makes the optimizer of a run from the sections of its config."""

import haiku as hk
import ml_collections
import optax

from googlenet import config as config_lib
from googlenet import optimizer as optimizer_lib
from googlenet.model import groups
from googlenet.optimizer.lookahead import with_lookahead
from googlenet.optimizer.schedule_free import with_schedule_free
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
  optimizer = with_schedule_free(optimizer, schedule, config.optimizer)
  optimizer = with_lookahead(
    optimizer,
    config.optimizer.lookahead_period,
    config.optimizer.lookahead_rate,
  )
  return optimizer, schedule, (*_never_reached(config, durations), *lines)


def _never_reached(
  config: ml_collections.FrozenConfigDict, durations: config_lib.Durations
) -> list[str]:
  """Returns console lines about parts of the schedule after its last step."""
  section, lines = config.optimizer, []
  if section.warmup_steps > durations.total_steps:
    lines.append(
      f'schedule config.optimizer.warmup_steps={section.warmup_steps} is '
      'longer than the whole schedule: shortened to its '
      f'{durations.total_steps:,} steps'
    )
  late = [e for e in section.step_epochs if e >= config.train.epochs]
  if section.schedule == 'step' and late:
    lines.append(
      f'schedule config.optimizer.step_epochs={tuple(section.step_epochs)}: no '
      f'drop at {", ".join(f"{e:g}" for e in late)}, after the last of '
      f'{config.train.epochs} epochs'
    )
  epochs = section.decay_epochs
  if section.schedule == 'staircase' and epochs >= config.train.epochs:
    lines.append(
      f'schedule config.optimizer.decay_epochs={epochs:g}: no drop in '
      f'{config.train.epochs} epochs'
    )
  return lines
