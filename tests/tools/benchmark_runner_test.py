"""The benchmark: who is measured, in which order, with what batches."""

import io
import json
import pathlib
import re
import stat
import sys

import jax
import pytest

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.tools.benchmark import (
  batch_sizes,
  contenders,
  ours,
  parts,
  results,
  runner,
  stolen,
)
from googlenet.tools.benchmark.roofline import Rates


def contender(name):
  return contenders.Contender(name, [], {}, {})


def test_rounds_pair_and_a_failed_peer_is_not_started_again():
  order, lines, changes, reports = [], [], [], {}

  def run(given, tell):
    order.append(given.name)
    if given.name == 'torch b':
      tell({'error': 'no compiler'})
      return
    tell({'backend': 'cpu'})
    tell({'sizes': {'8': {'train_images_per_s': 1.0}}})
    tell({'sizes': {'8': {'infer_images_per_s': 2.0}}})
    if given.name == 'torch c':
      tell({'error': 'cut off', 'is_cut_off': True})

  def others(facts):
    assert facts['backend'] == 'cpu'
    return [contender(f'torch {name}') for name in 'abc']

  def say(text, flush=False):
    assert flush
    lines.append(re.sub(r'\(\d+ s\)$', '(0 s)', text))

  runner.play(
    [contender('ours')],
    others,
    2,
    run,
    reports,
    lambda: changes.append(json.dumps(reports)),
    say,
    lambda: None,
  )
  assert order == ['ours', 'torch a', 'torch b', 'torch c', 'ours', 'torch a']
  sizes = {'8': {'train_images_per_s': 1.0, 'infer_images_per_s': 2.0}}
  assert reports == {
    'ours': [{'sizes': sizes, 'backend': 'cpu'}] * 2,
    'torch a': [{'sizes': sizes, 'backend': 'cpu'}] * 2,
    'torch b': [{'sizes': {}, 'error': 'no compiler'}],
    'torch c': [
      {
        'sizes': sizes,
        'backend': 'cpu',
        'error': 'cut off',
        'is_cut_off': True,
      }
    ],
  }
  # After every message: three of each, an error more, an error alone.
  assert len(changes) == len(set(changes)) == 17
  assert lines[:3] == [
    'round 1/2  ours',
    '  batch 8: training 1.0 images/s (0 s)',
    '  batch 8: inference 2.0 images/s (0 s)',
  ]
  assert '  failed: no compiler (0 s)' in lines
  assert '  cut off (0 s)' in lines


def test_one_of_ours_that_fails_leaves_what_the_other_measured():
  """As where bfloat16 fits on a device, and float32 does not."""
  started = []

  def run(given, tell):
    started.append(given.name)
    if given.name == 'ours float32':
      tell({'error': 'batch 1024: out of memory'})
    else:
      tell({'sizes': {'1024': {'train_images_per_s': 1.0}}})

  reports = {}
  runner.play(
    [contender('ours bfloat16'), contender('ours float32')],
    lambda facts: [contender('torch')],
    2,
    run,
    reports,
    say=lambda *_, **__: None,
  )
  first = ['ours bfloat16', 'ours float32', 'torch']
  assert started == [*first, 'ours bfloat16', 'torch']
  assert runner.has_result(reports)


def test_what_other_virtual_machines_took_is_told_of_each_peer():
  """Of 200 and 300 ticks that were wanted while each peer ran."""
  passed = iter([(1_000, 50), (1_200, 50), (1_300, 60), (1_600, 120)])
  reports = {}
  runner.play(
    [contender('ours')],
    lambda facts: [contender('torch')],
    1,
    lambda given, tell: tell({'sizes': {'8': {'train_images_per_s': 1.0}}}),
    reports,
    say=lambda *_, **__: None,
    ticks=lambda: stolen.Ticks(*next(passed)),
  )
  assert results.stolen(reports) == {'ours': [0.0], 'torch': [0.2]}


STAT = 'cpu  10 1 5 900 20 2 3 7 4 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n'


@pytest.mark.parametrize(
  ('text', 'expected'),
  [(STAT, (28, 7)), ('cpu  10 1 5 900\n', None), (None, None)],
)
def test_processor_time_is_that_of_the_system(monkeypatch, text, expected):
  def read(path, encoding):
    assert str(path) == '/proc/stat'
    if text is None:
      raise FileNotFoundError(path)
    return text

  monkeypatch.setattr(pathlib.Path, 'read_text', read)
  assert stolen.ticks() == expected
  assert stolen.share(stolen.ticks(), stolen.ticks()) is None


@pytest.mark.parametrize(
  ('messages', 'is_fatal'),
  [
    ([{'error': 'ended by signal 9'}], True),
    ([{'sizes': {'8': {}}}, {'error': 'ended by signal 9'}], False),
    ([{'error': 'cut off', 'is_cut_off': True}], False),
    ([{'sizes': {'8': {}}}, {'error': 'no', 'is_bad_input': True}], True),
  ],
)
def test_a_failure_of_ours_ends_all_if_it_left_nothing(messages, is_fatal):
  started = []

  def run(given, tell):
    started.append(given.name)
    for message in messages if given.name == 'ours float32' else ():
      tell(message)

  def play():
    runner.play(
      [contender('ours float32')],
      lambda facts: [contender('torch')],
      2,
      run,
      {},
      say=lambda *_, **__: None,
    )

  if is_fatal:
    with pytest.raises(
      UserError, match=f'ours float32: {messages[-1]["error"]}'
    ):
      play()
    assert started == ['ours float32']
  else:
    play()
    assert started == ['ours float32', 'torch', 'torch']


