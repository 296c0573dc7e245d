"""Kernels for CPUs where XLA can call oneDNN, on feature maps [B, H, W, C].

oneDNN is the library that PyTorch uses on CPUs. XLA calls it for convolutions
and matrix products if a program is compiled with `COMPILER_OPTIONS` (a 3x3
convolution in bfloat16 runs at 870 to 930 GFLOP/s instead of 240 to 370);
without them, these kernels are correct but slow. XLA recognizes only a few
patterns, so the operations use exactly these:

* Bias and ReLU directly follow their convolution, so they are fused into it.
* For the input gradient of a convolution, XLA calls oneDNN if it is written as
  a convolution with flipped weights. The weight gradient is one matrix product
  over the columns of im2col.py, one for each tap, or those of winograd.py.
* cpu_pooling.py computes max pooling.

`optimization_barrier` stops XLA from folding flipped weights into a kind of
convolution that oneDNN does not support.
"""

import functools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from googlenet.kernels import cpu_pooling, im2col, processor, shared, winograd
from googlenet.kernels.cpu_pooling import tap
from googlenet.kernels.padding import Padding, pads, placement
from googlenet.kernels.shared import Pads, Pool, to_rows
from googlenet.runtime.compilation import compile_with

Array = jax.Array

COMPILER_OPTIONS = (
  ('xla_cpu_experimental_onednn_custom_call', True),
  # Disables YNNPACK, which XLA would prefer to oneDNN.
  ('xla_cpu_experimental_ynn_fusion_type', ''),
  # The default scheduler, made for many cores, computes the columns of all
  # layers early and keeps them in memory until their gradients are computed.
  ('xla_cpu_scheduler_type', 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'),
)
# Up to this many input channels, rows of channels are too short to copy fast,
# so columns are built with the width as the innermost axis.
_FEW_CHANNELS = 8

max_pool = functools.partial(cpu_pooling.max_pool, axes=im2col.AXES)


def is_available(dtype: jnp.dtype) -> bool:
  """Whether XLA uses oneDNN for convolutions of this dtype.

  It does on x86 since JAX 0.12.
  """
  return bool(dtype_of_calls(dtype))


@functools.cache
def dtype_of_calls(dtype: jnp.dtype) -> str:
  """Returns the dtype in which oneDNN computes this one, '' if it does not.

  On CPUs without instructions for bfloat16 this is float32: 'f32', not 'bf16'.
  This function compiles a small convolution to find out.
  """
  image = jax.ShapeDtypeStruct((8, 8, 8, 16), dtype)
  weight = jax.ShapeDtypeStruct((3, 3, 16, 16), dtype)
  lowered = jax.jit(conv).lower(image, weight)
  try:
    compiled = compile_with(COMPILER_OPTIONS, lowered)
  except jax.errors.JaxRuntimeError:  # XLA does not know one of the options
    return ''
  call = re.search(r'= \((\w+)\[.*__onednn\$convolution', compiled.as_text())
  return call[1] if call else ''


# ---- Convolution.


def _widened(x: Array, *others: Array) -> list[Array]:
  """Returns arrays, rounded to the dtype of x, in that of its products."""
  dtype = processor.product_dtype(x.dtype)
  return [a.astype(x.dtype).astype(dtype) for a in (x, *others)]


def _plain_conv(x: Array, w: Array, stride: int, padding: Padding) -> Array:
  padded = pads(x.shape[1:3], w.shape[:2], stride, padding)
  return _padded_conv(x, w, stride, padded)


def _padded_conv(x: Array, w: Array, stride: int, padded: Pads) -> Array:
  if any(k > n for k, n in zip(w.shape[:2], x.shape[1:3], strict=True)):
    # XLA uses oneDNN only if the kernel fits into the image.
    x, padded = im2col.pad(x, padded), [(0, 0), (0, 0)]
  return shared.convolve(x, w, stride, padded)


def _dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Contracts one axis of each array.

  oneDNN accumulates in float32 and rounds the result to the operand dtype. XLA
  does not use it for bfloat16 products with a float32 result.
  """
  return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())))


def _products_are_cheap(dtype: jnp.dtype) -> bool:
  """Whether products are so fast that the copies of columns cost more."""
  return dtype == jnp.bfloat16 and processor.has_amx()


def _products_of_taps(
  x: Array, dy: Array, kernel: tuple[int, int], padding: Padding
) -> Array:
  """The weight gradient at stride 1, tap by tap: [kh * kw, C_in, C_out].

  Each product reads one shift of x, so nothing is joined to columns.
  """
  heights, widths = (
    placement(x.shape[axis], taps, 1, padding)
    for axis, taps in zip(im2col.AXES, kernel, strict=True)
  )
  products = []
  for i, j in np.ndindex(kernel):
    places = {
      1: (i - heights.low, heights.out),
      2: (j - widths.low, widths.out),
    }
    shifted = lax.optimization_barrier(tap(x, places))
    products.append(_dot(to_rows(shifted), to_rows(dy), 0, 0))
  return jnp.stack(products)


def _weight_gradient(
  x: Array, dy: Array, w: Array, stride: int, padding: Padding
) -> Array:
  kernel, c_in = w.shape[:2], w.shape[2]
  if c_in <= _FEW_CHANNELS:
    columns = im2col.few_columns(x, kernel, stride, padding)
    dw = _dot(columns, to_rows(dy), 1, 0)
  elif kernel == (1, 1) and (
    pads(x.shape[1:3], kernel, stride, padding) == [(0, 0), (0, 0)]
  ):
    dw = _dot(to_rows(x[:, ::stride, ::stride]), to_rows(dy), 0, 0)
  elif max(kernel) == 3 and stride == 1 and _products_are_cheap(x.dtype):
    dw = _products_of_taps(x, dy, kernel, padding)
  elif winograd.saves(x.dtype, kernel, stride, dy.shape[1]):
    padded = pads(x.shape[1:3], kernel, 1, padding)
    dw = winograd.weight_gradient(x, dy, kernel, padded, im2col.AXES)
  elif max(kernel) == 3 and stride == 1:
    dw = _dot(to_rows(dy), to_rows(im2col.columns(x, kernel, padding)), 0, 0).T
  else:
    # For a large kernel, transposing x and dy and convolving them costs less
    # than k * k copies of x.
    shape = jax.ShapeDtypeStruct(w.shape, x.dtype)
    plain = functools.partial(_plain_conv, x, stride=stride, padding=padding)
    (dw,) = jax.linear_transpose(plain, shape)(dy)
  return dw.reshape(w.shape)


def _input_gradient(
  x: Array, dy: Array, w: Array, stride: int, padding: Padding
) -> Array:
  if stride > 1:
    # XLA's own gradient: such layers are rare, and the stem needs no gradient
    # for its input.
    plain = functools.partial(_plain_conv, w=w, stride=stride, padding=padding)
    return jax.linear_transpose(plain, x)(dy)[0]
  padded = pads(x.shape[1:3], w.shape[:2], 1, padding)
  padded = shared.flipped_pads(w.shape[:2], padded)
  # As a vector, since XLA would lay out the weights before the barrier as they
  # were, and copy them after it: two programs and two copies.
  flipped = shared.flip(w)
  vector = lax.optimization_barrier(flipped.reshape(-1))
  return _padded_conv(dy, vector.reshape(flipped.shape), 1, padded)


def _gradients(
  x: Array, dy: Array, w: Array, stride: int, padding: Padding
) -> tuple[Array, Array]:
  wide = _widened(x, dy, w)
  dx = _input_gradient(*wide, stride, padding)
  dw = _weight_gradient(*wide, stride, padding)
  return dx.astype(x.dtype), dw.astype(w.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, w: Array, stride: int, padding: Padding) -> Array:
  return _plain_conv(*_widened(x, w), stride, padding).astype(x.dtype)


def _conv_forward(x, w, stride, padding):
  return _conv(x, w, stride, padding), (x, w)


def _conv_backward(stride, padding, saved, dy):
  x, w = saved
  return _gradients(x, dy, w, stride, padding)


_conv.defvjp(_conv_forward, _conv_backward)


# ---- Convolution with bias, ReLU and pooling.


def _masked(y: Array, dy: Array) -> Array:
  """Returns dy where y, the output of a ReLU, is positive, and 0 elsewhere."""
  # Compared as integers, which have the same sign. XLA would replace max(x, 0)
  # > 0 by x > 0, and as x then has a second user, oneDNN would not compute the
  # ReLU. For 16 bits see also cpu_pooling.py.
  bits = jnp.dtype(f'int{8 * y.dtype.itemsize}')
  is_positive = lax.bitcast_convert_type(y, bits) > 0
  masked = jnp.where(is_positive, dy, jnp.zeros((), dy.dtype))
  return lax.optimization_barrier(masked)


def _bias_gradient(dy: Array, b: Array) -> Array:
  """Sums dy over rows, by a product with ones."""
  (rows,) = _widened(to_rows(dy))
  ones = jnp.ones((1, rows.shape[0]), rows.dtype)
  return _dot(ones, rows, 1, 0)[0].astype(b.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _conv_bias_relu(
  x: Array,
  w: Array,
  b: Array,
  stride: int,
  padding: Padding,
  pool: Pool | None,
) -> Array:
  return _conv_bias_relu_forward(x, w, b, stride, padding, pool)[0]


def _conv_bias_relu_forward(x, w, b, stride, padding, pool):
  wide_x, wide_w, wide_b = _widened(x, w, b)
  y = _plain_conv(wide_x, wide_w, stride, padding)
  y, winners = jnp.maximum(y + wide_b, 0).astype(x.dtype), None
  if pool is not None:
    y, winners = cpu_pooling.pool(y, im2col.AXES, *pool)
  return y, (x, w, b, y, winners)


def _conv_bias_relu_backward(stride, padding, pool, saved, dy):
  x, w, b, y, winners = saved
  # This is also correct after pooling: a maximum is positive exactly if ReLU
  # did not set its pixel to zero.
  dy = _masked(y, dy)
  db = _bias_gradient(dy, b)
  if pool is not None:
    width = placement(x.shape[2], w.shape[1], stride, padding).out
    dy = cpu_pooling.unpool(dy, winners, im2col.AXES, width, *pool)
    dy = lax.optimization_barrier(dy)
  return *_gradients(x, dy, w, stride, padding), db


_conv_bias_relu.defvjp(_conv_bias_relu_forward, _conv_bias_relu_backward)


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
  """[B, H, W, C_in] * [kh, kw, C_in, C_out] -> [B, H', W', C_out]."""
  if relu and b is not None:
    return _conv_bias_relu(x, w, b, stride, padding, pool)
  y = _conv(x, w, stride, padding)
  if pool is not None:
    y = max_pool(y, *pool)
  return shared.add_bias_and_relu(y, b, relu)


def conv_1x1s(
  x: Array,
  ws: Sequence[Array],
  bs: Sequence[Array] | None = None,
  *,
  relu: bool = False,
) -> list[Array]:
  """Several 1x1 convolutions of one input, in one call: [B, H, W, C_i]s."""
  return shared.joined_1x1s(conv, x, ws, bs, relu)
