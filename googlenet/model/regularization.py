"""Dropout and stochastic depth: each image has its own key."""

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from googlenet.model.context import Setting

# Sets the keys of stochastic depth apart from those of dropout.
_DEPTH_PLACES = 1_000_000


def _drop(
  x: jax.Array,
  rate: float,
  number: int,
  setting: Setting,
  is_whole: bool,
) -> jax.Array:
  """Zeroes elements, or all of an image; `number` is folded into its key."""
  if not rate or not setting.is_training or hk.running_init():
    return x
  if setting.keys is None:
    raise ValueError('dropping in training needs keys: one for each image')
  chex.assert_equal_shape_prefix([x, setting.keys], 1)

  def one(x: jax.Array, key: jax.Array) -> jax.Array:
    shape = () if is_whole else x.shape
    key = jax.random.fold_in(key, number)
    is_kept = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(is_kept, x / (1 - rate), 0).astype(x.dtype)

  return jax.vmap(one)(x, setting.keys)


def dropout(
  x: jax.Array, rate: float, place: int, setting: Setting
) -> jax.Array:
  """Zeroes elements of x [B, ...] with probability `rate` while training.

  Each image has its own key, so what happens to it does not depend on the
  number of devices or microbatches.

  Args:
    x: activations.
    rate: 0 for none.
    place: of this dropout in the network, so that no two drop alike.
    setting: of the network; `keys` are needed.

  Raises:
    ValueError: there are no keys.
  """
  return _drop(x, rate, place, setting, is_whole=False)


def drop_branches(
  x: jax.Array, rate: float, place: int, setting: Setting
) -> jax.Array:
  """Zeroes all of x [B, ...] for an image with probability `rate` in training.

  Stochastic depth: Huang et al., 2016, arXiv 1603.09382; what stays is scaled
  up, so that evaluation has nothing to do. Each image has its own key.

  Args:
    x: what is added to a residual block's input.
    rate: 0 for none.
    place: of the block among the residual ones, from 1.
    setting: of the network; `keys` are needed.

  Raises:
    ValueError: there are no keys.
  """
  return _drop(x, rate, _DEPTH_PLACES + place, setting, is_whole=True)
