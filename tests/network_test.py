"""The network: counts, shapes and names, and a block against NumPy."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import make, model_config

from googlenet.kernels import onednn
from googlenet.model import blocks, graph, modules, points, variants
from googlenet.model import network as network_lib
from googlenet.model.context import Context
from googlenet.model.initialization import (
  abstract_init,
  count_parameters,
  init_from_numpy,
)

HAS_ONEDNN = onednn.is_available(jnp.dtype('float32'))
KERNELS = ['xla', 'gpu', 'cpu', *['onednn'] * HAS_ONEDNN]
ALL_KERNELS = pytest.mark.parametrize('kernels', KERNELS)


def abstract(config, image_shape):
  network = network_lib.make_network(config)
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  return network, image, abstract_init(network, image_shape)


@ALL_KERNELS
def test_shapes_of_the_stages(kernels):
  network, image, (params, state) = abstract(
    model_config(kernels=kernels), (96, 96, 1)
  )
  names = points.shapes(network.architecture)
  outputs, _ = jax.eval_shape(
    lambda p, s, x: network.apply(p, s, None, x, False, end_points=names),
    params,
    state,
    image,
  )
  shapes = {name: y.shape for name, y in outputs.end_points.items()}
  assert [shapes[f'stage_{i}'] for i in (1, 2, 3, 4, 5)] == [
    (1, 24, 24, 64),
    (1, 12, 12, 192),
    (1, 6, 6, 480),
    (1, 3, 3, 832),
    (1, 1024),
  ]
  assert outputs.logits.shape == shapes['logits'] == (1, 10)
  assert outputs.aux_logits == {}
  assert shapes['conv_1'] == (1, 48, 48, 64)
  assert shapes['inception_3b'] == (1, 12, 12, 480)


@pytest.mark.parametrize(
  ('image_shape', 'num_classes', 'count'),
  [((96, 96, 1), 10, 5_977_530), ((224, 224, 3), 1000, 6_998_552)],
)
def test_number_of_parameters(image_shape, num_classes, count):
  _, _, (params, state) = abstract(
    model_config(num_classes=num_classes), image_shape
  )
  assert count_parameters(params) == count
  assert jax.tree.leaves(state) == []


def test_shapes_are_those_of_init_though_nothing_is_drawn(monkeypatch):
  config = model_config(variant='tiny', normalization='batch')
  network, image, _ = abstract(config, (28, 28, 1))
  expected = jax.eval_shape(network.init, jax.random.key(0), image)
  assert len(jax.tree.leaves(expected[1])) > 1  # running statistics

  def draw(*_):
    raise AssertionError

  monkeypatch.setattr(jax.random, 'truncated_normal', draw)
  jax.clear_caches()  # what was traced before
  with pytest.raises(AssertionError):
    jax.eval_shape(network.init, jax.random.key(0), image)
  assert abstract_init(network, (28, 28, 1)) == expected


def test_stored_pixels_are_refused():
  """Weights cast to their uint8 would be zeros."""
  network, params, state = make((28, 28, 1), variant='tiny')
  pixels = np.zeros((1, 28, 28, 1), np.uint8)
  with pytest.raises(AssertionError, match='uint8'):
    network.apply(params, state, None, pixels, False)


def test_parameter_names_are_stable():
  """Checkpoints and weight import rely on them: never change this list."""
  blocks = ['3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b']
  branches = [
    'conv_1x1',
    'conv_3x3',
    'conv_3x3_reduce',
    'conv_5x5',
    'conv_5x5_reduce',
    'pool_proj',
  ]
  names = ['conv_1/conv_7x7', 'conv_2/conv_3x3_reduce', 'conv_2/conv_3x3']
  names += [
    f'inception_{block}/{name}' for block in blocks for name in branches
  ]
  _, _, (params, _) = abstract(model_config(), (96, 96, 1))
  assert sorted(params) == sorted([*names, 'logits'])
  assert {tuple(sorted(leaves)) for leaves in params.values()} == {('b', 'w')}
  assert params['inception_3a/conv_3x3_reduce']['w'].shape == (1, 1, 192, 96)
  assert params['inception_3a/conv_5x5']['w'].shape == (5, 5, 16, 32)
  assert params['logits']['w'].shape == (1024, 10)


def test_names_do_not_depend_on_the_kernels():
  trees = [
    abstract(model_config(kernels=kernels), (96, 96, 1))[2]
    for kernels in ('xla', 'cpu')
  ]
  assert trees[0] == trees[1]


def test_smallest_image():
  """Each of five halvings gets at least 2 pixels: 17, 9, 5, 3, 2."""
  plain = variants.resolve(model_config())
  assert graph.smallest_image(plain) == 17


def numpy_conv(x, w, b):
  """ReLU of a SAME convolution, stride 1, by definition: [H, W, C]."""
  k = w.shape[0]
  padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
  out = np.empty((*x.shape[:2], w.shape[3]))
  for i in range(x.shape[0]):
    for j in range(x.shape[1]):
      window = padded[i : i + k, j : j + k]
      out[i, j] = np.tensordot(window, w, 3) + b
  return np.maximum(out, 0)


def numpy_pool(x):
  padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
  out = np.empty_like(x)
  for i in range(x.shape[0]):
    for j in range(x.shape[1]):
      out[i, j] = padded[i : i + 3, j : j + 3].max((0, 1))
  return out


@ALL_KERNELS
def test_inception_block_against_numpy_loops(kernels):
  row = blocks.inception('inception_3a', blocks.Widths(4, 3, 6, 2, 5, 3))
  ops = network_lib.select_kernels(kernels, 'cpu', jnp.float32)
  context = Context(ops, 'none', 'relu')

  def forward(x):
    return ops.from_layout(modules.Inception(row, context)(ops.to_layout(x)))

  block = hk.without_apply_rng(hk.transform(forward))
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 8)).astype(np.float32)
  params = block.init(jax.random.key(0), x)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda p: rng.normal(0, 0.3, p.shape).astype(np.float32), params
  )
  p = {name.split('/')[1]: (v['w'], v['b']) for name, v in params.items()}
  expected = []
  for image in x.astype(np.float64):
    three = numpy_conv(image, *p['conv_3x3_reduce'])
    five = numpy_conv(image, *p['conv_5x5_reduce'])
    branches = [
      numpy_conv(image, *p['conv_1x1']),
      numpy_conv(three, *p['conv_3x3']),
      numpy_conv(five, *p['conv_5x5']),
      numpy_conv(numpy_pool(image), *p['pool_proj']),
    ]
    expected.append(np.concatenate(branches, -1))
  actual = block.apply(params, x)
  assert actual.shape == (2, 5, 7, 18)
  np.testing.assert_allclose(actual, np.stack(expected), rtol=1e-4, atol=1e-5)


# kernels_test.py compares the gradients of the others with those of 'xla'.
@pytest.mark.parametrize(
  'kernels',
  [
    name if name == 'xla' else pytest.param(name, marks=pytest.mark.slow)
    for name in KERNELS
  ],
)
def test_gradient_of_the_network_against_finite_differences(kernels):
  config = model_config(variant='tiny', kernels=kernels)
  network = network_lib.make_network(config)
  with jax.enable_x64(True):
    params, state = init_from_numpy(network, (12, 12, 1), 0)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
      lambda p: p.astype(np.float64) + rng.normal(0, 0.01, p.shape), params
    )
    images = rng.normal(size=(2, 12, 12, 1))

    @jax.jit
    @jax.value_and_grad
    def loss(params):
      outputs, _ = network.apply(params, state, None, images, True)
      return jnp.sum(jnp.sin(outputs.logits))

    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    _, gradient = loss(params)
    slope = sum(
      jax.tree.leaves(
        jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
      )
    )
    step = 1e-6
    ends = [
      loss(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction))[0]
      for h in (step, -step)
    ]
    assert slope.dtype == np.float64
    np.testing.assert_allclose(
      slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5
    )


@pytest.mark.parametrize('initializer', ['he', 'xavier', 'caffe'])
def test_numpy_initializer_draws_from_haikus_distributions(initializer):
  """Deviation and bounds of every leaf; He, fan-in: sqrt(2 / fan_in)."""
  config = model_config(variant='tiny', initializer=initializer)
  network = network_lib.make_network(config)
  image = jnp.zeros((1, 28, 28, 3))
  drawn, _ = init_from_numpy(network, (28, 28, 3), 0)
  haikus, _ = jax.jit(network.init)(jax.random.key(0), image)
  assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, haikus)
  w, other = drawn['conv_1/conv_7x7']['w'], haikus['conv_1/conv_7x7']['w']
  assert w.dtype == np.float32
  fan_in, fan_out = 7 * 7 * 3, 7 * 7 * 8
  deviation = {
    'he': np.sqrt(2 / fan_in),
    'xavier': np.sqrt(2 / (fan_in + fan_out)),
    'caffe': np.sqrt(1 / fan_in),
  }[initializer]
  bound = (2 / 0.8796 if initializer == 'he' else np.sqrt(3)) * deviation
  for leaf in (w, other):
    np.testing.assert_allclose(np.std(leaf), deviation, rtol=0.06)
    assert 0.95 * bound < np.abs(leaf).max() <= bound * 1.001
  for leaves in (drawn['conv_1/conv_7x7'], haikus['conv_1/conv_7x7']):
    bias = 0.2 if initializer == 'caffe' else 0.0
    np.testing.assert_array_equal(leaves['b'], np.float32(bias))
  assert abs(w.mean()) < deviation / 10


def test_numpy_initializer_is_a_function_of_the_seed():
  config = model_config(variant='tiny')
  network = network_lib.make_network(config)
  trees = [init_from_numpy(network, (28, 28, 1), seed)[0] for seed in (0, 0, 1)]
  leaves = [jax.tree.leaves(tree) for tree in trees]
  assert all(np.array_equal(a, b) for a, b in zip(*leaves[:2], strict=True))
  assert not np.array_equal(leaves[0][1], leaves[2][1])
