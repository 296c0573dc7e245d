"""Expanded weights: against products of weights, and against the network."""

import csv
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from conftest import ROOT, last_of_each, load_config
from PIL import Image
from run_files import problems
from saved_run import save_run

import googlenet
import launch
from googlenet import config as config_lib
from googlenet import kernels as kernels_lib
from googlenet.errors import UserError
from googlenet.model import (
  blocks,
  context,
  graph,
  modules,
  own,
  points,
  rows,
  successors,
  variants,
)
from googlenet.model import network as network_lib
from googlenet.model.architecture_text import to_text
from googlenet.model.initialization import init_from_numpy
from googlenet.model.rows import (
  Conv,
  ConvLayer,
  LocalResponseNorm,
  MaxPool,
  Stage,
)
from googlenet.model.small import TINY
from googlenet.tools.circuits import expanded, pictures, table
from googlenet.tools.inference import trained
from googlenet.tools.modes import circuits


def make_trained(variant, size, **model):
  """A network that was never trained, with statistics of all sizes."""
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.data.image_size = size
  config.model.update({'variant': variant, 'kernels': 'xla', **model})
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  params, state = init_from_numpy(network, (size, size, 1), 3)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == 'w':
      return leaf
    noise = rng.normal(0, 0.3, leaf.shape).astype(np.float32)
    return np.exp(noise) if path[-1].key in ('variance', 'scale') else noise

  params, state = jax.tree_util.tree_map_with_path(draw, (params, state))
  return trained.Trained(
    'x', config, network, 0, params, state, (size, size, 1), ()
  )


@pytest.fixture
def tiny():
  return make_trained('tiny', 28)


@pytest.fixture
def is_linear(monkeypatch):
  """Networks with what an expanded weight leaves out really left out."""
  mean = kernels_lib.xla.avg_pool
  plain = kernels_lib.KERNELS['xla']._replace(
    max_pool=lambda x, *pool: mean(x, *pool, count_padding=True),
    lrn=lambda x, *_: x,
  )
  monkeypatch.setitem(kernels_lib.KERNELS, 'xla', plain)
  monkeypatch.setitem(context.ACTIVATIONS, 'tanh', lambda x: x)
  monkeypatch.setitem(
    modules._APPLY, rows.SqueezeExcite, lambda row, x, context: x
  )


def from_map(net, source, target):
  """The network as a function of the map of a row: [B, h, w, C] -> target."""
  size = net.image_shape[0]

  def function(x):
    images = jnp.zeros((len(x), size, size, 1))
    outputs, _ = net.network.apply(
      net.params,
      net.network_state,
      None,
      images,
      is_training=False,
      end_points=[target],
      edit={source: lambda _: x},
    )
    return outputs.end_points[target]

  return function


def test_between_a_block_and_its_input_they_are_products_of_weights(tiny):
  found = expanded.expanded_weights(tiny, 'stage_1', 'inception_2a')
  assert found.kernels.shape == (5, 5, 8, 28)
  assert (found.low, found.stride) == ((-2, -2), (1, 1))
  w = {
    name: np.asarray(tiny.params[f'inception_2a/{name}']['w'])
    for name in ('conv_1x1', 'conv_3x3_reduce', 'conv_3x3', 'pool_proj')
    + ('conv_5x5_reduce', 'conv_5x5')
  }
  expected = np.zeros((5, 5, 8, 28), np.float64)
  expected[2, 2, :, :8] = w['conv_1x1'][0, 0]
  for row in range(3):
    for column in range(3):
      place = row + 1, column + 1
      expected[(*place, slice(None), slice(8, 20))] = (
        w['conv_3x3_reduce'][0, 0] @ w['conv_3x3'][row, column]
      )
      expected[(*place, slice(None), slice(24, 28))] = w['pool_proj'][0, 0] / 9
  for row in range(5):
    for column in range(5):
      expected[row, column, :, 20:24] = (
        w['conv_5x5_reduce'][0, 0] @ w['conv_5x5'][row, column]
      )
  np.testing.assert_allclose(found.kernels, expected, atol=1e-6)


def test_some_channels_are_those_of_all(tiny):
  whole = expanded.expanded_weights(tiny, 'conv_1', 'inception_2a').kernels
  part = expanded.expanded_weights(
    tiny, 'conv_1', 'inception_2a', inputs=[3, 1], outputs=[27, 0, 9]
  )
  np.testing.assert_array_equal(
    part.kernels, whole[:, :, [3, 1]][..., [27, 0, 9]]
  )


