"""Primitive operations as NumPy loops: what they mean, written independently.

Each function returns its output and a function `pull(dy)` that returns the
gradients of <output, dy> for each array. Maps are [B, H, W, C].
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Pull = Callable[[Array], tuple[Array, ...]]


def windows(
  size: int, window: int, stride: int, padding: Any
) -> list[tuple[int, int]]:
  """(start in the unpadded input, index of the output) of every window."""
  if padding == 'SAME':
    out = -(-size // stride)
    before = max((out - 1) * stride + window - size, 0) // 2
    starts = [o * stride - before for o in range(out)]
  elif padding == 'CEIL':  # up to the first window that sees the last pixel
    starts = list(range(0, min(max(size - window + stride, 1), size), stride))
  else:
    pad = 0 if padding == 'VALID' else padding
    starts = list(range(-pad, size + pad - window + 1, stride))
  return [(start, o) for o, start in enumerate(starts)]


def _grid(
  x: Array, window: tuple[int, int], stride: int, padding: Any
) -> tuple[list, list]:
  return tuple(
    windows(size, side, stride, padding)
    for size, side in zip(x.shape[1:3], window, strict=True)
  )


def conv(
  x: Array,
  w: Array,
  b: Array | None = None,
  *,
  stride: int = 1,
  padding: Any = 'SAME',
  relu: bool = False,
  pool: tuple[int, int, Any] | None = None,
) -> tuple[Array, Pull]:
  """Convolution, bias, ReLU and max pooling, one after the other."""
  rows, columns = _grid(x, w.shape[:2], stride, padding)
  taps = [
    ((top + i, left + j), (p, q), (i, j))
    for top, p in rows
    for left, q in columns
    for i, j in np.ndindex(w.shape[:2])
    if 0 <= top + i < x.shape[1] and 0 <= left + j < x.shape[2]
  ]
  total = np.zeros((len(x), len(rows), len(columns), w.shape[-1]))
  for (r, c), (p, q), tap in taps:
    total[:, p, q] += x[:, r, c] @ w[tap]
  if b is not None:
    total += b
  y = np.maximum(total, 0) if relu else total
  if pool:
    y, unpool = max_pool(y, *pool)

  def pull(dy: Array) -> tuple[Array, ...]:
    (dy,) = unpool(dy) if pool else (dy,)
    if relu:
      dy = np.where(total > 0, dy, 0)
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for (r, c), (p, q), tap in taps:
      dx[:, r, c] += dy[:, p, q] @ w[tap].T
      dw[tap] += x[:, r, c].T @ dy[:, p, q]
    return (dx, dw) if b is None else (dx, dw, dy.sum((0, 1, 2)))

  return y, pull


def max_pool(
  x: Array, window: int, stride: int, padding: Any = 'SAME'
) -> tuple[Array, Pull]:
  """Maxima of windows; the gradient goes to the first maximum of a window."""
  rows, columns = _grid(x, (window, window), stride, padding)
  y = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
  winners = {}
  for n, c in np.ndindex(len(x), x.shape[-1]):
    for top, p in rows:
      for left, q in columns:
        places = [
          (n, i, j, c)
          for i in range(max(top, 0), min(top + window, x.shape[1]))
          for j in range(max(left, 0), min(left + window, x.shape[2]))
        ]
        best = max(places, key=lambda place: x[place])  # the first of ties
        y[n, p, q, c], winners[n, p, q, c] = x[best], best

  def pull(dy: Array) -> tuple[Array]:
    dx = np.zeros(x.shape)
    for place, best in winners.items():
      dx[best] += dy[place]
    return (dx,)

  return y, pull


def avg_pool(
  x: Array, window: int, stride: int, padding: Any, count_padding: bool = False
) -> tuple[Array, Pull]:
  """Means of windows."""
  rows, columns = _grid(x, (window, window), stride, padding)
  seen = {
    (p, q): np.s_[
      :, max(top, 0) : max(top + window, 0), max(left, 0) : left + window
    ]
    for top, p in rows
    for left, q in columns
  }

  def count(place: tuple[int, int]) -> int:
    return window**2 if count_padding else x[seen[place]][0, ..., 0].size

  y = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
  for p, q in seen:
    y[:, p, q] = x[seen[p, q]].sum((1, 2)) / count((p, q))

  def pull(dy: Array) -> tuple[Array]:
    dx = np.zeros(x.shape)
    for p, q in seen:
      dx[seen[p, q]] += dy[:, p, q][:, None, None] / count((p, q))
    return (dx,)

  return y, pull


def global_mean(x: Array) -> tuple[Array, Pull]:
  """Means over height and width, [B, C]."""
  count = x.shape[1] * x.shape[2]
  return x.mean((1, 2)), lambda dy: (
    np.broadcast_to(dy[:, None, None] / count, x.shape),
  )


def lrn(
  x: Array, size: int, alpha: float, beta: float, k: float
) -> tuple[Array, Pull]:
  """Krizhevsky et al. 2012, section 3.3; its gradient worked out on paper."""
  channels = x.shape[-1]
  near = np.array(  # near[c, d]: d is in the window of c
    [
      [0 <= d - c + size // 2 < size for d in range(channels)]
      for c in range(channels)
    ],
    np.float64,
  )
  base = k + alpha / size * np.square(x) @ near.T

  def pull(dy: Array) -> tuple[Array]:
    through_base = dy * x * base ** (-beta - 1)
    return (
      dy * base**-beta - 2 * alpha * beta / size * x * (through_base @ near),
    )

  return x * base**-beta, pull
