"""Every network of the family: sizes pinned, gradients, devices, refusals."""

import itertools

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, load_config

from googlenet import kernels as layers
from googlenet.errors import UserError
from googlenet.model import graph, modules, regularization, rows, variants
from googlenet.model import network as network_lib
from googlenet.model.context import ACTIVATIONS, Setting
from googlenet.model.initialization import (
  abstract_init,
  count_parameters,
  init_from_numpy,
)
from googlenet.runtime.compilation import compile_with
from googlenet.tools.modes import summary
from googlenet.train import loss as loss_lib

# A size at which every window of the network fits, not far above the smallest.
SMALL = {
  'plain': 33,
  'paper': 96,
  'torchvision': 48,
  'bn': 33,
  'inception_v2': 33,
  'factorized': 33,
  'residual': 33,
  'inception_v3': 76,
  'fmnist28': 28,
  'tiny': 28,
  'alexnet': 63,
  'vgg16': 32,
  'nin': 67,
}
# Options of XLA: these tests ask for values, not for speed.
FAST_TO_COMPILE = (
  ('xla_backend_optimization_level', 0),
  ('xla_llvm_disable_expensive_passes', True),
)
VARIANTS = pytest.mark.parametrize('variant', variants.ARCHITECTURES)


def model_config(**changes):
  config = load_config(ROOT / 'configs/fmnist96.py').model.unlock()
  config.update({'kernels': 'xla', **changes})
  return config


def small_config(variant, **changes):
  """At the size in `SMALL`, which is too small for the heads of some."""
  aux_heads = 'off' if variant == 'inception_v3' else 'auto'
  return model_config(variant=variant, aux_heads=aux_heads, **changes)


def make(image_shape, **changes):
  """Returns a network, its parameters and its state."""
  network = network_lib.make_network(model_config(**changes))
  return network, *init_from_numpy(network, image_shape, 0)


def images(*shape):
  return np.random.default_rng(0).standard_normal(shape, np.float32)


def keys(count):
  return jax.random.split(jax.random.key(1), count)


# ---- Sizes.


@pytest.mark.parametrize(
  ('variant', 'size', 'aux_heads', 'parameters', 'multiply_adds'),
  [
    # Caffe's bvlc_googlenet; torchvision's googlenet and inception_v3.
    ('paper', 224, 'off', 6_998_552, 1_582_671_872),
    ('paper', 224, 'on', 13_378_280, 1_591_044_096),
    ('torchvision', 224, 'off', 6_624_904, 1_498_376_192),
    ('torchvision', 224, 'on', 13_004_888, 1_506_748_416),
    ('inception_v3', 299, 'off', 23_834_568, 5_713_216_096),
    ('inception_v3', 299, 'on', 27_161_264, 5_718_899_296),
    ('bn', 224, 'auto', 7_005_832, 1_582_671_872),
    ('alexnet', 224, 'auto', 62_378_344, 1_135_256_096),
    ('vgg16', 224, 'auto', 138_357_544, 15_470_264_320),
  ],
)
def test_published_sizes(variant, size, aux_heads, parameters, multiply_adds):
  total = summary.summarize(
    model_config(variant=variant, num_classes=1000, aux_heads=aux_heads),
    (size, size, 3),
  )[-1]
  assert total.parameters == parameters
  assert total.multiply_adds == multiply_adds


def test_layer_table_of_the_paper():
  """Table 1 at 224x224, with the numbers that Caffe's model gives."""
  table = {
    row.name: row
    for row in summary.summarize(
      model_config(variant='paper', num_classes=1000, aux_heads='off'),
      (224, 224, 3),
    )
  }
  # Side, channels, parameters, millions of multiply-adds.
  expected = {
    'conv_1': (112, 64, 9_472, 118.0),
    'stage_1': (56, 64, 9_472, 118.0),
    'conv_2': (56, 192, 114_944, 359.7),
    'stage_2': (28, 192, 114_944, 359.7),
    'inception_3a': (28, 256, 163_696, 128.0),
    'inception_3b': (28, 480, 388_736, 304.3),
    'stage_3': (14, 480, 552_432, 432.3),
    'inception_4a': (14, 512, 376_176, 73.6),
    'inception_4b': (14, 512, 449_160, 87.9),
    'inception_4c': (14, 512, 510_104, 99.9),
    'inception_4d': (14, 528, 605_376, 118.5),
    'inception_4e': (14, 832, 868_352, 170.0),
    'stage_4': (7, 832, 2_809_168, 549.9),
    'inception_5a': (7, 832, 1_043_456, 51.1),
    'inception_5b': (7, 1024, 1_444_080, 70.7),
  }
  for name, (side, channels, parameters, millions) in expected.items():
    row = table[name]
    assert row.shape == (side, side, channels), name
    assert row.parameters == parameters, name
    assert round(row.multiply_adds / 1e6, 1) == pytest.approx(millions), name
  assert table['logits'].parameters == 1_025_000
  assert table['logits'].multiply_adds == 1_024_000


