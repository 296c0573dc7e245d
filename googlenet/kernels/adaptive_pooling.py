"""Adaptive average pooling, the same for all kernel sets."""

import jax
import jax.numpy as jnp


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
  """Mean over size x size windows: [B, H, W, C] -> [B, size, size, C].

  Window i spans i H / size to (i + 1) H / size, rounded outwards, so windows
  may overlap by a pixel, as in PyTorch's AdaptiveAvgPool2d.
  """
  for axis in (1, 2):
    length = x.shape[axis]
    ends = [
      (i * length // size, -(-(i + 1) * length // size)) for i in range(size)
    ]
    x = jnp.concatenate(
      [
        jax.lax.slice_in_dim(x, low, high, axis=axis).mean(axis, keepdims=True)
        for low, high in ends
      ],
      axis,
    )
  return x
