"""Winograd's form of weight gradients against plain sums."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import kernel_references as references
import numpy as np
import pytest

from googlenet.kernels import KERNELS, winograd


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
  assert [rows for rows in range(1, 300) if not winograd.saves(rows)] == [1]


@pytest.mark.parametrize('height', range(3, 14))
@pytest.mark.parametrize(
  ('width', 'padding'), [(3, 'SAME'), (3, 'VALID'), (1, 1), (5, 2)]
)
def test_weight_gradient_of_every_height(
  height: int, width: int, padding: Any
) -> None:
  rng = np.random.default_rng(0)
  x = np.maximum(rng.normal(size=(2, height, 6, 3)), 0)
  w = np.zeros((3, width, 3, 4))
  y, pull = references.conv(x, w, padding=padding)
  dy = rng.normal(size=y.shape)
  expected = pull(dy)[1]
  actual = winograd.weight_gradient(
    jnp.float32(x), jnp.float32(dy), (3, width), padding
  )
  error = np.asarray(actual, np.float64).reshape(w.shape) - expected
  assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize(
  ('dtype', 'share'), [('float32', 1 / 2), ('bfloat16', 1)]
)
def test_onednn_multiplies_half_as_often_in_float32(
  dtype: str, share: float
) -> None:
  """Weight gradients; two-byte floats have too few digits for it."""
  kernels = KERNELS['onednn']

  def weight_gradient(x: jax.Array, w: jax.Array, dy: jax.Array) -> jax.Array:
    _, pull = jax.vjp(functools.partial(kernels.conv, x), w)
    return pull(dy)[0]

  shapes = [(2, 12, 10, 64), (3, 3, 64, 96), (2, 12, 10, 96)]
  args = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  flops = jax.jit(weight_gradient).lower(*args).cost_analysis()['flops']
  every_tap = 2 * 2 * 12 * 10 * 9 * 64 * 96
  assert share <= flops / every_tap < share + 0.1
