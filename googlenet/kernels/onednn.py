"""Kernels for CPUs where XLA can call oneDNN, on maps [B, H, W, C].

oneDNN is the library that PyTorch computes with on CPUs. XLA calls it for
convolutions and matrix products if a program is compiled with
`COMPILER_OPTIONS` (a 3x3 convolution in bfloat16 at 870 to 930 GFLOP/s instead
of 240 to 370); compiled without them, everything here is correct but slow. XLA
recognizes few patterns, so the operations are written as those that it knows:

* Bias and ReLU directly follow their convolution, and so run inside it.
* Of the two gradients of a convolution, XLA hands only that of the input to
  oneDNN, as a convolution with flipped weights. The gradient of the weights is
  a matrix product over im2col columns (Chellapilla et al. 2006).
* Max pooling is that of cpu_pooling.py.

`optimization_barrier` keeps XLA from fusing the building of columns into its
consumers, which would repeat that work for each of them, and from folding
flipped weights into a convolution that oneDNN does not know.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from googlenet.kernels import cpu_pooling, shared
from googlenet.kernels.cpu_pooling import tap
from googlenet.kernels.padding import Padding, pads, placement
from googlenet.kernels.shared import Pads, Pool, to_rows
from googlenet.runtime.compilation import compile_with

Array = jax.Array

COMPILER_OPTIONS = (
  ('xla_cpu_experimental_onednn_custom_call', True),
  # XLA's other library of kernels (YNNPACK) goes first unless it is left out.
  ('xla_cpu_experimental_ynn_fusion_type', ''),
  # The default order of operations is for many cores: it builds the columns of
  # all layers early and keeps them until their gradients come.
  ('xla_cpu_scheduler_type', 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'),
)
# Height and width of [B, H, W, C].
_AXES = (1, 2)
# Up to this many input channels, rows of channels are too short to copy fast;
# columns are then built with the image's width as the fastest axis.
_FEW_CHANNELS = 8

max_pool = functools.partial(cpu_pooling.max_pool, axes=_AXES)


@functools.cache
def is_available(dtype: jnp.dtype) -> bool:
  """Whether XLA compiles a convolution of this dtype to a call of oneDNN.

  It does on x86 from JAX 0.12 on; in bfloat16 only where the processor has
  instructions for it. Found out by compiling a small convolution.
  """
  image = jax.ShapeDtypeStruct((8, 8, 8, 16), dtype)
  weight = jax.ShapeDtypeStruct((3, 3, 16, 16), dtype)
  lowered = jax.jit(_plain_conv, static_argnums=(2, 3)).lower(
    image, weight, 1, 'SAME'
  )
  try:
    compiled = compile_with(COMPILER_OPTIONS, lowered)
  except jax.errors.JaxRuntimeError:  # XLA does not know one of the options
    return False
  return '__onednn$convolution' in compiled.as_text()


# ---- Convolution.


def _plain_conv(x: Array, w: Array, stride: int, padding: Padding) -> Array:
  padded = pads(x.shape[1:3], w.shape[:2], stride, padding)
  return _padded_conv(x, w, stride, padded)


def _padded_conv(x: Array, w: Array, stride: int, padded: Pads) -> Array:
  if any(k > n for k, n in zip(w.shape[:2], x.shape[1:3], strict=True)):
    # XLA hands only kernels that fit into the image to oneDNN.
    x, padded = _pad(x, padded), [(0, 0), (0, 0)]
  return shared.convolve(x, w, stride, padded)


def _pad(x: Array, padded: Pads) -> Array:
  places = {
    axis: (-low, low + x.shape[axis] + high)
    for axis, (low, high) in zip(_AXES, padded, strict=True)
  }
  return lax.optimization_barrier(tap(x, places))


def _columns(x: Array, kernel: tuple[int, int], padding: Padding) -> Array:
  """im2col at stride 1: [B, H, W, C] -> [B, H', W', kh * kw * C].

  One gather: shifts and their concatenation are ten programs for LLVM to
  compile for each layer, and hardly faster.
  """
  batch, _, _, channels = x.shape
  heights, widths = (
    placement(x.shape[axis], taps, 1, padding)
    for axis, taps in zip(_AXES, kernel, strict=True)
  )
  pixels = _pad(x, [(place.low, place.high) for place in (heights, widths)])
  # Where each tap of each window lies among the pixels of a padded image.
  rows = np.arange(heights.out)[:, None, None, None]
  rows = rows + np.arange(kernel[0])[:, None]
  columns = np.arange(widths.out)[:, None, None] + np.arange(kernel[1])
  places = rows * pixels.shape[2] + columns
  pixels = pixels.reshape(batch, -1, channels)
  columns = pixels.at[:, places.reshape(-1)].get(mode='promise_in_bounds')
  columns = columns.reshape(batch, heights.out, widths.out, -1)
  return lax.optimization_barrier(columns)


def _few_columns(
  x: Array, kernel: tuple[int, int], stride: int, padding: Padding
) -> Array:
  """im2col for few channels: [B, H, W, C] -> [kh * kw * C, B * H' * W']."""
  places = []
  for axis, taps in zip(_AXES, kernel, strict=True):
    out, low, _ = placement(x.shape[axis], taps, stride, padding)
    places.append([(t - low, out) for t in range(taps)])
  planes = lax.optimization_barrier(x.transpose(3, 0, 1, 2))
  shifts = [
    tap(planes, {2: row, 3: column}, stride)
    for row in places[0]
    for column in places[1]
  ]
  columns = jnp.stack(shifts)
  columns = columns.reshape(kernel[0] * kernel[1] * x.shape[-1], -1)
  return lax.optimization_barrier(columns)


def _dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Sums products over one axis of each.

  oneDNN sums in float32 and rounds once, to the dtype of the operands. XLA
  hands it no product of bfloat16 that is to stay float32.
  """
  return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())))


