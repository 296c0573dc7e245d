"""The stem of inception5h, as TensorFlow's graph computes it: NumPy loops.

Padding and response normalization are where it differs from the paper's
network. tests/tools/weights_torch_test.py compares the whole network.
"""

import itertools

import haiku as hk
import jax
import numpy as np
import pytest
from networks import model_config

from googlenet.kernels import KERNELS, onednn
from googlenet.model import graph, modules, points, variants
from googlenet.model.context import Context
from googlenet.model.googlenet import TABLE_1


def same(x, window, stride, outside):
  """Pads as TensorFlow's SAME: the odd pixel goes to the bottom and right."""
  sides = []
  for size in x.shape[:2]:
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    sides.append((total // 2, total - total // 2))
  return np.pad(x, (*sides, (0, 0)), constant_values=outside), sides


def windows(x, window, stride, outside):
  """Yields (row, column, pixels [window, window, C]) of an image [H, W, C]."""
  height, width = (-(-size // stride) for size in x.shape[:2])
  x, _ = same(x, window, stride, outside)
  for i, j in itertools.product(range(height), range(width)):
    top, left = i * stride, j * stride
    yield i, j, x[top : top + window, left : left + window]


def conv_relu(x, w, b, stride=1):
  y = np.zeros((*(-(-size // stride) for size in x.shape[:2]), w.shape[-1]))
  for i, j, pixels in windows(x, w.shape[0], stride, 0):
    y[i, j] = np.maximum(np.einsum('hwc,hwco->o', pixels, w) + b, 0)
  return y


def max_pool(x):
  y = np.zeros((*(-(-size // 2) for size in x.shape[:2]), x.shape[-1]))
  for i, j, pixels in windows(x, 3, 2, -np.inf):
    y[i, j] = pixels.max((0, 1))
  return y


def tensorflow_lrn(x, depth_radius, bias, alpha, beta):
  """tf.nn.lrn: `alpha` is not divided by the number of channels."""
  y = np.empty_like(x)
  for d in range(x.shape[-1]):
    near = x[..., max(d - depth_radius, 0) : d + depth_radius + 1]
    y[..., d] = x[..., d] / (bias + alpha * (near**2).sum(-1)) ** beta
  return y


def pytorch_lrn(x, size, alpha, beta, k):
  """torch.nn.LocalResponseNorm: `alpha` is divided by `size`."""
  y = np.empty_like(x)
  for d in range(x.shape[-1]):
    near = x[..., max(d - size // 2, 0) : d + (size - 1) // 2 + 1]
    y[..., d] = x[..., d] / (k + alpha / size * (near**2).sum(-1)) ** beta
  return y


NORMS = {
  # The attributes of localresponsenorm0 and 1 in the graph.
  'inception5h': lambda x: tensorflow_lrn(x, 5, 2.0, 1e-4, 0.5),
  'inception5h_lucent': lambda x: pytorch_lrn(x, 9, 1e-4, 0.5, 1.0),
}


def test_padding_at_the_size_of_the_papers():
  """The first convolution has 2 pixels before and 3 after, pooling 0 and 1."""
  _, sides = same(np.zeros((224, 224, 1)), 7, 2, 0)
  assert sides == [(2, 3), (2, 3)]
  for side in (112, 56, 28, 14):
    _, sides = same(np.zeros((side, side, 1)), 3, 2, 0)
    assert sides == [(0, 1), (0, 1)]


def stem(architecture, kernels):
  """Returns stages 1 and 2 as functions of (params, images [B, H, W, 3])."""
  context = Context(kernels, architecture.normalization, 'relu')

  def forward(images):
    x, outs = kernels.to_layout(images), {}
    for stage in architecture.stages[:2]:
      x = modules.apply_all(modules.fuse_pools(stage.rows), x, context)
      outs[stage.name] = kernels.from_layout(x)
    return outs

  return hk.without_apply_rng(hk.transform(forward))


@pytest.mark.parametrize('kernels', KERNELS)
@pytest.mark.parametrize('variant', NORMS)
def test_the_stem_is_that_of_the_graph(variant, kernels):
  """On images of 0 to 255 minus 117; one side is even to the end, one odd.

  A quarter of its channels still are more than the norm sums over.
  """
  if kernels == 'onednn' and not onednn.is_available(np.dtype('float32')):
    pytest.skip('XLA cannot call oneDNN here')
  rng = np.random.default_rng(0)
  kernels = KERNELS[kernels]
  architecture = variants.resolve(
    model_config(variant=variant, width_multiplier=0.25)
  )
  transformed = stem(architecture, kernels)
  x = (rng.integers(0, 256, (1, 32, 23, 3)) - 117).astype(np.float32)
  params = jax.tree.map(
    lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32),
    jax.eval_shape(transformed.init, jax.random.key(0), x),
  )
  found = jax.jit(transformed.apply)(params, x)

  def conv(name, x, stride=1):
    leaves = params[name]
    return conv_relu(x, leaves['w'].astype(float), leaves['b'], stride)

  norm = NORMS[variant]
  stage_1 = norm(max_pool(conv('conv_1/conv_7x7', x[0].astype(float), 2)))
  y = conv('conv_2/conv_3x3', conv('conv_2/conv_3x3_reduce', stage_1))
  stage_2 = max_pool(norm(y))
  assert stage_1.shape == (8, 6, 16)
  assert stage_2.shape == (4, 3, 48)
  for name, expected in (('stage_1', stage_1), ('stage_2', stage_2)):
    scale = np.abs(expected).max()
    assert scale > 1
    np.testing.assert_allclose(
      found[name][0] / scale, expected / scale, atol=1e-5, err_msg=name
    )


def test_both_norms_differ_as_much_as_it_matters():
  """At weak responses by the square root of 2; the weights are the same."""
  weak, strong = np.full((1, 1, 64), 1e-3), np.full((1, 1, 64), 300.0)
  ratios = [
    (NORMS['inception5h_lucent'](x) / NORMS['inception5h'](x))[0, 0, 32]
    for x in (weak, strong)
  ]
  np.testing.assert_allclose(ratios, (2**0.5, (101 / 10) ** 0.5), rtol=1e-6)


# Channels of its parts: 1x1, 3x3_bottleneck, 3x3, 5x5_bottleneck, 5x5,
# pool_reduce; after lucent/modelzoo/inceptionv1/InceptionV1.py.
PARTS = (
  *('1x1', '3x3_bottleneck', '3x3'),
  *('5x5_bottleneck', '5x5', 'pool_reduce'),
)
WIDTHS = {
  'mixed3a': (64, 96, 128, 16, 32, 32),
  'mixed3b': (128, 128, 192, 32, 96, 64),
  'mixed4a': (192, 96, 204, 16, 48, 64),
  'mixed4b': (160, 112, 224, 24, 64, 64),
  'mixed4c': (128, 128, 256, 24, 64, 64),
  'mixed4d': (112, 144, 288, 32, 64, 64),
  'mixed4e': (256, 160, 320, 32, 128, 128),
  'mixed5a': (256, 160, 320, 48, 128, 128),
  'mixed5b': (384, 192, 384, 48, 128, 128),
}
# lucid/modelzoo/other_models/InceptionV1.py, `layers`; and what lies between.
LAYERS = {
  **{'conv2d0': 64, 'conv2d1': 64, 'conv2d2': 192},
  **{'mixed3a': 256, 'mixed3b': 480, 'mixed4a': 508, 'mixed4b': 512},
  **{'mixed4c': 512, 'mixed4d': 528, 'mixed4e': 832},
  **{'mixed5a': 832, 'mixed5b': 1024},
  **{'head0_bottleneck': 128, 'nn0': 1024},
  **{'head1_bottleneck': 128, 'nn1': 1024},
}
BETWEEN = {
  **{'maxpool0': 64, 'localresponsenorm0': 64},
  **{'localresponsenorm1': 192, 'maxpool1': 192},
  **{'maxpool4': 480, 'maxpool10': 832, 'avgpool0': 1024},
  **{'head0_pool': 508, 'head1_pool': 528},
  **{f'softmax{i}_pre_activation': 1008 for i in range(3)},
}


def all_channels():
  """The channels of every layer of lucid, by name."""
  found = LAYERS | BETWEEN | {f'{x}_pre_relu': c for x, c in LAYERS.items()}
  channels = 192
  for block, widths in WIDTHS.items():
    found[f'{block}_pool'] = channels
    for part, width in zip(PARTS, widths, strict=True):
      found[f'{block}_{part}'] = found[f'{block}_{part}_pre_relu'] = width
    channels = LAYERS[block]
  return found


def test_every_layer_of_lucid_has_a_point_with_its_channels():
  """And its order within a block: `mixed4c:447` is channel 447."""
  architecture = variants.resolve(
    model_config(variant='inception5h', num_classes=1008)
  )
  shapes = points.shapes(architecture, (224, 224, 3))
  known = all_channels()
  assert len(known) == 2 * 16 + 12 + 9 * 13
  for name, channels in known.items():
    point = points.resolve(name, architecture)
    assert shapes[point][-1] == channels, name
    # Points with two names have one of them: avgpool0 is a stage.
    if name != 'avgpool0':
      assert points.to_lucid(point) == name
  named = {points.resolve(name, architecture) for name in known}
  layers = {layer.name: layer for layer in graph.graph(architecture)}
  assert named >= {name for name in layers if layers[name].weights}
  assert (
    points.resolve('mixed4a_3x3_pre_relu_conv', architecture)
    == 'inception_4a/conv_3x3:pre'
  )
  assert points.resolve('softmax2_pre_activation_matmul', architecture) == (
    'logits'
  )
  ends = [
    f'inception_4c/{branch}'
    for branch in ('conv_1x1', 'conv_3x3', 'conv_5x5', 'pool_proj')
  ]
  assert layers['inception_4c/concat'].inputs == tuple(ends)


def test_widths_are_those_of_table_1_but_for_two():
  paper = {
    'mixed4a': (192, 96, 208, 16, 48, 64),
    'mixed5a': (256, 160, 320, 32, 128, 128),
  }
  table = {
    name.replace('inception_', 'mixed'): tuple(widths)
    for stage in TABLE_1.values()
    for name, *widths in stage
  }
  assert table == WIDTHS | paper
