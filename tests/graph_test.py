"""Sizes of every network: published ones, and those of its arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from networks import SMALL, VARIANTS, images, model_config, small_config

from googlenet import config as config_lib
from googlenet.model import graph, points, rows, variants
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init, count_parameters
from googlenet.tools.modes import summary


@pytest.mark.parametrize(
  ('variant', 'size', 'aux_heads', 'parameters', 'multiply_adds'),
  [
    # Caffe's bvlc_googlenet; torchvision's googlenet and inception_v3.
    ('paper', 224, 'off', 6_998_552, 1_582_671_872),
    ('paper', 224, 'on', 13_378_280, 1_591_044_096),
    ('torchvision', 224, 'off', 6_624_904, 1_498_376_192),
    ('torchvision', 224, 'on', 13_004_888, 1_506_748_416),
    ('inception_v3', 299, 'off', 23_834_568, 5_713_216_096),
    ('inception_v3', 299, 'on', 27_161_264, 5_718_899_296),
    ('bn', 224, 'auto', 7_005_832, 1_582_671_872),
    # 4a: 4 of 208 3x3 fewer; 4b: as many inputs fewer; 5a: 16 reductions more.
    ('inception5h', 224, 'off', 7_058_180, 1_584_873_344),
    ('alexnet', 224, 'auto', 62_378_344, 1_135_256_096),
    ('alexnet_torchvision', 224, 'auto', 61_100_840, 714_188_480),
    ('vgg16', 224, 'auto', 138_357_544, 15_470_264_320),
  ],
)
def test_published_sizes(variant, size, aux_heads, parameters, multiply_adds):
  total = summary.summarize(
    model_config(variant=variant, num_classes=1000, aux_heads=aux_heads),
    (size, size, 3),
  )[-1]
  assert total.parameters == parameters
  assert total.multiply_adds == multiply_adds


def test_parameters_of_squeeze_and_excite():
  """Those of `bn`, and two layers with biases in each block, reduced by 16."""
  channels = [256, 480, 512, 512, 512, 528, 832, 832, 1024]
  added = sum(2 * c * (c // 16) + c // 16 + c for c in channels)
  totals = [
    summary.summarize(
      model_config(variant=variant, num_classes=1000), (224, 224, 3)
    )[-1].parameters
    for variant in ('bn', 'se')
  ]
  assert totals == [7_005_832, 7_005_832 + added]


def test_layer_table_of_the_paper():
  """Table 1 at 224x224, with the numbers that Caffe's model gives."""
  table = {
    row.name: row
    for row in summary.summarize(
      model_config(variant='paper', num_classes=1000, aux_heads='off'),
      (224, 224, 3),
    )
  }
  # Side, channels, parameters, millions of multiply-adds.
  expected = {
    'conv_1': (112, 64, 9_472, 118.0),
    'stage_1': (56, 64, 9_472, 118.0),
    'conv_2': (56, 192, 114_944, 359.7),
    'stage_2': (28, 192, 114_944, 359.7),
    'inception_3a': (28, 256, 163_696, 128.0),
    'inception_3b': (28, 480, 388_736, 304.3),
    'stage_3': (14, 480, 552_432, 432.3),
    'inception_4a': (14, 512, 376_176, 73.6),
    'inception_4b': (14, 512, 449_160, 87.9),
    'inception_4c': (14, 512, 510_104, 99.9),
    'inception_4d': (14, 528, 605_376, 118.5),
    'inception_4e': (14, 832, 868_352, 170.0),
    'stage_4': (7, 832, 2_809_168, 549.9),
    'inception_5a': (7, 832, 1_043_456, 51.1),
    'inception_5b': (7, 1024, 1_444_080, 70.7),
  }
  for name, (side, channels, parameters, millions) in expected.items():
    row = table[name]
    assert row.shape == (side, side, channels), name
    assert row.parameters == parameters, name
    assert round(row.multiply_adds / 1e6, 1) == pytest.approx(millions), name
  assert table['logits'].parameters == 1_025_000
  assert table['logits'].multiply_adds == 1_024_000


@VARIANTS
def test_the_graph_has_the_sizes_of_the_network(variant):
  """Shapes of end points and heads, parameters of each layer; colour images."""
  size = SMALL[variant] + 3
  config = small_config(variant, num_classes=7)
  if variant in ('plain', 'bn', 'factorized', 'residual'):
    config.aux_heads, size = 'on', 96
  network = network_lib.make_network(config)
  params, state = abstract_init(network, (size, size, 3))
  expected = points.shapes(network.architecture, (size, size, 3))
  outputs, _ = jax.eval_shape(
    lambda p, s: network.apply(
      p, s, None, jnp.zeros((2, size, size, 3)), False, end_points=expected
    ),
    params,
    state,
  )
  layers = graph.graph(network.architecture, (size, size, 3))
  shapes = {name: y.shape[1:] for name, y in outputs.end_points.items()}
  assert shapes == expected
  assert graph.end_points(layers).items() <= shapes.items()
  heads = {layer.row: layer.shape for layer in layers if layer.is_side}
  assert heads == {name: y.shape[1:] for name, y in outputs.aux_logits.items()}
  counts = {name: count_parameters(leaves) for name, leaves in params.items()}
  assert counts == {
    layer.name: layer.parameters for layer in layers if layer.parameters
  }
  for layer in layers:
    if layer.weights:
      assert layer.weights == params[layer.name]['w'].size


