"""What only the kernels for GPUs do: packed stem, float32 sums, borders.

kernels_test.py has what they share with the other kernel sets.
"""

import itertools

import jax
import jax.numpy as jnp
import kernel_references as references
import numpy as np
import pytest
from kernels_test import relative_error

from googlenet.kernels import KERNELS
from googlenet.runtime.compilation import compiled_with

GPU, XLA = KERNELS['gpu'], KERNELS['xla']


def convolution_kernels(function, *args):
  """The shapes of the weights of all convolutions of a program."""
  text = jax.jit(function).lower(*args).as_text()
  lines = [
    line for line in text.splitlines() if 'stablehlo.convolution' in line
  ]
  return [line.split('tensor<')[-2].split('>')[0] for line in lines]


def normal(seed, *shape, dtype=np.float32):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), dtype)


@pytest.mark.parametrize(
  ('channels', 'padding', 'relu', 'pool'),
  [
    (1, 'SAME', True, (3, 2, 'SAME')),
    (1, 'SAME', True, (3, 2, 1)),  # this pooling does not take blocks
    (1, 'SAME', False, (3, 2, 'SAME')),
    (3, 3, True, (3, 2, 'CEIL')),
    (3, 3, False, None),
  ],
)
def test_the_first_convolution_is_packed_and_equal(
  channels, padding, relu, pool
):
  x, w = normal(0, 2, 24, 16, channels), normal(1, 7, 7, channels, 5)
  options = {'stride': 2, 'padding': padding, 'relu': relu, 'pool': pool}

  def value_and_gradients(kernels, *args):
    y, pull = jax.vjp(lambda *args: kernels.conv(*args, **options), *args)
    return y, *pull(normal(3, *y.shape))

  args = x, w, normal(2, 5)
  weights = convolution_kernels(lambda *a: GPU.conv(*a, **options), *args)
  assert weights == [f'3x3x{16 * channels}x20xf32']
  expected = value_and_gradients(XLA, *args)
  actual = value_and_gradients(GPU, *args)
  for own, other in zip(actual, expected, strict=True):
    assert relative_error(own, other) < 1e-5


@pytest.mark.parametrize(
  ('shape', 'kernel', 'stride', 'padding'),
  [
    ((2, 22, 24, 1), 7, 2, 'SAME'),  # blocks of 4 do not cover the image
    ((2, 24, 24, 1), 7, 2, 'VALID'),  # fewer outputs than half of the image
    ((2, 24, 24, 1), 7, 1, 'SAME'),
    ((2, 24, 24, 8), 7, 2, 'SAME'),  # enough channels for tensor cores
    ((2, 24, 24, 1), 3, 2, 'SAME'),  # a small kernel gains nothing
    ((2, 24, 24, 1), 11, 2, 'SAME'),  # it reaches beyond the adjacent blocks
  ],
)
def test_other_convolutions_stay_as_they_are(shape, kernel, stride, padding):
  x, w = normal(0, *shape), normal(1, kernel, kernel, shape[-1], 4)
  (weights,) = convolution_kernels(
    lambda x, w: GPU.conv(x, w, stride=stride, padding=padding), x, w
  )
  assert weights == f'{kernel}x{kernel}x{shape[-1]}x4xf32'


def test_1x1s_of_one_input_are_one_convolution():
  x, ws = normal(0, 2, 4, 4, 6), [normal(i, 1, 1, 6, 2 + i) for i in range(3)]
  weights = convolution_kernels(lambda x, *ws: GPU.conv_1x1s(x, ws), x, *ws)
  assert weights == ['1x1x6x9xf32']


def test_no_form_scatters_or_selects_by_windows():
  """What XLA for GPUs has no kernel for."""
  x = normal(0, 2, 8, 8, 3)

  def has_scatter(kernels):
    gradient = jax.grad(lambda x: kernels.max_pool(x, 3, 2).sum())
    return 'scatter' in jax.jit(gradient).lower(x).as_text()

  assert has_scatter(XLA)
  assert not has_scatter(GPU)


@pytest.mark.parametrize('lowest', [-np.inf, np.finfo(np.float32).min])
def test_pooling_of_the_lowest_numbers_stays_inside(lowest):
  """Padding must not win a tie: its gradient would be lost."""
  x = jnp.full((1, 5, 4, 1), lowest, jnp.float32)
  for stride, padding in itertools.product((1, 2), ('SAME', 'CEIL', 1)):
    y, pull = jax.vjp(
      lambda x, s=stride, p=padding: GPU.max_pool(x, 3, s, p), x
    )
    dy = normal(0, *y.shape)
    value, numpy_pull = references.max_pool(np.asarray(x), 3, stride, padding)
    np.testing.assert_array_equal(y, value)
    (gradient,) = numpy_pull(np.asarray(dy))
    np.testing.assert_allclose(pull(dy)[0], gradient, rtol=1e-6)


def test_bias_gradients_are_summed_in_float32():
  x = jnp.ones((64, 8, 8, 1), jnp.bfloat16)
  dy = jnp.asarray(np.linspace(0.5, 1, 4096).reshape(x.shape), jnp.bfloat16)
  exact = np.asarray(dy, np.float64).sum()
  b, w = jnp.zeros(1, jnp.float32), jnp.ones((1, 1, 1, 1), x.dtype)
  for pool in (None, (1, 1, 'SAME')):
    _, pull = jax.vjp(
      lambda b, pool=pool: GPU.conv(x, w, b, relu=True, pool=pool), b
    )
    np.testing.assert_allclose(pull(dy)[0][0], exact, rtol=1e-6)


def test_a_window_has_at_most_as_many_places_as_a_byte_tells():
  x = jnp.zeros((1, 32, 32, 1))
  with pytest.raises(ValueError, match='16x16'):
    GPU.max_pool(x, 16, 16)


def test_windows_of_padding_alone_are_refused():
  with pytest.raises(ValueError, match='padding alone'):
    GPU.max_pool(jnp.zeros((1, 4, 4, 1)), 3, 1, 3)


def test_xla_knows_the_options():
  double = compiled_with(GPU.compiler_options, jax.jit(lambda x: 2 * x))
  assert double(jnp.ones(2)).tolist() == [2, 2]
