"""im2col for feature maps [B, H, W, C]: the pixels of each window as a row.

Chellapilla et al., 2006. A weight gradient is then one matrix product.
`optimization_barrier` stops XLA from computing columns again in each operation
that uses them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from googlenet.kernels.cpu_pooling import tap
from googlenet.kernels.padding import Padding, placement
from googlenet.kernels.shared import Pads

Array = jax.Array

# Height and width of [B, H, W, C].
AXES = (1, 2)


def pad(x: Array, padded: Pads) -> Array:
  """Pads maps [B, H, W, C] with zeros, in memory."""
  places = {
    axis: (-low, low + x.shape[axis] + high)
    for axis, (low, high) in zip(AXES, padded, strict=True)
  }
  return lax.optimization_barrier(tap(x, places))


def columns(x: Array, kernel: tuple[int, int], padding: Padding) -> Array:
  """im2col at stride 1: [B, H, W, C] -> [B, H', W', kh * kw * C].

  It is one gather. Shifts and a concatenation are hardly faster, and give LLVM
  ten programs to compile per layer.
  """
  batch, _, _, channels = x.shape
  heights, widths = (
    placement(x.shape[axis], taps, 1, padding)
    for axis, taps in zip(AXES, kernel, strict=True)
  )
  pixels = pad(x, [(place.low, place.high) for place in (heights, widths)])
  # Index of each tap of each window among the pixels of a padded image.
  rows = np.arange(heights.out)[:, None, None, None]
  rows = rows + np.arange(kernel[0])[:, None]
  across = np.arange(widths.out)[:, None, None] + np.arange(kernel[1])
  places = rows * pixels.shape[2] + across
  pixels = pixels.reshape(batch, -1, channels)
  windows = pixels.at[:, places.reshape(-1)].get(mode='promise_in_bounds')
  windows = windows.reshape(batch, heights.out, widths.out, -1)
  return lax.optimization_barrier(windows)


def few_columns(
  x: Array, kernel: tuple[int, int], stride: int, padding: Padding
) -> Array:
  """im2col for few channels: [B, H, W, C] -> [kh * kw * C, B * H' * W'].

  Rows are shifted first: shifts by both at once are as many programs to compile
  as the kernel has places, 49 instead of 2, and run no faster.
  """
  places = []
  for axis, taps in zip(AXES, kernel, strict=True):
    out, low, _ = placement(x.shape[axis], taps, stride, padding)
    places.append([(t - low, out) for t in range(taps)])
  planes = lax.optimization_barrier(x.transpose(3, 0, 1, 2))
  rows = jnp.stack([tap(planes, {2: row}, stride) for row in places[0]])
  rows = lax.optimization_barrier(rows)
  shifts = [tap(rows, {4: column}, stride) for column in places[1]]
  windows = jnp.stack(shifts, axis=1)
  windows = windows.reshape(kernel[0] * kernel[1] * x.shape[-1], -1)
  return lax.optimization_barrier(windows)
