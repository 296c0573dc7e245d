"""Expanded weights: kernels between the channels of two points of a network.

Between neighbouring convolutions these are their weights. Between a block and
the next they lead through 1x1 reductions, pooling and concatenation: the
product of the weights along each path, summed over the paths. `linear.py` says
what is left out.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError
from googlenet.model import graph, own, points, rows
from googlenet.runtime.compilation import compiled_with
from googlenet.runtime.progress import Progress
from googlenet.tools.circuits import linear
from googlenet.tools.inference.channels import check_indices
from googlenet.tools.inference.trained import Trained

_BATCH = 32  # channels of the target at once, which bounds the memory
_MOST = 2**29  # weights of the kernels that are returned: 2 GiB


class Expanded(NamedTuple):
  """The weights of the linear path between two points.

  The linear part of target[p, o], away from the borders of the map, is the sum
  of source[p * stride + low + d, i] * kernels[d, i, o] over d and i.

  Attributes:
    kernels: float32 [kh, kw, C_in, C_out]. Behind a global mean 1x1: what the
      target gains if the mean of the source grows by 1.
    low: row and column of the kernel's first pixel, from that of the target.
    stride: rows and columns of the source per row and column of the target; 0
      behind a global mean.
  """

  kernels: np.ndarray
  low: tuple[int, int]
  stride: tuple[int, int]


def layer_of(architecture: rows.Architecture, point: str, flag: str) -> str:
  """Returns the layer that a point is the output of, or `graph.IMAGES`.

  Args:
    architecture: of a network.
    point: name of a point. ':pre' at its end changes nothing, since activations
      are no part of the linear path.
    flag: where the name comes from, for the error.

  Raises:
    UserError: the network has no such point.
  """
  try:
    name = points.resolve(point, architecture)
  except UserError as error:
    raise UserError(f'{flag}: {error}') from error
  return _layers_of_points(architecture)[name.removesuffix(points.PRE)]


@own.cached
def _layers_of_points(architecture: rows.Architecture) -> dict[str, str]:
  found = {graph.IMAGES: graph.IMAGES}
  for layer in graph.graph(architecture):
    found[layer.name] = layer.name
    if layer.row:
      found[layer.row] = layer.name
    if layer.stage and not layer.is_side:
      found[layer.stage] = layer.name
    if not layer.is_side:
      last = layer.name
  # Not every network ends with a layer of that name.
  return {'logits': last} | found


def row_before(architecture: rows.Architecture, point: str) -> str:
  """Returns the named row before the row of a point, or `graph.IMAGES`.

  Args:
    architecture: of a network.
    point: name of a point.
  """
  layers = {layer.name: layer for layer in graph.graph(architecture)}
  name, own = layer_of(architecture, point, 'point'), ''
  while name != graph.IMAGES:
    layer = layers[name]
    own = own or layer.row
    if layer.row not in ('', own):
      return layer.row
    name = layer.inputs[0]
  return graph.IMAGES


def find_path(
  trained: Trained,
  source: str,
  target: str,
  flags: tuple[str, str] = ('source', 'target'),
) -> linear.Path:
  """Returns the path between two points.

  Args:
    trained: a run.
    source: name of a point.
    target: name of a later point.
    flags: where the two names come from, for errors.

  Raises:
    UserError: the network has no such point, the target is not computed from
      the source, or the path has no weights that are alike everywhere.
  """
  path = _path(trained, source, target, flags)
  if not path.layers:
    raise UserError(
      f'{flags[0]}={source} and {flags[1]}={target}: the second is not '
      'computed from the first; give two points in the order of the network'
    )
  if len(path.shape) != 3:
    raise UserError(
      f'{flags[0]}={source} is no map but a vector, and kernels lead only from '
      'maps: give an earlier point'
    )
  linear.check_linear(path)
  return path


def _path(
  trained: Trained, source: str, target: str, flags: tuple[str, str]
) -> linear.Path:
  architecture = trained.network.architecture
  layers = graph.graph(architecture, trained.image_shape)
  first = layer_of(architecture, source, flags[0])
  last = layer_of(architecture, target, flags[1])
  shapes = {graph.IMAGES: trained.image_shape}
  shapes.update({layer.name: layer.shape for layer in layers})
  channels = {name: shape[-1] for name, shape in shapes.items()}
  between = linear.between(layers, first, last)
  return linear.Path(first, shapes[first], between, channels)


def expanded_weights(
  trained: Trained,
  source: str,
  target: str,
  inputs: Sequence[int] | None = None,
  outputs: Sequence[int] | None = None,
) -> Expanded:
  """Computes the expanded weights between the channels of two points.

  They are gradients: of one pixel of a channel of the target by all pixels of
  the source, in the linear part of the network.

  Args:
    trained: a run.
    source: name of a point, see `model/points.py`.
    target: name of a later point.
    inputs: channels of the source; None: all.
    outputs: channels of the target; None: all.

  Raises:
    UserError: as in `find_path`, a point has no such channel, or the kernels
      need more than 2 GiB.
  """
  path = find_path(trained, source, target)
  width = path.channels[path.layers[-1].name]
  if inputs is not None:
    check_indices(inputs, path.shape[-1], source, 'inputs')
  outputs = range(width) if outputs is None else outputs
  check_indices(outputs, width, target, 'outputs')
  fields = linear.fields(path)
  # The smallest map on which the pixel `at` of the target sees no border. It
  # has the size of the map in the network plus or minus a multiple of all
  # strides, so that every window lies as it lies in the network.
  at = tuple(-(field.low // field.stride) for field in fields)
  starts = [f.stride * p + f.low for f, p in zip(fields, at, strict=True)]
  ends = [f.stride * p + f.high + 1 for f, p in zip(fields, at, strict=True)]
  sides = tuple(
    end + (size - end) % field.stride
    for end, size, field in zip(ends, path.shape[:2], fields, strict=True)
  )
  sizes = [field.high - field.low + 1 for field in fields]
  sizes += [path.shape[-1] if inputs is None else len(inputs), len(outputs)]
  if math.prod(sizes) > _MOST:
    raise UserError(
      f'the kernels from {source} to {target} are '
      f'{"x".join(map(str, sizes))} weights, more than {_MOST:,}: choose fewer '
      'channels, or points that are closer together'
    )
  weights = linear.fold(path, trained.params, trained.network_state)
  program = _make_gradient(path, (*sides, path.shape[-1]), at)
  (top, left), (bottom, right) = starts, ends
  parts = []
  with Progress('circuits', len(outputs), 'channels') as bar:
    for start in range(0, len(outputs), _BATCH):
      part = outputs[start : start + _BATCH]
      wanted = np.zeros((_BATCH, width), np.float32)
      wanted[range(len(part)), part] = 1
      found = program(weights, wanted)[: len(part), top:bottom, left:right]
      found = found if inputs is None else found[..., np.asarray(inputs)]
      parts.append(np.asarray(found))
      bar.update(len(part))
  kernels = np.concatenate(parts).transpose(1, 2, 3, 0)
  if any(layer.kind == 'global_mean' for layer in path.layers):
    return Expanded(kernels.sum((0, 1), keepdims=True), (0, 0), (0, 0))
  low, stride = ((f.low for f in fields), (f.stride for f in fields))
  return Expanded(kernels, tuple(low), tuple(stride))


def _make_gradient(
  path: linear.Path, shape: graph.Shape, at: tuple[int, int]
) -> Callable[[linear.Weights, np.ndarray], jax.Array]:
  """Makes (weights, cotangents [B, C_out]) -> gradients [B, *shape]."""
  function = linear.make_linear(path, at)

  def gradient(weights, cotangents):
    x = jax.ShapeDtypeStruct((len(cotangents), *shape), jnp.float32)
    back = jax.linear_transpose(functools.partial(function, weights), x)
    return back(cotangents)[0]

  return compiled_with((), jax.jit(gradient), 'expanded weights')
