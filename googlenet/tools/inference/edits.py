"""Edits of points: silence channels, put other activations in their place.

net.apply(net.params, net.network_state, images,
          edit={'inception_3a': edits.ablate(5, 7)})

Each function returns a function from the map of a point to another one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError
from googlenet.model.taps import Edit
from googlenet.tools.inference.channels import indices


def ablate(*channels: int) -> Edit:
  """Sets channels to zero; without channels, all of them.

  Raises:
    UserError: a channel is no whole number from 0; when the network is
      computed: the point has no such channel.
  """
  return replace(0.0, channels or None)


def _fitted(value: jax.Array | np.ndarray | float, x: jax.Array) -> jax.Array:
  """Returns a value as a map like x.

  Raises:
    UserError: it is no number, or has a shape that does not fit.
  """
  try:
    return jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)
  except (TypeError, ValueError):
    shape = getattr(value, 'shape', None)
    what = f'type {type(value).__name__}' if shape is None else f'shape {shape}'
    raise UserError(
      f'a value of {what} does not fit the map, {x.shape}: give that of an '
      'image [h, w, C], a mean over images [C], or a number'
    ) from None


def replace(
  value: jax.Array | np.ndarray | float, channels: Sequence[int] | None = None
) -> Edit:
  """Puts another activation in the place of channels.

  Args:
    value: broadcast to the map [B, h, w, C]: the activation of another image
      [h, w, C] (activation patching), a mean over images [C], or a number.
    channels: those to replace; None: all.

  Raises:
    UserError: a channel is no whole number from 0; when the network is
      computed: the point has no such channel, or the value does not fit it.
  """
  chosen = None if channels is None else indices(channels, 'channels')

  def edit(x: jax.Array) -> jax.Array:
    new = _fitted(value, x)
    if chosen is None:
      return new
    is_chosen = np.zeros(x.shape[-1], bool)
    if chosen and max(chosen) >= len(is_chosen):
      raise UserError(
        f'channels={max(chosen)}: the point has channels 0 to '
        f'{len(is_chosen) - 1}'
      )
    is_chosen[chosen] = True
    return jnp.where(is_chosen, new, x)

  return edit
