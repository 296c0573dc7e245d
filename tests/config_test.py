"""Config files and the table of fields."""

import itertools
import re

import ml_collections
import pytest
from conftest import ROOT, load_config

from googlenet import config as config_lib
from googlenet import optimizer
from googlenet.data import images
from googlenet.errors import UserError, did_you_mean
from googlenet.fields import FIELDS
from googlenet.tools.benchmark import batch_sizes, contenders, process
from googlenet.tools.modes import benchmark, evaluate
from googlenet.train import loop

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


def test_no_field_is_unread(config, tmp_path, monkeypatch):
  """Runs the program with each way to use a field, and watches the reads."""
  config.data.train_split = 'train[:192]'  # two epochs
  config.model.aux_heads = 'on'
  config.augment.rand_augment_ops = 1
  config.augment.erase_probability = 0.5
  config.augment.mixup_alpha = 1.0
  config = config_lib.resolve(config)
  sections = {id(config): ''}
  sections |= {
    id(config[name]): name + '.' for name in config.to_dict() if name != 'seed'
  }
  read = set()
  original = ml_collections.ConfigDict.__getattr__

  def watch(self, name):
    read.add(sections.get(id(self), '?') + name)
    return original(self, name)

  def watch_item(self, name, original=ml_collections.ConfigDict.__getitem__):
    read.add(sections.get(id(self), '?') + name)
    return original(self, name)

  copy = ml_collections.ConfigDict.to_dict

  def to_dict(self, *args):
    """Copies every field, which is no use of any."""
    before = set(read)
    values = copy(self, *args)
    read.intersection_update(before)
    return values

  monkeypatch.setattr(ml_collections.ConfigDict, 'to_dict', to_dict)
  monkeypatch.setattr(ml_collections.ConfigDict, '__getattr__', watch)
  monkeypatch.setattr(ml_collections.ConfigDict, '__getitem__', watch_item)
  loop.train_and_evaluate(config, tmp_path / 'run')
  evaluate.run(config, tmp_path / 'run', 0.0)
  images.random_resized_crop(28, config.augment, config.seed)
  for schedule in optimizer.SCHEDULES.values():
    schedule(config.optimizer, 10, 100)(1)

  optimizer._muon(lambda step: 0.1, config.optimizer, None)

  def stop(
    contender, *_
  ):  # before the first process: it reads the fields itself
    raise UserError(contender.name)

  monkeypatch.setattr(process, 'run', stop)
  with pytest.raises(UserError, match='ours bfloat16'):
    benchmark.run(config, str(tmp_path / 'benchmark'), 0.0)
  # What the processes of ours measure, and what those of torch are told.
  batch_sizes.resolve(config, 'cpu')
  contenders.torch_contenders(config, 1, 'python', 'cpu', [8], tmp_path)
  source = (ROOT / 'launch.py').read_text()
  if 'tune_machine(arguments.config.train.compilation_cache)' in source:
    read.add('train.compilation_cache')
  assert [name for name in FIELDS if name not in read] == []


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


def test_a_bool_that_became_a_choice_is_still_read(config):
  """augment.flip of configs and runs that are older than alternating flips."""
  for old, now in ((True, 'random'), (False, 'none')):
    config.augment.flip = old
    resolved = config_lib.resolve(config)
    assert resolved.augment.flip == now
    text = config_lib.to_json(config)
    assert config_lib.resolve(config_lib.from_json(text)) == resolved


def test_mixing_takes_pairs(config):
  config.train.batch_size = 12
  config_lib.check_pairs(config, 4)
  config.augment.mixup_alpha = 1.0
  config_lib.check_pairs(config, 2)
  with pytest.raises(UserError, match='choose a multiple of 8$'):
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
  with pytest.raises(UserError, match='choose 16$'):
    durations(103, 8, microbatches=2)
  with pytest.raises(UserError, match='choose at most 5'):
    durations(5, 1)


def test_suggestions():
  fields = FIELDS
  assert 'optimizer.learning_rate' in did_you_mean(
    'optimizer.lerning_rate', fields
  )
  assert 'batch_size' in did_you_mean('batchsize', fields)
  assert did_you_mean('xyzzy', fields) == ''
