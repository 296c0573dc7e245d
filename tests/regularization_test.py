"""Dropout and stochastic depth: by image, each draw of its own."""

import zlib

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import XLA, keys, model_config, small_config

from googlenet import kernels as kernels_lib
from googlenet.errors import UserError
from googlenet.model import modules, regularization, rows, variants
from googlenet.model import network as network_lib
from googlenet.model.context import Context


def dropped(make, x, context):
  """Applies a module of dropout to x."""
  return np.asarray(hk.transform(lambda: make(context)(x)).apply({}, None))


def test_dropout_is_by_image_and_keeps_the_mean():
  context = Context(XLA, 'none', 'relu', is_training=True, keys=keys(4))
  x = jnp.ones((4, 5000))

  def drop(name='dropout', **changes):
    def make(context):
      return regularization.Dropout(0.4, context, name)

    return dropped(make, x, context._replace(**changes))

  y = drop()
  assert set(np.unique(y)) == {0, np.float32(1 / 0.6)}
  np.testing.assert_allclose((y == 0).mean(1), 0.4, atol=0.03)
  assert not np.array_equal(y[0], y[1])
  assert not np.array_equal(y, drop('dropout_1'))
  # A function of the path and the key, the same in every process.
  key = jax.random.fold_in(keys(4)[2], np.uint32(zlib.crc32(b'dropout')))
  is_kept = jax.random.bernoulli(key, 0.6, (5000,))
  np.testing.assert_array_equal(y[2] > 0, is_kept)
  np.testing.assert_array_equal(drop(keys=keys(4)[::-1]), y[::-1])
  np.testing.assert_array_equal(drop(is_training=False), x)
  with pytest.raises(ValueError, match='keys'):
    drop(keys=None)


def test_no_two_dropouts_of_a_network_draw_the_same_mask(monkeypatch):
  """Two rows in a stage, one in another, one in the head: each halves."""
  stages = (
    rows.Stage('stage_1', (rows.Dropout(), rows.Dropout(0.5))),
    rows.Stage('stage_2', (rows.Dropout(),)),
  )
  architecture = variants.Architecture(
    stages, (rows.Flatten(), rows.Dropout()), dropout=0.5
  )
  monkeypatch.setitem(variants.ARCHITECTURES, 'tiny', architecture)
  network = network_lib.make_network(small_config('tiny', num_classes=64 * 64))
  outputs, _ = network.apply(
    {},
    {},
    keys(2),
    jnp.ones((2, 64, 64, 1)),
    True,
    end_points=['stage_1', 'stage_2', 'logits'],
  )
  for name, share in (
    ('stage_1', 1 / 4),
    ('stage_2', 1 / 8),
    ('logits', 1 / 16),
  ):
    kept = np.asarray(outputs.end_points[name] > 0).mean()
    np.testing.assert_allclose(kept, share, rtol=0.15)


def test_stochastic_depth_drops_whole_images():
  """Huang et al., 2016: more often the deeper, the mean as in evaluation."""
  config = model_config(variant='residual', stochastic_depth=0.5)
  rates = [
    row.residual.drop_rate
    for stage in variants.resolve(config).stages
    for row in stage.rows
    if getattr(row, 'residual', None)
  ]
  np.testing.assert_allclose(rates, 0.5 * np.arange(1, 10) / 9)
  config.variant = 'bn'
  with pytest.raises(UserError, match='no residual blocks'):
    variants.resolve(config)

  context = Context(
    XLA,
    'none',
    'relu',
    is_training=True,
    keys=keys(1000),
  )
  x = jnp.ones((1000, 2, 2, 3))

  def drop(**changes):
    def make(context):
      return regularization.StochasticDepth(0.2, context)

    return dropped(make, x, context._replace(**changes))

  y = drop()
  kept = y.any((1, 2, 3))
  np.testing.assert_array_equal(y[~kept], 0)
  np.testing.assert_allclose(y[kept], 1.25)
  assert 0.75 < kept.mean() < 0.85
  np.testing.assert_array_equal(drop(keys=keys(1000)[::-1]), y[::-1])
  np.testing.assert_array_equal(drop(is_training=False), x)
  with pytest.raises(ValueError, match='keys'):
    drop(keys=None)


@pytest.mark.parametrize('kernels', ['xla', 'cpu'])
def test_a_dropped_block_is_its_input(kernels):
  """In each layout of the kernels: image by image."""
  row = rows.Block(
    'block',
    ((rows.Conv('conv_1x1', 4, 1),),),
    rows.Residual(3, 1.0, drop_rate=0.5),
  )
  chosen = kernels_lib.select_kernels(kernels, 'cpu', jnp.float32)
  x = jnp.abs(jax.random.normal(jax.random.key(1), (16, 4, 4, 3)))

  def forward(x, image_keys, is_training):
    context = Context(
      chosen, 'none', 'relu', is_training=is_training, keys=image_keys
    )
    return chosen.from_layout(
      modules.Inception(row, context)(chosen.to_layout(x))
    )

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
