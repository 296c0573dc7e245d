"""Every kernel set, operation and dtype against NumPy loops.

Each is compiled with its own options, so that 'onednn' runs in oneDNN where
there is one. Convolutions and max pooling get small integers: their sums are
exact in every dtype, so the results have to be equal, ties included. Only what
winograd.py computes has to be close.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kernel_references as references
import numpy as np
import pytest

from googlenet import kernels as kernels_lib
from googlenet.errors import UserError
from googlenet.kernels import KERNELS, Kernels, onednn, processor
from googlenet.runtime.compilation import compile_with

# Relative errors in the norm, a few times the spacing of numbers near 1.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 2e-2, 'float16': 3e-3}
ALL = pytest.mark.parametrize('kernels', KERNELS.values(), ids=KERNELS.keys())
FAST = pytest.mark.parametrize('name', [k for k in KERNELS if k != 'xla'])
# No kernel set tells float16 from bfloat16 but max pooling, which has a test.
TWO_DTYPES = pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
ALL_DTYPES = pytest.mark.parametrize(
  'dtype',
  ['float32', 'bfloat16', pytest.param('float16', marks=pytest.mark.slow)],
)


class Case(NamedTuple):
  """An operation, its arguments, and what it has to give."""

  run: Callable[..., jax.Array]  # (kernels, x, *rest), in the internal layout
  reference: Callable[..., tuple[np.ndarray, references.Pull]]
  args: tuple[np.ndarray, ...]


def integers(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float64)


def normal(seed: int, *shape: int) -> np.ndarray:
  """Numbers that every dtype holds exactly, so that no input is rounded."""
  values = np.random.default_rng(seed).normal(size=shape)
  return values.astype(jnp.bfloat16).astype(np.float64)


def relative_error(actual: Any, expected: Any) -> float:
  actual = np.asarray(actual, np.float64)
  expected = np.asarray(expected, np.float64)
  assert actual.shape == expected.shape
  scale = np.linalg.norm(expected)
  error = np.linalg.norm(actual - expected)
  return float(error / scale) if scale else float(error)


def compiled(
  kernels: Kernels, function: Callable[..., Any], *args: Any
) -> Callable[..., Any]:
  """`function`, compiled as the kernels need it."""
  lowered = jax.jit(function).lower(*args)
  return compile_with(kernels.compiler_options, lowered)


def errors(
  kernels: Kernels, cases: dict[str, Case], dtype: str, cotangent=normal
) -> dict[str, list[float]]:
  """Relative errors of output and gradients, all computed in one program."""
  expected, args = {}, {}
  for name, case in cases.items():
    y, pull = case.reference(*case.args)
    dy = cotangent(99, *y.shape)
    expected[name] = (y, *pull(dy))
    args[name] = (
      jnp.asarray(dy, dtype),
      *(jnp.asarray(a, dtype) for a in case.args),
    )

  def run_all(args: dict[str, Any]) -> dict[str, Any]:
    return {name: run(cases[name], *args[name]) for name in args}

  def run(case: Case, dy: jax.Array, *args: jax.Array) -> Any:
    def on_images(x: jax.Array, *rest: jax.Array) -> jax.Array:
      y = case.run(kernels, kernels.to_layout(x), *rest)
      return kernels.from_layout(y) if y.ndim == 4 else y

    y, vjp = jax.vjp(on_images, *args)
    return y, *vjp(dy)

  actual = compiled(kernels, run_all, args)(args)
  assert all(a.dtype == dtype for a in jax.tree.leaves(actual))
  return {
    name: [
      relative_error(*pair)
      for pair in zip(actual[name], expected[name], strict=True)
    ]
    for name in cases
  }


# ---- Convolution.


def conv_case(
  shape: tuple[int, ...],
  kernel: tuple[int, int],
  has_bias: bool = True,
  draw: Callable[..., np.ndarray] = integers,
  **options: Any,
) -> Case:
  args = (draw(0, *shape), draw(1, *kernel, shape[-1], 5))
  if has_bias:
    args += (draw(2, 5),)
  return Case(
    lambda kernels, *args: kernels.conv(*args, **options),
    functools.partial(references.conv, **options),
    args,
  )


# Shape of the image, of the kernel, stride, padding, and max pooling.
GEOMETRIES = {
  'stem': ((2, 8, 12, 1), (7, 7), 2, 'SAME', (3, 2, 'SAME')),
  'stem of Caffe': ((1, 12, 8, 3), (7, 7), 2, 3, (3, 2, 'CEIL')),
  'stem, other sizes': ((2, 5, 6, 3), (7, 7), 2, 'SAME', None),
  '3x3': ((2, 5, 6, 10), (3, 3), 1, 'SAME', (3, 1, 1)),
  '3x3, VALID': ((1, 5, 6, 9), (3, 3), 1, 'VALID', None),
  '3x3, CEIL': ((1, 6, 6, 9), (3, 3), 2, 'CEIL', None),
  '3x3, few channels': ((1, 4, 5, 8), (3, 3), 1, 'SAME', None),
  '3x3, stride 2': ((1, 8, 6, 9), (3, 3), 2, 'VALID', None),
  '3x3, one pixel': ((2, 1, 1, 9), (3, 3), 1, 'SAME', None),
  '5x5': ((1, 6, 5, 9), (5, 5), 1, 'SAME', None),
  '5x5, larger than the image': ((1, 3, 2, 9), (5, 5), 1, 'SAME', None),
  '1x7': ((1, 4, 8, 9), (1, 7), 1, 'SAME', None),
  '3x1': ((1, 5, 4, 9), (3, 1), 1, 1, None),
  '1x1': ((2, 3, 4, 9), (1, 1), 1, 'SAME', None),
  '1x1, stride 2': ((1, 6, 5, 9), (1, 1), 2, 'VALID', None),
  '1x1, padded': ((1, 4, 5, 9), (1, 1), 1, 1, None),
}


# By kernel set, the geometries that winograd.py computes in float32. It rounds,
# so that with integers ReLU and ties of maxima would come out otherwise.
_THREE_ROWS = '3x3', '3x3, VALID', '3x1'
ROUNDS = {'xla': (), 'gpu': (), 'onednn': _THREE_ROWS, 'cpu': _THREE_ROWS}


def rounded(name: str, dtype: str) -> tuple[str, ...]:
  """The geometries of `ROUNDS` that this dtype computes in float32."""
  product = KERNELS[name].product_dtype(jnp.dtype(dtype))
  return ROUNDS[name] if product == jnp.float32 else ()


@pytest.mark.parametrize(
  ('name', 'dtype'),
  [
    *((name, 'float32') for name in KERNELS),
    # The others do the same in every dtype.
    pytest.param('onednn', 'bfloat16', marks=pytest.mark.slow),
    pytest.param('cpu', 'bfloat16', marks=pytest.mark.slow),
  ],
)
def test_convolution_of_every_geometry(name: str, dtype: str) -> None:
  rounds = rounded(name, dtype)
  cases = {
    geometry: conv_case(
      shape,
      kernel,
      draw=normal if geometry in rounds and dtype == 'float32' else integers,
      relu=True,
      stride=stride,
      padding=padding,
      pool=pool,
    )
    for geometry, (shape, kernel, stride, padding, pool) in GEOMETRIES.items()
  }
  found = errors(KERNELS[name], cases, dtype, integers)
  limits = {case: 1e-6 if case in rounds else 0 for case in cases}
  assert not {case: e for case, e in found.items() if max(e) > limits[case]}


# What /proc/cpuinfo says: instructions for none, for vectors, for tiles too.
@pytest.mark.parametrize(
  'features', ['', 'avx512_bf16', 'avx512_bf16 amx_bf16']
)
def test_bfloat16_on_every_kind_of_processor(
  monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
  monkeypatch.setattr(processor, 'features', lambda: {*features.split()})
  cases = {
    geometry: conv_case(shape, kernel, stride=stride, padding=padding)
    for geometry, (shape, kernel, stride, padding, _) in GEOMETRIES.items()
    if max(kernel) == 3
  }
  rounds = rounded('onednn', 'bfloat16')
  assert bool(rounds) == (not features)
  found = errors(KERNELS['onednn'], cases, 'bfloat16', integers)
  limits = {case: 1e-6 if case in rounds else 0 for case in cases}
  assert not {case: e for case, e in found.items() if max(e) > limits[case]}


@TWO_DTYPES
@ALL
def test_convolution_with_and_without_bias_relu_and_pool(
  kernels: Kernels, dtype: str
) -> None:
  rounds = bool(rounded(kernels.name, dtype))
  draw = normal if rounds and dtype == 'float32' else integers
  cases = {
    f'{has_bias=}, {relu=}, {pool=}': conv_case(
      (1, 5, 4, 9), (3, 3), has_bias, draw, relu=relu, pool=pool
    )
    for has_bias in (False, True)
    for relu in (False, True)
    for pool in (None, (2, 2, 'CEIL'))
  }
  found = errors(kernels, cases, dtype, integers)
  limit = 1e-6 if rounds else 0
  assert not {name: e for name, e in found.items() if max(e) > limit}


@ALL_DTYPES
@ALL
def test_parallel_1x1_convolutions(kernels: Kernels, dtype: str) -> None:
  ends = [4, 5]  # of widths 4, 1, 7

  def case(pixels: tuple[int, ...], has_bias: bool, relu: bool) -> Case:
    def run(kernels: Kernels, x: jax.Array, w: jax.Array, *b: jax.Array):
      ws = jnp.split(w, ends, axis=-1)
      bs = jnp.split(b[0], ends) if b else None
      ys = kernels.conv_1x1s(x, ws, bs, relu=relu)
      assert [y.shape[-1] for y in ys] == [4, 1, 7]
      return jnp.concatenate(ys, axis=-1)

    args = (integers(0, *pixels, 9), integers(1, 1, 1, 9, 12), integers(2, 12))
    return Case(
      run,
      functools.partial(references.conv, relu=relu),
      args if has_bias else args[:2],
    )

  cases = {
    f'{has_bias=}, {relu=}': case((2, 3, 5), has_bias, relu)
    for has_bias in (False, True)
    for relu in (False, True)
  }
  cases['one pixel'] = case((1, 1, 1), True, True)
  found = errors(kernels, cases, dtype, integers)
  assert not {name: e for name, e in found.items() if any(e)}


# ---- Pooling, normalization.

POOLS = {
  'SAME': ((2, 6, 7, 2), 3, 2, 'SAME'),
  'stride 1': ((2, 7, 6, 2), 3, 1, 'SAME'),
  '2x2': ((1, 5, 5, 2), 2, 2, 'SAME'),
  'stride above window': ((1, 4, 5, 2), 1, 2, 'SAME'),
  'one pixel': ((2, 1, 1, 2), 3, 2, 'SAME'),
  'CEIL': ((1, 6, 7, 2), 3, 2, 'CEIL'),
  '2x2 CEIL': ((1, 5, 6, 2), 2, 2, 'CEIL'),
  'stride above window, CEIL': ((1, 7, 8, 2), 2, 4, 'CEIL'),
  '1x1 CEIL': ((1, 5, 4, 2), 1, 3, 'CEIL'),
  'VALID': ((1, 6, 7, 2), 3, 2, 'VALID'),
  'padding 1': ((1, 5, 6, 2), 3, 1, 1),
}


@pytest.mark.parametrize(
  'dtype', ['float32', pytest.param('bfloat16', marks=pytest.mark.slow)]
)
@ALL
def test_max_pooling_with_many_ties(kernels: Kernels, dtype: str) -> None:
  cases = {
    name: Case(
      lambda kernels, x, options=options: kernels.max_pool(x, *options),
      lambda x, options=options: references.max_pool(x, *options),
      (integers(0, *shape),),
    )
    for name, (shape, *options) in POOLS.items()
  }
  found = errors(kernels, cases, dtype, integers)
  assert not {name: e for name, e in found.items() if any(e)}


MEANS_AND_LRN = {
  'avg_pool': [
    (3, 1, 'SAME', False),
    (3, 1, 'SAME', True),
    (5, 3, 'VALID', False),
    (3, 2, 'CEIL', False),
    (2, 5, 'CEIL', False),
    (3, 2, 1, True),
  ],
  'lrn': [(5, 0.7, 0.75, 1.5), (4, 0.7, 0.75, 1.5)],
  'global_mean': [()],
}


# The other sets have those of 'xla'.
OF_ITS_OWN = [
  kernels
  for kernels in KERNELS.values()
  if kernels.name == 'xla'
  or any(
    getattr(kernels, name) is not getattr(KERNELS['xla'], name)
    for name in MEANS_AND_LRN
  )
]


@ALL_DTYPES
@pytest.mark.parametrize(
  'kernels', OF_ITS_OWN, ids=lambda kernels: kernels.name
)
def test_means_and_response_normalization(kernels: Kernels, dtype: str) -> None:
  cases = {
    f'{name}{options}': Case(
      lambda kernels, x, n=name, o=options: getattr(kernels, n)(x, *o),
      lambda x, n=name, o=options: getattr(references, n)(x, *o),
      (normal(0, 2, 6, 7, 5),),
    )
    for name, rows in MEANS_AND_LRN.items()
    for options in rows
  }
  found = errors(kernels, cases, dtype)
  bound = TOLERANCE[dtype]
  assert not {name: e for name, e in found.items() if max(e) > bound}


@TWO_DTYPES
@ALL
def test_means_of_channels(kernels: Kernels, dtype: str) -> None:
  """Of a small map, and of one that is cut into parts with rows left over."""

  def run(x: jax.Array, dy: jax.Array) -> list[jax.Array]:
    x, dy = kernels.to_layout(x), kernels.to_layout(dy)
    return kernels.channel_means(lambda x, dy: (x, dy * (x - 0.25)), x, dy)

  for shape in (2, 5, 7, 3), (3, 37, 41, 5):
    x, dy = normal(0, *shape), normal(1, *shape)
    args = [jnp.asarray(a, dtype) for a in (x, dy)]
    means = compiled(kernels, run, *args)(*args)
    expected = x.mean((0, 1, 2)), (dy * (x - 0.25)).mean((0, 1, 2))
    for actual, mean in zip(means, expected, strict=True):
      assert actual.dtype == jnp.float32
      np.testing.assert_allclose(actual, mean, atol=1e-6)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@FAST
def test_max_pooling_of_two_byte_floats_knows_all_of_them(
  name: str, dtype: str
) -> None:
  special = [0.0, -0.0, -1.0, 2.0, -3.0, 6e-8, -6e-8, np.inf, -np.inf]
  x = np.random.default_rng(0).choice(special, (4, 9, 9, 7))
  x[0, 4, 4, 0] = np.nan
  x = jnp.asarray(x, dtype)
  actual, expected = (
    kernels.from_layout(kernels.max_pool(kernels.to_layout(x), 3, 2))
    for kernels in (KERNELS[name], KERNELS['xla'])
  )
  np.testing.assert_array_equal(
    np.asarray(actual, np.float32), np.asarray(expected, np.float32)
  )


# ---- Operations together.


def small_network(
  kernels: Kernels, x: jax.Array, stem: jax.Array, w: jax.Array, b: jax.Array
) -> jax.Array:
  """A small Inception network: [B, H, W, 3] -> [B, C]."""
  x = kernels.to_layout(x)
  x = kernels.conv(x, stem, b, stride=2, relu=True, pool=(3, 2, 'SAME'))
  one, two = kernels.conv_1x1s(
    x, [w[:1, :1], w[1:2, :1]], [b, b[::-1]], relu=True
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


@functools.cache
def plain_gradients() -> Any:
  args = [jnp.asarray(arg, jnp.float32) for arg in network_args(2)]
  function = functools.partial(network_gradients, KERNELS['xla'])
  return compiled(KERNELS['xla'], function, *args)(*args)


@FAST
def test_gradients_of_a_network_agree_down_to_the_image(name: str) -> None:
  """With plain `lax`, and under `vmap` with those of a batch."""
  kernels = KERNELS[name]
  args = [jnp.asarray(arg, jnp.float32) for arg in network_args(2)]
  function = functools.partial(network_gradients, kernels)
  actual = compiled(kernels, function, *args)(*args)
  assert np.linalg.norm(actual[0]) > 0
  for a, b in zip(actual, plain_gradients(), strict=True):
    assert relative_error(a, b) < 1e-5

  x, *rest = args
  x = x[:, None]  # one image at a time

  def gradients(x: jax.Array) -> Any:
    return network_gradients(kernels, x, *rest)

  # The loss is a sum over images.
  of_images, *of_weights = compiled(kernels, jax.vmap(gradients), x)(x)
  mapped = (of_images[:, 0], *(dw.sum(0) for dw in of_weights))
  for a, b in zip(mapped, actual, strict=True):
    assert relative_error(a, b) < 1e-5


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
  assert kernels_lib.select_kernels(kernels, backend, jnp.float32).name == name


def test_onednn_is_chosen_by_what_a_program_compiles_to() -> None:
  assert not onednn.is_available(jnp.dtype('int32'))
  x = jnp.ones((8, 8, 8, 16))
  program = compiled(
    KERNELS['onednn'], KERNELS['onednn'].conv, x, jnp.ones((3, 3, 16, 16))
  )
  assert ('__onednn$' in program.as_text()) == HAS_ONEDNN


@pytest.mark.skipif(not HAS_ONEDNN, reason='XLA does not call oneDNN here')
def test_each_relu_is_part_of_its_convolution() -> None:
  """In the gradient too, where XLA may look for the sign before the ReLU."""

  def loss(ws, x):
    for w in ws:
      x = KERNELS['onednn'].conv(x, w, jnp.ones(w.shape[-1:]), relu=True)
    return (x**2).sum()

  ws = [jnp.ones((k, k, 16, 16)) for k in (3, 1, 3)]
  program = compiled(
    KERNELS['onednn'], jax.grad(loss), ws, jnp.ones((8, 8, 8, 16))
  )
  assert program.as_text().count('"RELU"') == len(ws)


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
    kernels_lib.select_kernels(kernels, backend, jnp.float32)
