"""Lookahead: Zhang et al., 2019, arXiv 1907.08610.

Lookahead wraps any optimizer: every few steps, slow weights move part of the
way to the parameters, and the parameters are set to them. In optax, slow
weights are part of the parameters; here they are part of the optimizer state,
so checkpoints store them and skipped steps do not change them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class LookaheadState(NamedTuple):
  """The state of Lookahead and of the optimizer that it wraps."""

  count: jax.Array  # int32 [], updates made
  slow: Any  # like the parameters
  fast: optax.OptState


def with_lookahead(
  optimizer: optax.GradientTransformation, period: int, rate: float
) -> optax.GradientTransformation:
  """Returns an optimizer with Lookahead.

  Evaluation always uses the parameters, never the slow weights.

  Args:
    optimizer: complete, so that its updates can be added to the parameters.
    period: steps between updates of the slow weights; 0: the optimizer is
      returned unchanged.
    rate: fraction of the way to the parameters that slow weights move.
  """
  if not period:
    return optimizer

  def init(params):
    slow = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
    return LookaheadState(
      jnp.zeros((), jnp.int32), slow, optimizer.init(params)
    )

  def update(updates, state, params=None):
    updates, fast = optimizer.update(updates, state.fast, params)
    count = state.count + 1
    is_move = count % period == 0
    moved = jax.tree.map(
      lambda slow, p, u: slow + rate * (p + u - slow),
      state.slow,
      params,
      updates,
    )
    slow = jax.tree.map(
      lambda new, old: jnp.where(is_move, new, old), moved, state.slow
    )
    updates = jax.tree.map(
      lambda u, new, p: jnp.where(is_move, new - p, u), updates, moved, params
    )
    return updates, LookaheadState(count, slow, fast)

  return optax.GradientTransformation(init, update)
