"""What a step does with a loss or a gradient that is not finite.

All of it happens on the device, within the step: an update that is left out
leaves no trace in parameters, running statistics, optimizer and averages, and
every device and process decides the same.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

# Of an adaptive loss scale: its first value, the finite steps after which it
# doubles (Micikevicius et al., 2018, arXiv 1710.03740).
FIRST_LOSS_SCALE = 2.0**15
GROWTH_STEPS = 2000
MAX_LOSS_SCALE = 2.0**24


class Guard(NamedTuple):
  """The part of a training state that remembers what was not finite."""

  loss_scale: jax.Array  # float32 [], what the loss is multiplied by
  good_steps: jax.Array  # int32 [], since the scale changed
  nonfinite_in_row: jax.Array  # int32 []
  skipped: jax.Array  # int32 [], updates left out so far


class Policy(NamedTuple):
  """What the `train` section asks for."""

  max_in_row: int  # a run ends at so many non-finite steps one after another
  is_adaptive: bool  # the loss scale
  is_default: bool  # no update is left out unless the run ends with it


class Verdict(NamedTuple):
  """What becomes of one step."""

  guard: Guard
  is_applied: jax.Array  # bool [], whether the update is made
  is_stopped: jax.Array  # bool [], whether the run has ended with this step


def make_policy(train_config: ml_collections.ConfigDict) -> Policy:
  """Returns the policy of the `train` section."""
  skips = train_config.on_nonfinite == 'skip'
  limit = train_config.max_nonfinite
  is_adaptive = train_config.loss_scale == 'dynamic'
  return Policy(limit if skips else 1, is_adaptive, not (skips or is_adaptive))


def make_guard(loss_scale: float | str) -> Guard:
  """Returns the guard before the first step; 'dynamic': an adaptive scale."""
  scale = FIRST_LOSS_SCALE if loss_scale == 'dynamic' else loss_scale
  zeros = (np.zeros((), np.int32) for _ in range(3))
  return Guard(np.asarray(scale, np.float32), *zeros)


def all_finite(tree: Any) -> jax.Array:
  """Returns whether every number of every array is finite, bool []."""
  return jnp.all(
    jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
  )


def judge(
  guard: Guard,
  policy: Policy,
  is_loss_finite: jax.Array,
  is_gradient_finite: jax.Array,
) -> Verdict:
  """Decides on a step.

  A gradient that overflows by its scale alone is no fault of the run: the
  update is left out, the scale halved, and nothing counted towards an end.
  After the end nothing changes any more: the host, which looks later, finds
  the state that met the first bad step.

  Args:
    guard: before the step.
    policy: of the run.
    is_loss_finite: bool [], of all devices.
    is_gradient_finite: likewise.
  """
  scale, is_finite = guard.loss_scale, is_loss_finite & is_gradient_finite
  was_stopped = guard.nonfinite_in_row >= policy.max_in_row
  overflows = jnp.zeros((), bool)
  good_steps = guard.good_steps
  if policy.is_adaptive:
    overflows = is_loss_finite & ~is_gradient_finite & (scale > 1)
    good_steps = jnp.where(is_finite, good_steps + 1, 0)
    grows = good_steps >= GROWTH_STEPS
    good_steps = jnp.where(grows, 0, good_steps)
    scale = jnp.where(grows, jnp.minimum(scale * 2, MAX_LOSS_SCALE), scale)
    scale = jnp.where(overflows, jnp.maximum(scale / 2, 1.0), scale)
  in_row = jnp.where(
    is_finite, 0, guard.nonfinite_in_row + jnp.where(overflows, 0, 1)
  )
  in_row = jnp.where(was_stopped, guard.nonfinite_in_row, in_row)
  is_applied = is_finite & ~was_stopped
  new = Guard(scale, good_steps, in_row, guard.skipped + ~is_applied)
  return Verdict(new, is_applied, in_row >= policy.max_in_row)


def choose(is_new: jax.Array, new: Any, old: Any) -> Any:
  """Returns the one tree or the other, by a bool []."""
  return jax.tree.map(lambda n, o: jnp.where(is_new, n, o), new, old)
