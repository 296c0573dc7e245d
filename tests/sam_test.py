"""SAM against two gradients by hand, on one device and on four."""

import types

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from googlenet.optimizer import sam
from googlenet.runtime.parallel import PMAP_AXIS
from googlenet.train import step as step_lib
from googlenet.train.finite import make_finite_check
from googlenet.train.state import TrainState


def test_the_distance_is_that_of_all_parameters_together():
  params = {'a': {'w': jnp.array([1.0, 2.0])}, 'b': {'w': jnp.array([3.0])}}
  grads = {'a': {'w': jnp.array([2.0, 0.0])}, 'b': {'w': jnp.array([1.5])}}
  for factor in (1.0, 1024.0):  # a loss scale
    found = sam.uphill(params, optax.tree.scale(factor, grads), 0.5)
    np.testing.assert_allclose(found['a']['w'], [1.4, 2.0], rtol=1e-6)
    np.testing.assert_allclose(found['b']['w'], [3.3], rtol=1e-6)
  zeros = jax.tree.map(jnp.zeros_like, grads)
  chex.assert_trees_all_equal(sam.uphill(params, zeros, 0.5), params)


RHO, SCALE, KEPT = 2.0, 8.0, 0.5


def logits_of(params, keys, images):
  """A linear layer on four pixels, with dropout by key; float32 [B, 10]."""
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, KEPT, (4,)))(keys)
  return jnp.where(kept, images.reshape(len(images), 4), 0) @ params['m']['w']


def apply(params, state, keys, images, is_training, axis_name):
  logits = logits_of(params, keys, images)
  state = {'m': {'mean': jax.lax.pmean(logits.mean(0), axis_name)}}
  return types.SimpleNamespace(logits=logits, aux_logits={}), state


def make_state():
  w = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
  return TrainState(
    jnp.zeros((), jnp.int32),
    {'m': {'w': jnp.asarray(w)}},
    {'m': {'mean': jnp.zeros(10)}},
    (),
    make_finite_check(SCALE),
    {},
    {},
  )


BATCH = {
  'image': np.random.default_rng(1).integers(0, 256, (8, 2, 2, 1), np.uint8),
  'label': np.arange(8, dtype=np.int32),
}


def gradient(config, devices):
  """Returns gradients, statistics and mean metrics over so many devices."""
  config.optimizer.sam_rho = RHO
  config.data.image_size = 2
  step = step_lib.make_gradient_step(hk.Transformed(None, apply), config)
  batch = {n: x.reshape(devices, -1, *x.shape[1:]) for n, x in BATCH.items()}
  call = jax.jit(jax.vmap(step, (None, 0, None), axis_name=PMAP_AXIS))
  grads, statistics, metrics = call(make_state(), batch, jnp.uint32(0))
  first = jax.tree.map(lambda x: x[0], (grads, statistics))
  return *first, jax.tree.map(lambda x: x.mean(0), metrics)


def test_the_gradient_against_two_by_hand(config):
  """With the same dropout in both; statistics and loss are of the first."""
  places = jnp.arange(8)
  _, (_, keys) = step_lib.drawn(BATCH, places, jnp.uint32(0), 0, 'none')
  images = jnp.asarray((BATCH['image'] / 255 - 0.2860) / 0.3530, jnp.float32)

  def loss_fn(params):
    logits = logits_of(params, keys, images)
    log_p = jax.nn.log_softmax(logits)
    return -log_p[places, BATCH['label']].mean(), logits.mean(0)

  loss_and_gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))

  params = make_state().params
  (loss, mean), first = loss_and_gradient(params)
  w, g = params['m']['w'], first['m']['w']
  moved = {'m': {'w': w + RHO * g / jnp.sqrt(jnp.sum(g**2))}}
  second = loss_and_gradient(moved)[1]['m']['w']
  assert np.abs(second - g).max() > 0.01
  for devices in (1, 4):
    grads, statistics, metrics = gradient(config, devices)
    np.testing.assert_allclose(
      grads['m']['w'], SCALE * second, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
      statistics['m']['mean'], mean, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
