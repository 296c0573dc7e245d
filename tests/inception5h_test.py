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
from googlenet.model import graph, modules, variants
from googlenet.model.context import Context


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


def test_blocks_and_channels_are_those_of_the_paper_but_for_two_widths():
  """So `mixed4c:447` is channel 447 of inception_4c."""
  found, paper = (
    {
      layer.name: layer.shape[-1]
      for layer in graph.graph(
        variants.resolve(model_config(variant=variant, aux_heads='on')),
        (224, 224, 3),
      )
      if layer.weights or layer.kind == 'concat'
    }
    for variant in ('inception5h', 'paper')
  )
  assert found.keys() == paper.keys()
  assert {name for name in found if found[name] != paper[name]} == {
    'inception_4a/conv_3x3',
    'inception_4a/concat',
    'inception_5a/conv_5x5_reduce',
  }
  # lucid/modelzoo/other_models/InceptionV1.py
  depths = (256, 480, 508, 512, 512, 528, 832, 832, 1024)
  blocks = ('3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b')
  for block, depth in zip(blocks, depths, strict=True):
    assert found[f'inception_{block}/concat'] == depth
