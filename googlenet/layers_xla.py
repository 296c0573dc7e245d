"""Plain forms of the primitive operations, in [B, H, W, C]: `jax.lax` alone.

They define what each operation means; `layers.Kernels` says it in words.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

COMPILER_OPTIONS = ()


def enter(x: Array) -> Array:
  """Activations are in [B, H, W, C] already."""
  return x


leave = enter


def conv(x: Array, w: Array, stride: int = 1) -> Array:
  """[B, H, W, C_in] * [k, k, C_in, C_out] -> [B, H/stride, W/stride, C_out]."""
  return lax.conv_general_dilated(
    x,
    w.astype(x.dtype),
    window_strides=(stride, stride),
    padding='SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def bias_relu(x: Array, b: Array) -> Array:
  """relu(x + b) for `b` [C]."""
  return jax.nn.relu(x + b.astype(x.dtype))


def conv_bias_relu(x: Array, w: Array, b: Array, stride: int = 1) -> Array:
  """relu(conv(x, w) + b)."""
  return bias_relu(conv(x, w, stride), b)


def conv_1x1s_bias_relu(
  x: Array, ws: Sequence[Array], bs: Sequence[Array]
) -> list[Array]:
  """1x1 convolutions of one input, [B, H, W, C] -> [B, H, W, C_i] each."""
  return [conv_bias_relu(x, w, b) for w, b in zip(ws, bs, strict=True)]


def max_pool(x: Array, window: int = 3, stride: int = 2) -> Array:
  """[B, H, W, C] -> [B, H/stride, W/stride, C], maximum of square windows."""
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    window_dimensions=(1, window, window, 1),
    window_strides=(1, stride, stride, 1),
    padding='SAME',
  )


def conv_bias_relu_max_pool(
  x: Array, w: Array, b: Array, stride: int = 1, pool: tuple[int, int] = (3, 2)
) -> Array:
  """max_pool(relu(conv(x, w) + b)): the three commute, so pool first."""
  return bias_relu(max_pool(conv(x, w, stride), *pool), b)


def global_mean(x: Array) -> Array:
  """[B, H, W, C] -> [B, C], summed in float32 or wider."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.mean(x, axis=(1, 2), dtype=wide).astype(x.dtype)
