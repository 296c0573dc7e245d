"""Names of all points of a network: what can be read and replaced.

  images                            what the network sees, after preprocessing
  inception_4c/conv_3x3_reduce      a convolution or fully connected layer,
                                    after its activation
  inception_4c/conv_3x3_reduce:pre  ... before it: after bias or batch norm
  inception_4c/max_pool             an operation without a name of its own
  inception_4c                      a block or convolution layer
  inception_4c:pre                  ... before the activations, to read only
  stage_4                           a stage; the last one after its global mean
  aux_1/fc, logits                  layers of the heads

The names of lucid (github.com/tensorflow/lucid) are understood too:
`mixed4c_3x3_bottleneck_pre_relu` is `inception_4c/conv_3x3_reduce:pre`.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from googlenet.errors import UserError, did_you_mean
from googlenet.kernels import Kernels
from googlenet.model import graph, own, rows
from googlenet.model.taps import Edit, Taps

PRE = ':pre'
Found = dict[str, jax.Array]


@own.cached
def shapes(
  architecture: rows.Architecture, image_shape: graph.Shape | None = None
) -> dict[str, graph.Shape]:
  """Returns the shape of every point for one image, in order of computation.

  Args:
    architecture: returned by `variants.resolve`.
    image_shape: (H, W, C); None: see `graph.graph`.
  """
  layers = graph.graph(architecture, image_shape)
  parts = _parts(architecture)
  last_of_row = {layer.row: layer for layer in layers if not layer.is_side}
  last_of_stage = {layer.stage: layer for layer in layers if not layer.is_side}
  found = {graph.IMAGES: layers[0].input_shape}
  for layer in layers:
    is_row = layer.row and last_of_row.get(layer.row) is layer
    if _has_pre(layer):
      found[layer.name + PRE] = layer.shape
    if not is_row or hasattr(layer.op, 'name'):
      found[layer.name] = layer.shape
    if is_row:
      if layer.row + PRE in parts:
        found[layer.row + PRE] = layer.shape
      found[layer.row] = layer.shape
    if layer.stage and last_of_stage.get(layer.stage) is layer:
      found[layer.stage] = layer.shape
  return found | {'logits': layers[-1].shape}


def _has_pre(layer: graph.Layer) -> bool:
  """Whether a layer has an activation of its own."""
  return layer.kind in ('conv', 'dense') and not layer.op.is_linear


@own.cached
def _parts(architecture: rows.Architecture) -> dict[str, tuple[str, ...]]:
  """Returns the points whose concatenation is `row:pre`, by that name."""
  layers = {layer.name: layer for layer in graph.graph(architecture)}

  def ends(layer: graph.Layer) -> list[graph.Layer]:
    if layer.kind != 'concat':
      return [layer]
    return [end for name in layer.inputs for end in ends(layers[name])]

  found = {}
  for layer in layers.values():
    if layer.row in ('', layer.name) or layer.is_side:
      continue
    # The last layer of a row comes last.
    found.pop(layer.row + PRE, None)
    if all(map(_has_pre, ends(layer))):
      found[layer.row + PRE] = tuple(x.name + PRE for x in ends(layer))
    elif layer.kind == 'activation':  # of a residual block
      found[layer.row + PRE] = layer.inputs
  return found


def stage_of_mean(architecture: rows.Architecture) -> str:
  """Returns the stage that ends in the global mean, as in Table 1, or ''."""
  is_mean = type(architecture.head[0]) is rows.GlobalMean
  return architecture.stages[-1].name if is_mean else ''


# lucid's names of branches and of what is outside of blocks.
_BRANCHES = {
  '1x1': 'conv_1x1',
  '3x3_bottleneck': 'conv_3x3_reduce',
  '3x3': 'conv_3x3',
  '5x5_bottleneck': 'conv_5x5_reduce',
  '5x5': 'conv_5x5',
  'pool_reduce': 'pool_proj',
  'pool': 'max_pool',
}
_OTHERS = {
  'input': graph.IMAGES,
  'conv2d0': 'conv_1/conv_7x7',
  'maxpool0': 'stage_1/max_pool',
  'localresponsenorm0': 'stage_1/local_response_norm',
  'conv2d1': 'conv_2/conv_3x3_reduce',
  'conv2d2': 'conv_2/conv_3x3',
  'localresponsenorm1': 'stage_2/local_response_norm',
  'maxpool1': 'stage_2/max_pool',
  'maxpool4': 'stage_3/max_pool',
  'maxpool10': 'stage_4/max_pool',
  'avgpool0': 'stage_5',
  'head0_pool': 'aux_1/avg_pool',
  'head1_pool': 'aux_2/avg_pool',
  'head0_bottleneck': 'aux_1/conv_1x1',
  'head1_bottleneck': 'aux_2/conv_1x1',
  'nn0': 'aux_1/fc',
  'nn1': 'aux_2/fc',
  'softmax0_pre_activation': 'aux_1/logits',
  'softmax1_pre_activation': 'aux_2/logits',
  'softmax2_pre_activation': 'logits',
}


def of_lucid(name: str) -> str:
  """Returns the point that lucid calls `name`, or `name` if there is none.

  Names of lucent's layers, which end in `_pre_relu_conv`, are those of lucid.
  """
  theirs = re.sub('(?<=_pre_relu)_conv$|(?<=_pre_activation)_matmul$', '', name)
  stem, pre = theirs.removesuffix('_pre_relu'), ''
  if stem != theirs:
    pre = PRE
  if stem in _OTHERS:
    return _OTHERS[stem] + pre
  block = re.fullmatch(r'mixed(\d[a-z])(?:_(\w+))?', stem)
  if not block or block[2] not in (None, *_BRANCHES):
    return name
  branch = f'/{_BRANCHES[block[2]]}' if block[2] else ''
  return f'inception_{block[1]}{branch}{pre}'


def to_lucid(name: str) -> str:
  """Returns lucid's name of a point, or '' if it has none."""
  stem = name.removesuffix(PRE)
  pre = '_pre_relu' if stem != name else ''
  for theirs, ours in _OTHERS.items():
    if stem == ours:
      return theirs + pre
  row, _, branch = stem.partition('/')
  block = re.fullmatch(r'inception_(\d[a-z])', row)
  parts = {ours: f'_{theirs}' for theirs, ours in _BRANCHES.items()} | {'': ''}
  if not block or branch not in parts:
    return ''
  return f'mixed{block[1]}{parts[branch]}{pre}'