@VARIANTS
def test_sizes_worked_out_are_those_of_the_network(variant):
  """Shapes of all end points and the number of weights, three channels."""
  size = SMALL[variant] + 3
  config = small_config(variant, num_classes=7)
  if variant in ('plain', 'bn', 'factorized', 'residual'):
    config.aux_heads, size = 'on', 96
  network = network_lib.make_network(config)
  params, state = abstract_init(network, (size, size, 3))
  outputs, _ = jax.eval_shape(
    lambda p, s: network.apply(
      p, s, None, jnp.zeros((2, size, size, 3)), False, with_end_points=True
    ),
    params,
    state,
  )
  walk = graph.walk(network.architecture, (size, size, 3), 7)
  shapes = {name: y.shape[1:] for name, y in outputs.end_points.items()}
  shapes |= {name: y.shape[1:] for name, y in outputs.aux_logits.items()}
  assert shapes == walk.shapes
  weights = [leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
  assert sum(op.weights for op in walk.operations) == sum(weights)
  for op in walk.operations:
    assert not op.weights or op.name in params, op.name


@VARIANTS
def test_smallest_image(variant):
  """The next smaller image is refused or reaches some step as one pixel."""
  network = network_lib.make_network(small_config(variant))
  smallest = graph.smallest_image(network.architecture)
  assert smallest <= SMALL[variant]
  graph.walk(network.architecture, (smallest, smallest, 1), 10)
  below = (smallest - 1, smallest - 1, 1)
  try:
    is_usable = graph.walk(network.architecture, below, 10).smallest > 1
  except ValueError:
    is_usable = False
  assert not is_usable


@pytest.mark.parametrize(
  ('variant', 'depth'),
  [('plain', 22), ('paper', 22), ('alexnet', 8), ('vgg16', 16), ('nin', 12)],
)
def test_depth(variant, depth):
  architecture = variants.resolve(model_config(variant=variant))
  assert graph.walk(architecture, (224, 224, 3), 10).depth == depth


def test_native_28_costs_less_than_96():
  costs = [
    summary.summarize(model_config(variant=variant), (size, size, 1))[-1]
    for variant, size in (('fmnist28', 28), ('plain', 96))
  ]
  assert costs[0].multiply_adds < costs[1].multiply_adds / 2


@pytest.mark.parametrize('variant', ['bn', 'paper'])
def test_width_multiplier(variant):
  """Twice the width: nearly four times the weights; logits stay."""
  _, params, _ = make((96, 96, 1), variant=variant)
  _, wide, _ = make((96, 96, 1), variant=variant, width_multiplier=2.0)
  assert params.keys() == wide.keys()
  w, twice = (p['inception_3a/conv_3x3']['w'] for p in (params, wide))
  assert twice.shape == (3, 3, 2 * w.shape[2], 2 * w.shape[3])
  assert wide['logits']['w'].shape == (2048, 10)


# ---- What they compute.


# Compiling is what takes time: the others only with `-m slow`.
QUICK = ('tiny',)


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in variants.ARCHITECTURES
  ],
)
def test_gradient_step_alone_and_in_two_parts(variant):
  """Every parameter gets a gradient, and the loss falls along it.

  In float64: in float32 a network this deep moves its gradient by percents
  where a sum is formed in another order, and mistakes would hide in that.

  Two devices with half of the batch each get the same one, and the same running
  statistics: `vmap` averages over its axis as `pmap` does over devices.
  """
  with jax.enable_x64(True):
    size = SMALL[variant]
    network = network_lib.make_network(small_config(variant))
    params, state = init_from_numpy(network, (size, size, 1), 0)
    params, state, photos = jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float64),
      (params, state, images(4, size, size, 1)),
    )
    batch = (photos, jnp.array([1, 3, 5, 7]), keys(4))

    def loss(params, axis_name, images, labels, keys):
      outputs, new_state = network.apply(
        params, state, keys, images, True, axis_name=axis_name
      )
      heads = [outputs.logits, *outputs.aux_logits.values()]
      losses = [
        loss_lib.cross_entropy(logits, labels).mean() for logits in heads
      ]
      return sum(losses), new_state

    def in_two_parts(params):
      def part(*batch):
        result = jax.value_and_grad(loss, has_aux=True)(params, 'parts', *batch)
        return jax.lax.pmean(result, 'parts')

      halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
      return jax.vmap(part, axis_name='parts', out_axes=None)(*halves)

    def alone(params):
      return jax.value_and_grad(loss, has_aux=True)(params, None, *batch)

    step, in_two_parts = (
      compile_with(FAST_TO_COMPILE, jax.jit(function).lower(params))
      for function in (alone, in_two_parts)
    )
    (before, new_state), grads = step(params)
    (again, state_again), grads_again = in_two_parts(params)
    np.testing.assert_allclose(again, before, rtol=1e-6)
    chex.assert_trees_all_close(state_again, new_state, rtol=1e-6, atol=1e-9)
    difference = optax.global_norm(optax.tree.sub(grads, grads_again))
    assert difference < 1e-6 * optax.global_norm(grads)
    # A step that should take a ten-thousandth off the loss does so.
    fall = 1e-4 * before
    rate = fall / optax.global_norm(grads) ** 2
    moved = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    (after, _), _ = step(moved)
    np.testing.assert_allclose(before - after, fall, rtol=0.1)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
      assert np.any(grad), path
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    for old, new in zip(
      jax.tree.leaves(state), jax.tree.leaves(new_state), strict=True
    ):
      assert np.isfinite(new).all()
      assert np.any(np.asarray(new) != old)


