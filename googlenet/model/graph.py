"""A network as a list of operations with their sizes; nothing is computed.

Everything that asks what a network consists of loops over this list: the
layer table, the smallest image, layer times, ONNX, the roofline, weight names.
Blocks and branches are flattened: each `Layer` is one operation on one image,
in an order in which its inputs come first.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from googlenet.kernels.padding import placement
from googlenet.model import rows

Shape = tuple[int, ...]  # of one image: (H, W, C) or (C,)
IMAGES = 'images'  # the input of the first layer


# What rows consist of, beside the operations of `rows`.
class Concat(NamedTuple):
  """Joins maps on channels."""


class Add(NamedTuple):
  """The sum of two maps."""


class Multiply(NamedTuple):
  """A map [H, W, C] times a number, or times a second input [C]."""

  factor: float | None = None  # None: the second input


class Activation(NamedTuple):
  """A function of each number."""

  function: str = ''  # a key of `ACTIVATIONS`; '': that of the network


# They change or move single numbers; as work on a device they do not count.
_ELEMENTWISE = (
  Activation,
  Add,
  Concat,
  Multiply,
  rows.Dropout,
  rows.Flatten,
  rows.LocalResponseNorm,
)


class Layer(NamedTuple):
  """One operation of a network, on one image.

  Attributes:
    name: unique; the path of its parameters (`inception_3a/conv_3x3`), or
      without any that of its row or stage and its kind (`stage_1/max_pool`).
    op: the operation: a row without parts, or one of this file.
    inputs: names of layers, or `IMAGES`.
    input_shape: of the first input.
    shape: of the output.
    weights: elements of `w`.
    parameters: all of them: weights, and biases or scales and offsets.
    row: name of the row, the auxiliary head or the fully connected layer of
      the head that it is a part of; '' where that has no name.
    stage: name; '' in the head. A global mean right after the last stage is a
      part of that stage, as in Table 1 of the paper.
    is_side: whether it is a part of an auxiliary head.
  """

  name: str
  op: Any
  inputs: tuple[str, ...]
  input_shape: Shape
  shape: Shape
  weights: int = 0
  parameters: int = 0
  row: str = ''
  stage: str = ''
  is_side: bool = False

  @property
  def kind(self) -> str:
    """The operation as a word: 'conv', 'max_pool', 'dense', 'concat'."""
    return kind_of(self.op)

  @property
  def multiply_adds(self) -> int:
    """Of convolutions and fully connected layers, as in Table 1."""
    return self.weights * math.prod(self.shape[:-1])

  @property
  def is_elementwise(self) -> bool:
    """Whether it only changes or moves single numbers."""
    return isinstance(self.op, _ELEMENTWISE)


def kind_of(op: Any) -> str:
  """Returns the name of an operation's type in snake case: 'max_pool'."""
  return re.sub('(?<!^)(?=[A-Z])', '_', type(op).__name__).lower()


def _windows(op: Any, shape: Shape) -> tuple[int, int]:
  """Returns height and width of what windows of an operation make of a map."""
  kernel = op.shape if type(op) is rows.Conv else (op.window, op.window)
  height, width = (
    placement(size, window, op.stride, op.padding).out
    for size, window in zip(shape[:2], kernel, strict=True)
  )
  return height, width


# (operation, shape of its input) -> shape of its output.
_SHAPES: dict[type, Callable[[Any, Shape], Shape]] = {
  rows.Conv: lambda op, shape: (*_windows(op, shape), op.width),
  rows.MaxPool: lambda op, shape: (*_windows(op, shape), shape[-1]),
  rows.AvgPool: lambda op, shape: (*_windows(op, shape), shape[-1]),
  rows.AdaptiveAvgPool: lambda op, shape: (op.size, op.size, shape[-1]),
  rows.LocalResponseNorm: lambda op, shape: shape,
  rows.Dropout: lambda op, shape: shape,
  rows.GlobalMean: lambda op, shape: shape[-1:],
  rows.Flatten: lambda op, shape: (math.prod(shape),),
  rows.Dense: lambda op, shape: (op.width,),
  Activation: lambda op, shape: shape,
  Add: lambda op, shape: shape,
  Multiply: lambda op, shape: shape,
}


class _Graph:
  """Collects layers; the other attributes are those of the layers to come."""

  def __init__(self, architecture: rows.Architecture):
    self.layers: dict[str, Layer] = {}
    self.has_batch_norm = architecture.normalization == 'batch'
    self.path = ''  # of their parameters
    self.row = self.stage = ''
    self.is_side = False

  def add(self, op: Any, *inputs: Layer, shape: Shape | None = None) -> Layer:
    """Appends a layer and returns it; its shape follows from `_SHAPES`."""
    if name := getattr(op, 'name', ''):
      wanted = f'{self.path}/{name}' if self.path else name
    else:
      wanted = f'{self.path or self.stage or "head"}/{kind_of(op)}'
    # A branch may pool twice.
    names = (f'{wanted}_{i}' if i > 1 else wanted for i in itertools.count(1))
    input_shape = inputs[0].shape
    weights, parameters = self._count(op, input_shape[-1])
    layer = Layer(
      next(name for name in names if name not in self.layers),
      op,
      tuple(layer.name for layer in inputs),
      input_shape,
      shape or _SHAPES[type(op)](op, input_shape),
      weights,
      parameters,
      self.row,
      self.stage,
      self.is_side,
    )
    self.layers[layer.name] = layer
    return layer

  def _count(self, op: Any, channels: int) -> tuple[int, int]:
    """Returns the numbers of weights and of all parameters."""
    if type(op) not in (rows.Conv, rows.Dense):
      return 0, 0
    weights, vectors = channels * op.width, 1
    if type(op) is rows.Conv:
      weights *= math.prod(op.shape)
      if self.has_batch_norm and not op.is_linear:
        vectors = 2  # scale and offset in place of a bias
    return weights, weights + vectors * op.width

  def run(self, ops: Sequence[Any], x: Layer) -> Layer:
    """Appends operations in sequence and returns the last layer.

    Raises:
      TypeError: no such operation is known.
    """
    for op in ops:
      if type(op) in _PARTS:
        x = _PARTS[type(op)](self, op, x)
      elif type(op) in _SHAPES:
        x = self.add(op, x)
      else:
        raise TypeError(f'{op} is no known operation of a network')
    return x


