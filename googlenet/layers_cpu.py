"""Fast forms of the primitive operations for CPUs.

Two ideas make them several times faster than the plain forms of XLA, and
`layers_pool` has the third:

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

from googlenet import layers_pool
from googlenet.layers_pool import same_padding

Array = jax.Array

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


def _shifts(x: Array, kernel: int, stride: int) -> list[Array]:
  """What lies under each tap of a kernel: k * k arrays [H', W', ...].

  Two-byte floats come as uint16, to be turned back once they are in place.
  """
  if x.dtype.itemsize == 2:
    # Move two-byte floats as integers: XLA may widen bfloat16 to copy it (JAX
    # 0.10: 2.15 s of CPU a training step of 128 images, so 1.92 s).
    x = lax.bitcast_convert_type(x, jnp.uint16)
  (out_h, *pad_h), (out_w, *pad_w) = (
    same_padding(size, kernel, stride) for size in x.shape[:2]
  )
  rest = [(0, 0, 0)] * (x.ndim - 2)
  zero = jnp.zeros((), x.dtype)
  x = lax.optimization_barrier(
    lax.pad(x, zero, [(*pad_h, 0), (*pad_w, 0), *rest])
  )
  span_h, span_w = (out_h - 1) * stride + 1, (out_w - 1) * stride + 1
  return [
    x[i : i + span_h : stride, j : j + span_w : stride]
    for i in range(kernel)
    for j in range(kernel)
  ]


def _columns(x: Array, kernel: int, stride: int = 1) -> Array:
  """im2col: [H, W, B, C] -> [H', W', B, k * k * C]."""
  shifts = _shifts(x, kernel, stride)
  columns = lax.optimization_barrier(jnp.concatenate(shifts, axis=-1))
  return lax.bitcast_convert_type(columns, x.dtype)


def _few_columns(
  x: Array, kernel: int, stride: int
) -> tuple[Array, tuple[int, int, int]]:
  """im2col for few channels: matrix [k * k * C, H' * W' * B], (H', W', B)."""
  shifts = _shifts(x.transpose(0, 1, 3, 2), kernel, stride)
  columns = jnp.stack(shifts).transpose(0, 3, 1, 2, 4)
  shape = columns.shape[2:]
  columns = columns.reshape(kernel * kernel * x.shape[-1], -1)
  columns = lax.optimization_barrier(columns)
  return lax.bitcast_convert_type(columns, x.dtype), shape


def _plain_conv(x: Array, w: Array, stride: int) -> Array:
  return lax.conv_general_dilated(
    x,
    w.astype(x.dtype),
    window_strides=(stride, stride),
    padding='SAME',
    dimension_numbers=('HWNC', 'HWIO', 'HWNC'),
  )


def _flipped(w: Array) -> Array:
  """Weights of the input gradient: taps reversed, channels exchanged."""
  return w[::-1, ::-1].transpose(0, 1, 3, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Array, w: Array, stride: int) -> Array:
  return _conv_forward(x, w, stride)[0]


def _conv_forward(
  x: Array, w: Array, stride: int
) -> tuple[Array, tuple[Array, Array]]:
  kernel, _, c_in, c_out = w.shape
  matrix = w.reshape(-1, c_out).astype(x.dtype)
  if c_in <= _FEW_CHANNELS:
    columns, shape = _few_columns(x, kernel, stride)
    y = _left_transposed_dot(columns, matrix).reshape(*shape, c_out)
  elif x.dtype == jnp.float32:
    # XLA's own convolution is fast in float32, forward and for dx.
    y = _plain_conv(x, w, stride)
  else:
    y = _dot(_columns(x, kernel, stride), matrix, 3, 0)
  return y.astype(x.dtype), (x, w)


def _conv_backward(
  stride: int, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
  x, w = residuals
  kernel, _, c_in, c_out = w.shape
  if stride > 1 or c_in <= _FEW_CHANNELS:
    # The stem. Training never asks for its input gradient and XLA then drops
    # it; what does, saliency for one, gets XLA's own form.
    (dx,) = jax.linear_transpose(lambda x: _plain_conv(x, w, stride), x)(dy)
    if c_in <= _FEW_CHANNELS:
      columns, _ = _few_columns(x, kernel, stride)
      dw = _dot(columns, _rows(dy), 1, 0)
    else:
      dw = _rows_dot(_columns(x, kernel, stride), dy)
    dw = dw.reshape(w.shape)
  elif x.dtype == jnp.float32:
    dx = _plain_conv(dy, _flipped(w), 1)
    dw = _rows_dot(_columns(x, kernel), dy).reshape(w.shape)
  else:
    # One im2col of dy serves both gradients.
    columns = _columns(dy, kernel)
    matrix = _flipped(w).reshape(-1, c_in).astype(x.dtype)
    dx = _dot(columns, matrix, 3, 0)
    dw = _rows_dot(x, columns).reshape(c_in, kernel, kernel, c_out)
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


def conv(x: Array, w: Array, stride: int = 1) -> Array:
  """[H, W, B, C_in] * [k, k, C_in, C_out] -> [H/stride, W/stride, B, C_out]."""
  if w.shape[0] == 1:
    return _linear(x[::stride, ::stride], w[0, 0])
  return _conv(x, w, stride)


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


def conv_bias_relu(x: Array, w: Array, b: Array, stride: int = 1) -> Array:
  """relu(conv(x, w) + b)."""
  return bias_relu(conv(x, w, stride), b)


def conv_1x1s_bias_relu(
  x: Array, ws: Sequence[Array], bs: Sequence[Array]
) -> list[Array]:
  """1x1 convolutions of one input as one product: [H, W, B, C_i] each."""
  ends = [sum(w.shape[-1] for w in ws[:i]) for i in range(1, len(ws))]
  joined = jnp.concatenate([w[0, 0] for w in ws], axis=-1)
  ys = jnp.split(_linear(x, joined), ends, axis=-1)
  return [bias_relu(y, b) for y, b in zip(ys, bs, strict=True)]


# ---- Pooling.


def max_pool(x: Array, window: int = 3, stride: int = 2) -> Array:
  """[H, W, B, C] -> [H/stride, W/stride, B, C], maximum of square windows."""
  return layers_pool.max_pool(x, (0, 1), window, stride)


def conv_bias_relu_max_pool(
  x: Array, w: Array, b: Array, stride: int = 1, pool: tuple[int, int] = (3, 2)
) -> Array:
  """max_pool(relu(conv(x, w) + b)), pool first: the three commute."""
  return bias_relu(max_pool(conv(x, w, stride), *pool), b)


def global_mean(x: Array) -> Array:
  """[H, W, B, C] -> [B, C], summed in float32 or wider."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.mean(x, axis=(0, 1), dtype=wide).astype(x.dtype)
