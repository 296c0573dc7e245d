"""--mode=benchmark as a program: console, file, exit codes, signals."""

import json
import signal
import subprocess
import sys

import pytest
from benchmark_stubs import Pulse, stub, write_torch_python
from conftest import ROOT, SMALL, environment, last_of_each
from run_files import problems

from googlenet.tools.benchmark import process

FAST = (
  *SMALL,
  '--mode=benchmark',
  '--config.train.batch_size=8',
  '--config.benchmark.batch_sizes=(8,4)',
  '--config.benchmark.precisions=("params=float32,compute=bfloat16,'
  'output=float32",)',
  '--config.benchmark.steps=1',
  '--config.benchmark.rounds=1',
  '--config.benchmark.torch_python=none',
)


def read_json(folder):
  return json.loads((folder / 'run/benchmark.json').read_text())


@pytest.mark.slow
def test_measures_this_project(launch_py, launch_here, tmp_path):
  """The program as it is, but for torch, on two devices."""
  done = launch_py(*FAST, '--workdir=run', devices=2)
  assert done.returncode == 0, done.stderr
  for text in (
    'round 1/1  ours bfloat16\n  batch 4: training ',
    'tiny, 28x28x1 -> 10 classes, 2,186 parameters',
    '2 x cpu (cpu)',
    'torch is left out: config.benchmark.torch_python=none',
    'share of a training step (batch 8)',
    'run/benchmark.json',
  ):
    assert text in done.stdout
  assert max(map(len, done.stdout.splitlines())) <= 100
  result = read_json(tmp_path)
  assert result['complete']
  assert result['batch_size'] == 8
  assert result['train_images_per_s'] > 0
  assert result['infer_images_per_s'] > 0
  assert [row['batch_size'] for row in result['rows']] == [4, 8]
  for row in result['rows']:
    for use in ('train', 'infer'):
      assert row[f'{use}_images_per_s'] > 0
      assert row[f'{use}_of_roofline'] > row[f'{use}_of_product'] > 0
  (shares,) = result['shares']
  assert shares['batch_size'] == 8
  assert sum(shares['shares'].values()) == pytest.approx(1)
  assert min(shares['shares'].values()) >= 0
  rates = result['rates']['bfloat16']
  assert rates['product_flop_per_s'] > 0
  assert rates['copy_bytes_per_s'] > 0
  (start,) = result['starts']
  assert start['compile_s'] > 0
  assert start['start_warm_s'] is None
  assert result['config']['seed'] == 0

  again = launch_here(*FAST, '--workdir=run')
  assert again.returncode == 2
  assert 'already holds a run (benchmark.json)' in again.stderr
  assert again.stdout == ''


