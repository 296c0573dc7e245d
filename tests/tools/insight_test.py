"""Maps, class activation maps and what branches add, against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.model import blocks, graph, own, rows
from googlenet.model import network as network_lib
from googlenet.model.architecture_text import to_text
from googlenet.model.initialization import init_from_numpy
from googlenet.model.rows import Stage
from googlenet.model.small import TINY
from googlenet.model.variants import ARCHITECTURES
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference import insight, trained


def make_trained(config, channels=1):
  """A network that was never trained, but has biases of all sizes."""
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  size = config.data.image_size
  shape = (size, size, channels)
  params, state = init_from_numpy(network, shape, 3)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda w: np.asarray(w + 0.1 * rng.standard_normal(w.shape), np.float32),
    params,
  )
  classes = tuple(map(str, range(config.model.num_classes)))
  return trained.Trained(
    'x.npz',
    config,
    network,
    0,
    replicated(params),
    replicated(state),
    shape,
    classes,
  )


def pixels(count=3, size=28, channels=1):
  shape = (count, size, size, channels)
  return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


@pytest.fixture
def tiny(config):
  return make_trained(config)


def test_the_mean_of_a_class_map_and_the_bias_are_the_logit(tiny):
  found = insight.class_activation_maps(tiny, pixels())
  assert found.maps.shape == (3, 10, 7, 7)
  assert np.ptp(found.maps, axis=(2, 3)).min() > 0
  np.testing.assert_allclose(
    found.maps.mean((2, 3)) + found.bias, found.logits, rtol=1e-4, atol=1e-4
  )
  x = insight.seen(tiny, pixels())
  assert x.shape == (3, 28, 28, 1)
  outputs, _ = tiny.network.apply(
    tiny.params, tiny.network_state, None, x, is_training=False
  )
  np.testing.assert_allclose(found.logits, outputs.logits, atol=1e-4)


def test_class_maps_of_a_network_without_a_linear_layer(config):
  config.model.variant, config.data.image_size = 'nin', 96
  config.model.width_multiplier = 0.05
  one = make_trained(config)
  found = insight.class_activation_maps(one, pixels(2))
  np.testing.assert_allclose(found.maps.mean((2, 3)), found.logits, rtol=1e-4)
  assert not found.bias.any()


def test_a_network_without_a_global_mean_has_no_class_maps(config):
  config.model.variant, config.model.width_multiplier = 'vgg16', 0.01
  config.data.image_size = 32
  one = make_trained(config)
  assert not insight.has_class_maps(one.network)
  with pytest.raises(UserError, match="'vgg16': this network has no global"):
    insight.class_activation_maps(one, pixels(1))
  assert list(insight.stage_maps(one, pixels(1))) == [
    f'stage_{i}' for i in range(1, 6)
  ]


def test_branches_are_the_channels_of_the_block(tiny):
  parts = insight.branch_maps(tiny, pixels(), 'inception_2a')
  assert {name: y.shape for name, y in parts.items()} == {
    'conv_1x1': (3, 7, 7, 8),
    'conv_3x3': (3, 7, 7, 12),
    'conv_5x5': (3, 7, 7, 4),
    'pool_proj': (3, 7, 7, 4),
  }
  _, whole = insight.maps(tiny, pixels(), ('inception_2a', 'stage_1'))
  np.testing.assert_array_equal(
    np.concatenate(list(parts.values()), -1), whole['inception_2a']
  )
  # The first branch from its definition: a product with its input.
  leaves = tiny.params['inception_2a/conv_1x1']
  expected = whole['stage_1'] @ np.asarray(leaves['w'])[0, 0] + leaves['b']
  np.testing.assert_allclose(
    parts['conv_1x1'], np.maximum(expected, 0), rtol=1e-4, atol=1e-4
  )


def test_the_last_branches_and_the_bias_add_up_to_the_logits(tiny):
  added = insight.branch_contributions(tiny, pixels(), 'inception_2a')
  found = insight.class_activation_maps(tiny, pixels())
  np.testing.assert_allclose(
    sum(added.values()) + found.bias, found.logits, rtol=1e-4, atol=1e-4
  )
  parts = insight.branch_maps(tiny, pixels(), 'inception_2a')
  channels = insight.branch_channels(tiny.network, 'inception_2a')
  weights = np.asarray(tiny.params['logits']['w'])
  for name, part in channels.items():
    exact = parts[name].mean((1, 2)) @ weights[part]
    np.testing.assert_allclose(added[name], exact, rtol=1e-3, atol=1e-4)
    assert np.abs(exact).max() > 0.01


@pytest.mark.parametrize(
  'variant', ['fmnist28', 'factorized', 'inception_v3', 'se', 'residual']
)
def test_branches_fill_each_block(config, variant):
  config.model.variant, config.data.image_size = variant, 299
  network = network_lib.from_config(config_lib.resolve(config))
  shapes = graph.end_points(graph.graph(network.architecture, (299, 299, 1)))
  names = insight.block_names(network)
  assert bool(names) == (variant != 'residual')
  for name in names:
    parts = list(insight.branch_channels(network, name).values())
    assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
    assert parts[0].start == 0
    assert parts[-1].stop == shapes[name][-1]


def test_branches_that_end_in_custom_operations(config):
  """They are named after them, or told apart; the pool has no row's name."""
  own.register('same', lambda x, is_training: x)
  block = rows.Block(
    'mixed',
    (
      (rows.Conv('conv_1x1', 2, 1), rows.Own('first', 'same')),
      (rows.Conv('conv_3x3', 3, 3), rows.Own('second', 'same')),
      (rows.Conv('conv_5x5', 4, 5), rows.SqueezeExcite(2)),
      (rows.MaxPool(3, 1),),
      (rows.AvgPool(3, 1),),
    ),
  )
  layer = rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 4, 3),))
  stage = Stage('stage_1', (layer, block, rows.MaxPool()))
  config.model.variant = 'own'
  config.model.architecture = to_text(rows.Architecture((stage,)))
  config.data.image_size = 8
  net = make_trained(config)
  parts = insight.branch_channels(net.network, 'mixed')
  assert {name: (p.start, p.stop) for name, p in parts.items()} == {
    'first': (0, 2),
    'second': (2, 5),
    'conv_5x5': (5, 9),
    'pool': (9, 13),
    'pool_2': (13, 17),
  }
  # The last map is that of a pool, whose row has no name.
  assert insight.stages(net.network) == {'stage_1': 'stage_1/max_pool'}
  found = insight.class_activation_maps(net, pixels(2, 8))
  np.testing.assert_allclose(
    found.maps.mean((2, 3)) + found.bias, found.logits, rtol=1e-4, atol=1e-4
  )


