"""Mixing images of a batch and their labels: mixup and CutMix.

Each image is mixed with its neighbour in the batch, 2i with 2i + 1. The order
of an epoch is random, so that is as good as a random partner; and a pair lies
on one device, so that nothing depends on how many there are.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import ml_collections

# Sets the numbers apart from those that `augment.augment` draws of these keys.
_MIXING = 0x6D6978


class Mixed(NamedTuple):
  """A batch in which each image is a mixture of two.

  Attributes:
    images: float32 [B, S, S, C].
    labels: int32 [B], of the image that was there.
    partners: int32 [B], of the one that was mixed in.
    weights: float32 [B], the part of the first, from 0 to 1.
  """

  images: jax.Array
  labels: jax.Array
  partners: jax.Array
  weights: jax.Array

  def average(self, of_labels: jax.Array, of_partners: jax.Array) -> jax.Array:
    """Returns what was worked out for both labels, in the parts they have."""
    return self.weights * of_labels + (1 - self.weights) * of_partners


def is_on(augment_config: ml_collections.ConfigDict) -> bool:
  """Whether the `augment` section asks for mixing."""
  has_kind = augment_config.mixup_alpha or augment_config.cutmix_alpha
  return bool(has_kind and augment_config.mix_probability)


def neighbours(x: jax.Array) -> jax.Array:
  """Exchanges the elements 2i and 2i + 1 of x [B, ...], B even."""
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def box(
  key: jax.Array, weight: jax.Array, height: int, width: int
) -> jax.Array:
  """Returns the pixels that CutMix takes of the partner: bool [H, W].

  A box of 1 - weight of the area around a random place, cut off at the border:
  Yun et al., 2019, arXiv 1905.04899, section 3.1.
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
  """Mixes each image with its neighbour, by a weight of its own.

  mixup (Zhang et al., 2017, arXiv 1710.09412) adds the images, CutMix pastes a
  box of one into the other. The weight of mixup, and what that of CutMix would
  be but for the border, is of the distribution Beta(alpha, alpha). With both
  alphas each image has one or the other, at random.

  Args:
    images: float32 [B, S, S, C], B even.
    labels: int32 [B].
    keys: [B] keys.
    augment_config: the `augment` section.

  Returns:
    The mixture; where `mix_probability` spared an image, its weight is 1.
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
      # What is left of the image, now that the border has cut the box.
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
