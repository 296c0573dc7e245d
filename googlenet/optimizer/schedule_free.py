"""Schedule-free learning: Defazio et al., 2024, arXiv 2405.15682.

Gradients are taken at y = (1 - b) z + b x, where z moves by the update rule and
x is an average of all z; x is evaluated. The parameters of the training state
are y, and b is `optimizer.momentum`, which stands in for the momentum of the
rule. z and the weight of the average are optimizer state; x is kept where
`train.ema_decay` keeps its average, so every tool reads what was evaluated.
"""

from typing import Any

import ml_collections
import optax

Config = ml_collections.ConfigDict


def rules(
  config: Config, rate: optax.Schedule, weight_decay: float, mask: Any
) -> list[optax.GradientTransformation]:
  """Returns weight decay and update rule, without momentum.

  Args:
    config: the `optimizer` section.
    rate: step -> learning rate.
    weight_decay: replaces `config.weight_decay`; decays y.
    mask: optax mask of the parameters that decay; None: all.
  """
  decay = (
    [optax.add_decayed_weights(weight_decay, mask)] if weight_decay else []
  )
  # Adam with b1 = 0, without the array of its mean.
  adam = [optax.scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True)]
  parts = {'sgd': decay, 'adam': decay + adam, 'adamw': adam + decay}
  return [*parts[config.name], optax.scale_by_learning_rate(rate)]


def with_schedule_free(
  optimizer: optax.GradientTransformation, rate: optax.Schedule, config: Config
) -> optax.GradientTransformation:
  """Returns an optimizer that moves y, where the given one moves z.

  Args:
    optimizer: complete, made of `rules`.
    rate: step -> learning rate; its square weighs z in the average.
    config: the `optimizer` section; without `schedule_free`, the optimizer is
      returned unchanged.
  """
  if not config.schedule_free:
    return optimizer
  return optax.contrib.schedule_free(optimizer, rate, b1=config.momentum)