def _fork(graph: _Graph, op: rows.Fork, x: Layer) -> Layer:
  outs = [graph.run(branch, x) for branch in op.branches]
  shapes = [out.shape for out in outs]
  if len({shape[:-1] for shape in shapes}) > 1:
    raise ValueError(f'{graph.path}: its branches differ in size: {shapes}')
  channels = sum(shape[-1] for shape in shapes)
  return graph.add(Concat(), *outs, shape=(*shapes[0][:-1], channels))


def _block(graph: _Graph, op: rows.Block, x: Layer) -> Layer:
  y = graph.run((rows.Fork(op.branches), *op.after), x)
  if not op.residual:
    return y
  width = op.residual.width
  if x.shape[-1] != width:
    x = graph.add(rows.Conv('shortcut', width, 1, is_linear=True), x)
  y = graph.add(rows.Conv('linear', width, 1, is_linear=True), y)
  y = graph.add(Multiply(op.residual.scale), y)
  return graph.add(Activation(), graph.add(Add(), x, y))


def _squeeze_excite(graph: _Graph, op: rows.SqueezeExcite, x: Layer) -> Layer:
  layers = op.layers(x.shape[-1])
  gates = graph.run((rows.GlobalMean(), *layers, Activation('sigmoid')), x)
  return graph.add(Multiply(), x, gates)


# Operations with parts: (graph, operation, its input) -> its last layer.
_PARTS: dict[type, Callable[[_Graph, Any, Layer], Layer]] = {
  rows.ConvLayer: lambda graph, op, x: graph.run(op.convs, x),
  rows.Block: _block,
  rows.Fork: _fork,
  rows.SqueezeExcite: _squeeze_excite,
}


def graph(
  architecture: rows.Architecture, image_shape: Shape | None = None
) -> tuple[Layer, ...]:
  """Returns the layers of a network, auxiliary heads after what they follow.

  Args:
    architecture: as `variants.resolve` returns it.
    image_shape: (H, W, C); left out where only names and order matter: the
      smallest square that fits.

  Raises:
    TypeError: an operation is unknown.
    ValueError: the image is too small for some window.
  """
  if image_shape is None:
    side = smallest_image(architecture)
    image_shape = (side, side, 1)
  found = _Graph(architecture)
  heads = {head.after: head for head in architecture.aux_heads}
  x = Layer(IMAGES, None, (), (), image_shape)
  for stage in architecture.stages:
    found.stage = stage.name
    for row in stage.rows:
      found.row = found.path = getattr(row, 'name', '')
      x = found.run((row,), x)
      if found.row in heads:
        head = heads[found.row]
        found.row, found.path, found.is_side = head.name, head.name, True
        found.run(head.ops, x)
        found.is_side = False
  found.path = ''
  for i, op in enumerate(architecture.head):
    found.row = getattr(op, 'name', '')
    if i or type(op) is not rows.GlobalMean:
      found.stage = ''
    x = found.run((op,), x)
  return tuple(found.layers.values())


def end_points(layers: Sequence[Layer]) -> dict[str, Shape]:
  """Returns the shapes of the end points of `Network.apply`, in order.

  Those of an image: of each row, stage and fully connected layer with a name,
  and of the logits. Auxiliary heads are none.
  """
  shapes = {}
  main = [layer for layer in layers if not layer.is_side]
  for stage, parts in itertools.groupby(main, lambda layer: layer.stage):
    for layer in parts:
      if layer.row:
        shapes[layer.row] = layer.shape
      shape = layer.shape
    if stage:
      shapes[stage] = shape
  return shapes | {'logits': main[-1].shape}


def depth(layers: Sequence[Layer]) -> int:
  """Returns the number of weighted layers on the longest path to the logits."""
  depths = {IMAGES: 0}
  for layer in layers:
    longest = max(depths[name] for name in layer.inputs)
    depths[layer.name] = longest + (layer.weights > 0)
  return depths[layers[-1].name]


@functools.cache
def smallest_image(architecture: rows.Architecture) -> int:
  """Returns the smallest image side, in pixels, that the network can use.

  With 'SAME' padding nothing ever fails, but a smaller image reaches some
  downsampling step as a single pixel, which then sees padding only.
  """
  for side in range(1, 4097):
    try:
      layers = graph(architecture, (side, side, 1))
    except ValueError:
      continue
    if shortest_side(layers) > 1:
      return side
  raise ValueError('no image of up to 4096 pixels is large enough')


def shortest_side(layers: Sequence[Layer]) -> float:
  """Returns the shortest side that windows of stride 2 or more slide over."""
  return min(
    (
      side
      for layer in layers
      for side in layer.input_shape[:2]
      if getattr(layer.op, 'stride', 1) > 1
    ),
    default=math.inf,
  )


def first_convolution(architecture: rows.Architecture) -> str:
  """Returns the module that sees the images."""
  layers = graph(architecture)
  return next(layer.name for layer in layers if layer.weights)
