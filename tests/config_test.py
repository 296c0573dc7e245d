"""Config files and the table of fields."""

import ast
import itertools
import re

import ml_collections
import pytest
from conftest import ROOT, load_config

from googlenet import config as config_lib
from googlenet.errors import UserError, did_you_mean

CONFIG_FILES = sorted((ROOT / 'configs').glob('*.py'))


@pytest.mark.parametrize('path', CONFIG_FILES, ids=lambda path: path.name)
def test_every_config_file_loads_locked_and_valid(path):
  config = load_config(path)
  assert config.is_locked
  assert config.train.is_locked
  resolved = config_lib.resolve(config)
  assert isinstance(resolved, ml_collections.FrozenConfigDict)
  assert set(config_lib.flatten(config)) == set(config_lib.FIELDS)
  docstring = ast.get_docstring(ast.parse(path.read_text()))
  assert f'--config=configs/{path.name}' in docstring


def test_no_field_is_unread():
  """Each field is read as an attribute somewhere outside config files."""
  read = set()
  files = [*(ROOT / 'googlenet').rglob('*.py'), ROOT / 'launch.py']
  for path in files:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        read.add(node.attr)
      # config.data[field], where the field's name goes into an error.
      if isinstance(node, ast.Constant) and path.name in (
        'loop.py',
        'batches.py',
      ):
        read.add(node.value)
  unread = [f for f in config_lib.FIELDS if f.rsplit('.', 1)[-1] not in read]
  assert unread == []


def test_every_field_of_the_default_has_a_comment():
  lines = (ROOT / 'configs/fmnist96.py').read_text().splitlines()
  fields = [
    (above, line)
    for above, line in itertools.pairwise(lines)
    if re.match(r'  \w+\.\w+ = (?!.*ConfigDict)', line)
  ]
  assert len(fields) == len(config_lib.FIELDS)
  for above, line in fields:
    assert '  # ' in line or above.strip().startswith('#'), line


def test_json_round_trip(config):
  text = config_lib.to_json(config_lib.resolve(config))
  again = config_lib.from_json(text)
  assert again.to_dict() == config.to_dict()
  assert again.data.mean == (0.2860,)
  for damaged in ('{', '[]', '3'):
    with pytest.raises(UserError, match=r'config\.json is damaged'):
      config_lib.from_json(damaged)


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
  with pytest.raises(UserError, match='choose 16$'):
    durations(103, 8, microbatches=2)
  with pytest.raises(UserError, match='choose at most 5'):
    durations(5, 1)


def test_suggestions():
  fields = config_lib.FIELDS
  assert 'optimizer.learning_rate' in did_you_mean(
    'optimizer.lerning_rate', fields
  )
  assert 'batch_size' in did_you_mean('batchsize', fields)
  assert did_you_mean('xyzzy', fields) == ''
