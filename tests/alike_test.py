"""What all processes of a run share: config, data, devices, and the end."""

import importlib
import json
import types

import jax
import numpy as np
import pytest
from distributed_test import PATIENT, Processes

from googlenet import config as config_lib
from googlenet.data import auto
from googlenet.errors import Stopped, UserError
from googlenet.io import checkpoint, compare
from googlenet.runtime import distributed
from googlenet.train import hooks, loop, same_run, setup


def join(monkeypatch, place, theirs=None, others=(), count=2):
  """Makes this process one of several; returns what it says of itself.

  Args:
    monkeypatch: the fixture.
    place: of this process.
    theirs: what process 0 describes, if this is another.
    others: which of the others differ from process 0.
    count: number of processes.
  """
  told = []

  def gather(differs):
    told.append(bool(differs))
    return np.array([i in others for i in range(count)]) | (
      np.arange(count) == place
    ) * bool(differs)

  monkeypatch.setattr(jax, 'process_count', lambda: count)
  monkeypatch.setattr(jax, 'process_index', lambda: place)
  monkeypatch.setattr(
    distributed,
    'on_process_0',
    lambda f: json.loads(json.dumps(theirs or f())),
  )
  monkeypatch.setattr(distributed.multihost_utils, 'process_allgather', gather)
  return told


def test_a_process_with_another_config_ends_all(monkeypatch, config):
  resolved = config_lib.resolve(config)
  theirs = resolved.to_dict()
  config.data.data_dir, config.data.workers = 'elsewhere', 3
  told = join(monkeypatch, 1, theirs)
  compare.check_processes(config_lib.resolve(config))
  assert told == [False]
  config.optimizer.learning_rate = 0.5
  config.train.parallel, config.eval.crops = 'shard_map', 10
  with pytest.raises(UserError) as raised:
    compare.check_processes(config_lib.resolve(config))
  assert str(raised.value).startswith(
    'this process (1 of 2) is not as process 0 is: '
    'config.optimizer.learning_rate is '
    f'{theirs["optimizer"]["learning_rate"]!r} there and 0.5 here; '
    "config.train.parallel is 'pmap' there and 'shard_map' here; "
    'config.eval.crops is 1 there and 10 here; start all'
  )
  told = join(monkeypatch, 0, others=[2], count=3)
  with pytest.raises(UserError, match='^process 2 of 3 is not as process 0'):
    compare.check_processes(resolved)
  assert told == [False]


def test_processes_with_unequal_devices_are_refused(monkeypatch):
  def have(*counts):
    made = [
      types.SimpleNamespace(process_index=i)
      for i, count in enumerate(counts)
      for _ in range(count)
    ]
    monkeypatch.setattr(jax, 'devices', lambda: made)

  have(2, 2)
  distributed.check_devices()
  have(1, 2, 3)  # as many as if each had two
  with pytest.raises(UserError, match='process 0 1, process 1 2, process 2 3;'):
    distributed.check_devices()


def test_a_process_with_other_data_ends_all(monkeypatch, config):
  config.data.train_split, config.data.eval_split = 'train[:70]', 'test[:9]'
  run = setup.build(config_lib.resolve(config))
  told = join(monkeypatch, 0)
  same_run.check_processes(run)
  theirs = {
    'training': same_run.describe_data(run.train.dataset) | {'split': 'all'},
    'evaluation': same_run.describe_data(run.evaluation.dataset),
    'teacher': {'is': None},
  }
  told = join(monkeypatch, 1, theirs)
  with pytest.raises(UserError) as raised:
    same_run.check_processes(run)
  assert told == [True]
  assert (
    "training: split 'all' there and 'train[:70]' here; start all"
  ) in str(raised.value)


def test_processes_keep_their_folders(monkeypatch, config, tmp_path):
  """Only what the data set decides comes from process 0."""
  config.data.mean = config.data.std = ('auto',)
  config.data.train_split = 'train[:70]'
  theirs = config_lib.resolve(config)
  config.data.data_dir = '/data/of/process_1'
  monkeypatch.setattr(distributed, 'is_one_of_several', lambda: True)
  monkeypatch.setattr(
    distributed,
    'on_process_0',
    lambda _: config_lib.to_json(auto.complete(theirs)),
  )
  ours = auto.complete_run(config_lib.resolve(config), tmp_path)
  assert ours.data.data_dir == '/data/of/process_1'
  assert ours.data.mean == auto.complete(theirs).data.mean != ('auto',)


def test_all_wait_for_the_save_that_ends_a_run(config, tmp_path, monkeypatch):
  """JAX would end process 0 in the middle of it when another had ended."""
  waits = []

  def on_process_0(function):
    waits.append(function.__name__)
    return function()

  monkeypatch.setattr(distributed, 'on_process_0', on_process_0)
  monkeypatch.setattr(hooks.PreemptionHandler, 'poll', lambda _: True)
  config.data.train_split, config.data.eval_split = 'train[:400]', 'test[:9]'
  with pytest.raises(Stopped, match='after step 1, which is saved'):
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path)
  assert waits == ['finish']
  assert [path.name for path in checkpoint.paths(tmp_path)] == [
    'step_000000001.npz'
  ]


@pytest.mark.slow
def test_two_processes_with_two_configs_make_no_run(
  compilation_cache, tmp_path
):
  both = Processes(
    tmp_path,
    compilation_cache,
    *(2, 1, '--workdir=run', PATIENT),
    last=['--config.seed=1'],
  )
  errors = [err.splitlines()[-1] for _, err in both.wait(2)]
  assert errors[0].startswith('error: process 1 of 2 is not as process 0 is')
  assert 'config.seed is 0 there and 1 here' in errors[1]
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('mode', 'flags'),
  [
    ('demo', {'port': 0}),
    ('export_weights', {'weights': 'new.safetensors'}),
    ('import_weights', {'weights': 'old.safetensors'}),
  ],
)
def test_what_one_process_does_is_refused_in_several(
  mode, flags, monkeypatch, config, tmp_path
):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  module = importlib.import_module(f'googlenet.tools.modes.{mode}')
  run = tmp_path / 'run'
  with pytest.raises(UserError, match=f'^--mode={mode} runs in one process, '):
    module.run(config_lib.resolve(config), str(run), 0.0, **flags)
  assert not run.exists()
