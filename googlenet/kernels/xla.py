"""The plain kernel set: only `jax.lax`, on feature maps [B, H, W, C].

It is the reference: the other kernel sets are tested against it, and use its
functions where they have no faster ones. Best on TPUs.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from googlenet.kernels import shared
from googlenet.kernels.padding import Padding, pads
from googlenet.kernels.shared import Pool

Array = jax.Array

COMPILER_OPTIONS = ()


def keep_layout(x: Array) -> Array:
  """Returns x: the internal layout is [B, H, W, C]."""
  return x


def conv(
  x: Array,
  w: Array,
  b: Array | None = None,
  *,
  stride: int = 1,
  padding: Padding = 'SAME',
  relu: bool = False,
  pool: Pool | None = None,
) -> Array:
  """[B, H, W, C_in] * [kh, kw, C_in, C_out] -> [B, H', W', C_out]."""
  padded = pads(x.shape[1:3], w.shape[:2], stride, padding)
  y = shared.convolve(x, w, stride, padded)
  if pool is not None:
    # Bias and ReLU are monotonic, so pooling first gives the same result with
    # less work.
    y = max_pool(y, *pool)
  return shared.add_bias_and_relu(y, b, relu)


def conv_1x1s(
  x: Array,
  ws: Sequence[Array],
  bs: Sequence[Array] | None = None,
  *,
  relu: bool = False,
) -> list[Array]:
  """Several 1x1 convolutions: [B, H, W, C] -> [B, H, W, C_i] each."""
  bs = bs or [None] * len(ws)
  return [conv(x, w, b, relu=relu) for w, b in zip(ws, bs, strict=True)]


def max_pool(
  x: Array, window: int, stride: int, padding: Padding = 'SAME'
) -> Array:
  """[B, H, W, C] -> [B, H', W', C], maximum of square windows."""
  sides = pads(x.shape[1:3], (window, window), stride, padding)
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    window_dimensions=(1, window, window, 1),
    window_strides=(1, stride, stride, 1),
    padding=[(0, 0), *sides, (0, 0)],
  )


def avg_pool(
  x: Array,
  window: int,
  stride: int,
  padding: Padding = 'SAME',
  count_padding: bool = False,
  axes: tuple[int, int] = (1, 2),
) -> Array:
  """[B, H, W, C] -> [B, H', W', C], mean of square windows over two axes."""
  sides = [x.shape[axis] for axis in axes]
  padded = pads(sides, (window, window), stride, padding)

  def by_axis(other, values):
    dimensions = [other] * x.ndim
    for axis, value in zip(axes, values, strict=True):
      dimensions[axis] = value
    return dimensions

  def total(x: Array) -> Array:
    return lax.reduce_window(
      x,
      0.0,
      lax.add,
      window_dimensions=by_axis(1, (window, window)),
      window_strides=by_axis(1, (stride, stride)),
      padding=by_axis((0, 0), padded),
    )

  wide = jnp.promote_types(x.dtype, jnp.float32)
  count = float(window * window)
  if not count_padding:
    count = total(jnp.ones(by_axis(1, sides), wide))
  return (total(x.astype(wide)) / count).astype(x.dtype)


def lrn(
  x: Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1
) -> Array:
  """Local response normalization over `size` neighbouring channels [..., C].

  x / (k + alpha / size * sum of squares) ** beta, in float32 or wider:
  Krizhevsky et al. 2012, section 3.3, with alpha / size as in Caffe.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  before = size // 2
  pad = [(0, 0)] * (x.ndim - 1) + [(before, size - 1 - before)]
  squares = jnp.pad(jnp.square(wide), pad)
  channels = x.shape[-1]
  total = sum(squares[..., i : i + channels] for i in range(size))
  # exp(log), because on CPUs a power is one library call per number.
  scale = jnp.exp(-beta * jnp.log(k + alpha / size * total))
  return (wide * scale).astype(x.dtype)


def global_mean(x: Array, axes: tuple[int, int] = (1, 2)) -> Array:
  """[B, H, W, C] -> [B, C], mean over two axes in float32 or wider."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.mean(x, axis=axes, dtype=wide).astype(x.dtype)


def channel_means(
  terms: Callable[..., Sequence[Array]], *xs: Array
) -> list[Array]:
  """Means [C] of functions of maps [..., C], over all other axes."""
  wide = jnp.promote_types(xs[0].dtype, jnp.float32)
  values = terms(*(x.astype(wide) for x in xs))
  return [jnp.mean(value, range(value.ndim - 1)) for value in values]
