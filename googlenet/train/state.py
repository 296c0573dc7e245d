"""The training state. It has no device axis: it is the same on every device."""

from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from googlenet.runtime.parallel import replicated
from googlenet.train.finite import FiniteCheck, make_finite_check


class TrainState(NamedTuple):
  """Everything that a training step changes.

  It holds no random keys: they follow from the seed and the step number.
  """

  step: jax.Array  # int32 [], steps made so far; 0 during step 1 of the loop
  params: hk.Params  # float32
  network_state: hk.State
  opt_state: optax.OptState
  finite_check: FiniteCheck
  # Averages over the steps; empty unless `train.ema_decay` is set. Running
  # statistics are averaged too, to fit the averaged parameters. With
  # `optimizer.schedule_free` its average, and the running statistics as such.
  ema_params: hk.Params
  ema_network_state: hk.State

  @property
  def eval_params(self) -> hk.Params:
    """The parameters to evaluate: the average if there is one."""
    return self.ema_params or self.params

  @property
  def eval_network_state(self) -> hk.State:
    """The running statistics that belong to `eval_params`."""
    return self.ema_network_state if self.ema_params else self.network_state

  def with_eval_network_state(self, network_state: hk.State) -> 'TrainState':
    """Replaces `eval_network_state`."""
    name = 'ema_network_state' if self.ema_params else 'network_state'
    return self._replace(**{name: network_state})


def make_train_state(
  params: hk.Params,
  network_state: hk.State,
  optimizer: optax.GradientTransformation,
  train_config: ml_collections.ConfigDict,
) -> TrainState:
  """Returns the state before the first step, on every local device."""
  # Jitted to compile once; eagerly, each shape would be compiled separately.
  opt_state = jax.jit(optimizer.init)(params)
  # Copies, because donated buffers must not be shared.
  averages = jax.tree.map(np.array, (params, network_state))
  is_averaged = train_config.ema_decay or is_schedule_free(opt_state)
  state = TrainState(
    np.zeros((), np.int32),
    params,
    network_state,
    opt_state,
    make_finite_check(train_config.loss_scale),
    *(averages if is_averaged else ({}, {})),
  )
  return replicated(state)


def is_schedule_free(opt_state: optax.OptState) -> bool:
  """Whether the optimizer keeps an average that is to be evaluated."""
  return isinstance(opt_state, optax.contrib.ScheduleFreeState)


def update_ema(
  average: hk.Params, new: hk.Params, num_updates: Any, decay: float
) -> hk.Params:
  """Moves an exponential average towards new values.

  Args:
    average: averaged parameters or running statistics; {} if averaging is off.
    new: values after the update. Values that never change are kept exactly.
    num_updates: int32 [], updates made before this one. Early updates count
      more, so the average soon forgets the initial values (as in TensorFlow's
      ExponentialMovingAverage).
    decay: limit of the decay after many updates.
  """
  decay = jnp.minimum(decay, (1.0 + num_updates) / (10.0 + num_updates))
  return (
    jax.tree.map(lambda e, p: e + (p - e) * (1 - decay), average, new)
    if average
    else average
  )
