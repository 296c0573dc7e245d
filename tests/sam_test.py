"""SAM against two gradients by hand; on one device and on four."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, environment

from googlenet import config as config_lib
from googlenet import optimizer as optimizer_lib
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.optimizer import sam
from googlenet.train import step as step_lib
from googlenet.train.state import make_train_state


def test_the_distance_is_that_of_all_parameters_together():
  params = {'a': {'w': jnp.array([1.0, 2.0])}, 'b': {'w': jnp.array([3.0])}}
  grads = {'a': {'w': jnp.array([2.0, 0.0])}, 'b': {'w': jnp.array([1.5])}}
  for factor in (1.0, 1024.0):  # a loss scale
    found = sam.uphill(params, jax.tree.map(lambda g: factor * g, grads), 0.5)
    np.testing.assert_allclose(found['a']['w'], [1.4, 2.0], rtol=1e-6)
    np.testing.assert_allclose(found['b']['w'], [3.3], rtol=1e-6)
  zeros = jax.tree.map(jnp.zeros_like, grads)
  chex.assert_trees_all_equal(sam.uphill(params, zeros, 0.5), params)


def make_step(config):
  """Returns the network, the first state, and the training step."""
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  params, network_state = init_from_numpy(network, (28, 28, 1), config.seed)
  schedule = optimizer_lib.make_schedule(config.optimizer, 10, 100)
  rule = optimizer_lib.make_optimizer(config.optimizer, schedule)
  state = make_train_state(params, network_state, rule, config.train)
  return (
    network,
    state,
    step_lib.make_train_step(network, rule, schedule, config),
  )


def make_batch(devices=1):
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(
      0, 256, (devices, 16 // devices, 28, 28, 1), np.uint8
    ),
    'label': rng.integers(0, 10, (devices, 16 // devices)).astype(np.int32),
  }


@pytest.fixture
def plain(config):
  """SGD without anything, on a network with batch norm and dropout."""
  config.model.normalization = 'batch'
  config.model.dropout = 0.5
  config.optimizer.schedule = 'constant'
  config.optimizer.warmup_steps = 0
  config.optimizer.momentum = 0.0
  config.optimizer.weight_decay = 0.0
  config.optimizer.grad_clip_norm = 0.0
  config.optimizer.sam_rho = 0.5
  return config


def test_a_step_against_two_gradients_by_hand(plain):
  """Both with the same dropout; statistics and loss are of the first."""
  network, state, train_step = make_step(plain)
  batch = make_batch()
  params, network_state = jax.device_get((state.params, state.network_state))
  _, (_, keys) = step_lib.drawn(
    batch, jnp.arange(16), np.uint32(0), np.int32(0), 'none'
  )

  def loss_fn(params):
    x = (batch['image'][0] / 255 - 0.2860) / 0.3530
    outputs, statistics = network.apply(
      params, network_state, keys, jnp.asarray(x, jnp.float32), True
    )
    log_p = jax.nn.log_softmax(outputs.logits)
    loss = -jnp.mean(log_p[jnp.arange(16), batch['label'][0]])
    return loss, statistics

  gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
  (loss, statistics), first = gradient(params)
  squares = sum(np.sum(np.square(g)) for g in jax.tree.leaves(first))
  moved = jax.tree.map(lambda p, g: p + 0.5 * g / squares**0.5, params, first)
  _, second = gradient(moved)
  state, metrics = train_step(state, batch, np.uint32(0))
  chex.assert_trees_all_close(
    state.params,
    jax.tree.map(lambda p, g: p - 0.05 * g, params, second),
    rtol=1e-4,
    atol=1e-6,
  )
  chex.assert_trees_all_close(
    state.network_state, statistics, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  # It matters: the plain gradient would end elsewhere.
  differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), first, second)
  assert max(jax.tree.leaves(differences)) > 0.01


PROGRAM = """
import sys
import jax, numpy as np
from googlenet import config as config_lib
import sam_test
config = config_lib.load('config.json')
_, state, step = sam_test.make_step(config)
state, _ = step(state, sam_test.make_batch(jax.device_count()), np.uint32(0))
leaves = jax.tree.leaves(state.params)
np.save(sys.argv[1], np.concatenate([np.ravel(x) for x in leaves]))
"""


@pytest.mark.slow
def test_four_devices_move_by_the_gradient_of_all(plain, tmp_path):
  """Not each uphill by its own."""
  plain.optimizer.sam_rho = 0.5
  text = config_lib.to_json(config_lib.resolve(plain))
  (tmp_path / 'config.json').write_text(text)
  for devices in (1, 4):
    subprocess.run(
      [sys.executable, '-c', PROGRAM, f'{devices}.npy'],
      cwd=tmp_path,
      env={
        **os.environ,
        **environment(devices),
        'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests"}',
      },
      check=True,
    )
  one, four = (np.load(tmp_path / f'{n}.npy') for n in (1, 4))
  np.testing.assert_allclose(four, one, rtol=1e-4, atol=1e-6)
