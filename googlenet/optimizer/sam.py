"""Sharpness-aware minimization (SAM): Foret et al., 2021, arXiv 2010.01412.

A step uses the gradient at the worst parameters within a small distance, found
by one step uphill. `optax.contrib.sam` would have to call the gradient inside
`optimizer.update`; here the step computes both gradients, so that they are
averaged over all devices and scaled, checked and clipped like any other.
"""

from typing import Any

import jax.numpy as jnp
import optax

# Keeps a gradient of zeros from being divided by its norm.
_SMALLEST_NORM = 1e-12


def uphill(params: Any, grads: Any, distance: float) -> Any:
  """Returns the parameters a distance uphill: equation 2 of the paper.

  Args:
    params: float32.
    grads: their gradient over the whole batch, times any factor. Where it is 0,
      as for frozen parts, parameters stay.
    distance: Euclidean length of the step over all parameters, rho.
  """
  norm = jnp.maximum(optax.tree.norm(grads), _SMALLEST_NORM)
  return optax.tree.add_scale(params, distance / norm, grads)
