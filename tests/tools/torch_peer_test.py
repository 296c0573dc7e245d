"""The same network in PyTorch: equal logits, what it tells."""

import importlib.util
import json
import pathlib
import sys
import types

import jax
import numpy as np
import pytest

from googlenet import config as config_lib
from googlenet.model import network as network_lib
from googlenet.model import variants
from googlenet.model.initialization import count_parameters, init_from_numpy
from googlenet.tools.benchmark import contenders, process


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
  from googlenet.tools.benchmark import torch_peer

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

  rows = contenders.torch_rows(variants.resolve(config.model))
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
  config.benchmark.steps = 1
  given = contenders.torch_contenders(
    config_lib.resolve(config), 1, sys.executable, 'cpu', [2, 4], tmp_path
  )

  def run(one):
    report = {}
    process.run(one, 600, lambda message: process.merge(report, message))
    return report

  for one in given[:3]:
    report = run(one)
    assert 'error' not in report
    assert list(report['sizes']) == ['2', '4']
    assert report['parameters'] == 2186
  elsewhere = given[0]._replace(job={**given[0].job, 'device': 'tpu'})
  assert 'error' in run(elsewhere)


@pytest.fixture
def torch_peer(monkeypatch):
  """The peer with a few names in place of torch: it tells, but runs nothing."""
  torch = types.ModuleType('torch')
  torch.nn = types.ModuleType('torch.nn')
  torch.nn.functional = types.ModuleType('torch.nn.functional')
  torch.nn.Module = object
  torch.float32, torch.bfloat16, torch.__version__ = 1, 2, '0'
  torch.manual_seed, torch.get_num_threads = lambda _: None, lambda: 2
  for name in ('torch', 'torch.nn', 'torch.nn.functional'):
    monkeypatch.setitem(sys.modules, name, eval(name, {'torch': torch}))
  # Not under its own name, which is that of the real one.
  path = pathlib.Path(contenders.__file__).with_name('torch_peer.py')
  spec = importlib.util.spec_from_file_location('torch_peer_alone', path)
  torch_peer = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(torch_peer)

  network = types.SimpleNamespace(parameters=lambda: [])
  monkeypatch.setattr(torch_peer, 'Network', lambda *_: network)
  monkeypatch.setattr(torch_peer, 'initialize', lambda _: None)
  return torch_peer


def test_torch_tells_each_result_as_it_comes(torch_peer, monkeypatch, capsys):
  lines = []

  def told():
    lines.extend(map(json.loads, capsys.readouterr().out.splitlines()))
    return [message['sizes'] for message in lines if 'sizes' in message]

  def make_calls(job, network, batch_size):
    def infer():
      assert list(told()[-1][str(batch_size)]) == [
        'train_images_per_s',
        'compile_s',
        'peak_bytes',
      ]

    if batch_size == 16:
      raise MemoryError('out of memory')
    return (lambda: None), infer

  monkeypatch.setattr(torch_peer, 'make_calls', make_calls)
  torch_peer.measure(
    {
      **{'device': 'cpu', 'dtype': 'float32', 'started': 0.0, 'steps': 3},
      **{'rows': [], 'image_shape': [28, 28, 1], 'num_classes': 10},
      'batch_sizes': [4, 8, 16],
    }
  )
  sizes = [(size, measured) for one in told() for size, measured in one.items()]
  assert [(size, len(measured)) for size, measured in sizes] == [
    ('4', 3),
    ('4', 1),
    ('8', 3),
    ('8', 1),
  ]
  assert sum('start_s' in message for message in lines) == 1
  assert lines[-1] == {'error': 'MemoryError: out of memory'}


def test_torch_is_timed_for_as_long_as_ours(torch_peer):
  from googlenet.tools.benchmark import clock

  assert torch_peer._ENOUGH_SECONDS == clock.ENOUGH_SECONDS
  assert torch_peer._ENOUGH_STEPS == clock.ENOUGH_STEPS
  for step in (0.0, 0.001, 0.01, 2.0):
    for at_least in (1, 5, 1000):
      times = [step] * at_least
      count = clock.num_steps(times, at_least)
      assert torch_peer.num_steps(times, at_least) == count