def test_an_earlier_block_is_cut_out_of_the_whole_network(config, monkeypatch):
  block = blocks.inception('inception_3a', blocks.Widths(*[4] * 6))
  more = Stage('stage_3', (block,))
  two_blocks = TINY._replace(stages=(*TINY.stages, more))
  monkeypatch.setitem(ARCHITECTURES, 'tiny', two_blocks)
  one = make_trained(config)
  added = insight.branch_contributions(one, pixels(2), 'inception_2a')
  assert list(added) == ['conv_1x1', 'conv_3x3', 'conv_5x5', 'pool_proj']
  # A convolution without weights and biases puts out zeros.
  path = 'inception_2a/conv_3x3'
  params = {**one.params, path: jax.tree.map(jnp.zeros_like, one.params[path])}
  x = insight.seen(one, pixels(2))
  before, after = (
    one.network.apply(p, one.network_state, None, x, is_training=False)[0]
    for p in (one.params, params)
  )
  np.testing.assert_allclose(
    added['conv_3x3'], before.logits - after.logits, rtol=1e-3, atol=1e-4
  )
  assert np.abs(added['conv_3x3']).max() > 1e-2


def test_first_filters_and_stages(tiny):
  assert insight.first_filters(tiny).shape == (7, 7, 1, 8)
  found = insight.stage_maps(tiny, pixels(1))
  assert {k: y.shape for k, y in found.items()} == {
    'stage_1': (1, 7, 7, 8),
    'stage_2': (1, 7, 7, 28),
  }


def test_unknown_names(tiny):
  with pytest.raises(UserError, match="--block=inception_2b .*'inception_2a'"):
    insight.branch_maps(tiny, pixels(), 'inception_2b')
  with pytest.raises(UserError, match="'stage_9' is no point.*mean 'stage_"):
    insight.maps(tiny, pixels(), ('stage_9',))
