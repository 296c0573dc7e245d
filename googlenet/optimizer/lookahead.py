"""Lookahead: Zhang et al., 2019, arXiv 1907.08610.

Around any optimizer: every few steps slow weights move a part of the way to the
parameters, and the parameters go back to them. The slow weights are a part of
the optimizer's state, so that a checkpoint holds them and a step that is left
out leaves them alone.

By hand: `optax.lookahead` keeps the slow weights in the parameters, as a pair
that no network takes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class LookaheadState(NamedTuple):
  """Beside the state of the optimizer: what the slow weights are."""

  count: jax.Array  # int32 [], updates made
  slow: Any  # like the parameters
  fast: optax.OptState


def with_lookahead(
  optimizer: optax.GradientTransformation, period: int, rate: float
) -> optax.GradientTransformation:
  """Wraps an optimizer.

  Between two moves evaluation sees the parameters as they are.

  Args:
    optimizer: complete: its updates are what is added.
    period: steps from one move of the slow weights to the next; 0: none are
      kept.
    rate: part of the way that they move.
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
