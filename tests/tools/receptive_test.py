"""Receptive fields in closed form against what networks really depend on."""

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from googlenet.errors import UserError
from googlenet.model import network as network_lib
from googlenet.model import own, points, rows, variants
from googlenet.model.architecture_text import to_text
from googlenet.tools.examples.receptive import Box, receptive_field


def positive(network, image_shape):
  """Parameters with which a map grows, from 0, where it sees anything."""
  params, state = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, *image_shape))
  )

  def fill(path, leaf):
    name = path[-1].key
    if name == 'w':
      inputs = np.prod(leaf.shape[:-1])
      return np.full(leaf.shape, inputs**-0.5, np.float32)
    return np.full(leaf.shape, name in ('scale', 'variance'), np.float32)

  return jax.tree_util.tree_map_with_path(fill, (params, state))


def dependence(network, image_shape, names):
  """Returns by point whether rows and columns of its map see a line of pixels.

  Two arrays of bool a point, [H, h] and [W, w]. Each image is black but for one
  line. Unlike the gradient, which goes to the largest of a window alone, this
  also finds what max pooling sees.
  """
  params, state = positive(network, image_shape)
  height, width, _ = image_shape
  images = np.zeros((height + width, *image_shape), np.float32)
  for i in range(height):
    images[i, i] = 1e3
  for i in range(width):
    images[height + i, :, i] = 1e3
  outputs, _ = jax.jit(
    lambda images: network.apply(
      params, state, None, images, False, end_points=names
    )
  )(images)
  sees = {name: np.asarray(outputs.end_points[name] > 0) for name in names}
  return {
    name: (y[:height].any((2, 3)), y[height:].any((1, 3)))
    for name, y in sees.items()
  }


# Sizes at which the padding of windows differs from side to side.
CASES = {
  'tiny': (30, 29),
  'fmnist28': (27, 33),
  'plain': (37, 50),
  'paper': (75, 66),
  'torchvision': (53, 48),
  'inception_v2': (41, 33),
  'factorized': (33, 46),
  'residual': (33, 40),
  'se': (33, 38),
  'nin': (67, 70),
}


def assert_field_is_what_the_network_depends_on(variant):
  network = network_lib.make_network(
    networks.model_config(
      variant=variant, width_multiplier=0.05, aux_heads='off'
    )
  )
  image_shape = (*CASES[variant], 1)
  shapes = points.shapes(network.architecture, image_shape)
  # Of blocks `:pre` is put together from its parts.
  maps = [name for name, shape in shapes.items() if len(shape) == 3]
  assert len(maps) > 10
  seen = dependence(network, image_shape, maps)
  for name in maps:
    field = receptive_field(network, name, image_shape)
    for axis, sees in zip(field.axes, seen[name], strict=True):
      first, last = sees.argmax(0), len(sees) - 1 - sees[::-1].argmax(0)
      np.testing.assert_array_equal(axis.first, first, name)
      np.testing.assert_array_equal(axis.last, last, name)
      # The closed form, where nothing of it is outside of the image.
      start = axis.offset + axis.stride * np.arange(len(first))
      inside = (start >= 0) & (start + axis.size <= len(sees))
      np.testing.assert_array_equal(first[inside], start[inside])
      np.testing.assert_array_equal(last[inside], start[inside] + axis.size - 1)


@pytest.mark.parametrize('variant', ['tiny', 'torchvision', 'residual'])
def test_a_field_is_what_the_first_stages_depend_on(variant, monkeypatch):
  """Padding 'SAME', 'CEIL' and in pixels; branches."""
  whole = variants.ARCHITECTURES[variant]
  short = whole._replace(stages=whole.stages[:2], aux_heads=())
  monkeypatch.setitem(variants.ARCHITECTURES, variant, short)
  assert_field_is_what_the_network_depends_on(variant)


@pytest.mark.slow
@pytest.mark.parametrize('variant', CASES)
def test_a_field_is_what_the_network_depends_on(variant):
  assert_field_is_what_the_network_depends_on(variant)


def test_a_custom_operation_may_see_everything():
  """Also what comes behind it, whose map is smaller than the operation's."""
  own.register('mirrored', lambda x, is_training: x[:, ::-2, ::-2])

  def layer(name):
    return rows.ConvLayer(name, (rows.Conv('conv_3x3', 4, 3),))

  stage = rows.Stage(
    'stage_1', (layer('conv_1'), rows.Own('turned', 'mirrored'), layer('two'))
  )
  text = to_text(rows.Architecture((stage,)))
  config = networks.model_config(variant='own', architecture=text)
  network = network_lib.make_network(config)
  whole = Box(0, 0, 12, 10)
  for point, place in (('turned', (5, 4)), ('two', (0, 0)), ('two', (5, 4))):
    field = receptive_field(network, point, (12, 10, 1))
    assert field.box(*place) == whole
    assert field.stride == (0, 0)
  assert receptive_field(network, 'conv_1', (12, 10, 1)).size == (3, 3)


def test_fields_of_the_paper():
  """Counted by hand: window by window along the widest branches."""
  network = network_lib.make_network(networks.model_config(variant='plain'))
  known = {
    'conv_1/conv_7x7': (7, 2),
    'stage_1': (11, 4),
    'conv_2': (19, 4),
    'stage_2': (27, 8),
    'inception_3a/conv_1x1': (27, 8),
    'inception_3a/conv_5x5': (59, 8),
    'inception_3a/conv_5x5:pre': (59, 8),
    'inception_3a/pool_proj': (43, 8),
    'inception_3a': (59, 8),
    'inception_3b': (91, 8),
    'stage_3': (107, 16),
    'inception_4a': (171, 16),
    'inception_4e': (427, 16),
    'stage_4': (459, 32),
    'inception_5b': (715, 32),
    'stage_5': (224, 0),  # after the global mean
    'logits': (224, 0),
  }
  for name, (size, stride) in known.items():
    field = receptive_field(network, name, (224, 224, 3))
    assert field.size == (size, size), name
    assert field.stride == (stride, stride), name
  field = receptive_field(network, 'inception_3a/conv_1x1', (224, 224, 3))
  # 7x7/2 has two pixels of padding before, 3x3/2 none and 3x3 one ('SAME').
  assert field.offset == (-6, -6)
  assert field.box(0, 27) == Box(0, 210, 21, 224)
  for name in points.shapes(network.architecture):
    receptive_field(network, name, (224, 224, 3))
  theirs = receptive_field(network, 'mixed3a_1x1_pre_relu', (224, 224, 3))
  assert theirs.offset == (-6, -6)
  with pytest.raises(UserError, match='inception_6a'):
    receptive_field(network, 'inception_6a', (224, 224, 3))