@pytest.mark.parametrize(
  ('channels', 'words'),
  [
    ({'inputs': 3}, '^inputs=3 is no list of channels: give one, such as .3.'),
    ({'inputs': [0, 8]}, '^inputs=8: conv_1 has channels 0 to 7$'),
    ({'outputs': [28]}, '^outputs=28: inception_2a has channels 0 to 27$'),
    ({'outputs': np.array([-1])}, '^outputs=-1 is no channel'),
  ],
)
def test_channels_that_points_do_not_have(tiny, channels, words):
  with pytest.raises(UserError, match=words):
    expanded.expanded_weights(tiny, 'conv_1', 'inception_2a', **channels)


def two_blocks(monkeypatch):
  block = blocks.inception('inception_3a', blocks.Widths(4, 6, 4, 3, 4, 4))
  more = Stage('stage_3', (block,))
  net = TINY._replace(stages=(*TINY.stages, more), normalization='batch')
  monkeypatch.setitem(variants.ARCHITECTURES, 'tiny', net)


def test_jacobian_of_a_network_whose_relus_are_open(monkeypatch):
  """Of the network as it is: positive weights, biases and maps."""
  two_blocks(monkeypatch)
  net = make_trained('tiny', 28)

  def positive(path, leaf):
    return np.abs(leaf) + 0.01 if path[-1].key != 'mean' else -np.abs(leaf)

  params, state = jax.tree_util.tree_map_with_path(
    positive, (net.params, net.network_state)
  )
  net = net._replace(params=params, network_state=state)
  found = expanded.expanded_weights(net, 'inception_2a', 'inception_3a')
  x = np.random.default_rng(0).uniform(1, 2, (1, 7, 7, 28)).astype(np.float32)
  function = from_map(net, 'inception_2a', 'inception_3a')
  # 12 channels are not behind max pooling.
  jacobian = jax.jit(jax.jacrev(lambda x: function(x)[0, 3, 3, :12]))(x)[:, 0]
  expected = np.zeros((12, 7, 7, 28), np.float32)
  expected[:, 1:6, 1:6] = found.kernels[..., :12].transpose(3, 0, 1, 2)
  np.testing.assert_allclose(jacobian, expected, rtol=1e-4, atol=1e-6)
  assert np.abs(expected).max() > 0.1


def check_linear_part(net, source, target):
  """The network, made linear, at a pixel in the middle against the kernels."""
  found = expanded.expanded_weights(net, source, target)
  shapes = points.shapes(net.network.architecture, net.image_shape)
  height, width, channels = shapes[source]
  x = np.random.default_rng(0).normal(size=(1, height, width, channels))
  x = np.concatenate([x, 0 * x]).astype(np.float32)
  y, constant = jax.jit(from_map(net, source, target))(x)
  y = np.asarray(y - constant)
  kh, kw, *_ = found.kernels.shape
  count = 0
  for row, column in np.ndindex(y.shape[:2]):
    top = row * found.stride[0] + found.low[0]
    left = column * found.stride[1] + found.low[1]
    if min(top, left) < 0 or top + kh > height or left + kw > width:
      continue
    patch = x[0, top : top + kh, left : left + kw]
    expected = np.einsum('hwi,hwio->o', patch, found.kernels)
    np.testing.assert_allclose(
      y[row, column], expected, atol=2e-5 * np.abs(expected).max() + 1e-6
    )
    count += 1
  assert count, f'no pixel of {target} lies inside'


def mixed(monkeypatch):
  """A small network with every kind of layer, on maps of 17 and 9 pixels."""
  widths = blocks.Widths(3, 2, 4, 2, 4, 3)
  gated = successors.se_inception('gated', widths)
  stages = (
    Stage(
      'stage_1',
      (
        ConvLayer('conv_1', (Conv('conv_3x3', 6, 3, padding=1),)),
        LocalResponseNorm(),
        MaxPool(2, padding='CEIL'),
        gated,
        blocks.inception_residual('residual', widths),
        blocks.inception_residual('same_width', widths),
        blocks.inception_b('one_by_n', widths),
        blocks.grid_reduction('reduction', 2, 3, 2, 3),
        blocks.inception_c('forks', widths),
      ),
    ),
  )
  net = rows.Architecture(stages, normalization='batch')
  monkeypatch.setitem(variants.ARCHITECTURES, 'tiny', net)
  return make_trained('tiny', 33, activation='tanh')


PATHS = {
  'pooling that rounds up': ('conv_1', 'gated'),
  'a block with gates': ('gated', 'residual'),
  'a residual block of the same width': ('residual', 'same_width'),
  'convolutions of 1x5 and 5x1': ('same_width', 'one_by_n'),
  'a grid reduction': ('one_by_n', 'reduction'),
  'forks': ('reduction', 'forks'),
  'two blocks': ('gated', 'same_width'),
  'points in blocks': ('gated/conv_3x3_reduce:pre', 'residual/conv_1x1'),
  'a branch to its block': ('forks/conv_3x3_reduce', 'forks'),
}