def resolve(name: str, architecture: rows.Architecture) -> str:
  """Returns the name of a point, given that name or lucid's.

  Raises:
    UserError: the network has no such point.
  """
  known = shapes(architecture)
  name = name if isinstance(name, str) else repr(name)
  found = name if name in known else of_lucid(name)
  if found not in known:
    raise UserError(
      f'{name!r} is no point of the network{did_you_mean(name, known)}; '
      '--mode=summary --points lists them all'
    )
  return found


def plan(
  architecture: rows.Architecture,
  kernels: Kernels,
  end_points: Sequence[str],
  edit: Mapping[str, Edit] | None,
) -> tuple[Taps, Callable[[Found], Found]]:
  """Returns the taps of a call, and what makes end points of what they read.

  Args:
    architecture: returned by `variants.resolve`.
    kernels: in whose layout maps are.
    end_points: names of points to read.
    edit: by the name of a point, a function from its map to another one.

  Raises:
    UserError: the network has no such point, it can only be read, or two names
      of one point are edited.
  """
  parts = _parts(architecture) if end_points or edit else {}
  names = {}
  for name in end_points:
    point = resolve(name, architecture)
    names[name] = parts.get(point, (point,))
  edits, given = {}, {}
  for name, function in (edit or {}).items():
    point = resolve(name, architecture)
    if point in edits:  # one of the two would be lost
      raise UserError(
        f'edit: {given[point]!r} and {name!r} are the same point: give one '
        'function for it'
      )
    edits[point], given[point] = function, name
  for name in edits.keys() & parts.keys():
    raise UserError(
      f'{name!r} can only be read: name one of its parts, '
      f'{", ".join(parts[name])}'
    )
  wanted = {point for points in names.values() for point in points}

  def collect(found: Found) -> Found:
    return {
      name: jnp.concatenate([found[point] for point in points], axis=-1)
      if len(points) > 1
      else found[points[0]]
      for name, points in names.items()
    }

  return Taps(kernels, wanted, edits), collect
