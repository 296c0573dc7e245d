"""Convolutions with three rows of weights, in half the multiplications.

Winograd's minimal filtering (Lavin and Gray, 2016, section 4.1), along the
height only. It computes m rows of y from m + 2 rows of x. Small matrices
transform these rows, after which m + 2 products suffice instead of 3 m:

  y = outputs^T ((weights w) * (inputs x))

For the weight gradient this becomes, summed over all groups of m rows,

  dw = weights^T ((outputs dy) * (inputs x))

Each * is a matrix product with im2col of one transformed row of each group, so
columns are half as many too. All functions are for stride 1, and for maps with
channels last whose height and width are the given axes. Errors are a few times
those of plain sums: 2e-7 of the norm for random float32 numbers. Two-byte
floats have too few digits for the sums and differences of rows. A pixel that is
not finite makes NaN of all rows of its groups.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from googlenet.kernels.cpu_pooling import tap
from googlenet.kernels.shared import Pads

Array = jax.Array

Axes = tuple[int, int]

_TAPS = 3
# Where polynomials are evaluated, besides at infinity. More points would save
# more products, but their powers grow, and with them rounding errors.
_POINTS = (0, 1, -1, 2, -2)


class Transforms(NamedTuple):
  """Matrices for m rows of output, with n = m + 2 products."""

  inputs: np.ndarray  # [n, n]
  weights: np.ndarray  # [n, 3]
  outputs: np.ndarray  # [n, m]


@functools.cache
def transforms(rows: int) -> Transforms:
  """Returns the matrices for `rows` rows of output, 2 to 4, by Toom and Cook.

  Rows of w and of dy are coefficients of two polynomials, which `weights` and
  `outputs` evaluate at n points. The product of their values is the value of
  the polynomials' product. `inputs` is the transpose of what computes its n
  coefficients from these values.
  """
  n = rows + _TAPS - 1
  points = np.array(_POINTS[: n - 1], np.float64)

  def evaluate(coefficients: int) -> np.ndarray:
    at_infinity = np.eye(coefficients)[-1]
    powers = points[:, None] ** np.arange(coefficients)
    return np.vstack([powers, at_infinity])

  inputs, weights = np.linalg.inv(evaluate(n)).T, evaluate(_TAPS)
  # With whole numbers in `inputs`, the fractions are in `weights`.
  unit = np.array([min(abs(row[abs(row) > 1e-9])) for row in inputs])[:, None]
  return Transforms(inputs / unit, weights * unit, evaluate(rows))


def _products(rows: int, m: int) -> int:
  """Number of products of rows, for groups of m rows of output."""
  return -(-rows // m) * (m + _TAPS - 1)


def group(rows: int) -> int:
  """Returns the m with the fewest products for `rows` rows of output."""
  return min((4, 3, 2), key=lambda m: _products(rows, m))


def saves(
  dtype: jnp.dtype, kernel: tuple[int, int], stride: int, rows: int
) -> bool:
  """Whether a convolution with `rows` rows of output gains by this form."""
  is_possible = dtype == jnp.float32 and (kernel[0], stride) == (_TAPS, 1)
  return is_possible and _products(rows, group(rows)) < _TAPS * rows


def _combine(matrix: np.ndarray, rows: Iterable[Array]) -> Array:
  """`matrix` [n, k] (or [k]) times k arrays [...]: [n, ...] (or [...])."""
  total = 0
  for factors, row in zip(matrix.T, rows, strict=True):
    factors = jnp.asarray(factors, row.dtype)
    total += factors.reshape(*factors.shape, *[1] * row.ndim) * row
  return total


def _split(x: Array, axis: int, m: int) -> Array:
  """Makes of an axis two: groups, and the m of each."""
  return x.reshape(*x.shape[:axis], -1, m, *x.shape[axis + 1 :])


def _row(x: Array, axis: int, first: int, groups: int, row: int) -> Array:
  """Returns one row of each of some groups, of those that `_split` made."""
  x = lax.slice_in_dim(x, first, first + groups, axis=axis)
  return lax.index_in_dim(x, row, axis + 1, keepdims=False)


def _columns(
  x: Array, kernel: tuple[int, int], rows: int, padded: Pads, axes: Axes
) -> Array:
  """im2col of `inputs x`: [n, ..., width * C], with H' / m as the height."""
  (h, w), m = axes, group(rows)
  groups, width = -(-rows // m), x.shape[w] + sum(padded[1])
  places = {h: (-padded[0][0], m * (groups + 1)), w: (-padded[1][0], width)}
  x = _split(lax.optimization_barrier(tap(x, places)), h, m)
  # The m + 2 rows of a group are its own m and the first two of the next.
  taken = [_row(x, h, i // m, groups, i % m) for i in range(m + _TAPS - 1)]
  mixed = lax.optimization_barrier(_combine(transforms(m).inputs, taken))
  out = width - kernel[1] + 1
  shifts = [
    lax.slice_in_dim(mixed, i, i + out, axis=w + 1) for i in range(kernel[1])
  ]
  columns = lax.optimization_barrier(jnp.stack(shifts, axis=-2))
  return columns.reshape(*columns.shape[:-2], -1)


def _to_rows(x: Array) -> Array:
  """[n, ..., C] -> [n, rows, C]."""
  return x.reshape(len(x), -1, x.shape[-1])


def convolve(x: Array, w: Array, padded: Pads, axes: Axes) -> Array:
  """Convolves x [..., C_in] with weights [3, width, C_in, C_out]."""
  h, c_out = axes[0], w.shape[-1]
  rows = x.shape[h] + sum(padded[0]) - _TAPS + 1
  _, weights, outputs = transforms(group(rows))
  columns = _columns(x, w.shape[:2], rows, padded, axes)
  taps = _combine(weights, w).reshape(len(weights), -1, c_out)
  products = lax.dot_general(
    _to_rows(columns), taps, (((2,), (1,)), ((0,), (0,)))
  ).reshape(*columns.shape[:-1], c_out)
  # Rows are stacked, as XLA computes what a concatenation gives only once.
  y = jnp.stack([_combine(k, products) for k in outputs.T], axis=h + 1)
  y = y.reshape(*y.shape[:h], -1, *y.shape[h + 2 :])
  return lax.slice_in_dim(y, 0, rows, axis=h)


def weight_gradient(
  x: Array, dy: Array, kernel: tuple[int, int], padded: Pads, axes: Axes
) -> Array:
  """The gradient of `convolve` by w, for that of its output.

  Args:
    x: [..., C_in].
    dy: [..., C_out].
    kernel: (3, width).
    padded: pixels of padding.
    axes: of height and width.

  Returns:
    [3, width * C_in, C_out].
  """
  h, rows = axes[0], dy.shape[axes[0]]
  m = group(rows)
  _, weights, outputs = transforms(m)
  columns = _columns(x, kernel, rows, padded, axes)
  groups = -(-rows // m)
  if m * groups != rows:
    dy = lax.optimization_barrier(tap(dy, {h: (0, m * groups)}))
  dy = _split(dy, h, m)
  taken = [_row(dy, h, 0, groups, i) for i in range(m)]
  mixed = lax.optimization_barrier(_combine(outputs, taken))
  products = lax.dot_general(
    _to_rows(columns), _to_rows(mixed), (((1,), (1,)), ((0,), (0,)))
  )
  return _combine(weights.T, products)