@pytest.mark.parametrize('case', PATHS)
def test_every_kind_of_layer(case, is_linear, monkeypatch):
  check_linear_part(mixed(monkeypatch), *PATHS[case])


LARGE = {
  'residual': (130, 'inception_4a', 'inception_4b'),
  'factorized': (131, 'inception_3b', 'reduction_3'),
  'inception_v2': (130, 'inception_3a', 'inception_4a'),
  'se': (100, 'inception_3b', 'inception_4a'),
  'paper': (101, 'conv_1', 'conv_2'),
  'torchvision': (130, 'inception_4e', 'inception_5a'),
  'inception_v3': (299, 'reduction_6a', 'inception_6b'),
  'vgg16': (32, 'conv_1', 'conv_2'),
}


@pytest.mark.slow
@pytest.mark.parametrize('variant', LARGE)
def test_variants(variant, is_linear):
  size, source, target = LARGE[variant]
  heads = 'off' if variant == 'inception_v3' else 'auto'
  net = make_trained(
    *(variant, size), activation='tanh', width_multiplier=0.1, aux_heads=heads
  )
  check_linear_part(net, source, target)


def test_a_block_of_a_trained_network(is_linear):
  """Real weights and statistics of batch norm, at a pixel in the middle."""
  net = googlenet.load(ROOT / 'pretrained/fmnist28_long')
  config = ml_collections.ConfigDict(net.config)
  config.model.activation, config.model.kernels = 'tanh', 'xla'
  net = net._replace(network=network_lib.from_config(config))
  check_linear_part(net, 'inception_3a', 'inception_3b')


def test_behind_a_global_mean_they_are_gains_of_means(is_linear, tiny):
  """Of maps that are the same everywhere, but for what the borders do."""
  net = make_trained('tiny', 280, activation='tanh')
  found = expanded.expanded_weights(net, 'conv_1', 'logits')
  assert found.kernels.shape == (1, 1, 8, 10)
  function = from_map(net, 'conv_1', 'logits')
  x = np.zeros((9, 140, 140, 8), np.float32)
  x[range(8), :, :, range(8)] = 1
  y = np.asarray(jax.jit(function)(x))
  np.testing.assert_allclose(
    found.kernels[0, 0], y[:8] - y[8], atol=0.1 * np.abs(y[:8] - y[8]).max()
  )


BAD_POINTS = {
  'unknown': (('inception_2b', 'logits'), "did you mean 'inception_2a'"),
  'later': (
    ('inception_2a', 'conv_1'),
    'the second is not computed',
  ),
  'itself': (
    ('inception_2a', 'inception_2a'),
    'the second is not computed',
  ),
  'another branch': (
    ('inception_2a/conv_1x1', 'inception_2a/conv_3x3'),
    'the second is not computed',
  ),
  'a flattened map': (('inception_2a', 'aux_1/fc'), 'behind aux_1/flatten'),
  'a vector': (('head/dropout', 'logits'), 'no map but a vector'),
}


@pytest.mark.parametrize('case', BAD_POINTS)
def test_points_without_weights_are_refused(case):
  given, words = BAD_POINTS[case]
  net = make_trained('tiny', 56, aux_heads='on')
  with pytest.raises(UserError, match=words):
    expanded.expanded_weights(net, *given)


def of_rows(*ops, size=8, **fields):
  """A network of one stage, see `make_trained`."""
  conv = ConvLayer('conv_1', (Conv('conv_3x3', 4, 3),))
  stage = Stage('stage_1', (conv, *ops))
  text = to_text(rows.Architecture((stage,), **fields))
  return make_trained('own', size, architecture=text, aux_heads='off')


def test_a_custom_operation_is_refused():
  own.register('half', lambda x, is_training: x[:, ::2, ::2])
  net = of_rows(rows.Own('late', 'half'))
  with pytest.raises(UserError, match='behind late, a custom operation'):
    expanded.expanded_weights(net, 'conv_1', 'logits')
  found = expanded.expanded_weights(net, 'images', 'conv_1').kernels
  np.testing.assert_allclose(
    found, net.params['conv_1/conv_3x3']['w'], rtol=1e-6
  )


