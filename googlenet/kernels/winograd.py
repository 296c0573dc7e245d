"""Weight gradients of kernels with three rows, in half the multiplications.

Winograd's minimal filtering (Lavin and Gray, 2016, section 4.1), along the
height only. It computes m rows of y from m + 2 rows of x. Small matrices
transform these rows, after which m + 2 products suffice instead of 3 m:

  y = outputs^T ((weights w) * (inputs x))

For the gradient this becomes, summed over all groups of m rows,

  dw = weights^T ((outputs dy) * (inputs x))

Each * is a matrix product: im2col of one transformed row of each group, times
the matching row of dy.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from googlenet.kernels import im2col
from googlenet.kernels.cpu_pooling import tap
from googlenet.kernels.padding import Padding, placement

Array = jax.Array

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


def saves(rows: int) -> bool:
  """Whether `rows` rows of output need fewer products than 3 for each."""
  return _products(rows, group(rows)) < _TAPS * rows


def _combine(matrix: np.ndarray, rows: Sequence[Array]) -> Array:
  """Each row of `matrix` [n, k] times k arrays [...]: [n, ...]."""
  factors = jnp.asarray(matrix, rows[0].dtype)
  factors = factors.reshape(*factors.shape, *[1] * rows[0].ndim)
  return sum(factors[:, i] * row for i, row in enumerate(rows))


def weight_gradient(
  x: Array, dy: Array, kernel: tuple[int, int], padding: Padding
) -> Array:
  """The weight gradient of a convolution at stride 1.

  Args:
    x: its input, float32 [B, H, W, C_in].
    dy: the gradient of its output, [B, H', W', C_out].
    kernel: (3, width), of any width.
    padding: its padding.

  Returns:
    [3, width * C_in, C_out]. Its error is a few times that of plain sums:
    2e-7 of its norm, for random numbers.
  """
  heights, widths = (
    placement(x.shape[axis], taps, 1, padding)
    for axis, taps in zip(im2col.AXES, kernel, strict=True)
  )
  m = group(heights.out)
  groups = -(-heights.out // m)
  places = {
    1: (-heights.low, m * (groups + 1)),
    2: (-widths.low, widths.out + kernel[1] - 1),
  }
  x = lax.optimization_barrier(tap(x, places))
  x = x.reshape(len(x), groups + 1, m, *x.shape[2:])
  if m * groups != heights.out:
    dy = lax.optimization_barrier(tap(dy, {1: (0, m * groups)}))
  dy = dy.reshape(len(dy), groups, m, *dy.shape[2:])

  inputs, weights, outputs = transforms(m)
  # The m + 2 rows of a group are its own m and the first two of the next.
  rows = [x[:, i // m : groups + i // m, i % m] for i in range(m + 2)]
  mixed = lax.optimization_barrier(_combine(inputs, rows))
  shifts = [mixed[..., i : i + widths.out, :] for i in range(kernel[1])]
  columns = lax.optimization_barrier(jnp.stack(shifts, axis=-2))
  columns = columns.reshape(m + 2, -1, kernel[1] * columns.shape[-1])
  rows = [dy[:, :, i] for i in range(m)]
  rows = lax.optimization_barrier(_combine(outputs, rows))
  rows = rows.reshape(m + 2, -1, rows.shape[-1])
  products = lax.dot_general(columns, rows, (((1,), (1,)), ((0,), (0,))))
  return _combine(weights.T, list(products))
