"""From stored pixels to what the network sees: pure jnp, on the device.

The same functions serve training, evaluation and prediction; what training
does to images beside is in `augment`.
"""

import chex
import jax
import jax.numpy as jnp
import ml_collections

# Of red, green and blue in grey: ITU-R 601-2, as Pillow has it.
LUMA = (0.299, 0.587, 0.114)


def num_channels(data_config: ml_collections.ConfigDict, stored: int) -> int:
  """Returns the channels that a network sees of images that have `stored`."""
  return data_config.channels or stored


def _to_channels(x: jax.Array, channels: int) -> jax.Array:
  """[B, H, W, C] -> [B, H, W, channels], of 1 and 3."""
  if x.shape[-1] == channels:
    return x
  if channels == 3:
    return jnp.repeat(x, 3, axis=-1)
  return jnp.sum(x * jnp.asarray(LUMA, x.dtype), -1, keepdims=True)


def preprocess(
  images: jax.Array,
  data_config: ml_collections.ConfigDict,
  image_size: int | None = None,
) -> jax.Array:
  """Scales, normalises and resizes.

  Args:
    images: uint8 [B, H, W, C] in 0..255, at their native size.
    data_config: the `data` section: `channels`, `mean` and `std` of pixels
      scaled to 0..1, one number each or one a channel, and `image_size` S in
      pixels.
    image_size: takes the place of that one.

  Returns:
    float32 [B, S, S, channels], bilinear.
  """
  chex.assert_rank(images, 4)
  chex.assert_type(images, jnp.uint8)
  batch = images.shape[0]
  channels = num_channels(data_config, images.shape[-1])
  size = image_size or data_config.image_size
  mean = jnp.asarray(data_config.mean, jnp.float32)
  std = jnp.asarray(data_config.std, jnp.float32)
  x = _to_channels(images.astype(jnp.float32) / 255, channels)
  x = (x - mean) / std
  # mean and std have its channels.
  chex.assert_shape(x, (*images.shape[:3], channels))
  x = jax.image.resize(x, (batch, size, size, channels), 'bilinear')
  chex.assert_shape(x, (batch, size, size, channels))
  return x