@pytest.mark.parametrize(
  ('variant', 'kernels'),
  [
    ('paper', 'gpu'),  # its blocks are those of the others too
    ('paper', 'onednn'),
    ('paper', 'cpu'),
    ('residual', 'cpu'),
    *(
      pytest.param(*pair, marks=pytest.mark.slow)
      for pair in (
        ('residual', 'onednn'),
        ('factorized', 'onednn'),
        ('factorized', 'cpu'),
      )
    ),
  ],
)
def test_kernels_agree(variant, kernels):
  if kernels == 'onednn' and not layers.onednn.is_available(
    jnp.dtype('float32')
  ):
    pytest.skip('XLA has no oneDNN here')
  size = SMALL[variant]
  shape = (size, size, 1)
  results = []
  for name in ('xla', kernels):
    network, params, state = make(shape, variant=variant, kernels=name)

    @jax.jit
    def run(params, state=state, network=network):
      outputs, _ = network.apply(
        params, state, keys(2), images(2, *shape), is_training=True
      )
      return outputs.logits, outputs.aux_logits

    results.append(run(params))
  # Batch norm over the few numbers of so small a batch magnifies rounding.
  chex.assert_trees_all_close(*results, rtol=1e-3, atol=5e-4)


def test_batch_norm_equals_numpy():
  """Values in training and evaluation, and the running statistics."""
  network, params, state = make(
    (28, 28, 1), variant='tiny', normalization='batch', batch_norm_decay=0.8
  )
  x = images(6, 28, 28, 1)
  name = 'conv_1/conv_7x7'
  rng = np.random.default_rng(1)
  p = params[name]
  assert set(p) == {'w', 'scale', 'offset'}
  p['scale'] = rng.uniform(0.5, 2, 8).astype(np.float32)
  p['offset'] = rng.normal(size=8).astype(np.float32)
  state[name]['mean'] = rng.normal(size=8).astype(np.float32)
  state[name]['variance'] = rng.uniform(0.5, 2, 8).astype(np.float32)
  y = np.asarray(layers.KERNELS['xla'].conv(x, p['w'], 2), np.float64)
  mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
  count = y[..., 0].size

  def normalized(mean, variance):
    z = (y - mean) / np.sqrt(variance + 1e-3) * p['scale'] + p['offset']
    return np.maximum(z, 0)

  for is_training in (True, False):
    outputs, new = network.apply(params, state, None, x, is_training, True)
    expected = (
      normalized(mean, variance)
      if is_training
      else normalized(state[name]['mean'], state[name]['variance'])
    )
    np.testing.assert_allclose(
      outputs.end_points['conv_1'], expected, rtol=1e-4, atol=1e-4
    )
    if not is_training:
      chex.assert_trees_all_equal(new, state)
      continue
    np.testing.assert_allclose(
      new[name]['mean'], 0.8 * state[name]['mean'] + 0.2 * mean, rtol=1e-4
    )
    np.testing.assert_allclose(
      new[name]['variance'],
      0.8 * state[name]['variance'] + 0.2 * variance * count / (count - 1),
      rtol=1e-4,
    )


