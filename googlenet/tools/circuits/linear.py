"""The linear path between two points of a network.

Along it activations and dropout are left out, batch norm is its factor in
evaluation, pooling is a mean over its window, a local response norm does
nothing, and gates of squeeze-and-excite are 1. What remains are convolutions,
sums and concatenations: a linear map, the same at every place of the image.
Voss et al., 2021, "Visualizing Weights" (Distill), call its weights expanded.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from googlenet.errors import UserError
from googlenet.kernels.batch_norm import EPSILON
from googlenet.kernels.padding import pads, placement
from googlenet.model import graph, rows

Weights = dict[str, np.ndarray]


class Field(NamedTuple):
  """The pixels of the source that one pixel of a layer sees, along one axis.

  Pixel p sees the pixels p * stride + low to p * stride + high, inclusive.
  """

  low: int = 0
  high: int = 0
  stride: int = 1

  def through(self, window: int, stride: int, pad: int) -> 'Field':
    """Returns the field behind a window with `pad` pixels of padding before."""
    low = self.low - pad * self.stride
    high = self.high + (window - 1 - pad) * self.stride
    return Field(low, high, self.stride * stride)

  def joined(self, other: 'Field') -> 'Field':
    """Returns the field of a layer that takes two maps."""
    low, high = min(self.low, other.low), max(self.high, other.high)
    return Field(low, high, self.stride)


class Path(NamedTuple):
  """The layers between two points.

  Attributes:
    source: name of the first layer, or `graph.IMAGES`.
    shape: (H, W, C) of the source in the network.
    layers: after the source, in order of computation; the last is the target.
    channels: of every layer of the network, by name.
  """

  source: str
  shape: graph.Shape
  layers: tuple[graph.Layer, ...]
  channels: dict[str, int]


def inputs_of(layer: graph.Layer) -> tuple[str, ...]:
  """Returns the inputs in which a layer is linear: not the gates."""
  is_gated = type(layer.op) is graph.Multiply and layer.op.factor is None
  return layer.inputs[:1] if is_gated else layer.inputs


def between(
  layers: Sequence[graph.Layer], source: str, target: str
) -> tuple[graph.Layer, ...]:
  """Returns the layers on paths from one layer to a later one, in order.

  Args:
    layers: of the network.
    source: name of a layer, or `graph.IMAGES`.
    target: name of a layer.

  Returns:
    The layers without the source; empty if no path leads to the target.
  """
  after, needed = {source}, {target}
  for layer in layers:
    if after.intersection(inputs_of(layer)):
      after.add(layer.name)
  for layer in reversed(layers):
    if layer.name in needed and layer.name != source:
      needed.update(inputs_of(layer))
  found = tuple(
    layer
    for layer in layers
    if layer.name in after & needed and layer.name != source
  )
  return found if target in after and target != source else ()


def check_linear(path: Path) -> None:
  """Raises UserError if the path has no weights that are alike everywhere."""
  for layer in path.layers:
    if layer.kind == 'own':
      raise UserError(
        f'{path.layers[-1].name} lies behind {layer.name}, a custom operation, '
        'whose linear part is not known; choose points on one side of it'
      )
    is_flat = layer.kind == 'flatten' and math.prod(layer.input_shape[:-1]) > 1
    if layer.kind == 'adaptive_avg_pool' or is_flat:
      raise UserError(
        f'{path.layers[-1].name} lies behind {layer.name}, whose weights differ'
        ' from place to place: there are no kernels between channels; choose a '
        'point before it'
      )


def fold(
  path: Path, params: hk.Params, network_state: hk.State
) -> dict[str, np.ndarray]:
  """Returns the weights of the layers, times the factors of batch norm.

  Args:
    path: the path.
    params: of the network.
    network_state: of the network: the variances of batch norm.

  Returns:
    float32 [kh, kw, C_in, C_out], or [C_in, C_out], by name of the layer.
  """
  found = {}
  for layer in path.layers:
    if not layer.weights:
      continue
    leaves = jax.device_get(params[layer.name])
    weights = np.asarray(leaves['w'], np.float32)
    if 'scale' in leaves:
      variance = jax.device_get(network_state[layer.name]['variance'])
      deviation = np.sqrt(np.asarray(variance, np.float32) + EPSILON)
      weights = weights * (np.asarray(leaves['scale']) / deviation)
    found[layer.name] = weights
  return found


def fields(path: Path) -> tuple[Field, Field]:
  """Returns what the target sees of the source, along height and width.

  Behind a global mean it is what one pixel of the map before it sees.
  """
  found = {path.source: (Field(), Field())}
  for layer in path.layers:
    given = [found[name] for name in inputs_of(layer) if name in found]
    both = given[0]
    for other in given[1:]:
      both = tuple(a.joined(b) for a, b in zip(both, other, strict=True))
    if hasattr(layer.op, 'stride'):
      both = tuple(
        field.through(window, layer.op.stride, place.low)
        for field, window, place in zip(
          both, _window(layer.op), _placements(layer), strict=True
        )
      )
    found[layer.name] = both
  return found[path.layers[-1].name if path.layers else path.source]


def _window(op: Any) -> tuple[int, int]:
  return op.shape if type(op) is rows.Conv else (op.window, op.window)


def _placements(layer: graph.Layer) -> list[Any]:
  op = layer.op
  return [
    placement(size, window, op.stride, op.padding)
    for size, window in zip(layer.input_shape[:2], _window(op), strict=True)
  ]


def make_linear(
  path: Path, at: tuple[int, int]
) -> Callable[[Weights, jax.Array], jax.Array]:
  """Makes the linear map of a path, at one pixel of the target.

  Args:
    path: the path.
    at: row and column of the pixel; behind a global mean or a flattened map,
      that of the map before it.

  Returns:
    (weights of `fold`, source [B, h, w, C_in]) -> target [B, C_out].
  """

  def linear(weights: Weights, x: jax.Array) -> jax.Array:
    maps = {path.source: x}
    for layer in path.layers:
      given = [maps.get(name) for name in inputs_of(layer)]
      # `check_linear` lets a map be flattened only if it is one pixel. Here it
      # may be larger, to leave the border out.
      if layer.kind in ('global_mean', 'flatten'):
        y = given[0][:, at[0], at[1], :]
      else:
        y = _apply(layer, given, weights, path.channels)
      maps[layer.name] = y
    return y if y.ndim == 2 else y[:, at[0], at[1], :]

  return linear


def _apply(
  layer: graph.Layer,
  given: list[jax.Array | None],
  weights: Weights,
  channels: dict[str, int],
) -> jax.Array:
  """Applies the linear part of a layer to its inputs.

  Args:
    layer: the layer.
    given: its inputs; None: not on the path, so zero.
    weights: of `fold`.
    channels: of every layer.

  Raises:
    TypeError: the operation is unknown.
  """
  op, x = layer.op, given[0]
  if type(op) is rows.Conv:
    return _convolve(x, weights[layer.name], op)
  if type(op) is rows.Dense:
    return jnp.dot(x, weights[layer.name], precision=lax.Precision.HIGHEST)
  if type(op) in (rows.MaxPool, rows.AvgPool):
    window = (op.window, op.window, 1, 1)
    mean = jnp.full(window, 1 / op.window**2, x.dtype)
    return _convolve(x, jnp.repeat(mean, x.shape[-1], -1), op, x.shape[-1])
  if type(op) is graph.Concat:
    known = next(y for y in given if y is not None)
    ys = [
      jnp.zeros((*known.shape[:-1], channels[name]), known.dtype)
      if y is None
      else y
      for name, y in zip(layer.inputs, given, strict=True)
    ]
    return jnp.concatenate(ys, -1)
  if type(op) is graph.Add:
    return sum(y for y in given if y is not None)
  if type(op) is graph.Multiply:
    return x if op.factor is None else x * op.factor
  if type(op) in _IDENTITIES:
    return x
  raise TypeError(f'{op} is no known operation of a network')


# Operations that a linear path leaves out.
_IDENTITIES = (graph.Activation, rows.Dropout, rows.LocalResponseNorm)


def _convolve(
  x: jax.Array, w: jax.Array, op: Any, groups: int = 1
) -> jax.Array:
  return lax.conv_general_dilated(
    x,
    w,
    (op.stride, op.stride),
    pads(x.shape[1:3], w.shape[:2], op.stride, op.padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
    precision=lax.Precision.HIGHEST,
  )
