"""The finite check of a training step, and the loss scale.

The check runs on the device, as part of the step, with the same result on every
device and process. A skipped update leaves parameters, running statistics,
optimizer state and averages as they were.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jmp
import ml_collections
import numpy as np

# Dynamic loss scale: its first value, and the number of finite steps after
# which it doubles (Micikevicius et al., 2018, arXiv 1710.03740).
FIRST_LOSS_SCALE = 2.0**15
GROWTH_STEPS = 2000
MAX_LOSS_SCALE = 2.0**24


class FiniteCheck(NamedTuple):
  """State of the finite check and the loss scale."""

  loss_scale: jax.Array  # float32 [], what the loss is multiplied by
  good_steps: jax.Array  # int32 [], finite steps since the scale changed
  nonfinite_in_row: jax.Array  # int32 [], consecutive non-finite steps so far
  skipped: jax.Array  # int32 [], updates skipped so far


class Policy(NamedTuple):
  """What to do at non-finite steps, from the `train` section."""

  max_in_row: int  # consecutive non-finite steps that end the run
  is_dynamic: bool  # whether the loss scale adapts
  is_default: bool  # whether only the update that ends the run is skipped


class CheckedStep(NamedTuple):
  """The result of the finite check of one step."""

  finite_check: FiniteCheck
  is_applied: jax.Array  # bool [], whether the update is applied
  is_stopped: jax.Array  # bool [], whether the run has ended with this step


def make_policy(train_config: ml_collections.ConfigDict) -> Policy:
  """Reads the policy from the `train` section."""
  skips = train_config.on_nonfinite == 'skip'
  limit = train_config.max_nonfinite
  is_dynamic = train_config.loss_scale == 'dynamic'
  return Policy(limit if skips else 1, is_dynamic, not (skips or is_dynamic))


def make_finite_check(loss_scale: float | str) -> FiniteCheck:
  """Returns the state before the first step.

  Args:
    loss_scale: a number, or 'dynamic'.
  """
  scale = FIRST_LOSS_SCALE if loss_scale == 'dynamic' else loss_scale
  zeros = (np.zeros((), np.int32) for _ in range(3))
  return FiniteCheck(np.asarray(scale, np.float32), *zeros)


def check_step(
  before: FiniteCheck,
  policy: Policy,
  is_loss_finite: jax.Array,
  is_gradient_finite: jax.Array,
) -> CheckedStep:
  """Decides whether a step's update is applied, and whether the run ends.

  A dynamic loss scale follows `jmp.DynamicLossScale`, with two exceptions: it
  stays the same when the loss itself is not finite, because a smaller scale
  would not help, and it does not exceed `MAX_LOSS_SCALE`. A gradient that
  overflows only because of the scale does not count as a non-finite step.

  Once the run has ended, no further update is applied. The host notices the end
  some steps later and still finds the state before the first bad step.

  Args:
    before: the check's state before this step.
    policy: made by `make_policy`.
    is_loss_finite: bool [], the same on all devices.
    is_gradient_finite: bool [], the same on all devices.
  """
  scale, good_steps = before.loss_scale, before.good_steps
  is_finite = is_loss_finite & is_gradient_finite
  was_stopped = before.nonfinite_in_row >= policy.max_in_row
  overflows = jnp.zeros((), bool)
  if policy.is_dynamic:
    overflows = is_loss_finite & ~is_gradient_finite & (scale > 1)
    adjusted = jmp.DynamicLossScale(scale, good_steps, GROWTH_STEPS).adjust(
      is_finite
    )
    good_steps = adjusted.counter
    scale = jnp.where(
      is_loss_finite, jnp.minimum(adjusted.loss_scale, MAX_LOSS_SCALE), scale
    )
  in_row = jnp.where(
    is_finite, 0, before.nonfinite_in_row + jnp.where(overflows, 0, 1)
  )
  in_row = jnp.where(was_stopped, before.nonfinite_in_row, in_row)
  is_applied = is_finite & ~was_stopped
  after = FiniteCheck(scale, good_steps, in_row, before.skipped + ~is_applied)
  return CheckedStep(after, is_applied, in_row >= policy.max_in_row)
