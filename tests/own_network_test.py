"""Networks of one's own: from a config file, as data, with operations."""

import json

import haiku as hk
import numpy as np
import pytest
from conftest import ROOT, SMALL
from jax import lax
from networks import images, model_config
from run_files import problems

import googlenet
from googlenet.errors import UserError
from googlenet.model import (
  blocks,
  graph,
  own,
  points,
  rows,
  variants,
)
from googlenet.model import network as network_lib
from googlenet.model.architecture_text import (
  from_text,
  read_network,
  to_text,
)
from googlenet.model.initialization import count_parameters, init_from_numpy

CONFIG = '''
"""python launch.py --config=mine.py"""

import haiku as hk
import jax
from configs import fmnist96
from googlenet.model import own
from googlenet.model.architecture_text import to_text
from googlenet.model.rows import (
  Architecture, Block, Conv, ConvLayer, MaxPool, Own, Stage,
)


def gate(x, is_training, start):
  """Scales each channel by a gate that each position decides on."""
  linear = hk.Linear(x.shape[-1], w_init=hk.initializers.Constant(start))
  return x * jax.nn.sigmoid(linear(x))


own.register('gate', gate)
NETWORK = Architecture(
  (
    Stage('stage_1', (ConvLayer('conv_1', (Conv('conv_3x3', 8, 3, 2),)),)),
    Stage(
      'stage_2',
      (
        MaxPool(),
        Block(
          'twin',
          (
            (Conv('conv_1x1', 4, 1),),
            (Conv('conv_3x3', 6, 3), Own('gate', 'gate', (('start', 0.25),))),
          ),
        ),
      ),
    ),
  ),
  normalization='batch',
)


def get_config():
  config = fmnist96.get_config().unlock()
  config.model.variant = 'own'
  config.model.architecture = to_text(NETWORK)
  return config.lock()
'''
FLAGS = [flag for flag in SMALL if 'variant' not in flag]
PLAIN_ROWS = rows.Architecture(
  (
    rows.Stage(
      'stage_1',
      (
        rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 8, (3, 1), 2),)),
        blocks.inception_residual('twin', blocks.Widths(4, 4, 4, 4, 4, 4)),
        rows.AvgPool(2, 2, 'CEIL', True),
      ),
    ),
  ),
  aux_heads=(rows.AuxHead('aux_1', 'twin', (rows.GlobalMean(), rows.LOGITS)),),
  dropout=0.25,
)


@pytest.mark.parametrize('variant', variants.ARCHITECTURES)
def test_every_network_can_be_written_as_text(variant):
  architecture = variants.ARCHITECTURES[variant]
  text = to_text(architecture)
  assert from_text(text) == architecture
  assert json.loads(text)['op'] == 'Architecture'


def test_a_network_of_rows_is_computed_like_any_other():
  """Its text gives the shapes, names and parameters that its rows say."""
  config = model_config(
    variant='own',
    architecture=to_text(PLAIN_ROWS),
    aux_heads='on',
  )
  network = network_lib.make_network(config)
  params, state = init_from_numpy(network, (28, 28, 1), 0)
  assert params['conv_1/conv_3x3']['w'].shape == (3, 1, 1, 8)
  assert params['twin/conv_double_3x3_2']['w'].shape == (3, 3, 4, 4)
  names = points.shapes(network.architecture, (28, 28, 1))
  outputs, _ = network.apply(
    params, state, None, images(2, 28, 28, 1), False, end_points=names
  )
  assert outputs.logits.shape == (2, 10)
  assert outputs.aux_logits['aux_1'].shape == (2, 10)
  assert {k: v.shape[1:] for k, v in outputs.end_points.items()} == names
  assert variants.resolve(config).dropout == 0.25


