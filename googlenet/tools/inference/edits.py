"""Edits of points: silence channels, put other activations in their place.

net.apply(net.params, net.network_state, images,
          edit={'inception_3a': edits.ablate(5, 7)})

Each function returns a function from the map of a point to another one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.model.taps import Edit


def ablate(*channels: int) -> Edit:
  """Sets channels to zero; without channels, all of them."""
  return replace(0.0, channels or None)


def replace(
  value: jax.Array | np.ndarray | float, channels: Sequence[int] | None = None
) -> Edit:
  """Puts another activation in the place of channels.

  Args:
    value: broadcast to the map [B, h, w, C]: the activation of another image
      [h, w, C] (activation patching), a mean over images [C], or a number.
    channels: those to replace; None: all.
  """

  def edit(x: jax.Array) -> jax.Array:
    new = jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)
    if channels is None:
      return new
    is_chosen = np.zeros(x.shape[-1], bool)
    is_chosen[list(channels)] = True
    return jnp.where(is_chosen, new, x)

  return edit
