"""The benchmark: processes, pairing, medians, table; torch where there is."""

import json
import stat
import sys

import jax
import numpy as np
import pytest
from conftest import SMALL, environment

from googlenet import architectures
from googlenet import config as config_lib
from googlenet import network as network_lib
from googlenet.benchmark import contenders, flops, ours, results, runner, table
from googlenet.errors import UserError
from googlenet.modes import benchmark
from googlenet.network.initialization import count_parameters, init_from_numpy

FAST = (
  *SMALL,
  '--mode=benchmark',
  '--config.train.batch_size=8',
  '--config.benchmark.batch_sizes=(4,)',
  '--config.benchmark.precisions=("params=float32,compute=bfloat16,'
  'output=float32",)',
  '--config.benchmark.steps=1',
  '--config.benchmark.rounds=1',
  '--config.benchmark.torch_python=none',
)


def test_measures_this_project(launch_py, launch_here, tmp_path):
  """The program as it is, but for torch, on two devices."""
  done = launch_py(*FAST, '--workdir=run', devices=2)
  assert done.returncode == 0, done.stderr
  for text in (
    'round 1/1  ours bfloat16',
    'tiny, 28x28x1 -> 10 classes, 2,186 parameters',
    '2 x cpu (cpu)',
    'torch is left out: config.benchmark.torch_python=none',
    'run/benchmark.json',
  ):
    assert text in done.stdout
  assert max(map(len, done.stdout.splitlines())) <= 100
  result = json.loads((tmp_path / 'run/benchmark.json').read_text())
  assert result['batch_size'] == 8
  assert result['train_images_per_s'] > 0
  assert result['infer_images_per_s'] > 0
  assert [row['batch_size'] for row in result['rows']] == [4, 8]
  (efficiency,) = result['efficiency']
  assert sum(efficiency['shares'].values()) == pytest.approx(1)
  assert min(efficiency['shares'].values()) >= 0
  assert efficiency['product_flop_per_s'] > 0
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
  """The devices of the process that measures: here there is one."""
  for name, value in environment(devices=2).items():
    monkeypatch.setenv(name, value)
  done = launch_here(
    *FAST, '--config.benchmark.batch_sizes=(5,)', '--workdir=run'
  )
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1, done.stderr
  assert 'ours bfloat16: config.benchmark.batch_sizes: 5' in done.stderr
  assert 'choose 4 or 6' in done.stderr
  assert not (tmp_path / 'run').exists()


STUB = """
import json, os, sys
job = json.load(sys.stdin)
what = job['what']
if what == 'noise':
  print('a library says something')
if what == 'killed':
  os.kill(os.getpid(), 9)
if what == 'raises':
  raise ValueError('no compiler')
print(json.dumps({'sizes': {}, 'what': what, 'x': os.environ['STUB'],
                  'started': job['started']}))
"""


def stub(tmp_path, what, name='stub'):
  path = tmp_path / 'stub.py'
  path.write_text(STUB)
  command = [sys.executable, str(path)]
  return contenders.Contender(name, command, {'STUB': 'y'}, {'what': what})


def test_a_process_gets_its_job_and_environment(tmp_path):
  report = runner.start(stub(tmp_path, 'noise'))
  assert report['what'] == 'noise'
  assert report['x'] == 'y'
  assert report['started'] > 0


@pytest.mark.parametrize(
  ('what', 'reason'),
  [
    ('killed', 'ended by signal 9 (out of memory?)'),
    ('raises', 'exit code 1: ValueError: no compiler'),
  ],
)
def test_a_process_without_a_report_says_why(tmp_path, what, reason):
  assert runner.start(stub(tmp_path, what)) == {'sizes': {}, 'error': reason}


def contender(name):
  return contenders.Contender(name, [], {}, {})


def test_rounds_pair_and_a_failed_peer_is_not_started_again():
  order, lines = [], []

  def start(given):
    order.append(given.name)
    if given.name == 'torch b':
      return {'sizes': {}, 'error': 'no compiler'}
    rates = {'train_images_per_s': 1.0, 'infer_images_per_s': 2.0}
    return {'sizes': {'8': rates}, 'backend': 'cpu'}

  def others(report):
    assert report['backend'] == 'cpu'
    return [contender('torch a'), contender('torch b')]

  def say(text, end='\n', flush=False):
    lines.append(text + end)

  reports = runner.play([contender('ours')], others, 2, say, start)
  assert order == ['ours', 'torch a', 'torch b', 'ours', 'torch a']
  assert {name: len(own) for name, own in reports.items()} == {
    'ours': 2,
    'torch a': 2,
    'torch b': 1,
  }
  text = ''.join(lines)
  assert text.count('\n') == len(order)
  assert 'torch b' + 26 * ' ' + '  failed' in text


