"""Tests of the primitive operations: all forms against NumPy and each other.

The chain of trust: plain NumPy loops check the 'xla' form on a few cases, and
the 'xla' form in float32 checks the fast forms on many. Each is compiled with
its own options, so that 'onednn' runs in oneDNN where there is one.
"""

import functools
from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from googlenet import kernels as layers
from googlenet.errors import UserError
from googlenet.kernels import KERNELS, Kernels, onednn
from googlenet.runtime.compilation import compile_with, compiled_with

# Relative errors in the norm. The narrow types are compared with float32, so
# their bounds are a few times the spacing of numbers of that type near 1.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 2e-2, 'float16': 3e-3}

ALL = pytest.mark.parametrize('kernels', KERNELS.values(), ids=KERNELS.keys())
FAST = [name for name in KERNELS if name != 'xla']
EXAMPLES = hypothesis.settings(
  max_examples=8, derandomize=True, deadline=None, database=None
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


def compiled(
  kernels: Kernels, function: Callable[..., Any], *args: jax.Array
) -> Callable[..., Any]:
  """`function`, compiled as the kernels want it."""
  lowered = jax.jit(function).lower(*args)
  return compile_with(kernels.compiler_options, lowered)


def value(
  kernels: Kernels,
  operation: Callable[..., jax.Array],
  args: tuple[np.ndarray, ...],
  dtype: str,
) -> jax.Array:
  """The first of what `value_and_gradients` gives."""

  def run(x: jax.Array, *rest: jax.Array) -> jax.Array:
    return kernels.leave(operation(kernels, kernels.enter(x), *rest))

  args = [jnp.asarray(arg, dtype) for arg in args]
  result = compiled(kernels, run, *args)(*args)
  assert result.dtype == dtype
  return result


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

  args = [jnp.asarray(arg, dtype) for arg in args]
  results = compiled(kernels, both, *args)(*args)
  assert all(result.dtype == dtype for result in results)
  return results


def assert_forms_agree(
  operation: Operation, args: tuple[np.ndarray, ...], dtype: str
) -> None:
  """All in `dtype` equal 'xla' in float32, gradients included."""
  expected = value_and_gradients(KERNELS['xla'], operation, args)
  forms = FAST if dtype == 'float32' else KERNELS
  for form in forms:
    actual = value_and_gradients(KERNELS[form], operation, args, dtype)
    errors = [
      relative_error(*pair) for pair in zip(actual, expected, strict=True)
    ]
    assert max(errors) < TOLERANCE[dtype], (form, errors)


# ---- NumPy loops: what the operations mean.


def windows(
  size: int, window: int, stride: int, padding: Any = 'SAME'
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


def numpy_conv(
  x: np.ndarray, w: np.ndarray, stride: int, padding: Any = 'SAME'
) -> np.ndarray:
  batch, height, width, _ = x.shape
  rows = windows(height, w.shape[0], stride, padding)
  columns = windows(width, w.shape[1], stride, padding)
  y = np.zeros((batch, len(rows), len(columns), w.shape[-1]))
  for top, p in rows:
    for left, q in columns:
      for i in range(w.shape[0]):
        for j in range(w.shape[1]):
          if 0 <= top + i < height and 0 <= left + j < width:
            y[:, p, q] += x[:, top + i, left + j] @ w[i, j]
  return y


def numpy_max_pool(
  x: np.ndarray,
  dy: np.ndarray,
  window: int,
  stride: int,
  padding: Any = 'SAME',
) -> tuple[np.ndarray, np.ndarray]:
  """Maxima, and the gradient, which goes to the first maximum of a window."""
  batch, height, width, channels = x.shape
  y, dx = np.zeros_like(dy), np.zeros_like(x)
  for n, c in np.ndindex(batch, channels):
    for top, p in windows(height, window, stride, padding):
      for left, q in windows(width, window, stride, padding):
        places = [
          (i, j)
          for i in range(max(top, 0), min(top + window, height))
          for j in range(max(left, 0), min(left + window, width))
        ]
        best = max(places, key=lambda place: x[n, *place, c])  # First of ties.
        y[n, p, q, c] = x[n, *best, c]
        dx[n, *best, c] += dy[n, p, q, c]
  return y, dx


@ALL
@pytest.mark.parametrize(
  ('shape', 'kernel', 'stride', 'padding'),
  [
    ((2, 5, 4, 1), (7, 7), 2, 'SAME'),
    ((2, 6, 7, 3), (7, 7), 2, 3),
    ((1, 5, 6, 10), (3, 3), 1, 'SAME'),
    ((1, 5, 6, 10), (3, 3), 1, 'VALID'),
    ((1, 4, 5, 9), (5, 5), 2, 'SAME'),
    ((1, 8, 6, 9), (3, 3), 2, 'VALID'),
    ((1, 6, 8, 9), (1, 7), 1, 'SAME'),
    ((1, 6, 7, 9), (3, 1), 1, 1),
    ((1, 6, 5, 9), (1, 1), 2, 'VALID'),
    ((1, 4, 5, 9), (1, 1), 1, 1),
  ],
)
def test_conv_equals_numpy(
  kernels: Kernels,
  shape: tuple[int, ...],
  kernel: tuple[int, int],
  stride: int,
  padding: Any,
) -> None:
  x, w = normal(0, *shape), normal(1, *kernel, shape[-1], 4)
  y, dx, dw = value_and_gradients(
    kernels, lambda k, x, w: k.conv(x, w, stride, padding), (x, w)
  )
  assert relative_error(y, numpy_conv(x, w, stride, padding)) < 1e-5

  # The derivative of <y, dy> along a random direction, by central differences
  # in float64. Convolution is linear in each argument, so they are exact.
  dy = normal(99, *y.shape).astype(np.float64)
  u, v = normal(2, *x.shape), normal(3, *w.shape)
  conv = functools.partial(numpy_conv, stride=stride, padding=padding)
  slope_x = conv(x + u, w) - conv(x - u, w)
  slope_w = conv(x, w + v) - conv(x, w - v)
  np.testing.assert_allclose(np.vdot(dx, u), np.vdot(dy, slope_x) / 2, 1e-4)
  np.testing.assert_allclose(np.vdot(dw, v), np.vdot(dy, slope_w) / 2, 1e-4)


@ALL
@pytest.mark.parametrize(
  ('shape', 'window', 'stride', 'padding'),
  [
    ((2, 6, 7, 2), 3, 2, 'SAME'),
    ((2, 7, 6, 2), 3, 1, 'SAME'),
    ((1, 5, 5, 2), 2, 2, 'SAME'),
    ((1, 4, 5, 2), 1, 2, 'SAME'),
    ((1, 6, 7, 2), 3, 2, 'CEIL'),
    ((1, 5, 6, 2), 2, 2, 'CEIL'),
    ((1, 7, 8, 2), 2, 4, 'CEIL'),
    ((1, 5, 4, 2), 1, 3, 'CEIL'),
    ((1, 6, 7, 2), 3, 2, 'VALID'),
    ((1, 5, 6, 2), 3, 1, 1),
  ],
)
def test_max_pool_equals_numpy_with_many_ties(
  kernels: Kernels,
  shape: tuple[int, ...],
  window: int,
  stride: int,
  padding: Any,
) -> None:
  x = np.random.default_rng(0).integers(-1, 2, shape).astype(np.float32)
  y, dx = value_and_gradients(
    kernels, lambda k, x: k.max_pool(x, window, stride, padding), (x,)
  )
  assert y.shape[1:3] == tuple(
    len(windows(size, window, stride, padding)) for size in shape[1:3]
  )
  expected = numpy_max_pool(x, normal(99, *y.shape), window, stride, padding)
  np.testing.assert_array_equal(y, expected[0])
  np.testing.assert_allclose(dx, expected[1], rtol=1e-6, atol=1e-6)


@ALL
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


@ALL
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


@ALL
@pytest.mark.parametrize(
  ('window', 'stride', 'padding', 'count_padding'),
  [
    (3, 1, 'SAME', False),
    (3, 1, 'SAME', True),
    (5, 3, 'VALID', False),
    (3, 2, 'CEIL', False),
    (2, 5, 'CEIL', False),
  ],
)
def test_avg_pool_equals_numpy(
  kernels: Kernels, window: int, stride: int, padding: Any, count_padding: bool
) -> None:
  x = normal(0, 2, 6, 7, 3)
  y, dx = value_and_gradients(
    kernels,
    lambda k, x: k.avg_pool(x, window, stride, padding, count_padding),
    (x,),
  )
  dy, expected, expected_dx = normal(99, *y.shape), np.zeros(y.shape), x * 0
  for top, p in windows(6, window, stride, padding):
    for left, q in windows(7, window, stride, padding):
      seen = np.s_[
        :,
        max(top, 0) : max(top + window, 0),
        max(left, 0) : max(left + window, 0),
      ]
      count = window**2 if count_padding else x[seen][0, ..., 0].size
      expected[:, p, q] = x[seen].sum((1, 2)) / count
      expected_dx[seen] += dy[:, p, q][:, None, None] / count
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(dx, expected_dx, rtol=1e-5, atol=1e-6)


@ALL
@pytest.mark.parametrize('size', [5, 4])
def test_lrn_equals_numpy(kernels: Kernels, size: int) -> None:
  """Krizhevsky et al. 2012, section 3.3; constants that show in the result."""
  alpha, beta, k = 0.7, 0.75, 1.5
  x = normal(0, 2, 3, 2, 7)

  def numpy_lrn(x: np.ndarray) -> np.ndarray:
    y = np.zeros_like(x, np.float64)
    for c in range(7):
      near = x[..., max(c - size // 2, 0) : c - size // 2 + size]
      total = np.square(near, dtype=np.float64).sum(-1)
      y[..., c] = x[..., c] / (k + alpha / size * total) ** beta
    return y

  y, dx = value_and_gradients(
    kernels, lambda kernels, x: kernels.lrn(x, size, alpha, beta, k), (x,)
  )
  np.testing.assert_allclose(y, numpy_lrn(x), rtol=1e-5)
  u, dy = normal(1, *x.shape).astype(np.float64), normal(99, *y.shape)
  slope = np.vdot(dy, numpy_lrn(x + 1e-5 * u) - numpy_lrn(x - 1e-5 * u)) / 2e-5
  np.testing.assert_allclose(np.vdot(dx, u), slope, rtol=1e-4)


# ---- The forms against each other.


@EXAMPLES
@hypothesis.given(
  batch=st.integers(1, 3),
  height=SIZES,
  width=SIZES,
  channels=st.sampled_from([1, 3, 8, 9, 16]),
  features=st.integers(1, 12),
  kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (1, 3), (7, 1)]),
  stride=st.sampled_from([1, 2]),
  padding=st.sampled_from(['SAME', 'SAME', 'VALID', 1, 2]),
  dtype=DTYPES,
)
def test_conv_forms_agree(
  batch: int,
  height: int,
  width: int,
  channels: int,
  features: int,
  kernel: tuple[int, int],
  stride: int,
  padding: Any,
  dtype: str,
) -> None:
  if not all(
    windows(size, taps, stride, padding)
    for size, taps in zip((height, width), kernel, strict=True)
  ):
    padding = 'SAME'
  x = normal(0, batch, height, width, channels)
  w = normal(1, *kernel, channels, features)
  assert_forms_agree(
    lambda k, x, w: k.conv(x, w, stride, padding), (x, w), dtype
  )


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
  widths = [4, 1, 7]
  args = (
    normal(0, *rows, 12),
    *(normal(i, 1, 1, 12, width) for i, width in enumerate(widths)),
    *(normal(5 + i, width) for i, width in enumerate(widths)),
  )

  def block(k: Kernels, x: jax.Array, *rest: jax.Array) -> jax.Array:
    ys = k.conv_1x1s_bias_relu(x, rest[:3], rest[3:])
    assert [y.shape[-1] for y in ys] == widths
    plain = k.conv_1x1s(x, rest[:3])
    return jnp.concatenate([*ys, *plain], axis=-1)

  assert_forms_agree(block, args, dtype)


@EXAMPLES
@hypothesis.given(
  size=st.integers(5, 9),
  channels=st.sampled_from([1, 3, 9]),
  kernel=st.sampled_from([1, 3, 5, 7]),
  stride=st.sampled_from([1, 2]),
  pool=st.sampled_from([None, (3, 1), (3, 2), (2, 2)]),
  dtype=DTYPES,
)
def test_convolution_with_all_that_follows_it_agrees(
  size: int,
  channels: int,
  kernel: int,
  stride: int,
  pool: tuple[int, int] | None,
  dtype: str,
) -> None:
  args = (
    normal(0, 2, size, size + 1, channels),
    normal(1, kernel, kernel, channels, 5),
    normal(2, 5),
  )

  def fused(k: Kernels, x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    if pool:
      return k.conv_bias_relu_max_pool(x, w, b, stride, 'SAME', (*pool, 'CEIL'))
    return k.conv_bias_relu(x, w, b, stride)

  def apart(k: Kernels, x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    y = k.bias_relu(k.conv(x, w, stride), b)
    return k.max_pool(y, *pool, 'CEIL') if pool else y

  # In float32 alone: rounded to less, other elements of a window win.
  expected = value_and_gradients(KERNELS['xla'], apart, args)
  for kernels in KERNELS.values():
    actual = value_and_gradients(kernels, fused, args)
    for a, b in zip(actual, expected, strict=True):
      assert relative_error(a, b) < 1e-5, kernels.name
  if dtype == 'float32':
    return
  for kernels in KERNELS.values():
    y = value(kernels, fused, args, dtype)
    assert relative_error(y, expected[0]) < TOLERANCE[dtype], kernels.name


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', FAST)
def test_max_pool_of_two_byte_floats_knows_all_of_them(
  name: str, dtype: str
) -> None:
  special = [0.0, -0.0, -1.0, 2.0, -3.0, 6e-8, -6e-8, np.inf, -np.inf]
  x = np.random.default_rng(0).choice(special, (4, 9, 9, 7))
  x[0, 4, 4, 0] = np.nan
  actual, expected = (
    value_and_gradients(
      KERNELS[form], lambda k, x: k.max_pool(x, 3, 2), (x,), dtype
    )[0]
    for form in (name, 'xla')
  )
  np.testing.assert_array_equal(
    np.asarray(actual, np.float32), np.asarray(expected, np.float32)
  )


# ---- Transformations and layouts.


def small_network(
  kernels: Kernels, x: jax.Array, stem: jax.Array, w: jax.Array, b: jax.Array
) -> jax.Array:
  """Every operation once: [B, H, W, 3] -> [B, C]."""
  x = kernels.enter(x)
  x = kernels.conv_bias_relu_max_pool(x, stem, b, 2)
  one, two = kernels.conv_1x1s_bias_relu(
    x, [w[:1, :1], w[1:2, :1]], [b, b[::-1]]
  )
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


@pytest.mark.parametrize('name', FAST)
def test_gradients_of_a_network_agree_down_to_the_image(name: str) -> None:
  args = [jnp.asarray(arg) for arg in network_args(2)]
  actual, expected = (
    compiled(k, functools.partial(network_gradients, k), *args)(*args)
    for k in (KERNELS[name], KERNELS['xla'])
  )
  assert np.linalg.norm(actual[0]) > 0
  for a, b in zip(actual, expected, strict=True):
    assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', FAST)
def test_vmap_equals_a_loop(name: str, dtype: str) -> None:
  x, *rest = (jnp.asarray(arg, dtype) for arg in network_args(2, 1))
  kernels = KERNELS[name]

  def gradients(x: jax.Array) -> Any:
    return network_gradients(kernels, x, *rest)[:2]

  mapped = compiled(kernels, jax.vmap(gradients), x)(x)
  single = compiled(kernels, gradients, x[0])
  looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(single, x))
  for a, b in zip(mapped, looped, strict=True):
    assert relative_error(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize('name', FAST)
def test_pmap_equals_jit(name: str) -> None:
  x, *rest = network_args(1, 2)
  gradients = functools.partial(network_gradients, KERNELS[name])
  mapped = compiled_with(
    KERNELS[name].compiler_options,
    jax.pmap(gradients, in_axes=(0, None, None, None)),
  )(x, *rest)
  single = compiled(KERNELS[name], gradients, x[0], *rest)(x[0], *rest)
  for a, b in zip(mapped, single, strict=True):
    assert relative_error(a[0], b) < 1e-5


@ALL
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

HAS_ONEDNN = onednn.is_available(jnp.dtype('float32'))


@pytest.mark.parametrize(
  ('kernels', 'backend', 'name'),
  [
    ('auto', 'cpu', 'onednn' if HAS_ONEDNN else 'cpu'),
    ('auto', 'gpu', 'gpu'),
    ('auto', 'tpu', 'xla'),
    ('xla', 'cpu', 'xla'),
    ('cpu', 'gpu', 'cpu'),
    ('gpu', 'cpu', 'gpu'),
  ],
)
def test_select_kernels(kernels: str, backend: str, name: str) -> None:
  assert layers.select_kernels(kernels, backend, jnp.float32).name == name


def test_onednn_is_chosen_by_what_a_program_compiles_to() -> None:
  assert not onednn.is_available(jnp.dtype('int32'))
  x = jnp.ones((8, 8, 8, 16))
  program = compiled(
    KERNELS['onednn'], KERNELS['onednn'].conv, x, jnp.ones((3, 3, 16, 16))
  )
  assert ('__onednn$' in program.as_text()) == HAS_ONEDNN


@pytest.mark.parametrize(
  ('kernels', 'backend', 'message'),
  [
    (
      'fast',
      'cpu',
      r"config\.model\.kernels='fast'.*auto, xla, gpu, onednn, cpu",
    ),
    (
      'onednn',
      'gpu',
      r"config\.model\.kernels='onednn'.*auto, xla, gpu, cpu",
    ),
  ],
)
def test_select_kernels_names_the_field_and_what_is_allowed(
  kernels: str, backend: str, message: str
) -> None:
  with pytest.raises(UserError, match=message):
    layers.select_kernels(kernels, backend, jnp.float32)
