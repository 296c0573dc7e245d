"""Mixes the images of a batch and their labels: mixup and CutMix.

Each image is mixed with its neighbour in the batch, 2i with 2i + 1. The order
of an epoch is random, so this is as good as a random partner. Both images of a
pair are on one device, so the result does not depend on the number of devices.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import ml_collections

# Keeps these random numbers apart from those that `augment.augment` draws.
_MIXING = 0x6D6978


class Mixed(NamedTuple):
  """A batch in which each image is a mixture of two.

  Attributes:
    images: float32 [B, S, S, C].
    labels: int32 [B], labels of the original images.
    partners: int32 [B], labels of the images that were mixed in.
    weights: float32 [B], shares of the original images, from 0 to 1.
  """

  images: jax.Array
  labels: jax.Array
  partners: jax.Array
  weights: jax.Array

  def average(self, of_labels: jax.Array, of_partners: jax.Array) -> jax.Array:
    """Returns the mean of values for both labels, weighted by their shares."""
    return self.weights * of_labels + (1 - self.weights) * of_partners


def is_on(augment_config: ml_collections.ConfigDict) -> bool:
  """Returns whether the `augment` section asks for mixing."""
  has_kind = augment_config.mixup_alpha or augment_config.cutmix_alpha
  return bool(has_kind and augment_config.mix_probability)


def neighbours(x: jax.Array) -> jax.Array:
  """Exchanges the elements 2i and 2i + 1 of x [B, ...], B even."""
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def box(
  key: jax.Array, weight: jax.Array, height: int, width: int
) -> jax.Array:
  """Returns the pixels that CutMix takes from the partner: bool [H, W].

  They are a box around a random pixel with 1 - weight of the area, clipped at
  the border (Yun et al., 2019, arXiv 1905.04899, section 3.1).
  """
  sides = jnp.sqrt(1 - weight) * jnp.array([height, width])
  limits = jnp.array([height, width])
  centre = jax.random.randint(key, (2,), 0, limits)
  half = jnp.floor(sides).astype(jnp.int32) // 2
  top, left = jnp.clip(centre - half, 0, limits)
  bottom, right = jnp.clip(centre + half, 0, limits)
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
  return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def mix(
  images: jax.Array,
  labels: jax.Array,
  keys: jax.Array,
  augment_config: ml_collections.ConfigDict,
) -> Mixed:
  """Mixes each image with its neighbour; each image has its own weight.

  mixup (Zhang et al., 2017, arXiv 1710.09412) averages two images, CutMix
  pastes a box of one into the other. The weights follow the distribution
  Beta(alpha, alpha); CutMix then corrects them for boxes that the border clips.
  With both alphas set, each image gets one of the two at random.

  Args:
    images: float32 [B, S, S, C], B even.
    labels: int32 [B].
    keys: random keys [B].
    augment_config: the `augment` section.

  Returns:
    The mixture; an image that `mix_probability` leaves out has weight 1.
  """
  chex.assert_equal_shape_prefix([images, labels, keys], 1)
  mixup_alpha = augment_config.mixup_alpha
  cutmix_alpha = augment_config.cutmix_alpha
  _, height, width, _ = images.shape

  def one(image, partner, key):
    keys = jax.random.split(jax.random.fold_in(key, _MIXING), 5)
    use_key, kind_key, mixup_key, cutmix_key, box_key = keys
    candidates = []
    if mixup_alpha:
      weight = jax.random.beta(mixup_key, mixup_alpha, mixup_alpha)
      candidates.append((weight * image + (1 - weight) * partner, weight))
    if cutmix_alpha:
      weight = jax.random.beta(cutmix_key, cutmix_alpha, cutmix_alpha)
      pasted = box(box_key, weight, height, width)
      # The share that is left of the image, after the border clipped the box.
      weight = 1 - pasted.mean(dtype=jnp.float32)
      candidates.append((jnp.where(pasted[..., None], partner, image), weight))
    made, weight = candidates[0]
    if len(candidates) == 2:
      is_second = jax.random.bernoulli(kind_key)
      made = jnp.where(is_second, candidates[1][0], made)
      weight = jnp.where(is_second, candidates[1][1], weight)
    is_used = jax.random.bernoulli(use_key, augment_config.mix_probability)
    return jnp.where(is_used, made, image), jnp.where(is_used, weight, 1.0)

  made, weights = jax.vmap(one)(images, neighbours(images), keys)
  return Mixed(made, labels, neighbours(labels), weights)


def shares(
  size: int, keys: jax.Array, augment_config: ml_collections.ConfigDict
) -> jax.Array:
  """Returns what `mix` leaves of each image, pixel by pixel.

  Args:
    size: S, side of the images in pixels.
    keys: random keys [B], those that `mix` gets.
    augment_config: the `augment` section.

  Returns:
    float32 [B, S, S, 1] from 0 to 1: `mix` makes shares * images + (1 -
    shares) * neighbours(images).
  """
  places = jnp.arange(len(keys))
  # In each pair white is mixed with black: what is left of the white image.
  is_white = (places % 2 == 0)[:, None, None, None]
  images = jnp.broadcast_to(is_white, (len(keys), size, size, 1))
  mixed = mix(images.astype(jnp.float32), places, keys, augment_config)
  return jnp.where(is_white, mixed.images, 1 - mixed.images)