@pytest.mark.parametrize('kernels', ['xla', 'cpu'])
def test_what_no_network_of_the_papers_has(kernels):
  """A linear layer before pooling, and a padded 1x1 first in a branch."""
  stage = rows.Stage(
    'stage_1',
    (
      rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 4, 3, is_linear=True),)),
      rows.MaxPool(2, 2),
      rows.Block(
        'block',
        (
          (rows.Conv('conv_1x1', 4, 1, padding=1),),
          (rows.Conv('conv_3x3', 4, 3, padding=2),),
        ),
      ),
    ),
  )
  config = model_config(
    variant='own', architecture=to_text(rows.Architecture((stage,)))
  )
  config.kernels = kernels
  network = network_lib.make_network(config)
  params, state = init_from_numpy(network, (28, 28, 1), 0)
  shapes = points.shapes(network.architecture, (28, 28, 1))
  assert shapes['block'] == (16, 16, 8)
  x = images(2, 28, 28, 1)
  outputs, _ = network.apply(params, state, None, x, False)
  read, _ = network.apply(params, state, None, x, False, end_points=shapes)
  assert read.end_points['block'].shape == (2, 16, 16, 8)
  np.testing.assert_allclose(outputs.logits, read.logits, atol=1e-5)
  # By hand: the border of the padded 1x1 is ReLU of its bias.
  w, b = params['conv_1/conv_3x3']['w'], params['conv_1/conv_3x3']['b']
  y = lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  y = (y + b).reshape(2, 14, 2, 14, 2, 4).max((2, 4))
  w = params['block/conv_1x1']['w'][0, 0]
  b = params['block/conv_1x1']['b']
  y = np.maximum(np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0))) @ w + b, 0)
  np.testing.assert_allclose(
    read.end_points['block'][..., :4], y, rtol=1e-4, atol=1e-5
  )


def test_the_initializers_of_an_operation_are_used():
  own.register(
    'offset',
    lambda x, is_training: (
      x
      + hk.get_parameter(
        'shift', x.shape[-1:], init=hk.initializers.Constant(3.0)
      )
    ),
  )
  net = rows.Architecture(
    (
      rows.Stage(
        'stage_1',
        (
          rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 8, 3),)),
          rows.Own('late', 'offset'),
        ),
      ),
    ),
  )
  config = model_config(variant='own', architecture=to_text(net))
  network = network_lib.make_network(config)
  params, state = init_from_numpy(network, (9, 9, 1), 0)
  np.testing.assert_array_equal(params['late']['shift'], np.full(8, 3.0))
  layers = graph.graph(network.architecture, (9, 9, 1))
  assert sum(x.parameters for x in layers) == count_parameters(params)
  outputs, _ = network.apply(
    params, state, None, images(1, 9, 9, 1), False, ['conv_1', 'late']
  )
  found = outputs.end_points
  np.testing.assert_allclose(found['late'], found['conv_1'] + 3, rtol=1e-6)


def test_an_operation_may_be_registered_again():
  """As in a notebook: what was known of the network is forgotten."""
  stage = rows.Stage('stage_1', (CONV, rows.Own('part', 'some')))
  sides = []
  for count in (6, 3):
    own.register('some', lambda x, is_training, n=count: x[..., :n])
    text = to_text(rows.Architecture((stage,)))
    config = model_config(variant='own', architecture=text)
    network = network_lib.make_network(config)
    sides.append(points.shapes(network.architecture, (8, 8, 1))['part'])
    params, _ = init_from_numpy(network, (8, 8, 1), 0)
    assert params['logits']['w'].shape == (count, 10)
  assert sides == [(8, 8, 6), (8, 8, 3)]


@pytest.mark.parametrize('kernels', ['xla', 'cpu', 'gpu'])
def test_an_operation_sees_maps_in_their_usual_layout(kernels):
  """[B, H, W, C], whatever the layout of the kernels: here the upper half."""
  own.register('upper', lambda x, is_training: x[:, : x.shape[1] // 2])
  stage = rows.Stage(
    'stage_1',
    (
      rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 4, 3),)),
      rows.Own('half', 'upper'),
    ),
  )
  config = model_config(
    variant='own',
    architecture=to_text(rows.Architecture((stage,))),
    kernels=kernels,
  )
  network = network_lib.make_network(config)
  params, state = init_from_numpy(network, (8, 6, 1), 0)
  found = network.apply(
    params, state, None, images(2, 8, 6, 1), False, ['conv_1', 'half']
  )[0].end_points
  np.testing.assert_array_equal(found['half'], found['conv_1'][:, :4])


def change(**changes):
  stage = PLAIN_ROWS.stages[0]
  return PLAIN_ROWS._replace(stages=(stage._replace(**changes),))


