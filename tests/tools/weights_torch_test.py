"""Networks of PyTorch and Caffe compute the same as ours with their weights.

The networks of `torch_networks` are drawn at random, running statistics too.
"""

import json
import pathlib
import pickle

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from conftest import ROOT
from networks import FAST_TO_COMPILE, model_config

import googlenet
from googlenet.io import array_files, pretrained
from googlenet.model import network as network_lib
from googlenet.model import regularization
from googlenet.model.initialization import abstract_init
from googlenet.runtime.compilation import compile_with
from googlenet.tools.weights import convert, names, presets
from googlenet.train import loss as loss_lib

torch = pytest.importorskip('torch', reason='compares with PyTorch')

import torch_networks  # noqa: E402

import launch  # noqa: E402

CLASSES = 7
LABELS = np.array([1, 6, 0, 3])


def randomized(network, seed=0):
  """Draws what a trained network might have; returns it in evaluation."""
  torch.manual_seed(seed)
  with torch.no_grad():
    for module in network.modules():
      if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
        fan_in = module.weight[0].numel()
        module.weight.normal_(0, (2 / fan_in) ** 0.5)
        if module.bias is not None:
          module.bias.normal_(0.1, 0.1)
      elif isinstance(module, torch.nn.BatchNorm2d):
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(0, 0.2)
        module.running_mean.normal_(0, 0.2)
        module.running_var.uniform_(0.5, 2)
        module.num_batches_tracked.fill_(12)
  return network.eval()


def launch_here(*flags):
  return launch.main(
    [
      'launch.py',
      '--config.model.kernels=xla',
      '--config.model.dropout=0.0',
      '--config.train.compilation_cache=',
      *flags,
    ]
  )


def import_weights(folder, path, variant, size, *flags):
  """Imports a file; returns the network, its parameters and its state."""
  workdir = folder / 'run'
  code = launch_here(
    '--mode=import_weights',
    f'--config={ROOT}/configs/fmnist96.py',
    f'--config.model.variant={variant}',
    f'--config.model.num_classes={CLASSES}',
    f'--config.data.image_size={size}',
    f'--weights={path}',
    f'--preset={next(iter(presets.PRESETS[variant]))}',
    f'--workdir={workdir}',
    *flags,
  )
  assert code == 0
  config = json.loads((workdir / 'config.json').read_text())
  _, saved = pretrained.read_run(workdir)
  network = network_lib.make_network(
    ml_collections.ConfigDict(config['model'] | {'kernels': 'xla'})
  )
  return network, saved.params, saved.network_state, config


def saved(folder, network, ending):
  path = folder / f'network{ending}'
  if ending == '.npz':
    np.savez(path, **network.blobs())
  elif ending == '.safetensors':
    array_files.write(
      path, {k: v.numpy() for k, v in network.state_dict().items()}
    )
  else:
    torch.save(network.state_dict(), path)
  return path


def images(size, count=4):
  x = np.random.default_rng(0).standard_normal((count, size, size, 3))
  return x.astype(np.float32)


