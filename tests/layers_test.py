"""Tests of the primitive operations: both forms against NumPy and each other.

The chain of trust: plain NumPy loops check the 'xla' form on a few cases, and
the 'xla' form in float32 checks the 'cpu' form on many.
"""

from collections.abc import Callable
from typing import Any

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from googlenet import layers
from googlenet.errors import UserError
from googlenet.layers import KERNELS, Kernels

# Relative errors in the norm. The narrow types are compared with float32, so
# their bounds are a few times the spacing of numbers of that type near 1.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 2e-2, 'float16': 3e-3}

BOTH = pytest.mark.parametrize('kernels', KERNELS.values(), ids=KERNELS.keys())
EXAMPLES = hypothesis.settings(
  max_examples=12, derandomize=True, deadline=None, database=None
)
DTYPES = st.sampled_from(sorted(TOLERANCE))
SIZES = st.integers(1, 9)

Operation = Callable[..., jax.Array]


def relative_error(actual: Any, expected: Any) -> float:
  actual = np.asarray(actual, np.float64)
  expected = np.asarray(expected, np.float64)
  assert actual.shape == expected.shape
  scale = np.linalg.norm(expected)
  error = np.linalg.norm(actual - expected)
  return float(error / scale) if scale else float(error)


def normal(seed: int, *shape: int) -> np.ndarray:
  """Numbers that bfloat16 holds exactly, so that no input is rounded."""
  values = np.random.default_rng(seed).normal(size=shape)
  return values.astype(jnp.bfloat16).astype(np.float32)


def value_and_gradients(
  kernels: Kernels,
  operation: Callable[..., jax.Array],
  args: tuple[np.ndarray, ...],
  dtype: str = 'float32',
) -> tuple[jax.Array, ...]:
  """Output in [B, H, W, C] and the gradients of <output, random> for each arg.

  `operation(kernels, x, *rest)` takes and gives the internal layout.
  """

  def run(x: jax.Array, *rest: jax.Array) -> jax.Array:
    return kernels.leave(operation(kernels, kernels.enter(x), *rest))

  def both(*args: jax.Array) -> tuple[jax.Array, ...]:
    y, vjp = jax.vjp(run, *args)
    return y, *vjp(jnp.asarray(normal(99, *y.shape), y.dtype))

  results = jax.jit(both)(*(jnp.asarray(arg, dtype) for arg in args))
  assert all(result.dtype == dtype for result in results)
  return results


def assert_forms_agree(
  operation: Operation, args: tuple[np.ndarray, ...], dtype: str
) -> None:
  """'cpu' and 'xla' in `dtype` equal 'xla' in float32, gradients included."""
  expected = value_and_gradients(KERNELS['xla'], operation, args)
  forms = ['cpu'] if dtype == 'float32' else ['cpu', 'xla']
  for form in forms:
    actual = value_and_gradients(KERNELS[form], operation, args, dtype)
    errors = [
      relative_error(*pair) for pair in zip(actual, expected, strict=True)
    ]
    assert max(errors) < TOLERANCE[dtype], (form, errors)


# ---- NumPy loops: what the operations mean.


