"""Winograd's form of convolutions and weight gradients, and plain sums."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import kernel_references as references
import numpy as np
import pytest
from kernels_test import relative_error

from googlenet.kernels import KERNELS, winograd
from googlenet.kernels.padding import pads


@pytest.mark.parametrize('m', [2, 3, 4])
def test_transforms_compute_a_correlation(m: int) -> None:
  rng = np.random.default_rng(0)
  x, w, dy = rng.normal(size=m + 2), rng.normal(size=3), rng.normal(size=m)
  inputs, weights, outputs = winograd.transforms(m)
  products = (weights @ w) * (inputs @ x)
  np.testing.assert_allclose(outputs.T @ products, np.correlate(x, w))
  products = (outputs @ dy) * (inputs @ x)
  np.testing.assert_allclose(weights.T @ products, np.correlate(x, dy))


def test_groups_need_the_fewest_products() -> None:
  """Of the heights of the networks' maps: 3 for each row without groups."""
  products = {}
  for rows in (1, 2, 3, 6, 7, 8, 12, 14, 24, 28):
    m = winograd.group(rows)
    products[rows] = -(-rows // m) * (m + 2)
  assert products == {
    1: 4, 2: 4, 3: 5, 6: 10, 7: 12, 8: 12, 12: 18, 14: 24, 24: 36, 28: 42
  }  # fmt: skip
  saves = functools.partial(winograd.saves, np.float32, (3, 3), 1)
  assert [rows for rows in range(1, 300) if not saves(rows)] == [1]


@pytest.mark.parametrize(
  ('height', 'width', 'padding'),
  [
    (2, 3, 'SAME'),
    (3, 3, 'SAME'),
    (7, 3, 'SAME'),
    (6, 3, 'VALID'),
    (8, 1, 1),
    (9, 5, 'SAME'),
    (3, 2, 4),
  ],
)
def test_values(height: int, width: int, padding: Any) -> None:
  """Both functions, for maps [B, H, W, C] and [H, W, B, C]."""
  rng = np.random.default_rng(0)
  x = np.maximum(rng.normal(size=(2, height, 6, 3)), 0)
  w = rng.normal(size=(3, width, 3, 4))
  y, pull = references.conv(x, w, padding=padding)
  dy = rng.normal(size=y.shape)
  dw = pull(dy)[1]
  padded = pads(x.shape[1:3], w.shape[:2], 1, padding)
  for order in ((0, 1, 2, 3), (1, 2, 0, 3)):
    axes = (order.index(1), order.index(2))
    x_32, dy_32 = (jnp.float32(a.transpose(order)) for a in (x, dy))
    found = winograd.convolve(x_32, jnp.float32(w), padded, axes)
    assert relative_error(found, y.transpose(order)) < 1e-6
    found = winograd.weight_gradient(x_32, dy_32, w.shape[:2], padded, axes)
    assert relative_error(found.reshape(w.shape), dw) < 1e-6


# Sets of kernels, and multiply-adds in float32 of the three parts of a
# convolution (its output, and its gradients by x and w), as shares of the
# usual number. Sums and differences of rows take some more, and XLA counts
# none for the padding of a convolution.
SHARES = {'onednn': (1, 1, 1 / 2), 'cpu': (1 / 2, 1 / 2, 1 / 2)}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', SHARES)
def test_multiplies_half_as_often_in_float32(name: str, dtype: str) -> None:
  """Two-byte floats have too few digits for it, where they are multiplied."""
  kernels = KERNELS[name]
  is_wide = kernels.product_dtype(jnp.dtype(dtype)) == jnp.float32

  def gradients(x: jax.Array, w: jax.Array, dy: jax.Array) -> Any:
    y, pull = jax.vjp(kernels.conv, x, w)
    return y, pull(dy)

  maps = jnp.zeros((2, 12, 10, 64), dtype), jnp.zeros((2, 12, 10, 96), dtype)
  x, dy = map(kernels.to_layout, maps)
  lowered = jax.jit(gradients).lower(x, jnp.zeros((3, 3, 64, 96), dtype), dy)
  part = 2 * 2 * 12 * 10 * 9 * 64 * 96
  share = lowered.cost_analysis()['flops'] / part
  expected = sum(SHARES[name]) if is_wide else 3
  assert abs(share - expected) < 0.3
