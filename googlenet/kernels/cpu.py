"""Kernels for CPUs without oneDNN: convolutions are matrix products.

XLA for CPUs computes gradients of convolutions much slower than a matrix
product, and the gradient of max pooling on one thread. These kernels raised
training from 52 to 123 images/s (float32; docs/performance.md):

* Feature maps are [H, W, B, C]. A shift, pad or stride in space copies whole
  [B, C] slabs, and every convolution is a matrix product over rows of channels
  (im2col: Chellapilla et al. 2006).
* Gradients are hand-written, also as matrix products. In float32 winograd.py
  computes what has three rows of weights.
* cpu_pooling.py computes max pooling.

`optimization_barrier` stops XLA from fusing im2col into each operation that
uses the columns, which would repeat the work.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from googlenet.kernels import cpu_pooling, shared, winograd, xla
from googlenet.kernels.padding import Padding, pads
from googlenet.kernels.shared import Pads, Pool, to_rows

Array = jax.Array

COMPILER_OPTIONS = ()
# Height and width of [H, W, B, C].
_AXES = (0, 1)
# Up to this many input channels, rows of channels are too short to copy fast,
# so columns are built with the batch as the innermost axis.
_FEW_CHANNELS = 8


def to_layout(x: Array) -> Array:
  """[B, H, W, C] -> [H, W, B, C]."""
  return x.transpose(1, 2, 0, 3)


def from_layout(x: Array) -> Array:
  """[H, W, B, C] -> [B, H, W, C]."""
  return x.transpose(2, 0, 1, 3)


max_pool = functools.partial(cpu_pooling.max_pool, axes=_AXES)
avg_pool = functools.partial(xla.avg_pool, axes=_AXES)
global_mean = functools.partial(xla.global_mean, axes=_AXES)


# ---- Matrix products.


def _dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Contracts one axis of each array, accumulating in float32 or wider."""
  return lax.dot_general(
    a,
    b,
    (((a_axis,), (b_axis,)), ((), ())),
    preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
  )


def _transposed(a: Array) -> Array:
  """Returns the transpose of a matrix as a copy in memory.

  For XLA, a plain `a.T` only changes the layout, and with such an operand its
  CPU matrix product falls back from bfloat16 to float32, at half the speed.
  `jax.export` refuses the layout constraint, so the forward
  pass in float32 avoids it.
  """
  return with_layout_constraint(jnp.transpose(a), Layout((0, 1)))


def _left_transposed_dot(x: Array, y: Array) -> Array:
  """x^T y: [K, M], [K, N] -> [M, N] float32; x should be the smaller one."""
  if x.dtype == jnp.float32:
    return _dot(x, y, 0, 0)
  return _dot(_transposed(x), y, 1, 0)


def _rows_dot(x: Array, y: Array) -> Array:
  """x^T y over rows: [..., M], [..., N] -> [M, N] float32, x the smaller."""
  return _left_transposed_dot(to_rows(x), to_rows(y))


# ---- Convolution.


def _shifts(
  x: Array, kernel: tuple[int, int], stride: int, padded: Pads
) -> list[Array]:
  """Returns the pixels under each kernel tap: kh * kw arrays [H', W', ...].

  Two-byte floats are returned as uint16; the caller converts them back.
  """
  if x.dtype.itemsize == 2:
    # XLA may widen bfloat16 to copy it, but not integers (JAX 0.10: a training
    # step of 128 images took 1.92 instead of 2.15 s of CPU time).
    x = lax.bitcast_convert_type(x, jnp.uint16)
  rest = [(0, 0, 0)] * (x.ndim - 2)
  zero = jnp.zeros((), x.dtype)
  config = [(low, high, 0) for low, high in padded] + rest
  x = lax.optimization_barrier(lax.pad(x, zero, config))
  # One more than the position of the first tap of the last window.
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


_xla_conv = functools.partial(shared.convolve, layout='HWNC')