def test_dropout_is_by_image_and_keeps_the_mean():
  setting = Setting(layers.KERNELS['xla'], 'none', 'relu')
  x = jnp.ones((4, 5000))

  def drop(place, is_training=True, **changes):
    given = setting._replace(is_training=is_training, **changes)
    # Dropout asks Haiku whether parameters are being made.
    function = network_lib.hk.transform(
      lambda: regularization.dropout(x, 0.4, place, given)
    )
    return np.asarray(function.apply({}, None))

  dropped = drop(0, keys=keys(4))
  assert set(np.unique(dropped)) == {0, np.float32(1 / 0.6)}
  np.testing.assert_allclose((dropped == 0).mean(1), 0.4, atol=0.03)
  assert not np.array_equal(dropped[0], dropped[1])
  assert not np.array_equal(dropped, drop(1, keys=keys(4)))
  turned = drop(0, keys=keys(4)[::-1])
  np.testing.assert_array_equal(turned, dropped[::-1])
  np.testing.assert_array_equal(drop(0, is_training=False), x)
  with pytest.raises(ValueError, match='keys'):
    drop(0)


def test_no_two_dropouts_of_a_network_draw_the_same_mask(monkeypatch):
  """Two rows in one stage, one in another, one in the head."""
  rows = variants.rows
  stages = (
    rows.Stage('stage_1', (rows.Dropout(), rows.Dropout(0.5))),
    rows.Stage('stage_2', (rows.Dropout(),)),
  )
  architecture = variants.Architecture(stages, dropout=0.5)
  monkeypatch.setitem(variants.ARCHITECTURES, 'tiny', architecture)
  network = network_lib.make_network(small_config('tiny', kernels='xla'))
  drop, masks = regularization.dropout, []

  def keep_mask(x, rate, place, setting):
    if not setting.is_training or setting.keys is None:
      return x
    assert rate == 0.5
    masks.append(np.asarray(drop(jnp.ones((2, 64)), rate, place, setting)))
    return x

  monkeypatch.setattr(regularization, 'dropout', keep_mask)
  x = jnp.ones((2, 8, 8, 1))
  params, state = network.init(jax.random.key(0), x)
  network.apply(params, state, keys(2), x, True)
  assert len(masks) == 4
  for one, other in itertools.combinations(masks, 2):
    assert not np.array_equal(one, other)


