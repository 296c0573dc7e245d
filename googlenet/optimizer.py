"""Optimizer and learning-rate schedule from the `optimizer` section."""

from collections.abc import Callable, Iterable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import optax

from googlenet.modules import is_within

Config = ml_collections.ConfigDict


def _sgd(rate: optax.Schedule, config: Config) -> optax.GradientTransformation:
  # optax treats momentum 0 as a trace that doubles the memory for nothing.
  momentum = config.momentum or None
  return optax.sgd(rate, momentum, nesterov=config.nesterov)


def _rmsprop(
  rate: optax.Schedule, config: Config
) -> optax.GradientTransformation:
  return optax.rmsprop(rate, momentum=config.momentum or None)


def _lars(rate: optax.Schedule, config: Config) -> optax.GradientTransformation:
  return optax.lars(
    rate,
    momentum=config.momentum,
    nesterov=config.nesterov,
    trust_ratio_mask=is_weight,
  )


def _plain(
  make: Callable[..., optax.GradientTransformation],
) -> Callable[[optax.Schedule, Config], optax.GradientTransformation]:
  return lambda rate, config: make(rate)


def _decoupled(
  make: Callable[..., optax.GradientTransformation],
) -> Callable[[optax.Schedule, Config], optax.GradientTransformation]:
  return lambda rate, config: make(
    rate, weight_decay=config.weight_decay, mask=is_weight
  )


# Optimizers whose weight decay is a part of the update (decoupled).
_DECOUPLED = {
  'adamw': optax.adamw,
  'nadamw': optax.nadamw,
  'adamaxw': optax.adamaxw,
  'lamb': optax.lamb,
  'lion': optax.lion,
}
# Optimizers to which weight decay is added as a gradient (L2), before them.
_COUPLED = {
  'sgd': _sgd,
  'rmsprop': _rmsprop,
  'lars': _lars,
  'adam': _plain(optax.adam),
  'nadam': _plain(optax.nadam),
  'adamax': _plain(optax.adamax),
  'adagrad': _plain(optax.adagrad),
  'amsgrad': _plain(optax.amsgrad),
  'radam': _plain(optax.radam),
  'yogi': _plain(optax.yogi),
}
OPTIMIZERS = (*_COUPLED, *_DECOUPLED)


def is_weight(params: Any) -> Any:
  """Returns a tree of bools: true for leaves named 'w', which decay."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == 'w', params
  )


def _constant(config: Config, steps_per_epoch: int, steps: int):
  del steps_per_epoch, steps
  return optax.constant_schedule(config.learning_rate)


def _cosine(config: Config, steps_per_epoch: int, steps: int):
  del steps_per_epoch
  return optax.cosine_decay_schedule(config.learning_rate, max(steps, 1))


def _step(config: Config, steps_per_epoch: int, steps: int):
  del steps
  last = 2**31 - 1  # steps are int32
  falls = jnp.array(
    [min(round(e * steps_per_epoch), last) for e in config.step_epochs]
  )

  def schedule(step):  # epochs count from the start of the run
    passed = jnp.sum(step + config.warmup_steps >= falls)
    return config.learning_rate * config.step_factor**passed

  return schedule


def _poly(config: Config, steps_per_epoch: int, steps: int):
  del steps_per_epoch
  return optax.polynomial_schedule(
    config.learning_rate, 0.0, config.poly_power, max(steps, 1)
  )


SCHEDULES = {
  'constant': _constant,
  'cosine': _cosine,
  'step': _step,
  'poly': _poly,
}


def make_schedule(
  optimizer_config: Config, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
  """Returns step -> learning rate: a linear warm-up from 0, then the schedule.

  Args:
    optimizer_config: the `optimizer` section.
    steps_per_epoch: update steps in an epoch.
    total_steps: update steps of the whole schedule, warm-up included.
  """
  warmup = min(optimizer_config.warmup_steps, total_steps)
  schedule = SCHEDULES[optimizer_config.schedule](
    optimizer_config, steps_per_epoch, total_steps - warmup
  )
  if not warmup:
    return schedule
  rise = optax.linear_schedule(0.0, optimizer_config.learning_rate, warmup)
  # Step 0 would be wasted at rate 0: the first step makes 1/warmup of it.
  return optax.join_schedules([lambda step: rise(step + 1), schedule], [warmup])


def make_optimizer(
  optimizer_config: Config, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Returns the chain: clip by global norm, weight decay, update rule.

  Args:
    optimizer_config: the `optimizer` section, checked by `config.resolve`.
    schedule: step -> learning rate.
  """
  name = optimizer_config.name
  chain = []
  if optimizer_config.grad_clip_norm:
    chain.append(optax.clip_by_global_norm(optimizer_config.grad_clip_norm))
  if name in _DECOUPLED:
    chain.append(_decoupled(_DECOUPLED[name])(schedule, optimizer_config))
    return optax.chain(*chain)
  if optimizer_config.weight_decay:
    chain.append(
      optax.add_decayed_weights(optimizer_config.weight_decay, is_weight)
    )
  chain.append(_COUPLED[name](schedule, optimizer_config))
  return optax.chain(*chain)


def parse_rates(texts: Iterable[str]) -> dict[str, float]:
  """Turns ('logits=10', ...) into {'logits': 10.0, ...}.

  Raises:
    ValueError: a text is malformed, a part occurs twice or a factor is not > 0.
  """
  rates = {}
  for text in texts:
    part, equals, factor = text.partition('=')
    if not part or not equals or part in rates:
      raise ValueError(f'{text!r} is no part=factor, or the second of its part')
    rates[part] = float(factor)
    if not 0 < rates[part] <= 1e6:
      raise ValueError(f'the factor of {text!r} is not above 0 and at most 1e6')
  return rates


def with_rates(
  optimizer: optax.GradientTransformation, rates: dict[str, float]
) -> optax.GradientTransformation:
  """Multiplies the learning rate of parts; the longest name counts.

  Every rule of optax ends in a product with the rate, so its factor may follow.
  """
  if not rates:
    return optimizer

  def factor(module: str) -> float:
    names = [part for part in rates if is_within(module, (part,))]
    return rates[max(names, key=len)] if names else 1.0

  def scale(updates, params):
    del params
    return jax.tree_util.tree_map_with_path(
      lambda path, update: update * factor(path[0].key), updates
    )

  return optax.chain(optimizer, optax.stateless(scale))


def with_frozen(
  optimizer: optax.GradientTransformation,
  frozen: tuple[str, ...],
  params: hk.Params,
) -> optax.GradientTransformation:
  """Keeps the optimizer, its weight decay and its memory off frozen parts."""
  if not frozen:
    return optimizer
  labels = {
    module: {
      leaf: 'frozen' if is_within(module, frozen) else 'trained'
      for leaf in leaves
    }
    for module, leaves in params.items()
  }
  return optax.multi_transform(
    {'trained': optimizer, 'frozen': optax.set_to_zero()}, labels
  )
