"""Lookahead: Zhang et al., 2019, arXiv 1907.08610.

It wraps any optimizer: every few steps slow weights move a part of the way to
the parameters, and the parameters are set to them. By hand, because optax keeps
slow weights beside the parameters; here they are a part of the optimizer's
state, so that a checkpoint holds them and a skipped step leaves them alone.
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
    optimizer: complete: its updates are added to the parameters.
    period: steps between two moves of the slow weights; 0: the optimizer is
      returned as it is.
    rate: how far the slow weights move to the parameters, from 0 to 1.
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
