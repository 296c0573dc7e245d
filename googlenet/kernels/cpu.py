"""Fast forms of the primitive operations for CPUs.

Two ideas make them several times faster than the plain forms of XLA, and
pooling.py has the third:

* Activations lie as [H, W, B, C]. A shift, a pad or a stride in space is then a
  copy of whole [B, C] slabs, and every convolution is a matrix product over
  rows of channels (im2col: Chellapilla et al. 2006).
* Gradients are written by hand as further matrix products.

`optimization_barrier` keeps XLA from fusing the building of columns into its
consumers, which would repeat that work for each of them.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from googlenet.kernels import pooling, xla
from googlenet.kernels.padding import Padding, pads
from googlenet.kernels.xla import lrn  # noqa: F401

Array = jax.Array
Pads = list[tuple[int, int]]  # (before, after) of height and width

COMPILER_OPTIONS = ()

# Below this many input channels, rows of channels are too short to copy fast;
# columns are then built with the batch as the fastest axis.
_FEW_CHANNELS = 8


def enter(x: Array) -> Array:
  """[B, H, W, C] -> [H, W, B, C]."""
  return x.transpose(1, 2, 0, 3)


def leave(x: Array) -> Array:
  """[H, W, B, C] -> [B, H, W, C]."""
  return x.transpose(2, 0, 1, 3)


# ---- Matrix products.


def _dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Sums products over one axis of each, in float32 or wider."""
  return lax.dot_general(
    a,
    b,
    (((a_axis,), (b_axis,)), ((), ())),
    preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
  )


def _rows(x: Array) -> Array:
  """[..., C] -> [rows, C]."""
  return x.reshape(-1, x.shape[-1])


def _transposed(a: Array) -> Array:
  """The transpose of a matrix, as a copy in memory.

  To XLA a plain `a.T` is only a change of layout, and for such an operand its
  matrix product on CPUs falls back from bfloat16 to float32, at half the speed.
  `jax.export` refuses the constraint, so float32 inference does without.
  """
  return with_layout_constraint(a.T, Layout((0, 1)))


def _left_transposed_dot(x: Array, y: Array) -> Array:
  """x^T y: [K, M], [K, N] -> [M, N] float32; let x be the smaller."""
  if x.dtype == jnp.float32:
    return _dot(x, y, 0, 0)
  return _dot(_transposed(x), y, 1, 0)


def _rows_dot(x: Array, y: Array) -> Array:
  """x^T y over rows: [..., M], [..., N] -> [M, N] float32; let x be smaller."""
  return _left_transposed_dot(_rows(x), _rows(y))


# ---- Convolution.


def _shifts(
  x: Array, kernel: tuple[int, int], stride: int, padded: Pads
) -> list[Array]:
  """What lies under each tap of a kernel: kh * kw arrays [H', W', ...].

  Two-byte floats come as uint16, to be turned back once they are in place.
  """
  if x.dtype.itemsize == 2:
    # Move two-byte floats as integers: XLA may widen bfloat16 to copy it (JAX
    # 0.10: 2.15 s of CPU a training step of 128 images, so 1.92 s).
    x = lax.bitcast_convert_type(x, jnp.uint16)
  rest = [(0, 0, 0)] * (x.ndim - 2)
  zero = jnp.zeros((), x.dtype)
  config = [(low, high, 0) for low, high in padded] + rest
  x = lax.optimization_barrier(lax.pad(x, zero, config))
  # Where the first tap of the last window lies, and one more.
  span_h, span_w = (
    (size - taps) // stride * stride + 1
    for size, taps in zip(x.shape[:2], kernel, strict=True)
  )
  return [
    x[i : i + span_h : stride, j : j + span_w : stride]
    for i in range(kernel[0])
    for j in range(kernel[1])
  ]


