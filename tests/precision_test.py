"""Precisions: their short names mean jmp's long ones, in every place."""

import types

import jax
import jmp
import pytest
from conftest import ROOT, load_config
from run_files import assert_same_end

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.io import checkpoint, compare
from googlenet.model import precision
from googlenet.tools.benchmark import contenders
from googlenet.tools.sweep import folder, grid
from googlenet.train import loop, messages

LONG = 'params=float32,compute=bfloat16,output=float32'
NAME = 'train.precision'


def test_a_name_is_the_policy_with_float32_parameters_and_output():
  for name in precision.NAMES:
    policy = precision.get_policy(name)
    assert policy == jmp.Policy(*map(jax.numpy.dtype, ('f4', name, 'f4')))
    long = f'params=float32,compute={name},output=float32'
    assert precision.get_policy(long) == policy


def test_one_file_asks_jmp_which_would_take_names_for_all_of_a_policy():
  asks = [
    path.name
    for path in (ROOT / 'googlenet').rglob('*.py')
    if 'jmp.get_policy(' in path.read_text()
  ]
  assert asks == ['precision.py']


@pytest.mark.parametrize(
  ('text', 'name'),
  [
    (LONG, 'bfloat16'),
    ('c=bf16,p=f32,o=f32', 'bfloat16'),
    ('params=float32,compute=float16,output=float32', 'float16'),
    ('full', 'float32'),
    ('bfloat16', 'bfloat16'),
    # Their parameters are not float32.
    ('half', 'half'),
    ('params=bfloat16,compute=bfloat16,output=float32',) * 2,
    ('float31', 'float31'),
    (16, 16),
  ],
)
def test_other_texts_have_the_name_of_the_same_policy(text, name):
  assert precision.name_of(text) == name
  assert FIELDS[NAME].is_valid(text) == (name in precision.NAMES)


def test_the_default_is_what_the_published_accuracy_was_measured_with():
  names = 'fmnist96', 'fmnist96_best', 'fmnist28_fast', 'fmnist28_best'
  for name in (*names, 'fmnist28_long'):
    config = load_config(ROOT / f'configs/{name}.py')
    assert precision.get_policy(config.train.precision) == jmp.get_policy(LONG)
  # Nobody has measured it; Caffe had nothing else.
  config = load_config(ROOT / 'configs/imagenet224.py')
  assert config.train.precision == 'float32'


def test_a_config_keeps_the_name(config):
  config.train.precision = LONG
  config.benchmark.precisions = (LONG, 'float32')
  stored = config_lib.from_json(config_lib.to_json(config))
  for read in (config_lib.resolve(config), stored):
    assert read.train.precision == 'bfloat16'
    assert tuple(read.benchmark.precisions) == ('bfloat16', 'float32')
  config.train.precision = 'bfloat16'
  assert not compare.differences(stored, config)
  config.train.precision = 'float16'
  assert compare.differences(stored, config) == {NAME: ('bfloat16', 'float16')}


def test_what_jmp_calls_by_another_name_is_suggested(config):
  config.train.precision = 'bf16'  # of jmp: parameters too
  with pytest.raises(UserError, match="did you mean 'bfloat16'"):
    config_lib.resolve(config)


def test_both_names_are_one_peer_of_a_benchmark(config, tmp_path):
  config.benchmark.precisions = ('bfloat16', LONG)
  (one,) = contenders.our_contenders(config_lib.resolve(config), tmp_path)
  assert one.name == 'ours bfloat16'
  assert one.job['config']['train']['precision'] == 'bfloat16'


def test_a_sweep_knows_both_names(config, tmp_path):
  with pytest.raises(UserError, match="the value 'bfloat16' twice"):
    grid.parse(f'{NAME}=bfloat16,"{LONG}"', config)
  swept = grid.parse(f'{NAME}="{LONG}",float32', config)
  assert swept == {NAME: ('bfloat16', 'float32')}
  folder.check_same(tmp_path, {NAME: (LONG, 'float32')}, swept)
  with pytest.raises(UserError, match='another sweep'):
    folder.check_same(tmp_path, {NAME: (LONG, 'float16')}, swept)


@pytest.mark.slow
def test_a_run_with_the_long_name_goes_on_with_the_short_one(
  config, tmp_path, monkeypatch, capsys
):
  """Also to the bit: the name decides nothing."""
  config.train.max_steps = 4
  config.checkpoint.every_steps = 2
  config.logging.tensorboard = False

  def train(name, text):
    config.train.precision = text
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / name)

  train('whole', 'bfloat16')
  run = tmp_path / 'run'
  with monkeypatch.context() as patch:  # as before there were names
    patch.setitem(
      FIELDS, NAME, FIELDS[NAME]._replace(current=lambda value: value)
    )
    train('run', LONG)
  newest, _ = checkpoint.paths(run)
  assert checkpoint.read_about(newest)['config']['train']['precision'] == LONG
  assert LONG in (run / 'config.json').read_text()
  newest.unlink()
  (run / 'result.json').unlink()
  capsys.readouterr()
  train('run', 'bfloat16')
  shown = capsys.readouterr().out
  assert 'resumed  after step 2, ' in shown
  assert 'kernels xla, bfloat16\n' in shown
  assert_same_end(tmp_path / 'whole', run)


# What is installed; what the run has; which hints it gets.
@pytest.mark.parametrize(
  ('version', 'calls', 'machine', 'kernels', 'precision', 'words'),
  [
    ((0, 12, 0), 'bf16', 'x86_64', ('auto', 'onednn'), 'bfloat16', ()),
    # A processor that has no instructions for bfloat16.
    ((0, 12, 0), 'f32', 'x86_64', ('auto', 'onednn'), 'bfloat16', ('slower',)),
    ((0, 12, 0), 'f32', 'x86_64', ('auto', 'onednn'), 'float32', ()),
    ((0, 12, 0), 'f32', 'x86_64', ('onednn', 'onednn'), 'bfloat16', ()),
    ((0, 10, 2), '', 'x86_64', ('auto', 'cpu'), 'float32', ('newer',)),
    ((0, 10, 2), '', 'AMD64', ('auto', 'cpu'), LONG, ('newer', 'slower')),
    ((0, 10, 2), '', 'x86_64', ('cpu', 'cpu'), 'bfloat16', ()),
    # oneDNN is not called there by any JAX.
    ((0, 12, 0), '', 'arm64', ('auto', 'cpu'), 'bfloat16', ()),
    ((0, 10, 2), '', 'arm64', ('auto', 'cpu'), 'bfloat16', ()),
    ((0, 12, 0), '', 'x86_64', ('auto', 'gpu'), 'bfloat16', ()),
  ],
)
def test_what_trains_faster_on_a_cpu(
  config, monkeypatch, version, calls, machine, kernels, precision, words
):
  monkeypatch.setattr(jax, '__version_info__', version)
  monkeypatch.setattr(messages.onednn, 'dtype_of_calls', lambda _: calls)
  monkeypatch.setattr(messages.platform, 'machine', lambda: machine)
  config.model.kernels, chosen = kernels
  config.train.precision = precision
  network = types.SimpleNamespace(kernels=types.SimpleNamespace(name=chosen))
  run = types.SimpleNamespace(config=config, network=network)
  hints = {
    'newer': 'cannot call oneDNN; Python 3.12 or newer has JAX 0.12',
    'slower': '--config.train.precision=float32 is faster',
  }
  lines = messages.slow_cpu(run)
  assert len(lines) == len(words)
  for line, word in zip(lines, words, strict=True):
    assert line.startswith('hint     ')
    assert hints[word] in line
