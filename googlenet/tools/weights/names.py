"""Names and memory layouts of a network's arrays in other frameworks.

A module is named by the path of its parameters, `inception_3a/conv_1x1`. The
tables contain every module that a network may have.
Sources: torchvision/models/googlenet.py and inception.py; the prototxt of
Caffe's bvlc_googlenet.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from googlenet.errors import UserError
from googlenet.model import graph
from googlenet.model.rows import Architecture


class Scheme(NamedTuple):
  """How a framework stores one network.

  Attributes:
    framework: name of the framework.
    network: name of the network in the framework.
    normalization: of the network; it determines which arrays are stored.
    modules: the framework's name of each module.
    conv: ending of the name of each array of a convolution.
    dense: ending of the name of each array of a fully connected layer.
    ignored: ending of names that do not belong to the network, or ''.
    is_bgr: whether the first convolution takes blue, green, red.
    mean: of RGB in 0..1, subtracted from the images.
    std: of RGB in 0..1, by which the images are then divided.
    input: mean and std in the framework's words.
    suffixes: allowed endings of files, the preferred one first.
  """

  framework: str
  network: str
  normalization: str
  modules: dict[str, str]
  conv: dict[str, str]
  dense: dict[str, str]
  ignored: str
  is_bgr: bool
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  input: str
  suffixes: tuple[str, ...]


def _each(
  modules: dict[str, str], parts: dict[str, str], joint: str
) -> dict[str, str]:
  """Returns the names of parts that several modules have in common."""
  return {
    f'{ours}/{part}': f'{theirs}{joint}{name}'
    for ours, theirs in modules.items()
    for part, name in parts.items()
  }


_BLOCKS = ('3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b')

_CAFFE = {
  'conv_1/conv_7x7': 'conv1/7x7_s2',
  'conv_2/conv_3x3_reduce': 'conv2/3x3_reduce',
  'conv_2/conv_3x3': 'conv2/3x3',
  **_each(
    {f'inception_{block}': f'inception_{block}' for block in _BLOCKS},
    {
      'conv_1x1': '1x1',
      'conv_3x3_reduce': '3x3_reduce',
      'conv_3x3': '3x3',
      'conv_5x5_reduce': '5x5_reduce',
      'conv_5x5': '5x5',
      'pool_proj': 'pool_proj',
    },
    '/',
  ),
  **_each(
    {'aux_1': 'loss1', 'aux_2': 'loss2'},
    {'conv_1x1': 'conv', 'fc': 'fc', 'logits': 'classifier'},
    '/',
  ),
  'logits': 'loss3/classifier',
}

_TORCHVISION = {
  'conv_1/conv_7x7': 'conv1',
  'conv_2/conv_3x3_reduce': 'conv2',
  'conv_2/conv_3x3': 'conv3',
  **_each(
    {f'inception_{block}': f'inception{block}' for block in _BLOCKS},
    {
      'conv_1x1': 'branch1',
      'conv_3x3_reduce': 'branch2.0',
      'conv_3x3': 'branch2.1',
      'conv_3x3_b_reduce': 'branch3.0',
      'conv_3x3_b': 'branch3.1',
      'pool_proj': 'branch4.1',
    },
    '.',
  ),
  **_each(
    {'aux_1': 'aux1', 'aux_2': 'aux2'},
    {'conv_1x1': 'conv', 'fc': 'fc1', 'logits': 'fc2'},
    '.',
  ),
  'logits': 'fc',
}

_INCEPTION_V3 = {
  'conv_1/conv_3x3_1': 'Conv2d_1a_3x3',
  'conv_1/conv_3x3_2': 'Conv2d_2a_3x3',
  'conv_1/conv_3x3_3': 'Conv2d_2b_3x3',
  'conv_2/conv_3x3_reduce': 'Conv2d_3b_1x1',
  'conv_2/conv_3x3': 'Conv2d_4a_3x3',
  **_each(
    {f'inception_{block}': f'Mixed_{block}' for block in ('5b', '5c', '5d')},
    {
      'conv_1x1': 'branch1x1',
      'conv_5x5_reduce': 'branch5x5_1',
      'conv_5x5': 'branch5x5_2',
      'conv_double_3x3_reduce': 'branch3x3dbl_1',
      'conv_double_3x3_1': 'branch3x3dbl_2',
      'conv_double_3x3_2': 'branch3x3dbl_3',
      'pool_proj': 'branch_pool',
    },
    '.',
  ),
  **_each(
    {'reduction_6a': 'Mixed_6a'},
    {
      'conv_3x3': 'branch3x3',
      'conv_double_3x3_reduce': 'branch3x3dbl_1',
      'conv_double_3x3_1': 'branch3x3dbl_2',
      'conv_double_3x3_2': 'branch3x3dbl_3',
    },
    '.',
  ),
  **_each(
    {f'inception_6{block}': f'Mixed_6{block}' for block in 'bcde'},
    {
      'conv_1x1': 'branch1x1',
      'conv_7x7_reduce': 'branch7x7_1',
      'conv_1x7': 'branch7x7_2',
      'conv_7x1': 'branch7x7_3',
      'conv_double_7x7_reduce': 'branch7x7dbl_1',
      'conv_double_7x1_1': 'branch7x7dbl_2',
      'conv_double_1x7_1': 'branch7x7dbl_3',
      'conv_double_7x1_2': 'branch7x7dbl_4',
      'conv_double_1x7_2': 'branch7x7dbl_5',
      'pool_proj': 'branch_pool',
    },
    '.',
  ),
  **_each(
    {'reduction_7a': 'Mixed_7a'},
    {
      'conv_3x3_reduce': 'branch3x3_1',
      'conv_3x3': 'branch3x3_2',
      'conv_7x7_reduce': 'branch7x7x3_1',
      'conv_1x7': 'branch7x7x3_2',
      'conv_7x1': 'branch7x7x3_3',
      'conv_7x7_3x3': 'branch7x7x3_4',
    },
    '.',
  ),
  **_each(
    {'inception_7b': 'Mixed_7b', 'inception_7c': 'Mixed_7c'},
    {
      'conv_1x1': 'branch1x1',
      'conv_3x3_reduce': 'branch3x3_1',
      'conv_1x3': 'branch3x3_2a',
      'conv_3x1': 'branch3x3_2b',
      'conv_double_3x3_reduce': 'branch3x3dbl_1',
      'conv_double_3x3': 'branch3x3dbl_2',
      'conv_double_1x3': 'branch3x3dbl_3a',
      'conv_double_3x1': 'branch3x3dbl_3b',
      'pool_proj': 'branch_pool',
    },
    '.',
  ),
  **_each(
    {'aux_1': 'AuxLogits'},
    {'conv_1x1': 'conv0', 'conv_5x5': 'conv1', 'logits': 'fc'},
    '.',
  ),
  'logits': 'fc',
}


def _torch(network: str, modules: dict[str, str]) -> Scheme:
  return Scheme(
    framework='PyTorch',
    network=f'torchvision.models.{network}',
    normalization='batch',
    modules=modules,
    conv={
      'w': '.conv.weight',
      'scale': '.bn.weight',
      'offset': '.bn.bias',
      'mean': '.bn.running_mean',
      'variance': '.bn.running_var',
    },
    dense={'w': '.weight', 'b': '.bias'},
    ignored='.num_batches_tracked',
    is_bgr=False,
    # The published weights need transform_input=True, which undoes the mean and
    # standard deviation of ImageNet and scales images to -1..1, as in TF-slim.
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    input='transform_input=True and images normalized as for ImageNet',
    suffixes=('.safetensors', '.pth', '.pt'),
  )


# Keys are values of `config.model.variant`.
SCHEMES: dict[str, Scheme] = {
  'paper': Scheme(
    framework='Caffe',
    network='bvlc_googlenet',
    normalization='lrn',
    modules=_CAFFE,
    conv={'w': '/0', 'b': '/1'},  # indices of a layer's blobs
    dense={'w': '/0', 'b': '/1'},
    ignored='',
    is_bgr=True,
    mean=(123 / 255, 117 / 255, 104 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    input='BGR in 0..255 minus (104, 117, 123)',
    suffixes=('.npz',),
  ),
  'torchvision': _torch('googlenet', _TORCHVISION),
  'inception_v3': _torch('inception_v3', _INCEPTION_V3),
}


class Layout(NamedTuple):
  """Functions that convert an array to our layout and back."""

  to_ours: Callable[[np.ndarray], np.ndarray]
  to_theirs: Callable[[np.ndarray], np.ndarray]


# The shapes below are those of the other framework, then ours.
VECTOR = Layout(lambda v: v, lambda v: v)
# [C_out, C_in, kh, kw] and [kh, kw, C_in, C_out].
CONV = Layout(
  lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1)
)
# The same, with input channels in BGR and RGB order.
CONV_BGR = Layout(
  lambda w: w[:, ::-1].transpose(2, 3, 1, 0),
  lambda w: w.transpose(3, 2, 0, 1)[:, ::-1],
)
# [C_out, C_in] and [C_in, C_out].
DENSE = Layout(np.transpose, np.transpose)


def flattened(channels: int) -> Layout:
  """Returns the layout of a dense layer on a flattened map.

  It is [C_out, C H W] in the other framework and [H W C, C_out] in ours.
  """

  def to_ours(w: np.ndarray) -> np.ndarray:
    out = w.shape[0]
    return w.reshape(out, channels, -1).transpose(2, 1, 0).reshape(-1, out)

  def to_theirs(w: np.ndarray) -> np.ndarray:
    out = w.shape[-1]
    return w.reshape(-1, channels, out).transpose(2, 1, 0).reshape(out, -1)

  return Layout(to_ours, to_theirs)


# Functions from our shape to the other framework's, by number of axes.
_SHAPES: dict[int, Callable[..., tuple[int, ...]]] = {
  1: lambda width: (width,),
  2: lambda width_in, width: (width, width_in),
  4: lambda height, width, width_in, width_out: (
    width_out,
    width_in,
    height,
    width,
  ),
}


class Entry(NamedTuple):
  """One array: its name in the other framework, and its place in ours."""

  name: str  # in the other framework
  shape: tuple[int, ...]  # in the other framework
  tree: str  # 'params' or 'network_state'
  module: str
  leaf: str
  layout: Layout


def scheme_of(model_config: ml_collections.ConfigDict) -> Scheme:
  """Returns the scheme for the network of the `model` section.

  Raises:
    UserError: no supported framework has this network.
  """
  variant = model_config.variant
  if variant not in SCHEMES:
    known = ', '.join(
      f'{name} ({scheme.network})' for name, scheme in SCHEMES.items()
    )
    raise UserError(
      f'config.model.variant={variant!r}: weights can be imported and exported '
      f'only for {known}; give one of them'
    )
  scheme = SCHEMES[variant]
  network = f'{scheme.network} of {scheme.framework}'
  normalization = model_config.normalization
  for field, value, allowed in (
    (
      'normalization',
      scheme.normalization if normalization == 'auto' else normalization,
      scheme.normalization,
    ),
    ('activation', model_config.activation, 'relu'),
    ('width_multiplier', model_config.width_multiplier, 1.0),
  ):
    if value != allowed:
      raise UserError(
        f'config.model.{field}={value!r}: {network} has {allowed!r}, give this '
        'value'
      )
  return scheme


def _channels_flattened(architecture: Architecture) -> dict[str, int]:
  """Returns the channels of the flattened map before each such dense layer."""
  layers = {layer.name: layer for layer in graph.graph(architecture)}
  channels = {}
  for layer in layers.values():
    before = layers.get(layer.inputs[0])
    if layer.kind == 'dense' and before.kind == 'flatten':
      channels[layer.name] = before.input_shape[-1]
  return channels


def make_entries(
  scheme: Scheme,
  architecture: Architecture,
  params: dict[str, Any],
  network_state: dict[str, Any],
) -> list[Entry]:
  """Returns an entry for each array of a network.

  Args:
    scheme: of the framework.
    architecture: as `variants.resolve` returns it.
    params: tree of arrays or shapes.
    network_state: tree of arrays or shapes.
  """
  first = graph.first_convolution(architecture)
  maps = _channels_flattened(architecture)
  dense = {
    module for module, leaves in params.items() if len(leaves['w'].shape) == 2
  }

  def layout_of(module: str, ndim: int) -> Layout:
    if ndim == 1:
      return VECTOR
    if ndim == 4:
      return CONV_BGR if scheme.is_bgr and module == first else CONV
    return flattened(maps[module]) if module in maps else DENSE

  def entries() -> Iterator[Entry]:
    trees = {'params': params, 'network_state': network_state}
    for tree, modules in trees.items():
      for module, leaves in modules.items():
        endings = scheme.dense if module in dense else scheme.conv
        for leaf, array in leaves.items():
          yield Entry(
            scheme.modules[module] + endings[leaf],
            _SHAPES[len(array.shape)](*array.shape),
            tree,
            module,
            leaf,
            layout_of(module, len(array.shape)),
          )

  return list(entries())
