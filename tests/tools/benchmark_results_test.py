"""The benchmark: medians, paired ratios, shares, table and JSON."""

import json

import pytest

from googlenet import config as config_lib
from googlenet.tools.benchmark import contenders, process, results, table
from googlenet.tools.benchmark.roofline import Work
from googlenet.tools.modes import benchmark


def report(train, infer, **more):
  size = {
    'train_images_per_s': train,
    'infer_images_per_s': infer,
    'compile_s': 3.0,
    'peak_bytes': 2**30,
  }
  return {'sizes': {'8': size}, 'start_s': 1.0, **more}


OURS = {
  'shares': {'forward': 0.25, 'backward': 0.5, 'optimizer': 0.25, 'input': 0.0},
  'rates': {'product_flop_per_s': 1e4, 'copy_bytes_per_s': 1e5},
  'backend': 'cpu',
  'num_devices': 2,
  'dtype': 'float32',
}
BFLOAT16 = {
  **OURS,
  'dtype': 'bfloat16',
  'rates': {'product_flop_per_s': 3e4, 'copy_bytes_per_s': 2e5},
}
# Of one layer: 30 FLOP and 100 elements an image in training, 40 weights.
WORKS = {'train': [Work(30, 100, 40)], 'infer': [Work(10, 20, 40)]}
REPORTS = {
  'ours float32': [report(t, 4 * t, **OURS) for t in (100.0, 10.0, 90.0)],
  'ours bfloat16': [report(t, 3 * t, **BFLOAT16) for t in (110.0, 30.0, 120.0)],
  # The machine was disturbed in the second round.
  contenders.REFERENCE: [
    report(t, 2 * t, dtype='float32') for t in (50.0, 10.0, 30.0)
  ],
  'torch bf16': [report(60.0, 70.0), {'sizes': {}, 'error': 'no compiler'}],
}


def test_rates_are_medians_and_ratios_are_paired():
  rows = {row['contender']: row for row in results.rows(REPORTS, [8], WORKS)}
  row = rows['ours float32']
  assert row['train_images_per_s'] == 90
  assert row['infer_images_per_s'] == 360
  # Of 2, 1 and 3; the ratio of the medians would be 3.
  assert row['train_vs_reference'] == 2
  assert row['train_best_torch'] == 'torch bf16'
  assert row['train_vs_best_torch'] == pytest.approx(100 / 60)
  assert rows[contenders.REFERENCE]['train_vs_reference'] == 1
  assert rows['torch bf16']['train_images_per_s'] == 60
  assert results.headline(REPORTS, 8) == {
    'train_images_per_s': 110,
    'train_contender': 'ours bfloat16',
    'infer_images_per_s': 360,
    'infer_contender': 'ours float32',
  }
  shares = results.shares(REPORTS, 8)
  assert [s['contender'] for s in shares] == ['ours float32', 'ours bfloat16']
  starts = results.starts(REPORTS, 8)
  assert [s['error'] for s in starts] == [None, None, None, 'no compiler']


def test_nobody_there_has_no_rate_and_no_ratio():
  reports = {**REPORTS, 'torch bf16': [{'sizes': {}, 'error': 'killed'}]}
  (row,) = (
    row
    for row in results.rows(reports, [8], WORKS)
    if row['contender'] == 'torch bf16'
  )
  assert row['train_images_per_s'] is None
  assert row['train_vs_reference'] is None
  assert row['peak_bytes'] is None


def test_shares_of_the_roofline_by_hand():
  rows = {row['contender']: row for row in results.rows(REPORTS, [8], WORKS)}
  row = rows['ours float32']  # 90 and 360 images/s
  assert row['train_flop_per_s'] == 2700
  assert row['infer_of_product'] == pytest.approx(3600 / 1e4)
  # (8 * 100 + 40) elements of 4 bytes take longer than 8 * 30 FLOP.
  assert row['train_of_roofline'] == pytest.approx(840 * 4 / 1e5 / (8 / 90))
  # 8 * 10 FLOP take longer than (8 * 20 + 40) elements: they would take 8 ms.
  assert row['infer_of_roofline'] == pytest.approx(0.008 / (8 / 360))
  # The rates of its own dtype, at two bytes an element.
  row = rows['ours bfloat16']
  assert row['train_of_roofline'] == pytest.approx(840 * 2 / 2e5 / (8 / 110))
  # Torch by the rates of ours in the same dtype, on a CPU all of it.
  row = rows[contenders.REFERENCE]
  assert row['train_of_roofline'] == pytest.approx(840 * 4 / 1e5 / (8 / 30))
  # It did not tell its dtype.
  assert rows['torch bf16']['train_of_roofline'] is None
  assert rows['torch bf16']['train_flop_per_s'] == 1800


def test_torch_has_one_of_several_gpus():
  reports = {**REPORTS, 'ours float32': [report(90.0, 360.0, **OURS)]}
  reports['ours float32'][0]['backend'] = 'gpu'
  rows = {row['contender']: row for row in results.rows(reports, [8], WORKS)}
  row = rows[contenders.REFERENCE]
  assert row['train_of_roofline'] == pytest.approx(840 * 4 / 5e4 / (8 / 30))
  assert rows['ours float32']['train_of_roofline'] == pytest.approx(
    840 * 4 / 1e5 / (8 / 90)
  )


