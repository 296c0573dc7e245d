"""Schedule-free learning against a loop in NumPy, optax, and its own run."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from run_files import assert_same_end

from googlenet import config as config_lib
from googlenet import optimizer as optimizer_lib
from googlenet.data import pipeline
from googlenet.io import checkpoint
from googlenet.optimizer.schedule_free import with_schedule_free
from googlenet.runtime.parallel import parallelize
from googlenet.tools import inference
from googlenet.train import carry_over, loop
from googlenet.train.state import make_train_state
from googlenet.train.step import make_update_step


def make_rule(config):
  """Returns the whole optimizer of the `optimizer` section."""
  schedule = optimizer_lib.make_schedule(config, 10, 100)
  rule = optimizer_lib.make_optimizer(config, schedule)
  return with_schedule_free(rule, schedule, config)


@pytest.fixture
def free(config):
  config.optimizer.schedule_free = True
  config.optimizer.schedule = 'constant'
  config.optimizer.warmup_steps = 0
  config.optimizer.grad_clip_norm = 0.0
  return config


def draw(rng):
  return {'m': {n: rng.normal(size=3).astype(np.float32) for n in ('w', 'b')}}


def test_sgd_against_a_loop(free):
  """Weights decay at y; the average weighs every step alike."""
  free.optimizer.momentum, free.optimizer.weight_decay = 0.8, 0.1
  free.optimizer.learning_rate = 0.05
  rule, rng = make_rule(free.optimizer), np.random.default_rng(0)
  params = draw(rng)
  state = rule.init(params)
  x = z = jax.tree.map(lambda p: p.astype(np.float64), params)
  for step in range(1, 6):
    grads = draw(rng)
    decayed = {**grads['m'], 'w': grads['m']['w'] + 0.1 * params['m']['w']}
    z = {'m': {n: z['m'][n] - 0.05 * decayed[n] for n in ('w', 'b')}}
    x = jax.tree.map(lambda x, z, k=step: x + (z - x) / k, x, z)
    updates, state = rule.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    y = jax.tree.map(lambda x, z: 0.8 * x + 0.2 * z, x, z)
    chex.assert_trees_all_close(params, y, rtol=1e-5)
    chex.assert_trees_all_close(
      optax.contrib.schedule_free_eval_params(state, params), x, rtol=1e-5
    )


@pytest.mark.parametrize('name', ['adam', 'adamw'])
def test_adam_is_that_of_optax(free, name):
  free.optimizer.name = name
  free.optimizer.weight_decay = 0.1 * (name == 'adamw')
  free.optimizer.decays = ('*/b=1',)
  free.optimizer.warmup_steps = 4
  ours = make_rule(free.optimizer)
  schedule = optimizer_lib.make_schedule(free.optimizer, 10, 100)
  theirs = optax.contrib.schedule_free_adamw(
    schedule, b1=0.9, weight_decay=0.1 * (name == 'adamw')
  )
  rng = np.random.default_rng(0)
  one = other = draw(rng)
  state, expected = ours.init(one), theirs.init(other)
  for _ in range(6):
    grads = draw(rng)
    updates, state = ours.update(grads, state, one)
    one = optax.apply_updates(one, updates)
    updates, expected = theirs.update(grads, expected, other)
    other = optax.apply_updates(other, updates)
    chex.assert_trees_all_close(one, other, rtol=1e-6)


def test_another_share_keeps_the_average(free):
  """A run that is continued: y moves between the same x and z."""
  rng = np.random.default_rng(0)
  params, grads = draw(rng), draw(rng)
  rule = make_rule(free.optimizer)
  y, opt_state = params, rule.init(params)
  for _ in range(2):  # after the first, x is z
    updates, opt_state = rule.update(grads, opt_state, y)
    y = optax.apply_updates(y, updates)
  x = optax.contrib.schedule_free_eval_params(opt_state, y)
  config = config_lib.resolve(free)
  run = make_train_state(params, {}, rule, config.train)
  state = run._replace(params=y, opt_state=opt_state, ema_params=x)
  free.optimizer.momentum = 0.6
  like = make_train_state(params, {}, make_rule(free.optimizer), config.train)
  names = checkpoint._flatten(checkpoint._trees(state))
  sources = carry_over.find_sources(names, set(names))
  found, told = carry_over.finish(
    jax.device_get(state), like, sources, {'optimizer.momentum': (0.9, 0.6)}
  )
  assert told == ''
  chex.assert_trees_all_close(
    optax.contrib.schedule_free_eval_params(found.opt_state, found.params),
    x,
    rtol=1e-5,
  )
  chex.assert_trees_all_equal(found.opt_state.z, opt_state.z)
  assert found.opt_state.b1 == jnp.float32(0.6)
  assert np.abs(found.params['m']['w'] - y['m']['w']).max() > 1e-3


def test_a_step_keeps_the_average_for_evaluation(free):
  """With the statistics of the step; a step that is left out moves nothing."""
  free.train.on_nonfinite = 'skip'
  config = config_lib.resolve(free)
  rule, params = make_rule(config.optimizer), draw(np.random.default_rng(0))
  state = make_train_state(
    params, {'bn': {'mean': jnp.ones(2)}}, rule, config.train
  )
  chex.assert_trees_all_equal(state.eval_params, params)
  step = parallelize(
    make_update_step(rule, lambda n: 0.05, config.train),
    in_axes=(None, None, None, 0),
    out_axes=None,
  )
  metrics = {'loss': jnp.ones(1), 'accuracy': jnp.ones(1)}
  grads = draw(np.random.default_rng(1))
  for number in (2.0, 3.0):
    state, _ = step(
      state, grads, {'bn': {'mean': number * jnp.ones(2)}}, metrics
    )
    expected = optax.contrib.schedule_free_eval_params(
      state.opt_state, state.params
    )
    chex.assert_trees_all_close(state.eval_params, expected, rtol=1e-6)
    assert state.eval_network_state['bn']['mean'][0] == number
  assert state.eval_params is state.ema_params
  assert np.any(state.params['m']['w'] != state.ema_params['m']['w'])
  nan = {'bn': {'mean': jnp.full(2, np.nan)}}
  after, _ = step(state, grads, nan, metrics)
  chex.assert_trees_all_equal(after[1:4], state[1:4])
  chex.assert_trees_all_equal(after[5:], state[5:])


@pytest.mark.slow
def test_what_was_evaluated_is_what_tools_read(free, tmp_path):
  """And a run that is cut off between two evaluations ends with its bits."""
  free.model.normalization = 'batch'
  free.eval.batch_norm_batches = 2
  free.data.train_split = 'train[:325]'
  free.data.eval_split = 'test[:100]'
  free.train.batch_size = 32
  free.train.max_steps = 15
  free.checkpoint.every_steps = 4
  free.checkpoint.keep = 9
  free.logging.tensorboard = False
  config, whole = config_lib.resolve(free), tmp_path / 'whole'
  result = loop.train_and_evaluate(config, whole)

  with np.load(checkpoint.path_of(whole, 15)) as file:
    arrays = dict(file)
  b1 = arrays['opt_state/b1']
  loaded = inference.load(whole)
  for module, leaves in loaded.params.items():
    for name, leaf in leaves.items():
      y, z, x = (
        arrays[f'{tree}/{module}/{name}']
        for tree in ('params', 'opt_state/z', 'ema_params')
      )
      np.testing.assert_array_equal(leaf, x)
      np.testing.assert_allclose(x, (y - (1 - b1) * z) / b1, rtol=1e-5)
      assert np.any(x != y)
  for module, leaves in loaded.network_state.items():
    for name, leaf in leaves.items():
      path = f'network_state/{module}/{name}'
      np.testing.assert_array_equal(leaf, arrays[f'ema_{path}'])
      assert np.any(leaf != arrays[path])  # precise BN
  split = pipeline.load_split(config, 'eval_split')
  images, labels = split.read(np.arange(100))
  hits = np.argmax(loaded.predict(images), -1) == labels
  assert result['eval/accuracy'] == pytest.approx(hits.mean())

  cut = tmp_path / 'cut'
  shutil.copytree(whole, cut)
  (cut / 'result.json').unlink()
  for step in (8, 10, 12, 15):
    checkpoint.path_of(cut, step).unlink()
  loop.train_and_evaluate(config, cut)
  assert_same_end(whole, cut)