def _columns(
  x: Array, kernel: tuple[int, int], stride: int, padded: Pads
) -> Array:
  """im2col: [H, W, B, C] -> [H', W', B, kh * kw * C]."""
  shifts = _shifts(x, kernel, stride, padded)
  columns = lax.optimization_barrier(jnp.concatenate(shifts, axis=-1))
  return lax.bitcast_convert_type(columns, x.dtype)


def _few_columns(
  x: Array, kernel: tuple[int, int], stride: int, padded: Pads
) -> tuple[Array, tuple[int, int, int]]:
  """im2col for few channels: matrix [kh * kw * C, H' * W' * B], (H', W', B)."""
  shifts = _shifts(x.transpose(0, 1, 3, 2), kernel, stride, padded)
  columns = jnp.stack(shifts).transpose(0, 3, 1, 2, 4)
  shape = columns.shape[2:]
  columns = columns.reshape(len(shifts) * x.shape[-1], -1)
  columns = lax.optimization_barrier(columns)
  return lax.bitcast_convert_type(columns, x.dtype), shape


def _plain_conv(x: Array, w: Array, stride: int, padded: Pads) -> Array:
  return lax.conv_general_dilated(
    x,
    w.astype(x.dtype),
    window_strides=(stride, stride),
    padding=padded,
    dimension_numbers=('HWNC', 'HWIO', 'HWNC'),
  )


def _flipped(w: Array) -> Array:
  """Weights of the input gradient: taps reversed, channels exchanged."""
  return w[::-1, ::-1].transpose(0, 1, 3, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, w: Array, stride: int, padding: Padding) -> Array:
  return _conv_forward(x, w, stride, padding)[0]


