"""Dropout and stochastic depth, with a separate random key for each image.

So the result does not depend on the number of devices or microbatches. Each
module folds its path into the keys, so different modules draw differently.
"""

import zlib

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError
from googlenet.model.context import Context


class Dropout(hk.Module):
  """Zeroes elements in training with probability `rate`."""

  def __init__(self, rate: float, context: Context, name: str = 'dropout'):
    super().__init__(name)
    self._rate, self._context = rate, context

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies dropout to x [B, ...] in training, else returns x.

    Raises:
      UserError: dropout is on, but the context has not one key per image.
    """
    return self._drop(x, x.shape[1:])

  def _drop(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Zeroes entries by a random mask of `shape` per image (broadcast)."""
    rate, context = self._rate, self._context
    is_on = rate and context.is_training and context.drops
    if not is_on or hk.running_init():
      return x
    keys = context.keys
    if keys is None or keys.shape[:1] != x.shape[:1]:
      given = 'None' if keys is None else f'of shape {keys.shape}'
      raise UserError(
        f'keys are {given}: dropping in training needs one for each of '
        f'{len(x)} image(s), as jax.random.split(key, {len(x)}) makes them'
      )
    # Not `hash`, which differs between processes.
    path = np.uint32(zlib.crc32(self.module_name.encode()))

    def drop_in_image(x: jax.Array, key: jax.Array) -> jax.Array:
      key = jax.random.fold_in(key, path)
      is_kept = jax.random.bernoulli(key, 1 - rate, shape)
      return jnp.where(is_kept, x / (1 - rate), 0).astype(x.dtype)

    return jax.vmap(drop_in_image)(x, keys)


class StochasticDepth(Dropout):
  """Zeroes whole images in training with probability `rate`.

  Huang et al., 2016, arXiv 1603.09382. Kept images are scaled up, so evaluation
  needs no scaling.
  """

  def __init__(self, rate: float, context: Context):
    super().__init__(rate, context, 'stochastic_depth')

  def __call__(self, x: jax.Array) -> jax.Array:
    """Zeroes x [B, ...] for random images in training, else returns x."""
    return self._drop(x, ())