def test_the_cheap_forms_of_torch_come_first(config, tmp_path):
  config = config_lib.resolve(config)
  names = [c.name for c in contenders.our_contenders(config, tmp_path)]
  names += [
    c.name
    for c in contenders.torch_contenders(config, 1, '', 'gpu', [9], tmp_path)
  ]
  assert names == [
    'ours bfloat16',
    'ours float32',
    'torch bf16 channels_last',
    'torch fp32 channels_last',
    'torch fp32',
    'torch bf16 channels_last compiled',
  ]


def test_batch_sizes_follow_the_backend(config):
  config = config_lib.resolve(config)
  assert batch_sizes.resolve(config, 'cpu') == [32, 64, 128]
  assert batch_sizes.resolve(config, 'gpu') == [1024]
  assert batch_sizes.main_size(config, [32, 64, 128]) == 64
  assert batch_sizes.main_size(config, [1024]) == 1024


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_given_batch_sizes_are_taken_as_they_are(config, backend):
  config.benchmark.batch_sizes = (512, 8, 512)
  config = config_lib.resolve(config)
  assert batch_sizes.resolve(config, backend) == [8, 512]
  assert batch_sizes.main_size(config, [8, 512]) == 512


@pytest.fixture
def measured_parts(monkeypatch):
  """Puts numbers in place of all that compiles and runs in `ours.measure`."""
  monkeypatch.setattr(ours.setup, 'build', lambda config: config)
  monkeypatch.setattr(ours, 'Stepper', lambda config: config.train.batch_size)
  monkeypatch.setattr(ours, 'describe_network', lambda _: {'parameters': 7})
  monkeypatch.setattr(
    ours,
    'measure_size',
    lambda size, started, tell: tell({'size': size, 'is_first': bool(started)}),
  )
  monkeypatch.setattr(ours, 'measure_shares', lambda size: {'of': size})
  monkeypatch.setattr(ours, 'measure_rates', lambda dtype, steps: Rates(1, 2))


def measured(config):
  told = []
  ours.measure(config_lib.resolve(config), 1.0, told.append)
  return told


def test_ours_takes_a_step_apart_on_a_cpu_alone(
  config, measured_parts, monkeypatch
):
  told = measured(config)
  assert told[0]['batch_sizes'] == [32, 64, 128]
  assert told[0]['dtype'] == 'float32'
  rates = {'rates': {'product_flop_per_s': 1, 'copy_bytes_per_s': 2}}
  assert told[1:] == [
    {'parameters': 7},
    {'size': 32, 'is_first': True},
    {'size': 64, 'is_first': False},
    {'shares': {'of': 64}},
    {'size': 128, 'is_first': False},
    rates,
  ]
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  told = measured(config)
  assert told[0]['batch_sizes'] == [1024]
  assert told[0]['backend'] == 'gpu'
  assert told[1:] == [
    {'parameters': 7},
    {'size': 1024, 'is_first': True},
    rates,
  ]


def test_ours_out_of_memory_keeps_the_smaller_sizes(
  config, measured_parts, monkeypatch
):
  def measure_size(size, started, tell):
    if size == 64:
      raise jax.errors.JaxRuntimeError(
        'RESOURCE_EXHAUSTED: Out of memory allocating 3221225472 bytes.\n...'
      )
    tell({'size': size})

  monkeypatch.setattr(ours, 'measure_size', measure_size)
  told = measured(config)
  assert told[2] == {'size': 32}
  assert told[3]['error'].startswith(
    'batch 64: out of memory: 3.0 GiB were asked for, the machine has '
  )
  assert told[3]['error'].endswith(
    'lower config.benchmark.batch_sizes or raise config.train.microbatches'
  )
  assert 'rates' in told[4]
  assert len(told) == 5


def test_memory_that_runs_out_at_the_end_is_no_bad_input(
  config, measured_parts, monkeypatch, capsys
):
  def full(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  job = {'config': config.to_dict(), 'started': 0.0}
  job['config']['train']['compilation_cache'] = ''
  monkeypatch.setattr(sys, 'stdin', io.StringIO(json.dumps(job)))
  monkeypatch.setattr(ours, 'measure_rates', full)
  assert ours.main() == 2
  last = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert last['error'].startswith('out of memory: ')
  assert 'is_bad_input' not in last


def test_shares_are_never_negative_and_add_up():
  assert parts.shares(1, 2, 6, 9) == pytest.approx(
    {'forward': 0.2, 'backward': 0.4, 'optimizer': 0.3, 'input': 0.1}
  )
  for forward, gradient in ((12, 6), (5, 4), (3, 20)):
    shares = parts.shares(0, forward, gradient, 9)
    assert min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1)


def test_precisions_of_one_dtype_are_one_contender(config, tmp_path):
  config.benchmark.precisions = (
    'float32',
    'params=float32,compute=float32,output=float32',
  )
  config = config_lib.resolve(config)
  (one,) = contenders.our_contenders(config, tmp_path)
  assert one.name == 'ours float32'


def test_another_python_for_torch(tmp_path):
  assert contenders.find_torch('none')[0] == ''
  script = tmp_path / 'python'
  script.write_text('#!/bin/sh\nexit 0\n')
  with pytest.raises(UserError, match='no such program'):
    contenders.find_torch(str(script))
  script.chmod(script.stat().st_mode | stat.S_IXUSR)
  assert contenders.find_torch(str(script)) == (str(script), '')