CONV = rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 8, 3),))
BAD = {
  'no rows': (
    lambda: change(rows=()),
    r'Stage\.rows=\(\).* one or more of',
  ),
  'name': (
    lambda: change(name='Stage 1'),
    r"Stage\.name='Stage 1' is not allowed: small letters",
  ),
  'twice': (
    lambda: change(rows=(CONV, CONV)),
    "the network has 'conv_1' twice",
  ),
  'width': (
    lambda: change(
      rows=(rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', -8, 3),)),)
    ),
    r'Conv\.width=-8 is not allowed: a whole number from 1',
  ),
  'padding': (
    lambda: change(rows=(CONV, rows.MaxPool(3, 2, 'SAEM'))),
    r"MaxPool\.padding='SAEM' .* SAME, VALID, CEIL",
  ),
  'head': (
    lambda: PLAIN_ROWS._replace(
      aux_heads=(rows.AuxHead('aux_1', 'twn', (rows.LOGITS,)),)
    ),
    "aux_1 stands after 'twn', which is no row; allowed is one of conv_1, twin",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_rows_that_are_no_network(case):
  make, words = BAD[case]
  with pytest.raises(UserError, match=words):
    to_text(make())


BAD_TEXTS = {
  'list as operation': ('{"op":[]}', r'architecture: \[\] is no operation'),
  'one message': (
    '{"op":"Stage","name":"A","rows":[]}',
    "^config.model.architecture: Stage.name='A' is not allowed",
  ),
  'no number': (
    '{"op":"LocalResponseNorm","alpha":"x"}',
    "LocalResponseNorm.alpha='x' is not allowed: a number",
  ),
  'function': ('{"op":"Own","name":"a","function":3}', 'name of an operation'),
  'options': (
    '{"op":"Own","name":"a","function":"a","options":[5]}',
    'pairs of a name and a value',
  ),
  'no JSON': ('{', 'it is no JSON of rows'),
  'no network': ('[1]', 'it is no Architecture'),
  'operation': ('{"op":"Conf"}', "'Conf' is no operation, did you mean 'Conv'"),
  'field': (
    '{"op":"MaxPool","windows":3}',
    'MaxPool has the fields window, stride, padding: windows is none of them',
  ),
  'missing': (
    '{"op":"Conv","name":"a"}',
    'kernel_size is missing, width is',
  ),
  'no classes': (
    to_text(PLAIN_ROWS._replace(head=(rows.GlobalMean(),))),
    'the head ends with .* end it with rows.LOGITS',
  ),
  'rank': (
    to_text(PLAIN_ROWS._replace(head=(rows.Conv('a', 0, 1),))),
    'the head ends with a of ',
  ),
  'unregistered': (
    to_text(
      change(rows=(CONV, rows.Own('mix', 'shufle')))._replace(aux_heads=())
    ),
    "operation 'shufle' of mix is not registered",
  ),
}


@pytest.mark.parametrize('case', BAD_TEXTS)
def test_texts_that_are_no_network(case):
  text, words = BAD_TEXTS[case]
  with pytest.raises(UserError, match=words):
    variants.resolve(model_config(variant='own', architecture=text))


def test_variant_and_text_come_together():
  for fields in (
    {'variant': 'own'},
    {'architecture': to_text(PLAIN_ROWS)},
  ):
    with pytest.raises(UserError, match="variant='own' and architecture="):
      variants.resolve(model_config(**fields))


HEADS = {
  'map': ((rows.LOGITS,), 'the head has Dense, which takes a vector, after'),
  'vector': (
    (rows.GlobalMean(), rows.Conv('a', 3, 1), rows.LOGITS),
    'the head has Conv, which takes a map, after a vector',
  ),
}


@pytest.mark.parametrize('case', HEADS)
def test_heads_that_mix_up_maps_and_vectors(case):
  head, words = HEADS[case]
  with pytest.raises(UserError, match=words):
    to_text(PLAIN_ROWS._replace(head=head))


def test_an_auxiliary_head_ends_in_classes():
  head = rows.AuxHead('aux_1', 'twin', (rows.GlobalMean(),))
  text = to_text(PLAIN_ROWS._replace(aux_heads=(head,)))
  with pytest.raises(UserError, match='aux_1 ends with aux_1/global_mean of'):
    variants.resolve(model_config(variant='own', architecture=text))


OPERATIONS = {
  'nothing': (lambda x, is_training: None, 'late returns a NoneType'),
  'vector': (lambda x, is_training: x.mean((1, 2)), r'an array \[1, 8\]'),
}


@pytest.mark.parametrize('case', OPERATIONS)
def test_operations_that_return_no_map(case, forgets):
  function, words = OPERATIONS[case]
  own.register(case, function)
  text = to_text(
    change(rows=(CONV, rows.Own('late', case)))._replace(aux_heads=())
  )
  with pytest.raises(UserError, match=words):
    variants.resolve(model_config(variant='own', architecture=text))


@pytest.fixture
def forgets(monkeypatch):
  """Operations are known to this test only."""
  monkeypatch.setattr(own, '_REGISTERED', {})
  read_network.cache_clear()
  own.sizes.cache_clear()


def test_a_run_with_an_operation(launch_here, tmp_path, forgets, monkeypatch):
  """Trained, continued, exported, predicted with; told what it needs."""
  (tmp_path / 'mine.py').write_text(CONFIG)
  given = ['--config=mine.py', '--workdir=run', *FLAGS]
  done = launch_here(*given, '--config.train.max_steps=3', config='')
  assert done.returncode == 0, done.stderr
  w = googlenet.load(tmp_path / 'run').params['twin/gate/linear']['w']
  np.testing.assert_allclose(w, 0.25, atol=0.02)  # as it was told to begin
  more = '--config.train.max_steps=4'
  done = launch_here(*given, more, '--allow_config_change', config='')
  assert done.returncode == 0, done.stderr
  images = f'--images={ROOT}/docs/photos/bag.jpg'
  reads = ['--config=mine.py', '--workdir=run']
  done = launch_here('--mode=predict', *reads, images, config='')
  assert done.returncode == 0, done.stderr
  assert 'step 4' in done.stdout
  done = launch_here('--mode=summary', *reads, '--points', config='')
  assert 'twin/gate ' in done.stdout
  done = launch_here('--mode=export', *reads, '--output=a.stablehlo', config='')
  assert done.returncode == 0, done.stderr
  pytest.importorskip('onnx')
  done = launch_here('--mode=export', *reads, '--output=a.onnx', config='')
  assert done.returncode == 2
  assert 'twin/gate cannot be written as ONNX: it is an ope' in done.stderr


def test_a_run_needs_the_file_of_its_operation(launch_here, tmp_path, forgets):
  (tmp_path / 'mine.py').write_text(CONFIG)
  given = ['--config=mine.py', '--workdir=run', *FLAGS]
  assert launch_here(*given, config='').returncode == 0
  own._REGISTERED.clear()
  read_network.cache_clear()
  for flags in (['--workdir=run'], ['--mode=evaluate', '--workdir=run']):
    done = launch_here(*flags, config='')
    assert done.returncode == 2
    assert problems(done.stderr) == (
      "error: config.model.architecture: the operation 'gate' of gate is not "
      'registered; give the file that calls own.register: '
      '--operations=mine.py\n'
    )
  found = launch_here(
    *('--mode=summary', '--workdir=run', '--operations=mine.py'), config=''
  )
  assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--operations=miss.py', '--operations=miss.py: no such file'),
    ('--operations=mine.txt', 'allowed is a file ending in .py'),
    ('--operations=bad.py', 'bad.py cannot be loaded: ZeroDivisionError'),
  ],
)
def test_files_of_operations_that_cannot_be_read(
  launch_here, tmp_path, flag, words
):
  (tmp_path / 'mine.txt').write_text('')
  (tmp_path / 'bad.py').write_text('1 / 0')
  done = launch_here('--mode=summary', flag)
  assert (done.returncode, done.stdout) == (2, '')
  assert words in done.stderr
  assert problems(done.stderr).count('\n') == 1


@pytest.mark.slow
def test_trials_of_a_sweep_register_operations(launch_py, tmp_path):
  """Each trial is a process of its own."""
  (tmp_path / 'mine.py').write_text(CONFIG)
  done = launch_py(
    *('--mode=sweep', '--config=mine.py', '--workdir=s', '--sweep=seed=0,1'),
    *FLAGS,
    config='',
  )
  assert done.returncode == 0, done.stderr
  for seed in (0, 1):
    assert (tmp_path / f's/seed={seed}/result.json').exists()
  # Continued without the config, with the file that registers.
  flags = ['--mode=sweep', '--workdir=s']
  assert launch_py(*flags, config='').returncode == 2
  done = launch_py(*flags, '--operations=mine.py', config='')
  assert done.returncode == 0, done.stderr
  assert done.stdout.count('finished, eval') == 2


def test_a_network_of_rows_needs_no_file(launch_here, tmp_path):
  text = to_text(PLAIN_ROWS)
  flags = ['--config.model.variant=own', f'--config.model.architecture={text}']
  done = launch_here(*FLAGS, *flags, '--workdir=run')
  assert done.returncode == 0, done.stderr
  stored = json.loads((tmp_path / 'run/config.json').read_text())
  assert from_text(stored['model']['architecture']) == PLAIN_ROWS
  net = googlenet.load(tmp_path / 'run')
  assert net.network.architecture.stages == PLAIN_ROWS.stages
  other = to_text(PLAIN_ROWS._replace(dropout=0.5))
  flags[1] = f'--config.model.architecture={other}'
  done = launch_here(*FLAGS, *flags, '--workdir=run', '--allow_config_change')
  assert done.returncode == 2
  assert 'model.architecture' in done.stderr
