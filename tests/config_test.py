"""Config files and the table of fields."""

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import ml_collections
import pytest
from conftest import ROOT, load_config

from googlenet import config as config_lib
from googlenet import optimizer
from googlenet.errors import UserError, did_you_mean
from googlenet.fields import FIELDS
from googlenet.optimizer import schedules
from googlenet.runtime import places

CONFIG_FILES = sorted((ROOT / 'configs').glob('*.py'))


@pytest.mark.parametrize('path', CONFIG_FILES, ids=lambda path: path.name)
def test_every_config_file_loads_locked_and_valid(path):
  config = load_config(path)
  assert config.is_locked
  assert config.train.is_locked
  resolved = config_lib.resolve(config)
  assert isinstance(resolved, ml_collections.FrozenConfigDict)
  assert set(config_lib.flatten(config)) == set(FIELDS)
  assert f'--config=configs/{path.name}' in path.read_text()


def test_every_field_is_read_by_some_code():
  """By its name: as an attribute, or in a text that names it."""
  read = set()
  for path in (ROOT / 'googlenet').rglob('*.py'):
    if path.name == 'fields.py':
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute):
        read.add(node.attr)
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        read.add(node.value.rpartition('.')[2])
  assert {name.rpartition('.')[2] for name in FIELDS} <= read


def test_names_of_choices_are_those_of_the_functions_behind_them():
  assert FIELDS['optimizer.name'].choices == optimizer.OPTIMIZERS
  assert FIELDS['optimizer.schedule'].choices == (
    *optimizer.SCHEDULES,
    *schedules.MORE_SCHEDULES,
  )


def test_every_field_of_the_default_has_a_comment():
  lines = (ROOT / 'configs/fmnist96.py').read_text().splitlines()
  fields = [
    (above, line)
    for above, line in itertools.pairwise(lines)
    if re.match(r'  \w+\.\w+ = (?!.*ConfigDict)', line)
  ]
  assert len(fields) == len(FIELDS)
  for above, line in fields:
    assert '  # ' in line or above.strip().startswith('#'), line


def test_json_round_trip(config, tmp_path):
  path = tmp_path / 'config.json'
  path.write_text(config_lib.to_json(config_lib.resolve(config)))
  again = config_lib.load(path)
  assert again.to_dict() == config.to_dict()
  assert again.data.mean == (0.2860,)


@pytest.mark.parametrize(
  'text',
  [b'{', b'[]', b'3', b'\xff\xfe{}', b'[' * 100_000, b'{"a.b": 1}']
  + [b'{"a":' * 500 + b'1' + b'}' * 500, b'{"__class__": 1}', b'{"seed": 1}'],
)
def test_damaged_json(tmp_path, text):
  path = tmp_path / 'config.json'
  path.write_bytes(text)
  with pytest.raises(UserError, match=re.escape(str(path))) as error:
    config_lib.load(path)
  assert len(str(error.value)) < 400


@pytest.mark.parametrize(
  ('old', 'now'),
  [(True, 'random'), (False, 'none'), ('true', 'random'), ('false', 'none')],
)
def test_a_flip_that_was_switched_on_or_off_is_still_read(config, old, now):
  """augment.flip of runs that are older than alternating flips."""
  values = json.loads(config_lib.to_json(config))
  values['augment']['flip'] = old
  loaded = config_lib.from_json(json.dumps(values))
  assert loaded.augment.flip == now
  if isinstance(old, str):  # a flag
    config.augment.flip = old
    assert config_lib.resolve(config).augment.flip == now


def test_an_older_config_is_filled_from_the_defaults(config, tmp_path, capfd):
  config.model.width_multiplier = 0.5
  values = json.loads(config_lib.to_json(config))
  del values['finetune'], values['eval']['shift']
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(values))
  for _ in range(2):
    assert config_lib.load(path).to_dict() == config.to_dict()
  out, err = capfd.readouterr()
  assert out == ''
  assert err == (  # once
    f'warning: {path} lacks newer fields, which take defaults: '
    "finetune.from_workdir='', finetune.frozen=(), "
    'finetune.learning_rates=(), eval.shift=0\n'
  )


def test_a_stored_value_of_another_type(config):
  values = json.loads(config_lib.to_json(config))
  values['train']['epochs'] = 'ten'
  with pytest.raises(UserError, match="train.epochs='ten' is not al") as error:
    config_lib.from_json(json.dumps(values))
  assert error.value.field == 'train.epochs'


def test_mixing_takes_pairs(config):
  config.train.batch_size = 12
  config_lib.check_pairs(config, 4)
  config.augment.mixup_alpha = 1.0
  config_lib.check_pairs(config, 2)
  with pytest.raises(
    UserError, match='choose a multiple of 8, or fewer devices'
  ):
    config_lib.check_pairs(config, 4)


def durations(num_examples, num_devices, **train):
  fields = {'batch_size': 8, 'microbatches': 1, 'epochs': 3, 'max_steps': 0}
  config = ml_collections.ConfigDict({**fields, **train})
  return config_lib.durations(config, num_examples, num_devices)