def relative_error(actual, expected):
  """Of a whole array: single numbers may happen to be near 0."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape
  return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def assert_close(actual, expected, name):
  assert relative_error(actual, expected) <= 1e-4, name


def compare(network, params, state, torch_network, scheme, size):
  """Logits in evaluation, then loss, gradients and statistics in training.

  In float64: with batch norm on few pixels the gradients of one and the same
  network differ by more than 1e-4 between float32 and float64.
  """
  x = images(size).astype(np.float64)
  params, state = jax.tree.map(np.float64, (params, state))
  torch_network = torch_network.double()
  labels, torch_labels = jnp.asarray(LABELS), torch.from_numpy(LABELS)
  theirs = x[..., ::-1] if scheme.is_bgr else x
  theirs = np.ascontiguousarray(theirs.transpose(0, 3, 1, 2))
  theirs = torch.from_numpy(theirs)

  def loss_fn(params):
    outputs, new_state = network.apply(params, state, None, x, True)
    heads = [(1.0, outputs.logits)]
    heads += [(0.3, logits) for logits in outputs.aux_logits.values()]
    return sum(
      weight * loss_lib.cross_entropy(logits, labels).mean()
      for weight, logits in heads
    ), new_state

  @jax.jit
  def both(params):
    outputs, _ = network.apply(params, state, None, x, False)
    return outputs, jax.value_and_grad(loss_fn, has_aux=True)(params)

  both = compile_with(FAST_TO_COMPILE, both.lower(params))
  outputs, ((loss, new_state), grads) = both(params)

  with torch.no_grad():
    logits, aux_logits = torch_network(theirs)
  assert_close(outputs.logits, logits, 'logits')
  assert outputs.aux_logits.keys() == aux_logits.keys()
  for name, expected in aux_logits.items():
    assert_close(outputs.aux_logits[name], expected, name)

  torch_network.train()
  logits, aux_logits = torch_network(theirs)
  cross_entropy = torch.nn.functional.cross_entropy
  expected = cross_entropy(logits, torch_labels)
  for head in aux_logits.values():
    expected = expected + 0.3 * cross_entropy(head, torch_labels)
  expected.backward()
  assert_close(loss, expected.item(), 'loss')

  entries = names.make_entries(scheme, network.architecture, params, state)
  trees = {'params': grads, 'network_state': new_state}
  arrays = jax.tree.map(np.asarray, trees)
  arrays = convert.to_theirs(scheme, entries, arrays, step=13)
  grads_there = {name: p.grad for name, p in torch_network.named_parameters()}
  expected = grads_there | dict(torch_network.named_buffers())
  if scheme.is_bgr:  # named by layer and blob, not by module
    expected = torch_network.blobs(lambda parameter: parameter.grad)
  assert arrays.keys() == expected.keys()
  errors = {
    name: relative_error(arrays[name], expected[name]) for name in arrays
  }
  assert max(errors.values()) <= 1e-4, sorted(
    (error, name) for name, error in errors.items()
  )[-5:]


@pytest.fixture(autouse=True)
def _no_dropout_in_heads(monkeypatch):
  """Theirs are drawn by another generator."""
  monkeypatch.setattr(regularization.Dropout, '__call__', lambda _, x: x)


@pytest.mark.parametrize(
  ('variant', 'make', 'ending', 'size'),
  [
    ('torchvision', torch_networks.GoogLeNet, '.pth', 64),
    # Its heads pool 8x8 to 2x2, so that the order of the axes counts.
    ('paper', torch_networks.CaffeGoogLeNet, '.npz', 128),
    ('inception_v3', torch_networks.InceptionV3, '.safetensors', 107),
    pytest.param(
      'inception5h',
      torch_networks.Inception5h,
      '.pth',
      96,
      marks=pytest.mark.slow,
    ),
    pytest.param(
      'inception_fid',
      torch_networks.FidInceptionV3,
      '.pth',
      107,
      marks=pytest.mark.slow,
    ),
    # The smallest image that its head takes.
    pytest.param(
      'inception_v3',
      torch_networks.InceptionV3,
      '.pth',
      299,
      marks=pytest.mark.slow,
    ),
  ],
)
def test_same_numbers_and_back_bit_for_bit(
  variant, make, ending, size, tmp_path
):
  options = {}
  if variant == 'paper':
    options['side'] = 2
  flags = ['--config.model.aux_heads=on']
  if variant == 'inception_v3' and size < 299:
    options['aux_logits'] = False
    flags = ['--config.model.aux_heads=off']
  if variant in ('inception5h', 'inception_fid'):  # files have no heads
    flags = []
  torch_network = randomized(make(CLASSES, **options))
  path = saved(tmp_path, torch_network, ending)
  network, params, state, config = import_weights(
    tmp_path, path, variant, size, *flags
  )
  assert config['data']['channels'] == 3
  back = tmp_path / f'back{ending}'
  assert (
    launch_here(
      '--mode=export_weights', f'--workdir={tmp_path}/run', f'--weights={back}'
    )
    == 0
  )
  before, after = array_files.read(path), array_files.read(back)
  assert before.keys() == after.keys()
  for name in before:
    if 'num_batches' not in name:
      assert before[name].read().tobytes() == after[name].read().tobytes()
  if ending == '.pth':
    state_dict = torch.load(back, weights_only=True)
    make(CLASSES, **options).load_state_dict(state_dict, strict=True)
  with jax.enable_x64(True):
    compare(network, params, state, torch_network, names.SCHEMES[variant], size)


@pytest.mark.parametrize(
  ('variant', 'make', 'ending'),
  [
    ('inception5h', torch_networks.Inception5h, '.pth'),
    ('inception5h_lucent', torch_networks.LucentInceptionV1, '.safetensors'),
  ],
)
def test_maps_of_inception5h_are_those_of_lucid_and_lucent(
  variant, make, ending, tmp_path, capfd
):
  """From the file and images of 0 to 255 minus 117, at which the norm counts.

  And back: the file that is exported has the same bits.
  """
  theirs, size = randomized(make(CLASSES)), 64
  path = saved(tmp_path, theirs, ending)
  off = '--config.model.aux_heads=off'  # images are too small for them
  network, params, state, config = import_weights(
    tmp_path, path, variant, size, off
  )
  assert config['model']['aux_heads'] == 'off'
  assert config['data']['mean'] == [117 / 255] * 3
  back = tmp_path / f'back{ending}'
  target = (f'--workdir={tmp_path}/run', f'--weights={back}')
  assert launch_here('--mode=export_weights', *target) == 0
  assert ', without auxiliary heads\n' in capfd.readouterr().out
  before, after = array_files.read(path), array_files.read(back)
  assert before.keys() == after.keys()
  for name in before:
    assert before[name].read().tobytes() == after[name].read().tobytes(), name
  if ending == '.pth':
    state_dict = torch.load(back, weights_only=True)
    make(CLASSES).load_state_dict(state_dict, strict=True)

  x = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)) - 117.0
  x = x.astype(np.float32)
  with torch.no_grad():
    theirs(torch.from_numpy(x.transpose(0, 3, 1, 2)))
  assert len(theirs.maps) == 2 * 3 + 6 + 9 * 15 + 2
  assert theirs.maps['mixed4a'].shape[1] == 508
  compute = jax.jit(
    lambda params, x: network.apply(
      params, state, None, x, False, end_points=tuple(theirs.maps)
    )
  )
  lowered = compute.lower(params, x)
  outputs, _ = compile_with(FAST_TO_COMPILE, lowered)(params, x)
  for name, expected in theirs.maps.items():
    expected = expected.numpy()
    if expected.ndim == 4:
      expected = expected.transpose(0, 2, 3, 1)
    found, scale = outputs.end_points[name], np.abs(expected).max()
    assert scale > 0.1, name
    np.testing.assert_allclose(
      found / scale, expected / scale, atol=1e-4, err_msg=name
    )


# ---- torchvision itself, and the files that its users have.

OURS = {
  'alexnet': 'alexnet_torchvision',
  'googlenet': 'torchvision',
  'inception_v3': 'inception_v3',
  'vgg16': 'vgg16',
}


def torchvision_network(name, **options):
  models = pytest.importorskip(
    'torchvision.models',
    reason='pip install torchvision',
    # RuntimeError: it was made for another build of PyTorch.
    exc_type=(ImportError, RuntimeError),
  )
  if name in ('googlenet', 'inception_v3'):
    options['init_weights'] = False
  return getattr(models, name)(**options)


@pytest.mark.parametrize('name', OURS)
def test_names_and_shapes_of_torchvision(name):
  with torch.device('meta'):
    theirs = torchvision_network(name).state_dict()
  scheme = names.SCHEMES[OURS[name]]
  network = network_lib.make_network(
    model_config(variant=OURS[name], num_classes=1000)
  )
  size = scheme.image_size
  shapes = abstract_init(network, (size, size, 3))
  entries = names.make_entries(scheme, network.architecture, *shapes)
  assert {entry.name: entry.shape for entry in entries} == {
    key: tuple(value.shape)
    for key, value in theirs.items()
    if not key.endswith('num_batches_tracked')
  }


def published(name):
  """The image preparation of the published weights, without the weights."""
  presets = pytest.importorskip('torchvision.transforms._presets')
  size, resize = (299, 342) if name == 'inception_v3' else (224, 256)
  return presets.ImageClassification(crop_size=size, resize_size=resize)


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=pytest.mark.slow) for name in OURS]
)
def test_a_photo_is_predicted_as_by_torchvision(name, tmp_path):
  """From the file to the probabilities, and the weights back again."""
  options = {'num_classes': CLASSES}
  if name in ('googlenet', 'inception_v3'):
    # What `weights=` sets.
    options |= {'transform_input': True, 'aux_logits': True}
  theirs = randomized(torchvision_network(name, **options))
  path = tmp_path / 'network.pth'
  torch.save({f'module.{k}': v for k, v in theirs.state_dict().items()}, path)
  size = names.SCHEMES[OURS[name]].image_size
  *_, config = import_weights(tmp_path, path, OURS[name], size)
  assert config['data']['resize'] == (342 if size == 299 else 256)
  photo = torch_networks.photo(500, 375)
  photo.save(tmp_path / 'photo.png')
  net = googlenet.load(tmp_path / 'run')
  found = net.features(net.read([tmp_path / 'photo.png']), ['logits'])['logits']
  with torch.no_grad():
    expected = theirs(published(name)(photo)[None]).numpy()
  assert_close(found, expected, 'logits')
  assert found.argsort().tolist() == expected.argsort().tolist()
  back = tmp_path / 'back.pth'
  target = (f'--workdir={tmp_path}/run', f'--weights={back}')
  assert launch_here('--mode=export_weights', *target) == 0
  back, before = torch.load(back, weights_only=True), theirs.state_dict()
  for key in back:  # without the heads
    if not key.endswith('num_batches_tracked'):
      assert torch.equal(back[key], before[key]), key
  left_out = before.keys() - back.keys()
  assert all(key.startswith(('aux', 'AuxLogits.')) for key in left_out)


# ---- Hostile and unfit .pth files.


class Evil:
  """Runs code when it is unpickled."""

  def __reduce__(self):
    return (pathlib.Path.touch, (pathlib.Path('evil'),))


def evil(path):
  torch.save({'fc.weight': Evil()}, path)


def plain_pickle(path):
  path.write_bytes(pickle.dumps({'fc.weight': Evil()}))


def truncated(path):
  torch.save({'fc.weight': torch.zeros(100, 100)}, path)
  path.write_bytes(path.read_bytes()[:2000])


def nested(path):
  torch.save({'epoch': 3, 'state_dict': {'fc.weight': torch.zeros(1)}}, path)


def claims_much(path):
  huge = torch.zeros(1).expand(2**40)
  torch.save({'fc.weight': huge}, path)


def sparse(path):
  torch.save({'fc.bias': torch.zeros(CLASSES).to_sparse()}, path)


@pytest.mark.parametrize(
  ('write', 'words'),
  [
    (evil, 'could run code'),
    (plain_pickle, 'could run code'),
    (truncated, 'is damaged'),
    (nested, 'no state_dict but a dict of epoch, state_dict'),
    (claims_much, 'fc.weight (1099511627776,) instead of (7, 1024)'),
    (sparse, 'fc.bias torch.sparse_coo'),
    (lambda path: torch.save([1], path), 'no state_dict but a list'),
    (lambda path: path.write_bytes(b''), 'is damaged'),
  ],
)
def test_unfit_pth_files(write, words, tmp_path, capfd, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'a.pth'
  write(path)
  code = launch_here(
    '--mode=import_weights',
    f'--config={ROOT}/configs/fmnist96.py',
    '--config.model.variant=torchvision',
    f'--config.model.num_classes={CLASSES}',
    f'--weights={path}',
    '--workdir=run',
  )
  stderr = capfd.readouterr().err
  assert code == 2
  assert stderr.count('\n') == 1, stderr
  assert words in stderr
  assert [p.name for p in tmp_path.iterdir()] == ['a.pth']
