"""A run ends when its evaluations get no better, also after a restart."""

import json
import pathlib

import jax.numpy as jnp
import pytest
from run_files import records

from googlenet import config as config_lib
from googlenet.io import checkpoint
from googlenet.train import hooks, loop, setup

# The best at the second epoch; as good is not better.
ACCURACIES = (0.5, 0.6, 0.55, 0.6, 0.58)


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch):
  """Steps only count: what is evaluated is planted."""
  build = setup.build

  def train_step(state, batch, seed, image_size=None):
    metrics = {
      name: jnp.ones(())
      for name in ('loss', 'accuracy', 'learning_rate', 'grad_norm')
    }
    metrics['nonfinite_in_row'] = jnp.zeros(())
    return state._replace(step=state.step + 1), metrics

  monkeypatch.setattr(
    setup, 'build', lambda *args: build(*args)._replace(train_step=train_step)
  )


def planted(monkeypatch, accuracies):
  """Makes the next evaluations find these, and no more than these."""
  rest = iter(accuracies)

  def evaluate(*inputs):
    accuracy = next(rest)
    return {'accuracy': accuracy, 'loss': 1.0, 'top_5': 1.0, 'count': 100}

  monkeypatch.setattr(hooks, 'evaluate', evaluate)


@pytest.fixture
def small(config):
  """Eight epochs of two steps."""
  config.data.train_split = 'train[:70]'
  config.data.eval_split = 'test[:100]'
  config.train.batch_size = 32
  config.train.epochs = 8
  config.train.max_steps = 0
  config.train.early_stopping = 3
  config.checkpoint.best_metric = 'eval/accuracy'
  config.checkpoint.keep = 1
  config.logging.tensorboard = False
  return config


def train(config, workdir, **options):
  return loop.train_and_evaluate(config_lib.resolve(config), workdir, **options)


def steps_kept(workdir: pathlib.Path) -> list[str]:
  return [path.stem for path in checkpoint.paths(workdir)]


def test_it_ends_after_evaluations_that_are_no_better(
  small, tmp_path, monkeypatch, capsys
):
  # Interrupted by its length: the count is kept with the checkpoint.
  planted(monkeypatch, ACCURACIES[:3])
  small.train.max_steps = 6
  assert 'ended_early' not in train(small, tmp_path)

  planted(monkeypatch, ACCURACIES[3:])
  small.train.max_steps = 0
  result = train(small, tmp_path, allow_config_change=True)
  why = 'no eval/accuracy better than 0.6000 of step 4 in 3 evaluations'
  assert result['ended_early'] == why
  assert (result['step'], result['epoch']) == (10, 5.0)
  assert (result['best/step'], result['best/eval/accuracy']) == (4, 0.6)
  assert result['eval/accuracy'] == 0.58
  assert json.loads((tmp_path / 'result.json').read_text()) == result
  assert steps_kept(tmp_path) == ['step_000000010', 'step_000000004']
  assert [r['step'] for r in records(tmp_path) if 'eval/loss' in r][-1] == 10
  assert f'ended early: {why}' in capsys.readouterr().out

  # Twice the same command: it says how to go on.
  planted(monkeypatch, ())
  assert train(small, tmp_path) == result
  told = capsys.readouterr().out
  assert f'steps, ended early ({why}), eval' in told
  assert 'give a larger --config.train.early_stopping (0: off)' in told
  # As when the process ended before it could write the result.
  (tmp_path / 'result.json').unlink()
  again = train(small, tmp_path)
  assert again['step'] == 10
  assert again['ended_early'] == why

  # Another config that would end it too: evaluated anew, and not counted again.
  planted(monkeypatch, (0.57,))
  small.logging.every_steps = 5
  changed = train(small, tmp_path, allow_config_change=True)
  assert changed['step'] == 10
  assert changed['ended_early'] == why
  assert changed['eval/accuracy'] == 0.57

  # With more patience it goes on, and the count goes on with it.
  planted(monkeypatch, (0.59, 0.7, 0.7))
  small.train.early_stopping = 4
  result = train(small, tmp_path, allow_config_change=True)
  assert result['step'] == 12
  assert '4 evaluations' in result['ended_early']
