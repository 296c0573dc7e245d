"""Progressive image size: when it changes, and that runs go on with it."""

import re

import jax
import numpy as np
import pytest
from resume_test import Killed, killed_at, train
from run_files import all_events, assert_same_run

from googlenet import config as config_lib
from googlenet.data.batches import TrainIndices
from googlenet.errors import UserError
from googlenet.input.image_sizes import parse_sizes, size_at
from googlenet.runtime.parallel import replicated
from googlenet.train import setup


def test_sizes_change_at_parts_of_the_schedule():
  sizes = parse_sizes(('16@0', '24@0.25', '28@0.5'))
  assert sizes == [(16, 0.0), (24, 0.25), (28, 0.5)]
  found = [size_at(sizes, step, 8) for step in range(1, 9)]
  assert found == [16, 16, 24, 24, 28, 28, 28, 28]
  assert size_at([], 3, 8) is None


@pytest.mark.parametrize(
  'texts',
  [('16',), ('@0',), ('x@0',), ('16@0.5',), ('0@0',), ('16@0', '24@1')]
  + [('16@0', '24@0'), ('16@0', '24@nan'), ('16@0', '24@')],
)
def test_malformed(texts, config):
  with pytest.raises(ValueError, match='.'):
    parse_sizes(texts)
  config.train.image_sizes = texts
  with pytest.raises(UserError, match='size@part'):
    config_lib.resolve(config)


def small(config):
  config.data.train_split = 'train[:160]'
  config.data.eval_split = 'test[:100]'
  config.train.batch_size = 32
  config.train.epochs, config.train.max_steps = 2, 0
  config.train.image_sizes = ('20@0', '28@0.5')
  config.train.compilation_cache = ''
  return config


def test_a_run_goes_on_over_the_change(config, tmp_path, monkeypatch, capsys):
  config = small(config)
  config.logging.images = 5
  train(config, tmp_path / 'whole')
  told = re.findall(
    'compile  training step for (.*) pixels: compiled ',
    capsys.readouterr().out,
  )
  assert told == ['20', '28']
  heights = {
    step: value.height
    for step, name, value in all_events(tmp_path / 'whole')
    if name == 'inputs'
  }
  assert heights == {0: 46, 5: 62}  # two rows, lines of 2 pixels
  for step in (3, 8):
    with monkeypatch.context() as patch:
      killed_at(patch, step)
      with pytest.raises(Killed):
        train(config, tmp_path / 'run')
  train(config, tmp_path / 'run')
  assert_same_run(tmp_path / 'whole', tmp_path / 'run')


def test_steps_see_the_size_they_are_given(config):
  """20 pixels by name are 20 pixels by data.image_size."""
  states = {}
  for native, given in ((20, None), (28, 20), (28, None)):
    one = small(config)
    one.data.image_size = native
    run = setup.build(config_lib.resolve(one))
    (batch,) = run.train.batches(TrainIndices(0, 160, 32, 0, 1))
    seed = replicated(np.uint32(0))
    state, _ = run.train_step(run.state, batch, seed, given)
    states[native, given] = jax.device_get(state.params)
  jax.tree.map(np.testing.assert_array_equal, states[20, None], states[28, 20])
  w = [states[28, given]['conv_1/conv_7x7']['w'] for given in (None, 20)]
  assert not np.array_equal(*w)


def test_networks_whose_parameters_depend_on_the_size_are_refused(config):
  config = small(config)
  config.model.aux_heads = 'on'
  with pytest.raises(UserError, match=r'aux_1/fc .* has other parameters'):
    setup.build(config_lib.resolve(config))
  config.train.image_sizes = ('2@0',)
  with pytest.raises(UserError, match='2 is too small for the network'):
    config_lib.resolve(config)
