"""What every network computes: gradients, kernels, heads, refusals."""

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import (
  FAST_TO_COMPILE,
  SMALL,
  XLA,
  images,
  keys,
  make,
  model_config,
  small_config,
)

from googlenet import kernels as kernels_lib
from googlenet.errors import UserError
from googlenet.kernels.adaptive_pooling import adaptive_avg_pool
from googlenet.model import modules, rows, variants
from googlenet.model import network as network_lib
from googlenet.model.context import ACTIVATIONS, Context
from googlenet.model.initialization import count_parameters, init_from_numpy
from googlenet.runtime.compilation import compile_with
from googlenet.train import loss as loss_lib


@pytest.mark.parametrize('variant', ['bn', 'paper'])
def test_width_multiplier(variant):
  """Twice the width: nearly four times the weights; logits stay."""
  _, params, _ = make((96, 96, 1), variant=variant)
  _, wide, _ = make((96, 96, 1), variant=variant, width_multiplier=2.0)
  assert params.keys() == wide.keys()
  w, twice = (p['inception_3a/conv_3x3']['w'] for p in (params, wide))
  assert twice.shape == (3, 3, 2 * w.shape[2], 2 * w.shape[3])
  assert wide['logits']['w'].shape == (2048, 10)


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
    difference = optax.tree.norm(optax.tree.sub(grads, grads_again))
    assert difference < 1e-6 * optax.tree.norm(grads)
    # A step that should take a ten-thousandth off the loss does so.
    fall = 1e-4 * before
    rate = fall / optax.tree.norm(grads) ** 2
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
    # kernels_test.py has every operation of every set, points_test.py each
    # point of a small network.
    *(
      pytest.param(*pair, marks=pytest.mark.slow)
      for pair in (
        ('paper', 'cpu'),
        ('paper', 'gpu'),
        ('paper', 'onednn'),
        ('residual', 'cpu'),
        ('residual', 'onednn'),
        ('factorized', 'onednn'),
        ('factorized', 'cpu'),
      )
    ),
  ],
)
def test_kernels_agree(variant, kernels):
  if kernels == 'onednn' and not kernels_lib.onednn.is_available(
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
  y = np.asarray(XLA.conv(x, p['w'], stride=2), np.float64)
  mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
  count = y[..., 0].size

  def normalized(mean, variance):
    z = (y - mean) / np.sqrt(variance + 1e-3) * p['scale'] + p['offset']
    return np.maximum(z, 0)

  for is_training in (True, False):
    outputs, new = network.apply(
      params, state, None, x, is_training, ['conv_1']
    )
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


@pytest.mark.parametrize('kernels', ['xla', 'cpu'])
def test_squeeze_and_excite_against_numpy(kernels):
  """A block with it is the block without, times gates by the paper's formula.

  In each layout of the kernels. Every parameter gets a gradient.
  """
  chosen = kernels_lib.KERNELS[kernels]
  plain = rows.Block(
    'block',
    ((rows.Conv('conv_1x1', 5, 1),), (rows.Conv('conv_3x3', 7, 3),)),
  )
  x = images(3, 6, 4, 2)

  def forward(row):
    def apply(x):
      block = modules.Inception(row, Context(chosen, 'none', 'relu'))
      return chosen.from_layout(block(chosen.to_layout(x)))

    return hk.without_apply_rng(hk.transform(apply))

  with_gates = forward(plain._replace(after=(rows.SqueezeExcite(4),)))
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32),
    with_gates.init(jax.random.key(0), x),
  )
  y = np.asarray(forward(plain).apply(params, x), np.float64)
  reduce, expand = params['block/se_reduce'], params['block/se_expand']
  assert reduce['w'].shape == (12, 3)
  hidden = np.maximum(y.mean((1, 2)) @ reduce['w'] + reduce['b'], 0)
  gates = 1 / (1 + np.exp(-(hidden @ expand['w'] + expand['b'])))
  np.testing.assert_allclose(
    with_gates.apply(params, x), y * gates[:, None, None], rtol=1e-4, atol=1e-5
  )
  grads = jax.grad(lambda p: jnp.sum(jnp.sin(with_gates.apply(p, x))))(params)
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(grad).all(), path
    assert np.any(grad), path


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
    actual = adaptive_avg_pool(jnp.asarray(x), 4)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_activation_is_a_field(activation):
  network, params, state = make(
    (28, 28, 1), variant='tiny', activation=activation
  )
  outputs, _ = network.apply(
    params, state, None, images(2, 28, 28, 1), False, end_points=['conv_1']
  )
  y = outputs.end_points['conv_1']
  p = params['conv_1/conv_7x7']
  z = XLA.conv(images(2, 28, 28, 1), p['w'], stride=2) + p['b']
  np.testing.assert_allclose(
    y, ACTIVATIONS[activation](z), rtol=1e-4, atol=1e-5
  )


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
