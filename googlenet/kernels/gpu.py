"""Kernels for GPUs, on feature maps [B, H, W, C], with less memory traffic.

Memory traffic limits the speed of a training step: 33.7 GB with the plain
kernels, 15.8 GB with these (batch 1,024, bfloat16). cuDNN computes the
convolutions, as in xla.py. The differences:

* Bias and ReLU are fused into the convolution. XLA does so only if nothing else
  uses the sum before ReLU, so the gradient of ReLU is computed from its output.
* The 1x1 convolutions of one input are computed as one, which reads it once.
* The first convolution has too few input channels for tensor cores. It is
  computed as a denser one on blocks of pixels (space to depth), and the max
  pooling after it works directly on these blocks.
* gpu_pooling.py computes max pooling.
* Bias gradients are summed in float32 for every dtype.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from googlenet.kernels import gpu_pooling, shared, xla
from googlenet.kernels.padding import Padding, placement
from googlenet.kernels.shared import Pool
from googlenet.runtime.backend import GPU_OPTIONS, REPRODUCIBLE_OPTIONS

Array = jax.Array

COMPILER_OPTIONS = REPRODUCIBLE_OPTIONS + GPU_OPTIONS

# Up to this many input channels a strided convolution is packed.
_FEW_CHANNELS = 4
# Side of an input block and of an output block, in pixels.
_BLOCK_IN, _BLOCK_OUT = 4, 2


# ---- The packed convolution.


def _fits_packing(
  sizes: tuple[int, int],
  channels: int,
  kernel: tuple[int, int],
  stride: int,
  padding: Padding,
) -> bool:
  """Whether each output block depends only on 3x3 input blocks around it.

  Args:
    sizes: (H, W) of the input.
    channels: input channels.
    kernel: height and width of the weights.
    stride: stride of the convolution.
    padding: as in `padding.placement`.
  """
  if channels > _FEW_CHANNELS or stride != 2 or max(kernel) < 5:
    return False
  if any(size % _BLOCK_IN for size in sizes):
    return False
  for size, taps in zip(sizes, kernel, strict=True):
    out, low, _ = placement(size, taps, stride, padding)
    # The window of a block's second pixel starts `stride` pixels later.
    reach = stride * (_BLOCK_OUT - 1) + taps - 1 - low
    if 2 * out != size or low > _BLOCK_IN or reach >= 2 * _BLOCK_IN:
      return False
  return True


def _pack_images(x: Array) -> Array:
  """[B, 4 h, 4 w, C] -> [B, h, w, 16 C]."""
  batch, height, width, channels = x.shape
  n = _BLOCK_IN
  x = x.reshape(batch, height // n, n, width // n, n, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, height // n, width // n, n * n * channels)


def _unpack(y: Array) -> Array:
  """[B, h, w, 4 K] -> [B, 2 h, 2 w, K]."""
  batch, height, width, channels = y.shape
  n = _BLOCK_OUT
  channels //= n * n
  y = y.reshape(batch, height, width, n, n, channels)
  y = y.transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(batch, n * height, n * width, channels)


def _tap_places(taps: int, low: int) -> np.ndarray:
  """Returns the positions of kernel taps along one axis, [2, 3, 4, taps].

  Args:
    taps: kernel size.
    low: padding before the first pixel.

  Returns:
    float32 [output pixel, block, input pixel, tap]: 1 where the input pixel is
    under the tap, else 0. Block 1 is at the output block, 0 before, 2 after it.
  """
  places = np.zeros((_BLOCK_OUT, 3, _BLOCK_IN, taps), np.float32)
  for out, block, pixel in np.ndindex(places.shape[:3]):
    tap = _BLOCK_IN * (block - 1) + pixel - 2 * out + low
    if 0 <= tap < taps:
      places[out, block, pixel, tap] = 1
  return places


def _pack_weights(
  w: Array, sizes: tuple[int, int], stride: int, padding: Padding
) -> Array:
  """[kh, kw, C, K] -> [3, 3, 16 C, 4 K]: the same convolution on blocks."""
  rows, columns = (
    _tap_places(taps, placement(size, taps, stride, padding).low)
    for size, taps in zip(sizes, w.shape[:2], strict=True)
  )
  # Each sum has only one nonzero term, so nothing is rounded.
  packed = jnp.einsum(
    'adir,bejs,rsck->deijcabk',
    rows.astype(w.dtype),
    columns.astype(w.dtype),
    w,
    precision='highest',
  )
  return packed.reshape(
    3, 3, _BLOCK_IN**2 * w.shape[2], _BLOCK_OUT**2 * w.shape[3]
  )


def _packed_conv(x: Array, w: Array, stride: int, padding: Padding) -> Array:
  """Applies the convolution and returns packed output: [B, h, w, 4 K]."""
  packed = _pack_weights(w, x.shape[1:3], stride, padding)
  return xla.conv(_pack_images(x), packed)


# ---- Bias and ReLU.


@jax.custom_vjp
def _bias_relu(x: Array, b: Array) -> Array:
  """relu(x + b) for `b` [C]."""
  return jnp.maximum(x + b.astype(x.dtype), 0)


def _bias_relu_forward(x, b):
  # Without the barrier XLA turns y > 0 into x + b > 0, a second use of the sum.
  y = lax.optimization_barrier(_bias_relu(x, b))
  return y, (y, b)


def _bias_relu_backward(saved, dy):
  y, b = saved
  dx = jnp.where(y > 0, dy, jnp.zeros((), dy.dtype))
  wide = jnp.promote_types(dy.dtype, jnp.float32)
  db = jnp.sum(dx, axis=tuple(range(dx.ndim - 1)), dtype=wide)
  return dx, db.astype(b.dtype)


_bias_relu.defvjp(_bias_relu_forward, _bias_relu_backward)


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
  sizes = tuple(
    placement(size, taps, stride, padding).out
    for size, taps in zip(x.shape[1:3], w.shape[:2], strict=True)
  )
  is_packed = _fits_packing(
    x.shape[1:3], x.shape[-1], w.shape[:2], stride, padding
  )
  if is_packed:
    y = _packed_conv(x, w, stride, padding)
  else:
    y = xla.conv(x, w, stride=stride, padding=padding)
  if is_packed and not (pool and gpu_pooling.fits_packed(sizes, *pool)):
    y, is_packed = _unpack(y), False
  if pool is None:
    if relu and b is not None:
      return _bias_relu(y, b)
    return shared.add_bias_and_relu(y, b, relu)
  # Bias and ReLU are monotonic, so pooling first gives the same result with
  # less work.
  windows = gpu_pooling.make_windows(sizes, *pool, is_packed=is_packed)
  if relu and b is not None:
    return gpu_pooling.max_pool_bias_relu(y, b, windows)
  return shared.add_bias_and_relu(gpu_pooling.max_pool(y, windows), b, relu)


def conv_1x1s(
  x: Array,
  ws: Sequence[Array],
  bs: Sequence[Array] | None = None,
  *,
  relu: bool = False,
) -> list[Array]:
  """Several 1x1 convolutions of one input, in one call: [B, H, W, C_i]s."""
  return shared.joined_1x1s(conv, x, ws, bs, relu)


def max_pool(
  x: Array, window: int, stride: int, padding: Padding = 'SAME'
) -> Array:
  """[B, H, W, C] -> [B, H', W', C], maximum of square windows."""
  windows = gpu_pooling.make_windows(x.shape[1:3], window, stride, padding)
  return gpu_pooling.max_pool(x, windows)
