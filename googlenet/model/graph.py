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


class _Graph:
  """Collects layers; the other attributes are those of the layers to come."""

  def __init__(self, architecture: rows.Architecture):
    self.layers: dict[str, Layer] = {}
    self.has_batch_norm = architecture.normalization == 'batch'
    self.path = ''  # of their parameters
    self.row = self.stage = ''
    self.is_side = False

  def add(
    self,
    op: Any,
    inputs: Sequence[Layer],
    shape: Shape,
    weights: int = 0,
    parameters: int = 0,
  ) -> Layer:
    """Appends a layer and returns it."""
    if name := getattr(op, 'name', ''):
      wanted = f'{self.path}/{name}' if self.path else name
    else:
      wanted = f'{self.path or self.stage or "head"}/{kind_of(op)}'
    # A branch may pool twice.
    names = (f'{wanted}_{i}' if i > 1 else wanted for i in itertools.count(1))
    layer = Layer(
      next(name for name in names if name not in self.layers),
      op,
      tuple(layer.name for layer in inputs),
      inputs[0].shape,
      shape,
      weights,
      parameters,
      self.row,
      self.stage,
      self.is_side,
    )
    self.layers[layer.name] = layer
    return layer

  def run(self, ops: Sequence[Any], x: Layer) -> Layer:
    """Appends operations in sequence and returns the last one.

    Raises:
      TypeError: no such operation is known.
    """
    for op in ops:
      if type(op) not in _ADD:
        raise TypeError(f'{op} is no known operation of a network')
      x = _ADD[type(op)](self, op, x)
    return x


def _sides(op: Any, shape: Shape, kernel: tuple[int, int]) -> tuple[int, int]:
  """Returns height and width of what windows make of a map."""
  height, width = (
    placement(size, window, op.stride, op.padding).out
    for size, window in zip(shape[:2], kernel, strict=True)
  )
  return height, width


def _conv(graph: _Graph, op: rows.Conv, x: Layer) -> Layer:
  weights = math.prod(op.shape) * x.shape[-1] * op.width
  has_batch_norm = graph.has_batch_norm and not op.is_linear
  vectors = 2 if has_batch_norm else 1  # scale and offset, or a bias
  shape = (*_sides(op, x.shape, op.shape), op.width)
  return graph.add(op, [x], shape, weights, weights + vectors * op.width)


def _pool(graph: _Graph, op: rows.MaxPool | rows.AvgPool, x: Layer) -> Layer:
  sides = _sides(op, x.shape, (op.window, op.window))
  return graph.add(op, [x], (*sides, x.shape[-1]))


def _adaptive(graph: _Graph, op: rows.AdaptiveAvgPool, x: Layer) -> Layer:
  return graph.add(op, [x], (op.size, op.size, x.shape[-1]))


def _keep_shape(graph: _Graph, op: Any, x: Layer) -> Layer:
  return graph.add(op, [x], x.shape)


def _global_mean(graph: _Graph, op: rows.GlobalMean, x: Layer) -> Layer:
  return graph.add(op, [x], x.shape[-1:])


def _flatten(graph: _Graph, op: rows.Flatten, x: Layer) -> Layer:
  return graph.add(op, [x], (math.prod(x.shape),))


def _dense(graph: _Graph, op: rows.Dense, x: Layer) -> Layer:
  weights = x.shape[-1] * op.width
  return graph.add(op, [x], (op.width,), weights, weights + op.width)


def _squeeze_excite(graph: _Graph, op: rows.SqueezeExcite, x: Layer) -> Layer:
  layers = op.layers(x.shape[-1])
  gates = graph.run((rows.GlobalMean(), *layers, Activation('sigmoid')), x)
  return graph.add(Multiply(), [x, gates], x.shape)


def _fork(graph: _Graph, op: rows.Fork, x: Layer) -> Layer:
  outs = [graph.run(branch, x) for branch in op.branches]
  if len({out.shape[:-1] for out in outs}) > 1:
    shapes = [out.shape for out in outs]
    raise ValueError(f'{graph.path}: its branches differ in size: {shapes}')
  channels = sum(out.shape[-1] for out in outs)
  return graph.add(Concat(), outs, (*outs[0].shape[:-1], channels))


def _conv_layer(graph: _Graph, op: rows.ConvLayer, x: Layer) -> Layer:
  return graph.run(op.convs, x)


def _block(graph: _Graph, op: rows.Block, x: Layer) -> Layer:
  y = graph.run((rows.Fork(op.branches), *op.after), x)
  if not op.residual:
    return y
  width = op.residual.width
  if x.shape[-1] != width:
    x = _conv(graph, rows.Conv('shortcut', width, 1, is_linear=True), x)
  y = _conv(graph, rows.Conv('linear', width, 1, is_linear=True), y)
  y = graph.add(Multiply(op.residual.scale), [y], y.shape)
  return graph.run((Activation(),), graph.add(Add(), [x, y], x.shape))


# How each operation is appended: (graph, op, its input) -> its last layer.
_ADD: dict[type, Callable[[_Graph, Any, Layer], Layer]] = {
  rows.Conv: _conv,
  rows.ConvLayer: _conv_layer,
  rows.Block: _block,
  rows.Fork: _fork,
  rows.MaxPool: _pool,
  rows.AvgPool: _pool,
  rows.AdaptiveAvgPool: _adaptive,
  rows.LocalResponseNorm: _keep_shape,
  rows.Dropout: _keep_shape,
  rows.GlobalMean: _global_mean,
  rows.Flatten: _flatten,
  rows.Dense: _dense,
  rows.SqueezeExcite: _squeeze_excite,
  Activation: _keep_shape,
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
