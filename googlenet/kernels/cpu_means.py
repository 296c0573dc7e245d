"""Means of channels for CPUs.

XLA for CPUs sums one channel at a time, which touches all of a map's memory for
each. Here the map is cut into parts, which are added row by row: memory is read
once, in order, and the compiler uses vectors. The sums are also more precise.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from googlenet.kernels.shared import to_rows

Array = jax.Array

_PARTS = 16
# Below this many rows, a second program is not worth its start.
_MIN_ROWS = 4096


def channel_means(
  terms: Callable[..., Sequence[Array]], *xs: Array
) -> list[Array]:
  """Means [C] of functions of maps [..., C], over all other axes."""
  rows = [to_rows(x) for x in xs]
  count = rows[0].shape[0]
  parts = _PARTS if count >= _MIN_ROWS else 1
  size = count // parts

  def values(start: int, stop: int) -> Sequence[Array]:
    wide = jnp.promote_types(xs[0].dtype, jnp.float32)
    return terms(*(x[start:stop].astype(wide) for x in rows))

  each = [values(i * size, (i + 1) * size) for i in range(parts)]
  sums = [functools.reduce(jnp.add, term) for term in zip(*each, strict=True)]
  # Without the barrier XLA would compute these sums inside the next ones.
  totals = [x.sum(0) for x in lax.optimization_barrier(sums)]
  if parts * size < count:
    rest = values(parts * size, count)
    totals = [a + b.sum(0) for a, b in zip(totals, rest, strict=True)]
  return [total / count for total in totals]