def test_stochastic_depth_drops_whole_images():
  """Huang et al., 2016: more often the deeper, the mean as in evaluation."""
  model = load_config(ROOT / 'configs/fmnist96.py').unlock().model
  model.variant, model.stochastic_depth = 'residual', 0.5
  residuals = [
    row.residual
    for stage in variants.resolve(model).stages
    for row in stage.rows
    if isinstance(row, variants.Block)
  ]
  rates = [residual.drop_rate for residual in residuals]
  count = len(residuals)
  np.testing.assert_allclose(rates, 0.5 * np.arange(1, count + 1) / count)
  assert [residual.place for residual in residuals] == list(range(1, count + 1))
  assert rates[-1] == 0.5
  model.variant = 'bn'
  with pytest.raises(UserError, match='no residual blocks'):
    variants.resolve(model)

  kernels = layers.select_kernels('xla', 'cpu', jnp.float32)
  setting = Setting(kernels, 'none', 'relu', is_training=True, keys=keys(1000))
  x = jnp.ones((1000, 2, 2, 3))

  def drop(place, **changes):
    here = setting._replace(**changes)
    fn = hk.transform(lambda: regularization.drop_branches(x, 0.2, place, here))
    return np.asarray(fn.apply({}, None))

  dropped = drop(1)
  kept = dropped.any((1, 2, 3))
  np.testing.assert_array_equal(dropped[~kept], 0)
  np.testing.assert_allclose(dropped[kept], 1.25)
  assert 0.75 < kept.mean() < 0.85
  assert 0.25 < np.mean(kept != drop(2).any((1, 2, 3))) < 0.4
  np.testing.assert_array_equal(drop(1, keys=keys(1000)[::-1]), dropped[::-1])
  np.testing.assert_array_equal(drop(1, is_training=False), x)
  with pytest.raises(ValueError, match='keys'):
    drop(1, keys=None)


@pytest.mark.parametrize('kernels', ['xla', 'cpu'])
def test_a_dropped_block_is_its_input(kernels):
  """In each layout of the kernels: image by image."""
  row = rows.Block(
    'block',
    ((rows.Conv('conv_1x1', 4, 1),),),
    rows.Residual(3, 1.0, drop_rate=0.5, place=1),
  )
  chosen = layers.select_kernels(kernels, 'cpu', jnp.float32)
  x = jnp.abs(jax.random.normal(jax.random.key(1), (16, 4, 4, 3)))

  def forward(x, image_keys, is_training):
    setting = Setting(
      chosen, 'none', 'relu', is_training=is_training, keys=image_keys
    )
    return chosen.leave(modules.Block(row, setting)(chosen.enter(x)))

  block = hk.without_apply_rng(hk.transform(forward))
  params = block.init(jax.random.key(0), x, keys(16), True)
  trained = np.asarray(block.apply(params, x, keys(16), True))
  whole = np.asarray(block.apply(params, x, keys(16), False))
  is_input = np.isclose(trained, x).all((1, 2, 3))
  assert 0 < is_input.sum() < 16
  assert not np.isclose(trained, whole)[~is_input].all()
  model_x = np.asarray(x)
  added = (trained - model_x)[~is_input]
  positive = trained[~is_input] > 0
  expected = 2 * (whole - model_x)[~is_input]
  inner = positive & (whole[~is_input] > 0)  # where no ReLU is in between
  np.testing.assert_allclose(added[inner], expected[inner], atol=1e-5)


def test_aux_heads_are_trained_by_their_share(config):
  """The gradient is that of loss + 0.3 * (aux_1 + ...), Szegedy et al."""
  config.model.aux_heads = 'on'
  config.model.kernels = 'xla'
  network = network_lib.make_network(config.model)
  params, state = init_from_numpy(network, (28, 28, 1), 0)
  loss_fn = loss_lib.make_loss_fn(network, config)
  batch = {
    'image': np.random.default_rng(0).integers(
      0, 256, (8, 28, 28, 1), dtype=np.uint8
    ),
    'label': np.arange(8),
  }
  loss, (_, metrics) = loss_fn(params, state, batch, (keys(8), keys(8)))
  assert set(metrics) == {'loss', 'accuracy', 'aux_1_loss'}
  np.testing.assert_allclose(
    loss, metrics['loss'] + 0.3 * metrics['aux_1_loss'], rtol=1e-6
  )
  pixels = (jnp.asarray(batch['image']) / 255 - 0.2860) / 0.3530
  outputs, _ = network.apply(params, state, keys(8), pixels, True)
  aux_loss = loss_lib.cross_entropy(outputs.aux_logits['aux_1'], batch['label'])
  np.testing.assert_allclose(metrics['aux_1_loss'], aux_loss.mean(), rtol=1e-4)
  config.train.aux_loss_weight = 0.0
  alone, _ = loss_lib.make_loss_fn(network, config)(
    params, state, batch, (keys(8), keys(8))
  )
  np.testing.assert_allclose(alone, metrics['loss'], rtol=1e-6)