def _wide_conv(x: Array, w: Array, stride: int, padded: Pads) -> Array:
  """Convolves in float32, in which XLA's own convolution is fast too."""
  rows = (len(x) + sum(padded[0]) - len(w)) // stride + 1
  if winograd.saves(x.dtype, w.shape[:2], stride, rows):
    return winograd.convolve(x, w.astype(x.dtype), padded, _AXES)
  return _xla_conv(x, w, stride, padded)


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
    y = _wide_conv(x, w, stride, padded)
  else:
    y = _dot(_columns(x, kernel, stride, padded), matrix, 3, 0)
  return y.astype(x.dtype), (x, w)


def _conv_backward(
  stride: int, padding: Padding, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
  x, w = residuals
  kernel, c_in, c_out = w.shape[:2], *w.shape[2:]
  padded = pads(x.shape[:2], kernel, stride, padding)
  if stride > 1 or c_in <= _FEW_CHANNELS:
    # XLA's own gradient: such layers are rare, and the stem needs no gradient
    # for its input.
    plain = functools.partial(_xla_conv, w=w, stride=stride, pads=padded)
    (dx,) = jax.linear_transpose(plain, x)(dy)
    if c_in <= _FEW_CHANNELS:
      columns, _ = _few_columns(x, kernel, stride, padded)
      dw = _dot(columns, to_rows(dy), 1, 0)
    else:
      dw = _rows_dot(_columns(x, kernel, stride, padded), dy)
    dw = dw.reshape(w.shape)
  elif x.dtype == jnp.float32:
    dx = _wide_conv(dy, shared.flip(w), 1, shared.flipped_pads(kernel, padded))
    if winograd.saves(x.dtype, kernel, 1, len(dy)):
      dw = winograd.weight_gradient(x, dy, kernel, padded, _AXES)
    else:
      dw = _rows_dot(_columns(x, kernel, 1, padded), dy)
    dw = dw.reshape(w.shape)
  else:
    # One im2col of dy serves both gradients.
    columns = _columns(dy, kernel, 1, shared.flipped_pads(kernel, padded))
    matrix = shared.flip(w).reshape(-1, c_in).astype(x.dtype)
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


# ---- Bias and ReLU.


@jax.custom_vjp
def _bias_relu(x: Array, b: Array) -> Array:
  """relu(x + b) for `b` [C]."""
  return jnp.maximum(x + b.astype(x.dtype), 0)


def _bias_relu_forward(x: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
  y = _bias_relu(x, b)
  return y, (y, b)


def _bias_relu_backward(
  residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
  y, b = residuals
  dx = lax.optimization_barrier(jnp.where(y > 0, dy, jnp.zeros((), dy.dtype)))
  # Sums over rows by a product with ones, which accumulates in float32.
  rows = to_rows(dx)
  db = _dot(jnp.ones((1, rows.shape[0]), rows.dtype), rows, 1, 0)[0]
  return dx, db.astype(b.dtype)


_bias_relu.defvjp(_bias_relu_forward, _bias_relu_backward)


def _finish(y: Array, b: Array | None, relu: bool) -> Array:
  if relu and b is not None:
    return _bias_relu(y, b)
  return shared.add_bias_and_relu(y, b, relu)


# ---- The operations.


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
  """[H, W, B, C_in] * [kh, kw, C_in, C_out] -> [H', W', B, C_out]."""
  padded = pads(x.shape[:2], w.shape[:2], stride, padding)
  if w.shape[:2] == (1, 1) and padded == [(0, 0), (0, 0)]:
    y = _linear(x[::stride, ::stride], w[0, 0])
  else:
    y = _conv(x, w, stride, padding)
  if pool is not None:
    # Bias and ReLU are monotonic, so pooling first gives the same result with
    # less work.
    y = max_pool(y, *pool)
  return _finish(y, b, relu)


def conv_1x1s(
  x: Array,
  ws: Sequence[Array],
  bs: Sequence[Array] | None = None,
  *,
  relu: bool = False,
) -> list[Array]:
  """Several 1x1 convolutions of one input, in one product: [H, W, B, C_i]s."""
  joined = jnp.concatenate([w[0, 0] for w in ws], axis=-1)
  ys = shared.split(_linear(x, joined), ws)
  bs = bs or [None] * len(ws)
  return [_finish(y, b, relu) for y, b in zip(ys, bs, strict=True)]
