"""Batch norm estimated anew, against NumPy and in a whole run."""

import re

import jax
import numpy as np
import pytest

from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.data.batches import TrainIndices
from googlenet.errors import UserError
from googlenet.io import checkpoint
from googlenet.model import rows
from googlenet.model.architecture_text import to_text
from googlenet.runtime.parallel import replicated
from googlenet.tools.modes import evaluate
from googlenet.train import loop, setup
from googlenet.train import precise_bn as statistics_lib


@pytest.fixture
def normalized(config):
  config.model.normalization = 'batch'
  config.data.train_split = 'train[:200]'
  config.train.batch_size = 32
  config.augment.crop_padding = 4  # no matter: not augmented
  config.eval.batch_norm_batches = 3
  return config


def estimate(run, params, network_state):
  return statistics_lib.estimate(
    run.statistics_step, params, network_state, run.train, run.config
  )


def test_the_mean_over_batches_of_what_each_has(normalized):
  run = setup.build(config_lib.resolve(normalized))
  batches = list(run.train.batches(TrainIndices(0, 200, 32, 0, 3)))
  state = estimate(run, run.state.params, run.state.network_state)
  w = np.asarray(run.state.params['conv_1/conv_7x7']['w'], np.float64)
  means, variances = [], []
  for batch in batches:
    x = np.asarray(batch['image'])[0, ..., 0] / 255
    x = (x - 0.2860) / 0.3530
    x = np.pad(x, ((0, 0), (2, 3), (2, 3)))  # SAME at stride 2
    windows = np.lib.stride_tricks.sliding_window_view(x, (7, 7), (1, 2))
    y = np.einsum('bijuv,uvo->bijo', windows[:, ::2, ::2], w[:, :, 0])
    means.append(y.mean((0, 1, 2)))
    variances.append(y.reshape(-1, y.shape[-1]).var(0, ddof=1))
  found = state['conv_1/conv_7x7']
  np.testing.assert_allclose(found['mean'], np.mean(means, 0), atol=1e-4)
  np.testing.assert_allclose(
    found['variance'], np.mean(variances, 0), rtol=1e-4
  )
  # What was there before leaves no trace.
  again = estimate(run, run.state.params, state)
  jax.tree.map(np.testing.assert_array_equal, again, state)


def test_nothing_is_dropped_in_a_network_of_ones_own(normalized):
  """A rate in a row is off too, where batch norm comes after it."""

  def statistics_of(*dropout):
    stage = rows.Stage(
      'stage_1',
      (
        rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 4, 3, 2),)),
        *dropout,
        rows.ConvLayer('conv_2', (rows.Conv('conv_3x3', 4, 3, 2),)),
      ),
    )
    normalized.model.variant = 'own'
    normalized.model.architecture = to_text(
      rows.Architecture((stage,), normalization='batch')
    )
    run = setup.build(config_lib.resolve(normalized))
    return estimate(run, run.state.params, run.state.network_state)

  found, expected = statistics_of(rows.Dropout(0.5)), statistics_of()
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_frozen_parts_keep_theirs_to_the_bit(normalized):
  normalized.finetune.frozen = ('conv_1',)
  run = setup.build(config_lib.resolve(normalized))
  state = estimate(run, run.state.params, run.state.network_state)
  for name, value in run.state.network_state['conv_1/conv_7x7'].items():
    np.testing.assert_array_equal(state['conv_1/conv_7x7'][name], value)
  assert np.any(state['inception_2a/conv_1x1']['mean'])


@pytest.mark.parametrize(
  'ema_decay', [0.9, pytest.param(0.0, marks=pytest.mark.slow)]
)
def test_what_was_evaluated_is_saved(normalized, tmp_path, capsys, ema_decay):
  normalized.train.ema_decay = ema_decay
  config = config_lib.resolve(normalized)
  result = loop.train_and_evaluate(config, tmp_path / 'run')
  run = setup.build(config)
  saved = checkpoint.restore(
    checkpoint.path_of(tmp_path / 'run', 6),
    run.state.params,
    run.state.network_state,
    bool(ema_decay),
  )
  wanted = estimate(run, replicated(saved.params), run.state.network_state)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
    saved.network_state,
    jax.device_get(wanted),
  )
  capsys.readouterr()
  evaluate.run(config, tmp_path / 'run', 0.0)
  accuracy = re.search(r'accuracy (\S+) ', capsys.readouterr().out)[1]
  assert accuracy == f'{result["eval/accuracy"]:.4f}'


def test_images_are_those_of_evaluation_where_the_host_crops(normalized):
  """Whole, not random crops of them."""
  normalized.augment.random_resized_crop = True
  run = setup.build(config_lib.resolve(normalized))
  indices = TrainIndices(0, 200, 32, 0, 1)
  for feed, is_whole in ((run.statistics, True), (run.train, False)):
    (batch,) = feed.batches(indices)
    (examples,) = indices
    whole, _ = pipeline.load_split(
      run.config, 'train_split', is_augmented=False
    ).read(examples.indices)
    seen = np.asarray(batch['image']).reshape(whole.shape)
    assert np.array_equal(seen, whole) == is_whole


def test_a_network_without_batch_norm_is_refused(config):
  config.eval.batch_norm_batches = 1
  with pytest.raises(UserError, match=r'eval\.batch_norm_batches=1.*allowed'):
    config_lib.resolve(config)
