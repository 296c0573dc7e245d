"""Turns stored pixels into the network's input: pure jnp, on the device.

Training, evaluation and prediction share these functions; `augment` has what
only training does to images.
"""

import chex
import jax
import jax.numpy as jnp
import ml_collections

from googlenet.errors import UserError

# Weights of red, green and blue in grey: ITU-R 601-2, as in Pillow.
LUMA = (0.299, 0.587, 0.114)


def num_channels(data_config: ml_collections.ConfigDict, stored: int) -> int:
  """Returns the number of channels that images have after `preprocess`."""
  return data_config.channels or stored


def _to_channels(x: jax.Array, channels: int) -> jax.Array:
  """Converts [B, H, W, C] to [B, H, W, channels], between grey and colour."""
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
  """Scales, normalizes and resizes images.

  Args:
    images: uint8 or floats [B, H, W, C] in 0..255, at their native size;
      floats can be differentiated by.
    data_config: the `data` section: `channels`; `mean` and `std` of pixels
      scaled to 0..1, one number each or one per channel; `image_size` S in
      pixels.
    image_size: replaces `data_config.image_size`.

  Returns:
    float32 [B, S, S, channels], resized bilinearly; float64 for float64.

  Raises:
    UserError: the images have another shape or dtype.
  """
  images = jnp.asarray(images)
  is_float = jnp.issubdtype(images.dtype, jnp.floating)
  is_number = is_float or images.dtype == jnp.uint8
  if images.ndim != 4 or not is_number or not all(images.shape[1:]):
    raise UserError(
      f'images are {images.dtype} {images.shape}; allowed is uint8 or float '
      '[B, H, W, C] in 0..255'
    )
  batch = images.shape[0]
  channels = num_channels(data_config, images.shape[-1])
  size = image_size or data_config.image_size
  dtype = jnp.float64 if images.dtype == jnp.float64 else jnp.float32
  mean = jnp.asarray(data_config.mean, dtype)
  std = jnp.asarray(data_config.std, dtype)
  x = _to_channels(images.astype(dtype) / 255, channels)
  x = (x - mean) / std
  # Fails if mean or std has another number of channels.
  chex.assert_shape(x, (*images.shape[:3], channels))
  x = jax.image.resize(x, (batch, size, size, channels), 'bilinear')
  chex.assert_shape(x, (batch, size, size, channels))
  return x