def _weight_gradient(
  x: Array, dy: Array, w: Array, stride: int, padding: Padding
) -> Array:
  kernel, c_in = w.shape[:2], w.shape[2]
  if c_in <= _FEW_CHANNELS:
    columns = _few_columns(x, kernel, stride, padding)
    dw = _dot(columns, to_rows(dy), 1, 0)
  elif kernel == (1, 1) and (
    pads(x.shape[1:3], kernel, stride, padding) == [(0, 0), (0, 0)]
  ):
    dw = _dot(to_rows(x[:, ::stride, ::stride]), to_rows(dy), 0, 0)
  elif max(kernel) == 3 and stride == 1:
    dw = _dot(to_rows(dy), to_rows(_columns(x, kernel, padding)), 0, 0).T
  else:
    # Few channels and a large kernel: transposing x and dy for a convolution
    # of theirs costs less than k * k copies of x.
    shape = jax.ShapeDtypeStruct(w.shape, x.dtype)
    plain = functools.partial(_plain_conv, x, stride=stride, padding=padding)
    (dw,) = jax.linear_transpose(plain, shape)(dy)
  return dw.reshape(w.shape).astype(w.dtype)


def _input_gradient(
  x: Array, dy: Array, w: Array, stride: int, padding: Padding
) -> Array:
  if stride > 1:
    # XLA's own gradient: rare, and training never asks for that of the stem.
    plain = functools.partial(_plain_conv, w=w, stride=stride, padding=padding)
    return jax.linear_transpose(plain, x)(dy)[0]
  padded = pads(x.shape[1:3], w.shape[:2], 1, padding)
  padded = shared.flipped_pads(w.shape[:2], padded)
  return _padded_conv(dy, lax.optimization_barrier(shared.flip(w)), 1, padded)


def _gradients(
  x: Array, dy: Array, w: Array, stride: int, padding: Padding
) -> tuple[Array, Array]:
  return (
    _input_gradient(x, dy, w, stride, padding),
    _weight_gradient(x, dy, w, stride, padding),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, w: Array, stride: int, padding: Padding) -> Array:
  return _plain_conv(x, w, stride, padding)


def _conv_forward(x, w, stride, padding):
  return _plain_conv(x, w, stride, padding), (x, w)


def _conv_backward(stride, padding, saved, dy):
  x, w = saved
  return _gradients(x, dy, w, stride, padding)


_conv.defvjp(_conv_forward, _conv_backward)


# ---- Convolution with bias, ReLU and pooling.


def _masked(y: Array, dy: Array) -> Array:
  """dy where y, the output of a ReLU, is positive, and 0 elsewhere."""
  if y.dtype.itemsize == 2:
    # As integers, for the reason that cpu_pooling.py gives.
    is_positive = lax.bitcast_convert_type(y, jnp.int16) > 0
  else:
    is_positive = y > 0
  masked = jnp.where(is_positive, dy, jnp.zeros((), dy.dtype))
  return lax.optimization_barrier(masked)


def _bias_gradient(dy: Array, b: Array) -> Array:
  """The sum over rows, as a product with ones."""
  rows = to_rows(dy)
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
  y, winners = _plain_conv(x, w, stride, padding), None
  y = jnp.maximum(y + b.astype(y.dtype), 0)
  if pool is not None:
    y, winners = cpu_pooling.pool(y, _AXES, *pool)
  return y, (x, w, b, y, winners)


def _conv_bias_relu_backward(stride, padding, pool, saved, dy):
  x, w, b, y, winners = saved
  # With pooling, too: ReLU has set the winner of a window to zero only if the
  # maximum is zero.
  dy = _masked(y, dy)
  db = _bias_gradient(dy, b)
  if pool is not None:
    width = placement(x.shape[2], w.shape[1], stride, padding).out
    dy = cpu_pooling.unpool(dy, winners, _AXES, width, *pool)
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
  """1x1 convolutions of one input as one: [B, H, W, C_i] each."""
  return shared.joined_1x1s(conv, x, ws, bs, relu)
