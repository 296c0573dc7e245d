"""The receptive field of a point of the network, in closed form.

Along an axis, position i of a map sees `size` pixels, the first of which is
`offset + i * stride`. A convolution or pooling of window k, stride s and
padding p before the first pixel makes of a map with (size, stride, offset) one
with

  (size + (k - 1) * stride, stride * s, offset - p * stride)

and a map that is made of several, as by the branches of a block, sees what any
of them sees. A custom operation counts as if each position saw the whole map,
since nothing is known of it. See Araujo et al., 2019, "Computing receptive
fields of convolutional neural networks", Distill,
https://doi.org/10.23915/distill.00021.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from googlenet.kernels.padding import placement
from googlenet.model import graph, own, points, rows
from googlenet.model.graph import Shape
from googlenet.model.network import Network


class Box(NamedTuple):
  """Pixels of an image: rows top to bottom - 1, columns left to right - 1."""

  top: int
  left: int
  bottom: int
  right: int


class Axis(NamedTuple):
  """What the positions of a map see along one axis, in pixels.

  Attributes:
    size: pixels that a position sees, if the image is large enough.
    stride: distance between the pixels of two neighbours; 0 if each position
      sees the whole axis.
    offset: first pixel of position 0; negative in the padding.
    first: int [n], the first pixel of the image that each position sees.
    last: int [n], the last one.
  """

  size: int
  stride: int
  offset: int
  first: np.ndarray
  last: np.ndarray


class Field(NamedTuple):
  """The receptive field of a point, for images of one size.

  Height first in every pair, as in `Axis`. The closed form holds inside the
  image; `box` is exact at the border too, where the padding is left out.

  Attributes:
    size: height and width of what a position sees, in pixels.
    stride: pixels between neighbours.
    offset: top and left of what position (0, 0) sees.
    axes: both axes, with the pixels that each position sees.
  """

  size: tuple[int, int]
  stride: tuple[int, int]
  offset: tuple[int, int]
  axes: tuple[Axis, Axis]

  def box(self, row: int, column: int) -> Box:
    """Returns the pixels of the image that a position of the map sees."""
    y, x = self.axes
    return Box(
      int(y.first[row]),
      int(x.first[column]),
      int(y.last[row]) + 1,
      int(x.last[column]) + 1,
    )

  def centre(self, row: int, column: int) -> tuple[float, float]:
    """Returns the middle of what a position sees: y and x, inside the image.

    In pixels from the upper left corner of the image.
    """
    middle = [
      axis.offset + place * axis.stride + axis.size / 2
      for axis, place in zip(self.axes, (row, column), strict=True)
    ]
    ends = (int(axis.last[-1]) + 1 for axis in self.axes)
    y, x = (
      min(max(m, 0.5), e - 0.5) for m, e in zip(middle, ends, strict=True)
    )
    return y, x


def receptive_field(
  network: Network, point: str, image_shape: tuple[int, ...]
) -> Field:
  """Returns the pixels of the network's input that positions of a map see.

  Where branches meet, that is what any of them sees. The gates of
  `SqueezeExcite` are left out: they see the whole image, but scale a channel
  alike everywhere. A vector, like the logits, has one position, (0, 0), which
  sees the whole image.

  Args:
    network: any.
    point: its name, or lucid's, as for `Network.apply`.
    image_shape: (H, W) or (H, W, C) of the network's input, in pixels.

  Raises:
    UserError: the network has no such point.
    ValueError: the image is too small for some window.
  """
  shape = (*image_shape[:2], 1)
  name = points.resolve(point, network.architecture).removesuffix(points.PRE)
  axes = tuple(_axes(network.architecture, shape, i)[name] for i in (0, 1))
  return Field(
    *(tuple(getattr(axis, name) for axis in axes) for name in Axis._fields[:3]),
    axes,
  )


@own.cached
def _axes(
  architecture: rows.Architecture, image_shape: Shape, axis: int
) -> dict[str, Axis]:
  """Returns what the positions of every layer, row and stage see."""
  pixels = np.arange(image_shape[axis])
  found = {graph.IMAGES: Axis(1, 1, 0, pixels, pixels)}
  whole = _whole(len(pixels))
  by_row, by_stage = {}, {}
  for layer in graph.graph(architecture, image_shape):
    inputs = [found[name] for name in layer.inputs]
    if len(layer.shape) == 1:
      seen = whole
    elif layer.kind == 'multiply':
      seen = inputs[0]
    else:
      seen = _through(layer, functools.reduce(_union, inputs), axis)
    found[layer.name] = seen
    if layer.row:
      by_row[layer.row] = seen
    if layer.stage and not layer.is_side:
      by_stage[layer.stage] = seen
  return {'logits': whole, **by_row, **by_stage, **found}


def _whole(size: int, places: int = 1) -> Axis:
  """Returns positions that all see the whole axis."""
  return Axis(size, 0, 0, np.zeros(places, int), np.full(places, size - 1))


def _union(a: Axis, b: Axis) -> Axis:
  """Returns what either of two maps of the same size sees."""
  offset = min(a.offset, b.offset)
  end = max(a.offset + a.size, b.offset + b.size)
  return Axis(
    end - offset,
    max(a.stride, b.stride),
    offset,
    np.minimum(a.first, b.first),
    np.maximum(a.last, b.last),
  )


def _through(layer: graph.Layer, x: Axis, axis: int) -> Axis:
  """Returns what a layer sees whose input sees `x`."""
  op, length = layer.op, layer.input_shape[axis]
  if type(op) is rows.Own:
    return _whole(int(x.last[-1]) + 1, layer.shape[axis])
  if type(op) is rows.AdaptiveAvgPool:
    places = np.arange(op.size)
    start = places * length // op.size
    stop = -(-(places + 1) * length // op.size)
    window, stride, low = math.ceil(length / op.size), length // op.size, 0
  elif type(op) in (rows.Conv, rows.MaxPool, rows.AvgPool):
    window = op.shape[axis] if type(op) is rows.Conv else op.window
    stride = op.stride
    out, low, _ = placement(length, window, stride, op.padding)
    start = np.arange(out) * stride - low
    stop = start + window
  else:  # one position sees one
    return x
  # Padding has seen nothing, and no position sees less than its left neighbour.
  return Axis(
    x.size + (window - 1) * x.stride,
    x.stride * stride,
    x.offset - low * x.stride,
    x.first[np.clip(start, 0, length - 1)],
    x.last[np.clip(stop - 1, 0, length - 1)],
  )