def windows(size: int, window: int, stride: int) -> list[tuple[int, int]]:
  """(start in the unpadded input, index of the output) for 'SAME' padding."""
  out = -(-size // stride)
  before = max((out - 1) * stride + window - size, 0) // 2
  return [(o * stride - before, o) for o in range(out)]


def numpy_conv(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
  batch, height, width, _ = x.shape
  kernel = w.shape[0]
  shape = (batch, -(-height // stride), -(-width // stride), w.shape[-1])
  y = np.zeros(shape)
  for top, p in windows(height, kernel, stride):
    for left, q in windows(width, kernel, stride):
      for i in range(kernel):
        for j in range(kernel):
          if 0 <= top + i < height and 0 <= left + j < width:
            y[:, p, q] += x[:, top + i, left + j] @ w[i, j]
  return y


def numpy_max_pool(
  x: np.ndarray, dy: np.ndarray, window: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
  """Maxima, and the gradient, which goes to the first maximum of a window."""
  batch, height, width, channels = x.shape
  y, dx = np.zeros_like(dy), np.zeros_like(x)
  for n, c in np.ndindex(batch, channels):
    for top, p in windows(height, window, stride):
      for left, q in windows(width, window, stride):
        places = [
          (i, j)
          for i in range(max(top, 0), min(top + window, height))
          for j in range(max(left, 0), min(left + window, width))
        ]
        best = max(places, key=lambda place: x[n, *place, c])  # First of ties.
        y[n, p, q, c] = x[n, *best, c]
        dx[n, *best, c] += dy[n, p, q, c]
  return y, dx


@BOTH
@pytest.mark.parametrize(
  ('shape', 'kernel', 'stride'),
  [
    ((2, 5, 4, 1), 7, 2),
    ((2, 6, 7, 3), 7, 2),
    ((1, 5, 6, 10), 3, 1),
    ((1, 4, 5, 9), 5, 2),
  ],
)
def test_conv_equals_numpy(
  kernels: Kernels, shape: tuple[int, ...], kernel: int, stride: int
) -> None:
  x, w = normal(0, *shape), normal(1, kernel, kernel, shape[-1], 4)
  y, dx, dw = value_and_gradients(
    kernels, lambda k, x, w: k.conv(x, w, stride), (x, w)
  )
  assert relative_error(y, numpy_conv(x, w, stride)) < 1e-5

  # The derivative of <y, dy> along a random direction, by central differences
  # in float64. Convolution is linear in each argument, so they are exact.
  dy = normal(99, *y.shape).astype(np.float64)
  u, v = normal(2, *x.shape), normal(3, *w.shape)
  slope_x = numpy_conv(x + u, w, stride) - numpy_conv(x - u, w, stride)
  slope_w = numpy_conv(x, w + v, stride) - numpy_conv(x, w - v, stride)
  np.testing.assert_allclose(np.vdot(dx, u), np.vdot(dy, slope_x) / 2, 1e-4)
  np.testing.assert_allclose(np.vdot(dw, v), np.vdot(dy, slope_w) / 2, 1e-4)


@BOTH
@pytest.mark.parametrize(
  ('shape', 'window', 'stride'),
  [
    ((2, 6, 7, 2), 3, 2),
    ((2, 7, 6, 2), 3, 1),
    ((1, 5, 5, 2), 2, 2),
    ((1, 4, 5, 2), 1, 2),
  ],
)
def test_max_pool_equals_numpy_with_many_ties(
  kernels: Kernels, shape: tuple[int, ...], window: int, stride: int
) -> None:
  x = np.random.default_rng(0).integers(-1, 2, shape).astype(np.float32)
  y, dx = value_and_gradients(
    kernels, lambda k, x: k.max_pool(x, window, stride), (x,)
  )
  expected = numpy_max_pool(x, normal(99, *y.shape), window, stride)
  np.testing.assert_array_equal(y, expected[0])
  np.testing.assert_allclose(dx, expected[1], rtol=1e-6, atol=1e-6)


@BOTH
def test_max_pool_gradient_equals_finite_differences(kernels: Kernels) -> None:
  # All numbers are at least 1 apart, so a small step changes no winner.
  shape, step = (2, 5, 6, 3), 1e-3
  rng = np.random.default_rng(0)
  x = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float64)
  y, dx = value_and_gradients(kernels, lambda k, x: k.max_pool(x, 3, 2), (x,))
  u, dy = rng.uniform(-1, 1, shape), normal(99, *y.shape).astype(np.float64)
  above, _ = numpy_max_pool(x + step * u, dy, 3, 2)
  below, _ = numpy_max_pool(x - step * u, dy, 3, 2)
  slope = np.vdot(dy, above - below) / (2 * step)
  np.testing.assert_allclose(np.vdot(dx, u), slope, rtol=1e-5)


@BOTH
def test_elementwise_operations_equal_numpy(kernels: Kernels) -> None:
  x, b = normal(0, 2, 3, 4, 5), normal(1, 5)
  y, dx, db = value_and_gradients(
    kernels, lambda k, x, b: k.bias_relu(x, b), (x, b)
  )
  expected_dx = np.where(x + b > 0, normal(99, *y.shape), 0)
  np.testing.assert_allclose(y, np.maximum(x + b, 0), rtol=1e-6)
  np.testing.assert_allclose(dx, expected_dx, rtol=1e-6)
  np.testing.assert_allclose(db, expected_dx.sum((0, 1, 2)), rtol=1e-5)
  mean = kernels.global_mean(kernels.enter(jnp.asarray(x)))
  np.testing.assert_allclose(mean, x.mean((1, 2)), rtol=1e-5, atol=1e-6)


# ---- The two forms against each other.


@EXAMPLES
@hypothesis.given(
  batch=st.integers(1, 3),
  height=SIZES,
  width=SIZES,
  channels=st.sampled_from([1, 3, 8, 9, 16]),
  features=st.integers(1, 12),
  kernel=st.sampled_from([1, 3, 5, 7]),
  stride=st.sampled_from([1, 2]),
  dtype=DTYPES,
)
def test_conv_forms_agree(
  batch: int,
  height: int,
  width: int,
  channels: int,
  features: int,
  kernel: int,
  stride: int,
  dtype: str,
) -> None:
  x = normal(0, batch, height, width, channels)
  w = normal(1, kernel, kernel, channels, features)
  assert_forms_agree(lambda k, x, w: k.conv(x, w, stride), (x, w), dtype)


@EXAMPLES
@hypothesis.given(
  height=SIZES,
  width=SIZES,
  window=st.integers(1, 4),
  stride=st.sampled_from([1, 2]),
  dtype=DTYPES,
)
def test_max_pool_forms_agree_with_many_ties(
  height: int, width: int, window: int, stride: int, dtype: str
) -> None:
  shape = (2, height, width, 3)
  x = np.random.default_rng(0).integers(-1, 2, shape).astype(np.float32)
  assert_forms_agree(lambda k, x: k.max_pool(x, window, stride), (x,), dtype)


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('rows', [(1, 1, 1), (3, 5, 2)], ids=['one', 'many'])
def test_block_operations_agree(rows: tuple[int, ...], dtype: str) -> None:
  args = (
    normal(0, *rows, 12),
    *(normal(i, 1, 1, 12, width) for i, width in enumerate([4, 1, 7])),
    normal(5, 12),
  )

  def block(k: Kernels, x: jax.Array, *rest: jax.Array) -> jax.Array:
    *ws, b = rest
    return k.bias_relu(jnp.concatenate(k.conv_1x1s(x, ws), axis=-1), b)

  assert_forms_agree(block, args, dtype)


def test_pooling_commutes_with_bias_and_relu() -> None:
  args = (normal(0, 2, 5, 6, 4), normal(1, 4))
  pooled = [
    value_and_gradients(KERNELS['xla'], operation, args)
    for operation in (
      lambda k, x, b: k.bias_relu_max_pool(x, b, 3, 2),
      lambda k, x, b: k.max_pool(k.bias_relu(x, b), 3, 2),
    )
  ]
  chex.assert_trees_all_close(*pooled, rtol=1e-5, atol=1e-6)
  assert_forms_agree(
    lambda k, x, b: k.bias_relu_max_pool(x, b, 3, 2), args, 'float32'
  )


# ---- Transformations and layouts.


def small_network(
  kernels: Kernels, x: jax.Array, stem: jax.Array, w: jax.Array, b: jax.Array
) -> jax.Array:
  """Every operation once: [B, H, W, 3] -> [B, C]."""
  x = kernels.enter(x)
  x = kernels.bias_relu_max_pool(kernels.conv(x, stem, 2), b, 3, 2)
  one, two = kernels.conv_1x1s(x, [w[:1, :1], w[1:2, :1]])
  x = jnp.concatenate([one, kernels.conv(two, w)], axis=-1)
  x = kernels.max_pool(x, 3, 1)
  return kernels.global_mean(x)


def network_args(*batch: int) -> tuple[np.ndarray, ...]:
  return (
    normal(0, *batch, 9, 10, 3),
    normal(1, 7, 7, 3, 10),
    normal(2, 3, 3, 10, 10),
    normal(3, 10),
  )


def network_gradients(kernels: Kernels, *args: jax.Array) -> Any:
  """Gradients of a scalar for the image and for every weight."""

  def loss(*args: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(small_network(kernels, *args)))

  return jax.grad(loss, argnums=(0, 1, 2, 3))(*args)


def test_gradients_of_a_network_agree_down_to_the_image() -> None:
  args = network_args(2)
  actual, expected = (
    jax.jit(network_gradients, static_argnums=0)(KERNELS[name], *args)
    for name in ('cpu', 'xla')
  )
  assert np.linalg.norm(actual[0]) > 0
  for a, b in zip(actual, expected, strict=True):
    assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_vmap_equals_a_loop(dtype: str) -> None:
  x, *rest = (jnp.asarray(arg, dtype) for arg in network_args(2, 1))
  gradients = jax.jit(lambda x: network_gradients(KERNELS['cpu'], x, *rest)[:2])
  mapped = jax.jit(jax.vmap(gradients))(x)
  looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(gradients, x))
  for a, b in zip(mapped, looped, strict=True):
    assert relative_error(a, b) < TOLERANCE[dtype]


def test_pmap_equals_jit() -> None:
  x, *rest = network_args(1, 2)
  axes = (None, 0, None, None, None)
  mapped = jax.pmap(
    network_gradients, in_axes=axes, static_broadcasted_argnums=0
  )(KERNELS['cpu'], x, *rest)
  single = network_gradients(KERNELS['cpu'], x[0], *rest)
  for a, b in zip(mapped, single, strict=True):
    assert relative_error(a[0], b) < 1e-5


@BOTH
def test_shapes_and_layout(kernels: Kernels) -> None:
  x = normal(0, 2, 3, 4, 5)
  np.testing.assert_array_equal(kernels.leave(kernels.enter(jnp.array(x))), x)
  args = network_args(4)
  for dtype in TOLERANCE:
    shape = jax.eval_shape(
      lambda *args: small_network(kernels, *args),
      *(jax.ShapeDtypeStruct(arg.shape, jnp.dtype(dtype)) for arg in args),
    )
    assert (shape.shape, shape.dtype) == ((4, 20), dtype)


# ---- Selection.


@pytest.mark.parametrize(
  ('kernels', 'backend', 'name'),
  [
    ('auto', 'cpu', 'cpu'),
    ('auto', 'gpu', 'xla'),
    ('auto', 'tpu', 'xla'),
    ('xla', 'cpu', 'xla'),
    ('cpu', 'gpu', 'cpu'),
  ],
)
def test_select_kernels(kernels: str, backend: str, name: str) -> None:
  assert layers.select_kernels(kernels, backend).name == name


def test_select_kernels_names_the_field_and_what_is_allowed() -> None:
  with pytest.raises(
    UserError, match=r"config\.model\.kernels='fast'.*auto, xla, cpu"
  ):
    layers.select_kernels('fast', 'cpu')
