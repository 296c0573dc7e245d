"""Names and memory layouts of a network's arrays in other frameworks."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from googlenet.errors import UserError
from googlenet.model import ablations, graph
from googlenet.model.rows import Architecture
from googlenet.tools.weights import tables


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
    suffixes: allowed endings of files, the preferred one first.
    image_size: of the published weights, in pixels.
    has_untrained_heads: whether the auxiliary heads of the published weights
      were never trained.
    has_heads: whether the framework's network may have auxiliary heads.
  """

  framework: str
  network: str
  normalization: str
  modules: dict[str, str]
  conv: dict[str, str]
  dense: dict[str, str]
  ignored: str
  is_bgr: bool
  suffixes: tuple[str, ...]
  image_size: int = 224
  has_untrained_heads: bool = False
  has_heads: bool = True


# Names of arrays by kind of layer and leaf.
_TORCH = {'w': '.weight', 'b': '.bias'}
_TORCH_BATCH_NORM = {
  'w': '.conv.weight',
  'scale': '.bn.weight',
  'offset': '.bn.bias',
  'mean': '.bn.running_mean',
  'variance': '.bn.running_var',
}
_CAFFE = {'w': '/0', 'b': '/1'}  # indices of a layer's blobs


def _torch(network: str, **fields: Any) -> Scheme:
  """Returns the scheme of a network of torchvision with batch norm."""
  scheme = Scheme(
    framework='PyTorch',
    network=f'torchvision.models.{network}',
    normalization='batch',
    modules={},
    conv=_TORCH_BATCH_NORM,
    dense=_TORCH,
    ignored='.num_batches_tracked',
    is_bgr=False,
    suffixes=('.safetensors', '.pth', '.pt'),
  )
  return scheme._replace(**fields)


_PLAIN: dict[str, Any] = {
  'normalization': 'none',
  'conv': _TORCH,
  'ignored': '',
}

_INCEPTION5H = _torch('', modules=tables.INCEPTION5H, **_PLAIN)._replace(
  network='lucent.modelzoo.inceptionv1', normalization='lrn', has_heads=False
)

# Keys are values of `config.model.variant`.
SCHEMES: dict[str, Scheme] = {
  'paper': Scheme(
    framework='Caffe',
    network='bvlc_googlenet',
    normalization='lrn',
    modules=tables.CAFFE,
    conv=_CAFFE,
    dense=_CAFFE,
    ignored='',
    is_bgr=True,
    suffixes=('.npz',),
  ),
  'torchvision': _torch(
    'googlenet', modules=tables.GOOGLENET, has_untrained_heads=True
  ),
  'inception_v3': _torch(
    'inception_v3', modules=tables.INCEPTION_V3, image_size=299
  ),
  'inception_fid': _torch('', modules=tables.INCEPTION_FID)._replace(
    network='pytorch_fid.inception.fid_inception_v3',
    image_size=299,
    has_heads=False,
  ),
  'inception5h': _INCEPTION5H,
  'inception5h_lucent': _INCEPTION5H,
  'alexnet_torchvision': _torch('alexnet', modules=tables.ALEXNET, **_PLAIN),
  'vgg16': _torch('vgg16', modules=tables.VGG_16, **_PLAIN),
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
  ablated = {
    name: (value, 'auto' if isinstance(value, str) else ())
    for name, value in ablations.changed(model_config).items()
  }
  for field, value, allowed in (
    (
      'normalization',
      scheme.normalization if normalization == 'auto' else normalization,
      scheme.normalization,
    ),
    ('activation', model_config.activation, 'relu'),
    ('width_multiplier', model_config.width_multiplier, 1.0),
    *((name, value, none) for name, (value, none) in ablated.items()),
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
    while before and before.kind == 'dropout':
      before = layers.get(before.inputs[0])
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
