"""Makes optimizer and learning-rate schedule from the `optimizer` section."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax

from googlenet.model.groups import parse_factors
from googlenet.optimizer import muon
from googlenet.optimizer.groups import with_decays, with_rates

Config = ml_collections.ConfigDict


def _sgd(rate: optax.Schedule, config: Config) -> optax.GradientTransformation:
  # With momentum 0 optax would still store a momentum array per parameter.
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


def _muon(
  rate: optax.Schedule, config: Config, mask: Any
) -> optax.GradientTransformation:
  """Muon for convolution weights, `muon_rest` for all other parameters."""
  weights = muon.muon(
    rate,
    beta=config.momentum,
    steps=config.muon_steps,
    nesterov=config.nesterov,
    weight_decay=config.weight_decay,
    mask=mask,
  )
  rest = (
    _decoupled(optax.adamw)(rate, config, mask)
    if config.muon_rest == 'adamw'
    else optax.chain(
      optax.add_decayed_weights(config.weight_decay, mask), _sgd(rate, config)
    )
  )
  return optax.multi_transform(
    {'muon': weights, 'rest': rest},
    lambda params: jax.tree.map(
      lambda p: 'muon' if p.ndim == 4 else 'rest', params
    ),
  )


def _plain(
  make: Callable[..., optax.GradientTransformation],
) -> Callable[[optax.Schedule, Config], optax.GradientTransformation]:
  return lambda rate, config: make(rate)


def _decoupled(
  make: Callable[..., optax.GradientTransformation],
) -> Callable[[optax.Schedule, Config, Any], optax.GradientTransformation]:
  return lambda rate, config, mask: make(
    rate, weight_decay=config.weight_decay, **_named_mask(make, mask)
  )


def _named_mask(make: Callable[..., Any], mask: Any) -> dict[str, Any]:
  """Returns the mask under the name that the installed optax gives it."""
  # optax renames `mask` to `weight_decay_mask`; a release may take both.
  names = inspect.signature(make).parameters
  new, old = 'weight_decay_mask', 'mask'
  return {new if new in names else old: mask}


# Each rule gets the schedule, step -> rate, as its learning rate. fields.py
# lists the names too, in the order of `OPTIMIZERS`.

# Optimizers with decoupled weight decay, which is part of their update.
_DECOUPLED = {
  'adamw': _decoupled(optax.adamw),
  'adan': _decoupled(optax.adan),
  'ademamix': _decoupled(optax.contrib.ademamix),
  'nadamw': _decoupled(optax.nadamw),
  'adamaxw': _decoupled(optax.adamaxw),
  'lamb': _decoupled(optax.lamb),
  'lion': _decoupled(optax.lion),
  'muon': _muon,
}
# Optimizers with L2 weight decay, added to the gradient before their update.
_COUPLED = {
  'sgd': _sgd,
  'rmsprop': _rmsprop,
  'lars': _lars,
  'sign_sgd': _plain(optax.sign_sgd),
  'adam': _plain(optax.adam),
  'adabelief': _plain(optax.adabelief),
  'adadelta': _plain(optax.adadelta),
  'nadam': _plain(optax.nadam),
  'adamax': _plain(optax.adamax),
  'adagrad': _plain(optax.adagrad),
  'amsgrad': _plain(optax.amsgrad),
  'novograd': _plain(optax.novograd),
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


# The others are in schedules.py, which is imported when one of them is used.
SCHEDULES = {'constant': _constant, 'cosine': _cosine}


def make_schedule(
  optimizer_config: Config, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
  """Returns step -> learning rate: a linear warm-up from 0, then the schedule.

  Args:
    optimizer_config: the `optimizer` section.
    steps_per_epoch: update steps in an epoch.
    total_steps: update steps of the whole schedule, including warm-up.
  """
  warmup = min(optimizer_config.warmup_steps, total_steps)
  make = SCHEDULES.get(optimizer_config.schedule)
  if make is None:
    from googlenet.optimizer.schedules import MORE_SCHEDULES

    make = MORE_SCHEDULES[optimizer_config.schedule]
  schedule = make(optimizer_config, steps_per_epoch, total_steps - warmup)
  if not warmup:
    return schedule
  rise = optax.linear_schedule(0.0, optimizer_config.learning_rate, warmup)
  # The first step gets 1/warmup of the rate: with rate 0 it would be wasted.
  return optax.join_schedules([lambda step: rise(step + 1), schedule], [warmup])


def make_optimizer(
  optimizer_config: Config, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Makes an optax chain: gradient clipping, weight decay, rule, group rates.

  Args:
    optimizer_config: the `optimizer` section, checked by `config.resolve`.
    schedule: step -> learning rate.
  """
  chain = []
  if optimizer_config.grad_clip_norm:
    chain.append(optax.clip_by_global_norm(optimizer_config.grad_clip_norm))
  weight_decay = optimizer_config.weight_decay
  decays = parse_factors(optimizer_config.decays, may_be_zero=True)
  if decays:
    make = functools.partial(_rules, optimizer_config, schedule, mask=None)
    chain.append(
      with_decays(lambda decay: optax.chain(*make(decay)), weight_decay, decays)
    )
  else:
    chain += _rules(optimizer_config, schedule, weight_decay, is_weight)
  rates = parse_factors(optimizer_config.rates)
  return with_rates(optax.chain(*chain), rates)


def _rules(
  optimizer_config: Config,
  schedule: optax.Schedule,
  weight_decay: float,
  mask: Any,
) -> list[optax.GradientTransformation]:
  """Returns the transformations for weight decay and the update rule.

  The list is flat because checkpoints name optimizer state by its position in
  the chain.

  Args:
    optimizer_config: the `optimizer` section.
    schedule: step -> learning rate.
    weight_decay: replaces `optimizer_config.weight_decay`.
    mask: optax mask of the parameters that decay; None: all.
  """
  name = optimizer_config.name
  if optimizer_config.schedule_free:
    from googlenet.optimizer import schedule_free

    return schedule_free.rules(optimizer_config, schedule, weight_decay, mask)
  if name in _DECOUPLED:
    config = ml_collections.ConfigDict(
      {**optimizer_config.to_dict(), 'weight_decay': weight_decay}
    )
    return [_DECOUPLED[name](schedule, config, mask)]
  rule = _COUPLED[name](schedule, optimizer_config)
  if not weight_decay:
    return [rule]
  return [optax.add_decayed_weights(weight_decay, mask), rule]