def test_a_failure_of_ours_ends_the_benchmark():
  def start(given):
    return {'sizes': {}, 'error': 'out of memory'}

  with pytest.raises(UserError, match='ours float32: out of memory'):
    runner.play(
      [contender('ours float32')], None, 2, lambda *_, **__: None, start
    )


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
  'product_flop_per_s': 1e4,
  'flop_per_image': {'train': 30, 'infer': 10},
}
REPORTS = {
  'ours float32': [report(t, 4 * t, **OURS) for t in (100.0, 10.0, 90.0)],
  'ours bfloat16': [report(t, 3 * t, **OURS) for t in (110.0, 30.0, 120.0)],
  # The machine was disturbed in the second round.
  contenders.REFERENCE: [report(t, 2 * t) for t in (50.0, 10.0, 30.0)],
  'torch bf16': [report(60.0, 70.0), {'sizes': {}, 'error': 'no compiler'}],
}


def test_rates_are_medians_and_ratios_are_paired():
  rows = {row['contender']: row for row in results.rows(REPORTS, [8])}
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
  efficiency = results.efficiency(REPORTS, 8)[0]
  assert efficiency['train_flop_per_s'] == 2700
  assert efficiency['infer_of_product'] == pytest.approx(0.36)
  starts = results.starts(REPORTS, 8)
  assert [s['error'] for s in starts] == [None, None, None, 'no compiler']


def test_nobody_there_has_no_rate_and_no_ratio():
  reports = {**REPORTS, 'torch bf16': [{'sizes': {}, 'error': 'killed'}]}
  (row,) = (
    row
    for row in results.rows(reports, [8])
    if row['contender'] == 'torch bf16'
  )
  assert row['train_images_per_s'] is None
  assert row['train_vs_reference'] is None
  assert row['peak_bytes'] is None


def fake_start(given):
  if given.name.startswith('ours'):
    rates = {'train_images_per_s': 100.0, 'infer_images_per_s': 300.0}
    extra = {'compile_s': 9.0, 'peak_bytes': 2**31}
    sizes = {str(size): rates | extra for size in given.job['batch_sizes']}
    facts = {'backend': 'cpu', 'devices': '1 x cpu', 'kernels': 'cpu'}
    return {'sizes': sizes, 'parameters': 7, **facts, **OURS}
  assert given.job['steps'] == 5
  assert given.job['device'] == 'cpu'
  if 'compiled' in given.name:
    return {'sizes': {}, 'error': 'InductorError: no compiler'}
  rates = {'train_images_per_s': 50.0, 'infer_images_per_s': 400.0}
  return {'sizes': {'32': rates}, 'error': 'batch 64: out of memory'}


def test_table_and_json_of_everything(config, monkeypatch, capsys):
  monkeypatch.setattr(contenders, 'find_torch', lambda _: ('python', ''))
  result = benchmark.measure(config_lib.resolve(config), fake_start)
  json.dumps(result, allow_nan=False)
  text = table.render(result)
  lines = text.splitlines()
  assert max(map(len, lines)) <= 100
  (line,) = (
    line.split()
    for line in lines
    if line.startswith('ours float32  ') and ' 32 ' in line
  )
  assert (
    line[2:] == ['32', '100.0', '300.0', '2.00'] + ['2.00'] * 2 + ['0.75'] * 2
  )
  assert 'compiled failed: InductorError: no compiler' in text
  assert 'torch fp32 failed: batch 64: out of memory' in text
  assert {row['batch_size'] for row in result['rows']} == {32, 64, 128}


def test_shares_are_never_negative_and_add_up():
  assert ours.shares(1, 2, 6, 9) == pytest.approx(
    {'forward': 0.2, 'backward': 0.4, 'optimizer': 0.3, 'input': 0.1}
  )
  for forward, gradient in ((12, 6), (5, 4), (3, 20)):
    shares = ours.shares(0, forward, gradient, 9)
    assert min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1)


