"""Steps that are not finite: left out, counted, told; averages; loss scales."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from resume_test import small, train  # noqa: F401
from run_files import records

from googlenet import config as config_lib
from googlenet.data import batches
from googlenet.io.metrics import NonFiniteError
from googlenet.runtime.parallel import parallelize, replicated
from googlenet.train import diagnosis, finite, setup
from googlenet.train import step as step_lib
from googlenet.train.state import make_train_state, update_ema


def check(policy, steps, scale=8.0):
  """Returns the checked steps: '.' finite, 'l' loss, 'g' gradient not."""
  state, checked = finite.make_finite_check(scale), []
  for step in steps:
    one = finite.check_step(
      state, policy, jnp.array(step != 'l'), jnp.array(step == '.')
    )
    state = one.finite_check
    checked.append(jax.device_get(one))
  return checked


def applied(checked):
  return ''.join('x' if one.is_applied else '-' for one in checked)


def in_row(checked):
  return [int(one.finite_check.nonfinite_in_row) for one in checked]


def scales(checked):
  return [float(one.finite_check.loss_scale) for one in checked]


def test_stop_ends_with_the_first():
  checked = check(finite.Policy(1, False, True), '..l..')
  assert applied(checked) == 'xx---'
  assert [bool(one.is_stopped) for one in checked] == [False] * 2 + [True] * 3


def test_skip_ends_with_so_many_in_a_row():
  checked = check(finite.Policy(3, False, False), '.g.lg.llg..')
  assert applied(checked) == 'x-x--x-----'
  assert [bool(one.is_stopped) for one in checked].index(True) == 8
  assert in_row(checked) == [0, 1, 0, 1, 2, 0, 1, 2, 3, 3, 3]
  assert int(checked[7].finite_check.skipped) == 5


def test_a_dynamic_scale_falls_and_rises(monkeypatch):
  monkeypatch.setattr(finite, 'GROWTH_STEPS', 3)
  policy = finite.Policy(2, True, False)
  checked = check(policy, '...gg.g..l...g', 4.0)
  assert scales(checked) == [4, 4, 8, 4, 2, 2, 1, 1, 1, 1, 1, 1, 2, 1]
  # A scale too large counts towards no end; a loss that is not finite does.
  assert in_row(checked) == 9 * [0] + [1, 0, 0, 0, 0]
  assert applied(checked) == 'xxx--x-xx-xxx-'
  # At a scale of 1 it is the gradient itself.
  checked = check(policy, 'gg', 1.0)
  assert [bool(one.is_stopped) for one in checked] == [False, True]
  # It neither grows beyond its maximum nor falls with the loss.
  checked = check(policy, '...l', finite.MAX_LOSS_SCALE)
  assert scales(checked) == 4 * [finite.MAX_LOSS_SCALE]


def test_a_dynamic_scale_by_default():
  first = finite.make_finite_check('dynamic')
  assert first.loss_scale == 2**15
  almost = first._replace(good_steps=np.int32(1999))
  yes = jnp.array(True)
  policy = finite.Policy(1, True, False)
  after = finite.check_step(almost, policy, yes, yes).finite_check
  assert (after.loss_scale, after.good_steps) == (2**16, 0)
  after = finite.check_step(first, policy, yes, yes).finite_check
  assert (after.loss_scale, after.good_steps) == (2**15, 1)


def make_update(config):
  config = config_lib.resolve(config)
  optimizer = optax.sgd(0.5, momentum=0.9)
  params = {'conv': {'w': jnp.arange(4.0)}}
  state = make_train_state(
    params, {'bn': {'mean': jnp.ones(2)}}, optimizer, config.train
  )
  update = parallelize(
    step_lib.make_update_step(optimizer, lambda n: 0.5 + n, config.train),
    in_axes=(None, None, None, 0),
    out_axes=None,
    donate_argnums=0,
  )
  return state, update


def step(update, state, gradient, mean=2.0, loss=1.0):
  state, metrics = update(
    state,
    {'conv': {'w': jnp.full(4, gradient)}},
    {'bn': {'mean': jnp.full(2, mean)}},
    {'loss': jnp.full(1, loss), 'accuracy': jnp.zeros(1)},
  )
  return state, jax.device_get(metrics)


@pytest.mark.parametrize(
  'bad', [{'gradient': np.nan}, {'loss': np.inf}, {'mean': np.nan}]
)
def test_a_step_that_is_left_out_changes_nothing(config, bad):
  config.train.on_nonfinite = 'skip'
  config.train.ema_decay = 0.9
  state, update = make_update(config)
  state, _ = step(update, state, 0.25)
  before = jax.device_get(state)
  state, metrics = step(update, state, **{'gradient': 0.25, **bad})
  after = jax.device_get(state)
  averages = 'ema_params', 'ema_network_state'
  for part in ('params', 'network_state', 'opt_state', *averages):
    chex.assert_trees_all_equal(getattr(after, part), getattr(before, part))
  assert after.step == 2
  assert metrics['skipped_steps'] == 1
  assert metrics['learning_rate'] == 1.5
  state, metrics = step(update, state, 0.25)
  # The schedule counts updates, as the optimizer does.
  assert metrics['learning_rate'] == 1.5
  assert metrics['nonfinite_in_row'] == 0
  assert not np.array_equal(
    state.params['conv']['w'], before.params['conv']['w']
  )


def test_average_of_the_parameters(config):
  config.train.ema_decay = 0.3
  state, update = make_update(config)
  expected = np.asarray(state.params['conv']['w'])
  for number in range(5):
    state, _ = step(update, state, 0.25)
    decay = min(0.3, (1 + number) / (10 + number))
    expected = decay * expected + (1 - decay) * state.params['conv']['w']
    np.testing.assert_allclose(
      state.ema_params['conv']['w'], expected, rtol=1e-6, atol=1e-7
    )
  assert state.eval_params is state.ema_params
  assert state.eval_network_state is state.ema_network_state
  # From 1 towards the 2 that each step brings, at 0.1, 2/11, 0.25, 0.3, 0.3.
  left = 0.1 * (2 / 11) * 0.25 * 0.3 * 0.3
  np.testing.assert_allclose(
    state.ema_network_state['bn']['mean'], 2 - left, rtol=1e-5
  )
  frozen = {'conv': {'w': np.random.default_rng(0).random(99, np.float32)}}
  kept = update_ema(frozen, frozen, 100, 0.999)
  np.testing.assert_array_equal(kept['conv']['w'], frozen['conv']['w'])
  config.train.ema_decay = 0.0
  state, _ = make_update(config)
  assert state.ema_params == state.ema_network_state == {}
  assert state.eval_params is state.params
  assert state.eval_network_state is state.network_state


def broken_at(monkeypatch, steps):
  """Makes the gradients of some steps not finite."""
  build = setup.build

  def broken(config, *options):
    run = build(config, *options)

    def train_step(state, batch, seed, *image_size):
      if int(state.step) + 1 in steps:
        scale = np.float32(np.inf)
        state = state._replace(
          finite_check=state.finite_check._replace(loss_scale=replicated(scale))
        )
        state, metrics = run.train_step(state, batch, seed, *image_size)
        scale = replicated(np.float32(1))
        return state._replace(
          finite_check=state.finite_check._replace(loss_scale=scale)
        ), metrics
      return run.train_step(state, batch, seed, *image_size)

    return run._replace(train_step=train_step)

  monkeypatch.setattr(setup, 'build', broken)


def test_a_run_that_skips(small, tmp_path, monkeypatch, capsys):  # noqa: F811
  small.train.on_nonfinite = 'skip'
  small.train.max_nonfinite = 3
  small.train.epochs = 1
  small.logging.every_steps = 2
  broken_at(monkeypatch, {3, 4, 7})
  train(small, tmp_path / 'run')
  found = [r for r in records(tmp_path / 'run') if 'train/accuracy' in r]
  assert [r['train/skipped_steps'] for r in found if r['step'] >= 6] == [
    2,
    3,
    3,
  ]
  # Of steps 3 and 4 nothing is left to average.
  assert [r['step'] for r in found] == [2, 6, 8, 10]
  assert '3 step(s) skipped' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('policy', 'steps', 'last'), [('stop', {5}, 5), ('skip', {5, 6, 7}, 7)]
)
def test_a_run_that_ends(small, tmp_path, monkeypatch, policy, steps, last):  # noqa: F811
  small.train.on_nonfinite = policy
  small.train.max_nonfinite = 3
  small.checkpoint.every_steps = 2
  words = f'grad_norm is nan at step {last}'
  with monkeypatch.context() as patch:
    broken_at(patch, steps)
    with pytest.raises(NonFiniteError, match=words):
      train(small, tmp_path / 'run')
  path = tmp_path / 'run/diverged.json'
  assert words in json.loads(path.read_text())['error']
  train(small, tmp_path / 'run')  # goes on from before
  assert not path.exists()


def test_the_first_bad_layer_in_the_order_of_the_network(config):
  config.model.variant = 'tiny'
  config.augment.flip = 'alternating'
  run = setup.build(config_lib.resolve(config))
  order = diagnosis.layer_names(run.network.architecture)
  assert order[-1] == 'logits'

  def find(state):
    indices = batches.TrainIndices(0, 60_000, 64, 0, 1)
    return diagnosis.find(run, state, 1, indices)

  assert find(run.state) == ''
  name = order[1]
  # Weights so large that the output of a later layer overflows.
  params = jax.tree.map(np.array, run.state.params)
  for module in params:
    if module.startswith(name):
      params[module]['w'] *= 1e38
  found = find(run.state._replace(params=replicated(params)))
  assert found.startswith('first the output of')
  module = next(m for m in params if m.startswith(name))
  params[module]['w'][:] = np.nan
  params['logits']['b'][:] = np.nan
  found = find(run.state._replace(params=replicated(params)))
  assert found == f'first a parameter of {name}'
  huge = finite.make_finite_check(np.inf)
  found = find(run.state._replace(finite_check=replicated(huge)))
  assert found.startswith('every output is finite, first the gradient of')