def test_a_flattened_map_of_one_pixel():
  """Its kernels are larger than the network's own map, which has a border."""
  head = rows.Flatten(), rows.LOGITS
  net = of_rows(MaxPool(4, 4, 'VALID'), size=4, head=head)
  found = expanded.expanded_weights(net, 'images', 'logits').kernels
  first, last = (
    np.asarray(net.params[name]['w']) for name in ('conv_1/conv_3x3', 'logits')
  )
  wanted = np.zeros((6, 6, 1, 10))
  for y, x, i, j in np.ndindex(4, 4, 3, 3):
    wanted[y + i, x + j] += first[i, j] @ last / 16
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_kernels_that_fit_no_memory_are_refused(tiny, monkeypatch):
  monkeypatch.setattr(expanded, '_MOST', 27 * 27)
  with pytest.raises(UserError, match='are 27x27x1x28 weights, more than 729:'):
    expanded.expanded_weights(tiny, 'images', 'inception_2a')
  expanded.expanded_weights(tiny, 'images', 'inception_2a', outputs=[3])


def test_every_point_is_the_output_of_a_layer():
  """Also the logits of a network that ends with a global mean."""
  for architecture in variants.ARCHITECTURES.values():
    layers = {layer.name: layer for layer in graph.graph(architecture)}
    for point, shape in points.shapes(architecture).items():
      layer = expanded.layer_of(architecture, point, 'point')
      assert layer == 'images' or layers[layer].shape == shape


def test_the_row_before():
  architecture = variants.ARCHITECTURES['paper']
  for point, row in {
    'conv_1': 'images',
    'inception_3a': 'conv_2',
    'inception_4a/conv_5x5': 'inception_3b',
    'stage_3': 'inception_3a',
    'logits': 'inception_5b',
  }.items():
    assert expanded.row_before(architecture, point) == row


def test_a_table_of_the_strongest_connections():
  kernels = np.zeros((3, 5, 4), np.float32)
  kernels[0, 4, 0] = 3
  kernels[2, 1, 1] = -2
  kernels[1, 2, 2], kernels[2, 4, 2] = -0.5, 4
  found = table.connections(kernels, ['a', 'a', 'b', ''])
  assert found[0] == (0, 'a', 3, 3, 3, -1, 2)
  assert found[1] == (1, 'a', 2, -2, -2, 1, -1)
  assert found[2][2:] == (pytest.approx(16.25**0.5), 3.5, 4, 1, 2)
  best = table.strongest(found, 1)
  assert [[one.channel for one in ones] for ones in best] == [[2], [1]]
  best = table.strongest(found, 9)  # the last has no sign
  assert [[one.channel for one in ones] for ones in best] == [[2, 0], [1]]
  assert table.lines('x:1 is fed by y', best, 'y') == [
    'x:1 is fed by y',
    '  channel  branch   norm     sum    peak     at',
    '  y:2      b       4.031  +3.500  +4.000  +1,+2',
    '  y:0      a       3.000  +3.000  +3.000  -1,+2',
    '  y:1      a       2.000  -2.000  -2.000  +1,-1',
  ]


def test_branches_of_points():
  architecture = variants.ARCHITECTURES['factorized']
  found = table.branches(architecture, 'inception_5b', 1024)
  assert {name: found.count(name) for name in dict.fromkeys(found)} == {
    'conv_1x1': 384,
    'conv_1x3': 192,
    'conv_3x1': 192,
    'conv_double_1x3': 64,
    'conv_double_3x1': 64,
    'pool_proj': 128,
  }
  assert table.branches(architecture, 'reduction_3', 640)[-1] == 'pool'
  assert table.branches(architecture, 'images', 3) == ['', '', '']
  gated = table.branches(variants.ARCHITECTURES['se'], 'inception_3a', 256)
  assert gated[:64] == ['conv_1x1'] * 64


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  save_run(tmp_path / 'run', config)

  def launched(*flags, code=0):
    argv = ['launch.py', '--mode=circuits', '--workdir=run', *flags]
    argv = last_of_each([*argv, '--config.train.compilation_cache='])
    assert launch.main(argv) == code

  return launched