def test_what_only_the_devices_refuse_is_one_line(
  launch_here, tmp_path, monkeypatch
):
  """The devices of the process that measures: here there is one.

  4 is refused by nobody, but not measured either.
  """
  for name, value in environment(devices=2).items():
    monkeypatch.setenv(name, value)
  done = launch_here(
    *FAST, '--config.benchmark.batch_sizes=(4,5)', '--workdir=run'
  )
  assert done.returncode == 2
  assert problems(done.stderr).count('\n') == 1, done.stderr
  assert 'ours bfloat16: config.benchmark.batch_sizes: 5' in done.stderr
  assert 'choose 4 or 6' in done.stderr
  assert 'images/s' not in done.stdout
  assert 'choose' not in done.stdout
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_there(tmp_path, compilation_cache, number):
  """It comes while a process that plays torch hangs after a first result."""
  pulse = Pulse(tmp_path)
  flags = [
    *FAST,
    f'--config={ROOT / "configs/fmnist96.py"}',
    f'--config.train.compilation_cache={compilation_cache}',
    f'--config.benchmark.torch_python={write_torch_python(tmp_path)}',
    '--workdir=run',
  ]
  command = [sys.executable, str(ROOT / 'launch.py'), *last_of_each(flags)]
  launched = subprocess.Popen(
    command,
    cwd=tmp_path,
    env={**environment(devices=1), 'STUB_PIPE': pulse.path},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  with launched:
    lines = ['']
    while 'batch 4: training 7.0 images/s, peak 1.00 GiB' not in lines[-1]:
      lines.append(launched.stdout.readline())
      assert lines[-1], (lines, launched.stderr.read())
    assert 'round 1/1  torch bf16 channels_last\n' in lines
    launched.send_signal(number)
    pulse.assert_both_were_there_and_are_gone()
    out, err = launched.communicate()
  err = problems(err)
  if number == signal.SIGINT:
    assert (launched.returncode, err) == (130, 'interrupted\n')
  else:
    assert (launched.returncode, err) == (-number, 'ended by SIGTERM\n')
  row = next(x for x in out.splitlines() if x.startswith('torch bf16'))
  assert row.split()[3:6] == ['4', '7.0', '-']
  assert 'not complete' in out
  assert 'in       run/benchmark.json' in out
  result = read_json(tmp_path)
  assert not result['complete']
  rates = {
    (row['contender'], row['batch_size']): row['train_images_per_s']
    for row in result['rows']
  }
  assert rates['torch bf16 channels_last', 4] == 7.0
  assert rates['torch bf16 channels_last', 8] is None
  assert rates['ours bfloat16', 8] > 0


def test_a_signal_before_any_result_leaves_nothing(
  launch_here, tmp_path, monkeypatch
):
  def run(contender, seconds, tell):
    raise KeyboardInterrupt

  monkeypatch.setattr(process, 'run', run)
  done = launch_here(*FAST, '--workdir=run')
  assert (done.returncode, problems(done.stderr)) == (130, 'interrupted\n')
  assert 'images/s' not in done.stdout
  assert not (tmp_path / 'run').exists()


def test_a_limit_that_is_too_short_for_anything_is_one_line(
  launch_here, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    process,
    'run',
    lambda _, seconds, tell: tell({'error': 'cut off', 'is_cut_off': True}),
  )
  done = launch_here(*FAST, '--config.benchmark.seconds=3', '--workdir=run')
  assert done.returncode == 2
  assert problems(done.stderr) == (
    'error: nothing was measured within config.benchmark.seconds=3: raise it\n'
  )
  assert not (tmp_path / 'run').exists()


def test_ours_that_is_cut_off_shows_what_it_measured(
  launch_here, tmp_path, monkeypatch
):
  pulse = Pulse(tmp_path)
  original = process.run

  def run(contender, seconds, tell):
    """The time is up when the first result is told."""
    hanging = stub(tmp_path, 'hangs', pipe=pulse.path)
    now = [0.0]

    def told(message):
      now[0] += seconds if 'sizes' in message else 0.0
      tell({**message, 'batch_sizes': [4], 'backend': 'gpu', 'num_devices': 1})

    original(hanging, seconds, told, clock=lambda: now[0])

  monkeypatch.setattr(process, 'run', run)
  done = launch_here(
    *FAST,
    '--config.benchmark.rounds=2',
    '--config.benchmark.seconds=45',
    '--workdir=run',
  )
  pulse.assert_both_were_there_and_are_gone()
  assert done.returncode == 0, done.stderr
  assert 'batch 4: training 7.0 images/s, peak 1.00 GiB (' in done.stdout
  line = (
    'cut off after 45 s (config.benchmark.seconds); what it had measured stays'
  )
  assert f'  {line} (' in done.stdout
  assert f'ours bfloat16 {line}' in done.stdout  # in the table
  assert 'round 2' not in done.stdout
  result = read_json(tmp_path)
  assert result['complete']
  (row,) = result['rows']
  assert row['train_images_per_s'] == 7.0
  assert row['infer_images_per_s'] is None
  (start,) = result['starts']
  assert start['is_cut_off']


def test_the_file_holds_each_result_as_it_comes(
  launch_here, tmp_path, monkeypatch
):
  seen = []

  def run(contender, seconds, tell):
    assert seconds == 300
    tell({'batch_sizes': [4], 'backend': 'cpu', 'dtype': 'bfloat16'})
    assert not (tmp_path / 'run').exists()
    for measured in ({'train_images_per_s': 5.0}, {'infer_images_per_s': 9.0}):
      tell({'sizes': {'4': measured}})
      assert list((tmp_path / 'run').iterdir()) == [
        tmp_path / 'run/benchmark.json'
      ]
      seen.append(read_json(tmp_path))

  monkeypatch.setattr(process, 'run', run)
  assert launch_here(*FAST, '--workdir=run').returncode == 0
  seen.append(read_json(tmp_path))
  assert [
    (
      result['complete'],
      result['rows'][0]['train_images_per_s'],
      result['rows'][0]['infer_images_per_s'],
    )
    for result in seen
  ] == [(False, 5.0, None), (False, 5.0, 9.0), (True, 5.0, 9.0)]
