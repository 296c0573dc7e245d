"""A network as a flat list of operations with their shapes.

Code that needs the structure of a network uses this list: the layer table, the
smallest image, layer times, ONNX, the roofline, weight names. Blocks and
branches are flattened: each `Layer` is one operation on one image. A layer's
inputs come before it in the list.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from googlenet.kernels.padding import placement
from googlenet.model import own, rows

Shape = tuple[int, ...]  # of one image: (H, W, C) or (C,)
IMAGES = 'images'  # the input of the first layer


# Operations of blocks that have no layer spec in `rows`.
class Concat(NamedTuple):
  """Concatenates maps along channels."""


class Add(NamedTuple):
  """The sum of two maps."""


class Multiply(NamedTuple):
  """Multiplies a map [H, W, C] by a number or by a second input [C]."""

  factor: float | None = None  # None: the second input


class Activation(NamedTuple):
  """An elementwise activation function."""

  function: str = ''  # a key of `ACTIVATIONS`; '': `model.activation`


# Cheap operations on single numbers, not counted as device work.
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
    name: unique name: the path of its parameters (`inception_3a/conv_3x3`) or,
      without parameters, row or stage and kind (`stage_1/max_pool`).
    op: the operation, from `rows` or this file; never a block or branch.
    inputs: names of layers, or `IMAGES`.
    input_shape: shape of the first input.
    shape: shape of the output.
    weights: number of elements of `w`.
    parameters: number of all parameters, with biases or scales and offsets.
    row: name of its row, auxiliary head or fully connected head layer; '' if
      that has no name.
    stage: name of its stage; '' in the head. A global mean right after the last
      stage belongs to that stage, as in Table 1 of the paper.
    is_side: whether it belongs to an auxiliary head.
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
    """The type of operation, like 'conv', 'max_pool' or 'concat'."""
    return kind_of(self.op)

  @property
  def multiply_adds(self) -> int:
    """Multiply-adds of convolutions and dense layers, as in Table 1."""
    return self.weights * math.prod(self.shape[:-1])

  @property
  def is_elementwise(self) -> bool:
    """Whether it is a cheap operation on single numbers."""
    return isinstance(self.op, _ELEMENTWISE)


def kind_of(op: Any) -> str:
  """Returns the name of an operation's type in snake case: 'max_pool'."""
  return re.sub('(?<!^)(?=[A-Z])', '_', type(op).__name__).lower()


def _windows(op: Any, shape: Shape) -> tuple[int, int]:
  """Returns output height and width of a convolution or pooling."""
  kernel = op.shape if type(op) is rows.Conv else (op.window, op.window)
  height, width = (
    placement(size, window, op.stride, op.padding).out
    for size, window in zip(shape[:2], kernel, strict=True)
  )
  return height, width


# (operation, input shape) -> output shape.
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
  rows.Own: lambda op, shape: own.sizes(op, shape)[0],
  Activation: lambda op, shape: shape,
  Add: lambda op, shape: shape,
  Multiply: lambda op, shape: shape,
}


class _Graph:
  """Collects layers; other attributes apply to the layers added next."""

  def __init__(self, architecture: rows.Architecture):
    self.layers: dict[str, Layer] = {}
    self.has_batch_norm = architecture.normalization == 'batch'
    self.path = ''  # parameter path
    self.row = self.stage = ''
    self.is_side = False

  def add(self, op: Any, *inputs: Layer, shape: Shape | None = None) -> Layer:
    """Appends and returns a layer; `_SHAPES` gives its default shape."""
    if name := getattr(op, 'name', ''):
      wanted = f'{self.path}/{name}' if self.path else name
    else:
      wanted = f'{self.path or self.stage or "head"}/{kind_of(op)}'
    # A branch may pool twice.
    names = (f'{wanted}_{i}' if i > 1 else wanted for i in itertools.count(1))
    input_shape = inputs[0].shape
    weights, parameters = self._count(op, input_shape)
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

  def _count(self, op: Any, input_shape: Shape) -> tuple[int, int]:
    """Returns the numbers of weights and of all parameters."""
    if type(op) is rows.Own:
      return 0, own.sizes(op, input_shape)[1]
    if type(op) not in (rows.Conv, rows.Dense):
      return 0, 0
    channels = input_shape[-1]
    weights, vectors = channels * op.width, 1
    if type(op) is rows.Conv:
      weights *= math.prod(op.shape)
      if self.has_batch_norm and not op.is_linear:
        vectors = 2  # scale and offset in place of a bias
    return weights, weights + vectors * op.width

  def run(self, ops: Sequence[Any], x: Layer) -> Layer:
    """Appends operations in sequence and returns the last layer.

    Raises:
      TypeError: an operation is unknown.
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


# Composite operations: (graph, operation, input layer) -> last layer.
_PARTS: dict[type, Callable[[_Graph, Any, Layer], Layer]] = {
  rows.ConvLayer: lambda graph, op, x: graph.run(op.convs, x),
  rows.Block: _block,
  rows.Fork: _fork,
  rows.SqueezeExcite: _squeeze_excite,
}


def graph(
  architecture: rows.Architecture, image_shape: Shape | None = None
) -> tuple[Layer, ...]:
  """Returns the layers of a network; auxiliary heads follow their input row.

  Args:
    architecture: returned by `variants.resolve`.
    image_shape: (H, W, C); None: the smallest square that fits, for callers
      that need only names and order.

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
      found.row = getattr(row, 'name', '')
      # A custom operation is its own layer, without parts.
      found.path = '' if type(row) is rows.Own else found.row
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
  """Returns the shapes of the end points of `Network.apply`, for one image.

  End points are the outputs of named rows, stages and fully connected layers,
  and the logits, in this order of computation. Auxiliary heads have none.
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


@own.cached
def smallest_image(architecture: rows.Architecture) -> int:
  """Returns the smallest image side, in pixels, that the network can use.

  With 'SAME' padding no window fails, but smaller images would shrink to a
  single pixel before some downsampling layer.
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
  """Returns the shortest input side of all layers with stride 2 or more."""
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
  """Returns the name of the first layer with weights."""
  layers = graph(architecture)
  return next(layer.name for layer in layers if layer.weights)