def test_what_feeds_a_channel(run, capfd):
  run('--channels=inception_2a:9,inception_2a:0', '--output=a.csv')
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  net = googlenet.load('run')
  kernels = expanded.expanded_weights(net, 'conv_1', 'inception_2a').kernels
  with open('a.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 16
  for row in rows:
    output = int(row['of'].removeprefix('inception_2a:'))
    one = kernels[:, :, int(row['channel'].removeprefix('conv_1:')), output]
    assert float(row['norm']) == pytest.approx(np.linalg.norm(one), rel=1e-4)
    assert float(row['sum']) == pytest.approx(one.sum(), rel=1e-3, abs=1e-5)
    middle = (np.array(one.shape) - 1) / 2
    place = np.array([float(row['row']), float(row['column'])]) + middle
    assert float(row['peak']) == pytest.approx(one[tuple(place.astype(int))])
    assert abs(float(row['peak'])) == pytest.approx(np.abs(one).max())
  norms = [float(row['norm']) for row in rows[:8]]
  assert norms == sorted(norms, reverse=True)
  assert [row['of'] for row in rows[7:9]] == [
    'inception_2a:9',
    'inception_2a:0',
  ]
  assert 'inception_2a:9 is fed by conv_1\n' in shown.out


def test_what_a_channel_feeds(run, capfd):
  flags = ['--channels=conv_1:3', '--to=inception_2a', '--top_k=2']
  run(*flags, '--output=a.npz')
  out = capfd.readouterr().out
  assert out.startswith('conv_1:3 feeds inception_2a\n')
  net = googlenet.load('run')
  expected = expanded.expanded_weights(net, 'conv_1', 'inception_2a')
  with np.load('a.npz', allow_pickle=False) as found:
    np.testing.assert_array_equal(
      found['kernels'], expected.kernels[:, :, 3:4, :]
    )
    assert found['inputs'].tolist() == [3]
    assert found['outputs'].tolist() == list(range(28))
    assert tuple(found['low']) == expected.low
    assert tuple(found['stride']) == (2, 2)
  sums = expected.kernels[:, :, 3].sum((0, 1))
  norms = np.linalg.norm(expected.kernels[:, :, 3].reshape(-1, 28), axis=0)
  first = max((k for k in range(28) if sums[k] > 0), key=lambda k: norms[k])
  assert out.splitlines()[2].split()[0] == f'inception_2a:{first}'
  assert len(out.splitlines()) == 2 + 4 + 2


def test_pictures_of_kernels(run):
  run('--channels=inception_2a:0-2', '--from=images', '--output=a.png')
  with Image.open('a.png') as image:
    assert min(image.size) > 100


def test_zero_is_white_and_in_the_middle_of_the_scale():
  weights = np.array([[0.1, -0.4], [0, 0.2]])
  strip = pictures.Strip('x', [pictures.Kernel(weights, 'a')], [])
  figure = pictures.kernels([strip, strip._replace(positive=[])], 'title')
  image = figure.axes[0].images[0]
  assert image.get_clim() == (-0.4, 0.4)
  assert image.cmap(image.norm(0.0))[:3] == pytest.approx((0.97,) * 3, abs=0.01)


BAD_INPUT = {
  'no channels': ([], ['--channels is missing']),
  'an unknown channel': (['--channels=conv_1:8'], ['conv_1:8', '0 to 7']),
  'channels of two points': (
    ['--channels=conv_1:1,inception_2a:2'],
    ['conv_1, inception_2a', 'of one point'],
  ),
  'both directions': (
    ['--channels=conv_1:1', '--from=images', '--to=logits'],
    ['--from=images and --to=logits', 'one of them'],
  ),
  'a later point': (
    ['--channels=conv_1:1', '--from=inception_2a'],
    ['--from=inception_2a', '--channels=conv_1', 'order of the network'],
  ),
  'an earlier point': (
    ['--channels=inception_2a:1', '--to=conv_1'],
    ['--to=conv_1', 'order of the network'],
  ),
  'an unknown point': (
    ['--channels=conv_1:1', '--to=logit'],
    ['--to: ', 'logits'],
  ),
  'a picture of too many': (
    ['--channels=logits,inception_2a', '--output=a.png'],
    ['of one point'],
  ),
  'too many for a picture': (
    ['--channels=conv_1:1', '--top_k=999', '--output=a.png'],
    ['--top_k=999', 'at most 32', '.csv'],
  ),
  'no connection': (['--channels=conv_1:1', '--top_k=0'], ['--top_k=0']),
  'an unknown format': (
    ['--channels=conv_1:1', '--output=a.txt'],
    ['--output=a.txt', '.png, .npz, .csv'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(run, capfd, case):
  flags, words = BAD_INPUT[case]
  before = sorted(os.listdir())
  run(*flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  assert shown.err.startswith('error: ')
  assert shown.err.count('\n') == 1
  for word in words:
    assert word in shown.err
  assert sorted(os.listdir()) == before


def test_a_picture_takes_some_channels(run, monkeypatch, capfd):
  monkeypatch.setattr(circuits, '_MAX_STRIPS', 9)
  run('--channels=logits', '--output=a.png', code=2)
  err = capfd.readouterr().err
  assert '--channels=logits are 10 channels' in err
  assert 'at most 9' in err