def test_durations():
  assert durations(103, 1) == (12, 36, 36)
  assert durations(103, 4, max_steps=20) == (12, 36, 20)
  assert durations(103, 4, max_steps=99) == (12, 36, 36)
  with pytest.raises(UserError, match='does not divide by 3 devices'):
    durations(103, 3)
  with pytest.raises(UserError, match='choose at most 5'):
    durations(5, 1)


def test_advice_on_batch_sizes_works():
  for num_examples, devices, batch_size, microbatches in itertools.product(
    [2, 5, 17, 40, 100], [1, 2, 3, 8], [1, 6, 16, 64], [1, 2]
  ):
    given = {'batch_size': batch_size, 'microbatches': microbatches}
    try:
      durations(num_examples, devices, **given)
      continue
    except UserError as error:
      advice = str(error).partition('choose ')[2]
    assert advice
    for count, unit in re.findall(r'(\d+)( device)?', advice):
      if unit and batch_size <= num_examples:
        durations(num_examples, int(count), **given)
      elif not unit:
        durations(num_examples, devices, **given | {'batch_size': int(count)})


def test_a_run_is_continued_on_a_number_of_devices():
  with pytest.raises(UserError) as error:
    durations(1000, 3, batch_size=64)
  assert str(error.value) == (
    'config.train.batch_size=64 does not divide by 3 devices x 1 microbatches: '
    'choose 63 or 66 or 1 device(s) or 2 device(s) (a run that is continued '
    'keeps its batch size)'
  )


def test_advice_on_epochs_works():
  for steps in (1, 8, 1000):
    with pytest.raises(UserError) as error:
      durations(8 * steps, 1, epochs=2**31 - 1 if steps > 1 else 2**31)
    most = int(re.search(r'choose at most (\d+)$', str(error.value))[1])
    assert durations(8 * steps, 1, epochs=most).total_steps < 2**31


@pytest.mark.parametrize(
  ('name', 'value', 'near'),
  [
    ('model.variant', 'googlenet', "'plain' or 'paper' or 'torchvision'"),
    ('model.variant', 'GoogLeNet', "'plain' or 'paper' or 'torchvision'"),
    ('model.variant', 'inception_v1', "'plain' or 'paper' or 'torchvision'"),
    ('model.variant', 'BN', "'bn'"),
    ('model.normalization', 'bn', "'batch'"),
    ('optimizer.name', 'SGD', "'sgd'"),
    ('optimizer.name', 'momentum', "'sgd'"),
    ('optimizer.name', 'AdamW', "'adamw'"),
    ('model.kernels', 'cuda', "'gpu'"),
  ],
)
def test_a_value_that_others_use_is_understood(name, value, near):
  assert f', did you mean {near}?' in str(config_lib.invalid(name, value))


@pytest.mark.parametrize('value', ['resnet50', 'mobilenet', 'efficientnet'])
def test_another_network_is_not_suggested(value):
  text = str(config_lib.invalid('model.variant', value))
  assert 'did you mean' not in text


@pytest.mark.parametrize(
  ('name', 'near'),
  [
    ('optimizer.lr', 'optimizer.learning_rate'),
    ('lr', 'optimizer.learning_rate'),
    ('train.num_epochs', 'train.epochs'),
  ],
)
def test_a_field_that_others_call_otherwise(name, near):
  assert f', did you mean {near!r}?' in str(config_lib.unknown_field(name))


def test_suggestions():
  fields = FIELDS
  assert 'optimizer.learning_rate' in did_you_mean(
    'optimizer.lerning_rate', fields
  )
  assert 'batch_size' in did_you_mean('batchsize', fields)
  assert did_you_mean('xyzzy', fields) == ''


def test_a_trained_network_is_used_without_what_trains(trained_run, tmp_path):
  """From any folder, and also where the config is older than some fields."""
  run = tmp_path / 'run'
  shutil.copytree(trained_run, run)
  values = json.loads((run / 'config.json').read_text())
  del values['augment']['fill']
  (run / 'config.json').write_text(json.dumps(values))
  code = (
    'import sys, googlenet\n'
    'net = googlenet.load("run")\n'
    'assert net.config.augment.fill == "random"\n'
    'wrong = ("optax", "googlenet.optimizer", "googlenet.train")\n'
    'print([name for name in sys.modules if name.startswith(wrong)])\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.stdout == '[]\n', done.stderr


def test_the_default_config_may_hold_a_dataclass(tmp_path, monkeypatch):
  path = tmp_path / 'fmnist96.py'
  text = (ROOT / 'configs/fmnist96.py').read_text()
  text = text.replace(
    'import ml_collections\n',
    'from __future__ import annotations\n'
    'import dataclasses\n'
    'import ml_collections\n'
    '@dataclasses.dataclass\n'
    'class Recipe:\n'
    '  next: Recipe | None = None\n',
    1,
  )
  path.write_text(text)
  expected = config_lib.default_config().to_dict()
  monkeypatch.setattr(places, 'DEFAULTS', path)
  config_lib._read_defaults.cache_clear()
  try:
    assert config_lib.default_config().to_dict() == expected
  finally:
    config_lib._read_defaults.cache_clear()
