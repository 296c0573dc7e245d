"""Plain forms of the primitive operations, in [B, H, W, C]: `jax.lax` alone.

They define what each operation means; `layers.Kernels` says it in words.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from googlenet.kernels.padding import Padding, pads

Array = jax.Array

COMPILER_OPTIONS = ()


def enter(x: Array) -> Array:
  """Activations are in [B, H, W, C] already."""
  return x


leave = enter


def conv(
  x: Array, w: Array, stride: int = 1, padding: Padding = 'SAME'
) -> Array:
  """[B, H, W, C_in] * [kh, kw, C_in, C_out] -> [B, H', W', C_out]."""
  return lax.conv_general_dilated(
    x,
    w.astype(x.dtype),
    window_strides=(stride, stride),
    padding=pads(x.shape[1:3], w.shape[:2], stride, padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def bias_relu(x: Array, b: Array) -> Array:
  """relu(x + b) for `b` [C]."""
  return jax.nn.relu(x + b.astype(x.dtype))


def conv_bias_relu(
  x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = 'SAME'
) -> Array:
  """relu(conv(x, w) + b)."""
  return bias_relu(conv(x, w, stride, padding), b)


def conv_1x1s(x: Array, ws: Sequence[Array]) -> list[Array]:
  """1x1 convolutions of one input, [B, H, W, C] -> [B, H, W, C_i] each."""
  return [conv(x, w) for w in ws]


def conv_1x1s_bias_relu(
  x: Array, ws: Sequence[Array], bs: Sequence[Array]
) -> list[Array]:
  """The same with bias and ReLU."""
  return [conv_bias_relu(x, w, b) for w, b in zip(ws, bs, strict=True)]


def max_pool(
  x: Array, window: int = 3, stride: int = 2, padding: Padding = 'SAME'
) -> Array:
  """[B, H, W, C] -> [B, H', W', C], maximum of square windows."""
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    window_dimensions=(1, window, window, 1),
    window_strides=(1, stride, stride, 1),
    padding=[
      (0, 0),
      *pads(x.shape[1:3], (window, window), stride, padding),
      (0, 0),
    ],
  )


def conv_bias_relu_max_pool(
  x: Array,
  w: Array,
  b: Array,
  stride: int = 1,
  padding: Padding = 'SAME',
  pool: tuple[int, int, Padding] = (3, 2, 'SAME'),
) -> Array:
  """max_pool(relu(conv(x, w) + b)): the three commute, so pool first."""
  return bias_relu(max_pool(conv(x, w, stride, padding), *pool), b)


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
  """Local response normalisation over `size` neighbouring channels [..., C].

  x / (k + alpha / size * sum of squares) ** beta, in float32 or wider:
  Krizhevsky et al. 2012, section 3.3, with alpha over the window as in Caffe.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  before = size // 2
  pad = [(0, 0)] * (x.ndim - 1) + [(before, size - 1 - before)]
  squares = jnp.pad(jnp.square(wide), pad)
  channels = x.shape[-1]
  total = sum(squares[..., i : i + channels] for i in range(size))
  # As exp(log): a power is one call a number on CPUs.
  scale = jnp.exp(-beta * jnp.log(k + alpha / size * total))
  return (wide * scale).astype(x.dtype)


def global_mean(x: Array) -> Array:
  """[B, H, W, C] -> [B, C], summed in float32 or wider."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.mean(x, axis=(1, 2), dtype=wide).astype(x.dtype)