def test_flop_of_the_plain_network(config):
  config.model.variant = 'plain'
  flop = flops.flop_per_image(config.model, (96, 96, 1))
  assert flop['infer'] == 2 * 276_066_304
  # conv_1 is the layer whose input needs no gradient.
  assert flop['train'] == 2 * (3 * 276_066_304 - 7_225_344)


def test_precisions_of_one_dtype_are_one_contender(config, tmp_path):
  config.benchmark.precisions = (
    'float32',
    'params=float32,compute=float32,output=float32',
  )
  config = config_lib.resolve(config)
  (one,) = contenders.our_contenders(config, tmp_path)
  assert one.name == 'ours float32'
  assert one.job['batch_sizes'] == [32, 64, 128]


def test_another_python_for_torch(tmp_path):
  assert contenders.find_torch('none')[0] == ''
  script = tmp_path / 'python'
  script.write_text('#!/bin/sh\nexit 0\n')
  with pytest.raises(UserError, match='no such program'):
    contenders.find_torch(str(script))
  script.chmod(script.stat().st_mode | stat.S_IXUSR)
  assert contenders.find_torch(str(script)) == (str(script), '')


def to_torch(params, name):
  """Returns weights of ours as torch has them, mirrored in space."""
  w, b = params[name]['w'], params[name]['b']
  if w.ndim == 4:
    w = w[::-1, ::-1]
  return np.ascontiguousarray(w.T.swapaxes(-1, -2) if w.ndim == 4 else w.T), b


@pytest.mark.parametrize(
  ('variant', 'size', 'channels'),
  [('plain', 96, 1), ('plain', 51, 3), ('tiny', 28, 1), ('tiny', 33, 2)],
)
def test_torch_has_the_same_network(config, variant, size, channels):
  """Equal logits from equal weights: mirrored where padding is (see there)."""
  torch = pytest.importorskip('torch')
  from googlenet.benchmark import torch_peer

  config.model.variant = variant
  network = network_lib.make_network(config.model)
  params, state = init_from_numpy(network, (size, size, channels), 0)
  rng = np.random.default_rng(1)
  for leaves in params.values():
    leaves['b'] = rng.standard_normal(leaves['b'].shape, np.float32)
  images = rng.standard_normal((2, size, size, channels), np.float32)
  outputs, _ = jax.jit(network.apply, static_argnums=4)(
    params, state, None, images, False
  )

  rows = contenders.torch_rows(architectures.resolve(config.model))
  peer = torch_peer.Network(rows, channels, config.model.num_classes)
  count = sum(p.numel() for p in peer.parameters())
  assert count == count_parameters(params)
  with torch.no_grad():
    for name, layer in zip(peer.names, peer.features, strict=True):
      convs = {
        f'{name}/{part}'.removesuffix('/conv'): conv
        for part, conv in layer.named_children()
      }
      for path, conv in convs.items():
        w, b = to_torch(params, path)
        conv = getattr(conv, 'conv', conv)
        conv.weight.copy_(torch.from_numpy(w))
        conv.bias.copy_(torch.from_numpy(b))
    w, b = to_torch(params, 'logits')
    peer.logits.weight.copy_(torch.from_numpy(w))
    peer.logits.bias.copy_(torch.from_numpy(b))
    mirrored = images[:, ::-1, ::-1].transpose(0, 3, 1, 2).copy()
    logits = peer(torch.from_numpy(mirrored)).numpy()
  np.testing.assert_allclose(logits, outputs.logits, rtol=1e-3, atol=1e-4)


def test_torch_measures(config, tmp_path):
  pytest.importorskip('torch')
  config.train.batch_size = 4
  config.benchmark.batch_sizes = (2,)
  config.benchmark.steps = 1
  given = contenders.torch_contenders(
    config_lib.resolve(config), 1, sys.executable, 'cpu', tmp_path
  )
  for one in given[:3]:
    report = runner.start(one)
    assert 'error' not in report
    assert list(report['sizes']) == ['2', '4']
    assert report['parameters'] == 2186
  elsewhere = given[0]._replace(job={**given[0].job, 'device': 'tpu'})
  assert 'error' in runner.start(elsewhere)