def _conv_forward(
  x: Array, w: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
  kernel, c_in, c_out = w.shape[:2], *w.shape[2:]
  padded = pads(x.shape[:2], kernel, stride, padding)
  matrix = w.reshape(-1, c_out).astype(x.dtype)
  if c_in <= _FEW_CHANNELS:
    columns, shape = _few_columns(x, kernel, stride, padded)
    y = _left_transposed_dot(columns, matrix).reshape(*shape, c_out)
  elif x.dtype == jnp.float32:
    # XLA's own convolution is fast in float32, forward and for dx.
    y = _plain_conv(x, w, stride, padded)
  else:
    y = _dot(_columns(x, kernel, stride, padded), matrix, 3, 0)
  return y.astype(x.dtype), (x, w)


def _conv_backward(
  stride: int, padding: Padding, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
  x, w = residuals
  kernel, c_in, c_out = w.shape[:2], *w.shape[2:]
  padded = pads(x.shape[:2], kernel, stride, padding)
  # For the gradient of x at stride 1: as far from the edge as the forward pass
  # leaves of the kernel.
  rest = [
    (k - 1 - low, k - 1 - high)
    for k, (low, high) in zip(kernel, padded, strict=True)
  ]
  if stride > 1 or c_in <= _FEW_CHANNELS:
    # The stem, whose input gradient training never asks for, and reductions:
    # XLA's own form.
    plain = functools.partial(_plain_conv, w=w, stride=stride, padded=padded)
    (dx,) = jax.linear_transpose(plain, x)(dy)
    if c_in <= _FEW_CHANNELS:
      columns, _ = _few_columns(x, kernel, stride, padded)
      dw = _dot(columns, _rows(dy), 1, 0)
    else:
      dw = _rows_dot(_columns(x, kernel, stride, padded), dy)
    dw = dw.reshape(w.shape)
  elif x.dtype == jnp.float32:
    dx = _plain_conv(dy, _flipped(w), 1, rest)
    dw = _rows_dot(_columns(x, kernel, 1, padded), dy).reshape(w.shape)
  else:
    # One im2col of dy serves both gradients.
    columns = _columns(dy, kernel, 1, rest)
    matrix = _flipped(w).reshape(-1, c_in).astype(x.dtype)
    dx = _dot(columns, matrix, 3, 0)
    dw = _rows_dot(x, columns).reshape(c_in, *kernel, c_out)
    dw = dw[:, ::-1, ::-1].transpose(1, 2, 0, 3)
  return dx.astype(x.dtype), dw.astype(w.dtype)


_conv.defvjp(_conv_forward, _conv_backward)


@jax.custom_vjp
def _linear(x: Array, w: Array) -> Array:
  """[..., C_in] @ [C_in, C_out]."""
  return _dot(x, w.astype(x.dtype), x.ndim - 1, 0).astype(x.dtype)


def _linear_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
  return _linear(x, w), (x, w)


def _linear_backward(
  residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
  x, w = residuals
  dx = _dot(dy, _transposed(w.astype(x.dtype)), dy.ndim - 1, 0)
  return dx.astype(x.dtype), _rows_dot(x, dy).astype(w.dtype)


_linear.defvjp(_linear_forward, _linear_backward)


def conv(
  x: Array, w: Array, stride: int = 1, padding: Padding = 'SAME'
) -> Array:
  """[H, W, B, C_in] * [kh, kw, C_in, C_out] -> [H', W', B, C_out]."""
  padded = pads(x.shape[:2], w.shape[:2], stride, padding)
  if w.shape[:2] == (1, 1) and padded == [(0, 0), (0, 0)]:
    return _linear(x[::stride, ::stride], w[0, 0])
  return _conv(x, w, stride, padding)


# ---- Bias and rectifier.


@jax.custom_vjp
def bias_relu(x: Array, b: Array) -> Array:
  """relu(x + b) for `b` [C]."""
  return jnp.maximum(x + b.astype(x.dtype), 0)


def _bias_relu_forward(x: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
  y = bias_relu(x, b)
  return y, (y, b)


def _bias_relu_backward(
  residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
  y, b = residuals
  dx = lax.optimization_barrier(jnp.where(y > 0, dy, jnp.zeros((), dy.dtype)))
  # The sum over rows as a product with ones, which accumulates in float32.
  rows = _rows(dx)
  db = _dot(jnp.ones((1, rows.shape[0]), rows.dtype), rows, 1, 0)[0]
  return dx, db.astype(b.dtype)


bias_relu.defvjp(_bias_relu_forward, _bias_relu_backward)


def conv_bias_relu(
  x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = 'SAME'
) -> Array:
  """relu(conv(x, w) + b)."""
  return bias_relu(conv(x, w, stride, padding), b)


def conv_1x1s(x: Array, ws: Sequence[Array]) -> list[Array]:
  """1x1 convolutions of one input as one product: [H, W, B, C_i] each."""
  ends = [sum(w.shape[-1] for w in ws[:i]) for i in range(1, len(ws))]
  joined = jnp.concatenate([w[0, 0] for w in ws], axis=-1)
  return jnp.split(_linear(x, joined), ends, axis=-1)


def conv_1x1s_bias_relu(
  x: Array, ws: Sequence[Array], bs: Sequence[Array]
) -> list[Array]:
  """The same with bias and ReLU."""
  return [bias_relu(y, b) for y, b in zip(conv_1x1s(x, ws), bs, strict=True)]


# ---- Pooling.


def max_pool(
  x: Array, window: int = 3, stride: int = 2, padding: Padding = 'SAME'
) -> Array:
  """[H, W, B, C] -> [H', W', B, C], maximum of square windows."""
  return pooling.max_pool(x, (0, 1), window, stride, padding)


def conv_bias_relu_max_pool(
  x: Array,
  w: Array,
  b: Array,
  stride: int = 1,
  padding: Padding = 'SAME',
  pool: tuple[int, int, Padding] = (3, 2, 'SAME'),
) -> Array:
  """max_pool(relu(conv(x, w) + b)), pool first: the three commute."""
  return bias_relu(max_pool(conv(x, w, stride, padding), *pool), b)


avg_pool = functools.partial(xla.avg_pool, axes=(0, 1))


def global_mean(x: Array) -> Array:
  """[H, W, B, C] -> [B, C], summed in float32 or wider."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.mean(x, axis=(0, 1), dtype=wide).astype(x.dtype)