def test_inputs_of_layers_come_first_and_have_their_shape():
  architecture = variants.resolve(small_config('residual'))
  layers = graph.graph(architecture, (96, 96, 3))
  shapes = {graph.IMAGES: (96, 96, 3)}
  for layer in layers:
    assert layer.name not in shapes
    assert layer.input_shape == shapes[layer.inputs[0]], layer.name
    shapes[layer.name] = layer.shape
  found = {layer.name: layer for layer in layers}
  assert found['inception_3a/concat'].inputs == (
    'inception_3a/conv_1x1',
    'inception_3a/conv_3x3',
    'inception_3a/conv_double_3x3_2',
  )
  assert found['inception_3a/conv_1x1'].inputs == ('stage_2/max_pool',)
  # It has more channels than its input: a 1x1 convolution on the shortcut.
  assert found['inception_3b/add'].inputs == (
    'inception_3b/shortcut',
    'inception_3b/multiply',
  )


class Unknown(NamedTuple):
  """An operation that nothing knows."""

  name: str = 'unknown'


@pytest.mark.parametrize('place', ['stage', 'branch', 'head', 'aux_head'])
def test_an_unknown_operation_is_an_error(config, monkeypatch, place):
  """Of all that reads a network, not only of what computes it."""
  tiny = variants.ARCHITECTURES['tiny']
  first, (block,) = tiny.stages[0], tiny.stages[1].rows
  (head,) = tiny.aux_heads
  tiny = {
    'stage': tiny._replace(
      stages=(first, rows.Stage('stage_2', (block, Unknown())))
    ),
    'branch': tiny._replace(
      stages=(
        first,
        rows.Stage(
          'stage_2',
          (block._replace(branches=(*block.branches, (Unknown(),))),),
        ),
      )
    ),
    'head': tiny._replace(head=(Unknown(), *tiny.head)),
    'aux_head': tiny._replace(
      aux_heads=(head._replace(ops=(Unknown(), *head.ops)),),
      uses_aux_heads=True,
    ),
  }[place]
  monkeypatch.setitem(variants.ARCHITECTURES, 'tiny', tiny)
  config.model.variant = 'tiny'
  network = network_lib.make_network(config.model)
  for read in (
    lambda: network.init(jax.random.key(0), images(1, 28, 28, 1)),
    lambda: graph.graph(network.architecture, (28, 28, 1)),
    lambda: summary.summarize(config.model, (28, 28, 1)),
    lambda: config_lib.resolve(config),
  ):
    with pytest.raises(TypeError, match=r'Unknown\(.*is no known operation'):
      read()


@VARIANTS
def test_smallest_image(variant):
  """The next smaller image is refused or reaches some step as one pixel."""
  architecture = variants.resolve(small_config(variant))
  smallest = graph.smallest_image(architecture)
  assert smallest <= SMALL[variant]
  layers = graph.graph(architecture, (smallest, smallest, 1))
  assert graph.shortest_side(layers) > 1
  try:
    layers = graph.graph(architecture, (smallest - 1, smallest - 1, 1))
  except ValueError:
    return
  assert graph.shortest_side(layers) == 1


@pytest.mark.parametrize(
  ('variant', 'depth'),
  [('plain', 22), ('paper', 22), ('alexnet', 8), ('vgg16', 16), ('nin', 12)],
)
def test_depth(variant, depth):
  architecture = variants.resolve(model_config(variant=variant))
  assert graph.depth(graph.graph(architecture)) == depth


def test_comparison_of_all_networks(launch_here):
  """At 28 pixels only some fit; at 224, with 1000 classes, published sizes."""
  done = launch_here(
    '--mode=summary', '--compare', '--config.data.image_size=28'
  )
  assert done.returncode == 0, done.stderr
  lines = [line.split() for line in done.stdout.splitlines()]
  assert lines[0] == ['28x28x1,', '10', 'classes']
  table = {line[0]: line[1:] for line in lines[2:-1]}
  assert list(table) == list(variants.ARCHITECTURES)
  assert table['alexnet'] == ['-'] * 4 + ['63']
  assert table['fmnist28'][:3] == ['22', '5,982,250', '134,612,480']

  config = model_config(num_classes=1000)
  sizes = {
    size.variant: size for size in summary.compare_sizes(config, (224, 224, 3))
  }
  assert sizes['paper'].parameters == 6_998_552
  assert sizes['inception_v3'].parameters == 23_834_568
  assert sizes['vgg16'].depth == 16
  # 13 convolutions, 5 poolings, 3 fully connected layers of VGG-16.
  sides = [(224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3)]
  sides.append((14, 512, 3))
  expected = sum(s * s * c * n + (s // 2) ** 2 * c for s, c, n in sides)
  assert sizes['vgg16'].activations == expected + 4096 + 4096 + 1000