def test_results_have_one_type_in_training_and_evaluation():
  network, params, state = make((28, 28, 1), variant='tiny', aux_heads='on')
  structures = {
    str(
      jax.tree.structure(
        network.apply(params, state, keys(2), images(2, 28, 28, 1), training)
      )
    )
    for training in (True, False)
  }
  assert len(structures) == 1


def test_adaptive_pooling_equals_pytorchs_windows():
  """14 -> 4: rows 0-3, 3-6, 7-10, 10-13; 5 -> 4 shares pixels, 2 -> 4 too."""
  for size in (14, 5, 2):
    x = images(2, size, size, 3)
    starts = [i * size // 4 for i in range(4)]
    stops = [int(np.ceil((i + 1) * size / 4)) for i in range(4)]
    expected = np.stack(
      [
        np.stack(
          [
            x[:, a:b, c:d].mean((1, 2)) for c, d in zip(starts, stops, strict=1)
          ],
          1,
        )
        for a, b in zip(starts, stops, strict=True)
      ],
      1,
    )
    actual = modules.adaptive_avg_pool(jnp.asarray(x), 4)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_activation_is_a_field(activation):
  network, params, state = make(
    (28, 28, 1), variant='tiny', activation=activation
  )
  outputs, _ = network.apply(
    params, state, None, images(2, 28, 28, 1), False, with_end_points=True
  )
  y = outputs.end_points['conv_1']
  p = params['conv_1/conv_7x7']
  z = layers.KERNELS['xla'].conv(images(2, 28, 28, 1), p['w'], 2) + p['b']
  np.testing.assert_allclose(
    y, ACTIVATIONS[activation](z), rtol=1e-4, atol=1e-5
  )


# ---- Refusals.


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'variant': 'vgg16', 'normalization': 'lrn'},
      r"config\.model\.normalization='lrn'.*vgg16.*auto, none, batch",
    ),
    (
      {'variant': 'alexnet', 'aux_heads': 'on'},
      r"config\.model\.aux_heads='on'.*alexnet.*auto, off",
    ),
  ],
)
def test_what_a_network_does_not_have_is_refused(changes, message):
  with pytest.raises(UserError, match=message):
    variants.resolve(model_config(**changes))


def test_names_of_a_paper_checkpoint_are_stable():
  _, params, _ = make((96, 96, 1), variant='paper')
  heads = {name for name in params if name.startswith('aux')}
  assert heads == {
    f'aux_{i}/{part}' for i in (1, 2) for part in ('conv_1x1', 'fc', 'logits')
  }
  assert count_parameters(params['aux_1/fc']) == (128 * 1 * 1 + 1) * 1024


def test_comparison_of_all_networks(launch_here):
  """At 28 pixels only some fit; at 224, with 1000 classes, published sizes."""
  done = launch_here(
    '--mode=summary', '--compare', '--config.data.image_size=28'
  )
  assert done.returncode == 0, done.stderr
  lines = [line.split() for line in done.stdout.splitlines()]
  assert lines[0] == ['28x28x1,', '10', 'classes']
  table = {line[0]: line[1:] for line in lines[2:-1]}
  assert list(table) == list(variants.ARCHITECTURES)
  assert table['alexnet'] == ['-'] * 4 + ['63']
  assert table['fmnist28'][:3] == ['22', '5,982,250', '134,612,480']

  config = model_config(num_classes=1000)
  sizes = {
    size.variant: size for size in summary.compare_sizes(config, (224, 224, 3))
  }
  assert sizes['paper'].parameters == 6_998_552
  assert sizes['inception_v3'].parameters == 23_834_568
  assert sizes['vgg16'].depth == 16
  # 13 convolutions, 5 poolings, 3 fully connected layers of VGG-16.
  sides = [(224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3)]
  sides.append((14, 512, 3))
  expected = sum(s * s * c * n + (s // 2) ** 2 * c for s, c, n in sides)
  assert sizes['vgg16'].activations == expected + 4096 + 4096 + 1000
