"""Max pooling for CPUs: one axis at a time, with a hand-written gradient.

XLA for CPUs runs the gradient of max pooling (select-and-scatter) on one
thread. Here the forward pass stores, in one byte per axis, the position of the
maximum; the gradient is then a few selects that run on all threads.

Two-byte floats are compared as integers, which is four times as fast: XLA would
convert each of them to float32 and back.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from googlenet.kernels.padding import Padding, placement
from googlenet.kernels.shared import Pool

Array = jax.Array
# Tap (uint8) of the maximum along the width, then along the height.
Winners = tuple[Array, Array]


def tap(
  x: Array,
  places: dict[int, tuple[int, int]],
  stride: int = 1,
  fill: float = 0,
) -> Array:
  """Returns x[first + stride * i] for i < out along some axes.

  Args:
    x: any array.
    places: {axis: (first, out)}; `first` may be negative.
    stride: stride along these axes.
    fill: value at positions outside of x.
  """
  starts, limits, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
  padding = [(0, 0, 0)] * x.ndim
  for axis, (first, out) in places.items():
    before = min(max(-(first // stride), 0), out)
    start = min(max(first + before * stride, 0), x.shape[axis])
    count = min(out - before, max(-((start - x.shape[axis]) // stride), 0))
    starts[axis], steps[axis] = start, stride
    limits[axis] = start + max((count - 1) * stride + 1, 0)
    padding[axis] = (before, out - before - count, 0)
  taken = lax.slice(x, starts, limits, steps)
  return lax.pad(taken, jnp.array(fill, x.dtype), padding)


def _ordered(x: Array) -> Array:
  """Maps two-byte floats to integers of the same order; keeps wider floats.

  -0 and 0 become the same number; NaN becomes the largest.
  """
  if x.dtype.itemsize != 2:
    return x
  bits = lax.bitcast_convert_type(x, jnp.int16)
  magnitude = bits & jnp.int16(0x7FFF)
  infinity = lax.bitcast_convert_type(jnp.array(jnp.inf, x.dtype), jnp.int16)
  order = jnp.where(bits < 0, -magnitude, bits)
  return jnp.where(magnitude > infinity, jnp.int16(0x7FFF), order)


def _unordered(order: Array, dtype: jnp.dtype) -> Array:
  """The inverse of `_ordered`."""
  if order.dtype == dtype:
    return order
  sign = jnp.int16(-0x8000)
  bits = jnp.where(order < 0, -order | sign, order)
  return lax.bitcast_convert_type(bits, dtype)


def _pool_axis(
  x: Array, axis: int, window: int, stride: int, padding: Padding
) -> tuple[Array, Array]:
  """Returns maxima along one axis and the tap (uint8) of the first maximum."""
  out, low, _ = placement(x.shape[axis], window, stride, padding)
  is_float = jnp.issubdtype(x.dtype, jnp.floating)
  lowest = -jnp.inf if is_float else jnp.iinfo(x.dtype).min
  taps = [tap(x, {axis: (t - low, out)}, stride, lowest) for t in range(window)]
  y = functools.reduce(jnp.maximum, taps)
  winner = jnp.full(y.shape, window - 1, jnp.uint8)
  for t in reversed(range(window - 1)):
    winner = jnp.where(taps[t] == y, jnp.uint8(t), winner)
  return y, winner


def _unpool_axis(
  dy: Array,
  winner: Array,
  axis: int,
  size: int,
  window: int,
  stride: int,
  padding: Padding,
) -> Array:
  """Returns the gradient of `_pool_axis` for an input axis of `size`."""
  _, low, _ = placement(size, window, stride, padding)
  wide = jnp.promote_types(dy.dtype, jnp.float32)
  # Row `stride * q + r` of the padded input is tap r of output q, tap
  # r + stride of output q - 1, and so on.
  count = -(-(low + size) // stride)
  phases = []
  for r in range(stride):
    total = jnp.zeros((), wide)
    for t in range(r, window, stride):
      hit = jnp.where(winner == t, dy, jnp.zeros((), dy.dtype))
      total += tap(hit, {axis: (-(t // stride), count)}).astype(wide)
    phases.append(total.astype(dy.dtype))
  shape = list(dy.shape)
  shape[axis] = count
  stacked = jnp.stack(
    [jnp.broadcast_to(phase, shape) for phase in phases], axis + 1
  )
  shape[axis] = count * stride
  return lax.slice_in_dim(stacked.reshape(shape), low, low + size, 1, axis)


def pool(
  x: Array,
  axes: tuple[int, int],
  window: int,
  stride: int,
  padding: Padding,
) -> tuple[Array, Winners]:
  """Returns maxima of square windows over (height, width) and their taps."""
  height, width = axes
  # The barrier, because XLA may compute x once for each tap, rounded otherwise:
  # no tap would equal the maximum then.
  x = lax.optimization_barrier(x)
  # First along the width, then along the height: this finds the first maximum
  # in row-major order.
  y, column = lax.optimization_barrier(
    _pool_axis(_ordered(x), width, window, stride, padding)
  )
  y, row = lax.optimization_barrier(
    _pool_axis(y, height, window, stride, padding)
  )
  return _unordered(y, x.dtype), (column, row)


def unpool(
  dy: Array,
  winners: Winners,
  axes: tuple[int, int],
  width: int,
  window: int,
  stride: int,
  padding: Padding,
) -> Array:
  """Returns the gradient of `pool` for an input of this width."""
  column, row = winners
  height = column.shape[axes[0]]
  dy = _unpool_axis(dy, row, axes[0], height, window, stride, padding)
  dy = lax.optimization_barrier(dy)
  return _unpool_axis(dy, column, axes[1], width, window, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(
  x: Array,
  axes: tuple[int, int],
  width: int,
  windows: Pool,
) -> Array:
  """Computes `max_pool`; of x, the gradient needs only the width."""
  del width
  return pool(x, axes, *windows)[0]


def _forward(x, axes, width, windows):
  del width
  return pool(x, axes, *windows)


def _backward(axes, width, windows, winners, dy):
  return (unpool(dy, winners, axes, width, *windows),)


_max_pool.defvjp(_forward, _backward)


def max_pool(
  x: Array,
  window: int,
  stride: int,
  padding: Padding = 'SAME',
  *,
  axes: tuple[int, int],
) -> Array:
  """Maximum of square windows over the axes (height, width)."""
  return _max_pool(x, axes, x.shape[axes[1]], (window, stride, padding))