def fake_run(given, seconds, tell):
  if given.name.startswith('ours'):
    tell(
      {
        **OURS,
        **{'devices': '1 x cpu', 'kernels': 'cpu', 'parameters': 7},
        'rates': {'product_flop_per_s': 1e12, 'copy_bytes_per_s': 3e10},
        'dtype': given.name.split()[1],
        'batch_sizes': [32, 64, 128],
      }
    )
    for size in (32, 64, 128):
      rates = {'train_images_per_s': 100.0, 'infer_images_per_s': 300.0}
      extra = {'compile_s': 9.0, 'peak_bytes': 2**31}
      tell({'sizes': {str(size): rates | extra}})
    return
  assert given.job['steps'] == 5
  assert given.job['device'] == 'cpu'
  assert given.job['batch_sizes'] == [32, 64, 128]
  if 'compiled' in given.name:
    tell({'error': 'InductorError: no compiler'})
    return
  tell({'dtype': given.job['dtype']})
  rates = {'train_images_per_s': 50.0, 'infer_images_per_s': 400.0}
  tell({'sizes': {'32': rates}})
  tell({'error': 'batch 64: out of memory'})


def compose(config, monkeypatch, run):
  monkeypatch.setattr(process, 'run', run)
  monkeypatch.setattr(contenders, 'find_torch', lambda _: ('python', ''))
  config, reports = config_lib.resolve(config), {}
  plan = benchmark.make_plan(config)
  benchmark.measure(config, plan, reports)
  return benchmark.compose(config, plan, reports, True)


def test_table_and_json_of_everything(config, monkeypatch):
  result = compose(config, monkeypatch, fake_run)
  json.dumps(result, allow_nan=False)
  text = table.render(result)
  lines = text.splitlines()
  assert max(map(len, lines)) <= 100
  line, efficiency = (
    line.split()
    for line in lines
    if line.startswith('ours float32  ') and ' 32 ' in line
  )
  assert (
    line[2:] == ['32', '100.0', '300.0', '2.00'] + ['2.00'] * 2 + ['0.75'] * 2
  )
  assert efficiency[2] == '32'
  assert len(efficiency) == 9
  assert all(share.endswith('%') for share in efficiency[5:])
  assert 'compiled failed: InductorError: no compiler' in text
  assert 'torch fp32 failed: batch 64: out of memory' in text
  assert 'not complete' not in text
  assert {row['batch_size'] for row in result['rows']} == {32, 64, 128}
  assert [row['contender'] for row in result['rows'][:2]] == [
    'ours bfloat16',
    'ours float32',
  ]


@pytest.mark.parametrize(
  ('by_name', 'words'),
  [
    ({'ours float32': [0.0, 0.524], 'torch fp32': [None, 0.1]}, '52% of'),
    ({'ours float32': [0.019, None], 'torch fp32': []}, ''),
  ],
)
def test_a_table_says_that_the_machine_was_disturbed(
  config, monkeypatch, by_name, words
):
  result = compose(config, monkeypatch, fake_run)
  text = table.render({**result, 'stolen': by_name})
  said = [line for line in text.splitlines() if line.startswith('disturbed')]
  assert len(said) == bool(words)
  assert not words or f'{words} the processor time (ours float32)' in ' '.join(
    text.split()
  )
  assert max(map(len, text.splitlines())) <= 100


def test_a_table_of_next_to_nothing(config, monkeypatch):
  """Every process is cut off, most of them before they tell anything."""

  def run(given, seconds, tell):
    if given.name == 'ours float32':
      tell({'batch_sizes': [32], 'backend': 'gpu', 'devices': '1 x H100'})
      tell({'sizes': {'32': {'train_images_per_s': 100.0}}})
    tell({'error': process.cut_off(seconds), 'is_cut_off': True})

  result = compose(config, monkeypatch, run)
  json.dumps(result, allow_nan=False)
  text = table.render(result)
  lines = text.splitlines()
  assert max(map(len, lines)) <= 100
  assert ['ours', 'bfloat16', '32', *['-'] * 7] in map(str.split, lines)
  assert ['ours', 'float32', '32', '100.0', *['-'] * 6] in map(str.split, lines)
  assert 'share of a training step' not in text
  assert text.count('cut off after 300 s (config.benchmark.seconds)') == 6
  assert result['train_images_per_s'] == 100.0
  assert result['infer_images_per_s'] is None


def test_without_a_device_torch_has_no_job(config, monkeypatch, capsys):
  started = []

  def run(given, seconds, tell):
    started.append(given.name)
    tell({'error': process.cut_off(seconds), 'is_cut_off': True})

  result = compose(config, monkeypatch, run)
  assert started == ['ours bfloat16', 'ours float32']
  assert 'torch is left out' in capsys.readouterr().out
  assert result['rows'] == []
  assert 'no device (-)' in table.render(result)
