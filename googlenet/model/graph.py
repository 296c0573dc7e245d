"""Sizes of a network, worked out from its rows: nothing is traced or computed.

Works on what `architectures.resolve` returns.
"""

import functools
import math
from typing import NamedTuple

from googlenet.kernels.padding import placement
from googlenet.model.rows import (
  AdaptiveAvgPool,
  Architecture,
  AvgPool,
  Block,
  Conv,
  ConvLayer,
  Dense,
  Flatten,
  Fork,
  GlobalMean,
  MaxPool,
)

Shape = tuple[int, ...]  # of one image: (H, W, C) or (C,)


class Operation(NamedTuple):
  """One step of a network, on one image."""

  name: str  # path of its parameters; of what has none, that of its layer
  input_shape: Shape
  shape: Shape  # of the output
  multiply_adds: int
  weights: int  # biases and normalisation not counted


class Walk(NamedTuple):
  """What a network does with one image.

  Attributes:
    operations: convolutions, pooling and fully connected layers, in order.
    shapes: of the output of each row, stage and head, by name.
    smallest: the shortest side that any window of stride 2 or more slides over.
    depth: weighted layers on the longest path, auxiliary heads left out.
  """

  operations: tuple[Operation, ...]
  shapes: dict[str, Shape]
  smallest: int
  depth: int


class _Walker:
  def __init__(self):
    self.operations: list[Operation] = []
    self.smallest = math.inf

  def windows(self, shape: Shape, kernel, stride, padding) -> tuple[int, int]:
    if stride > 1:
      self.smallest = min(self.smallest, *shape[:2])
    return tuple(
      placement(size, taps, stride, padding).out
      for size, taps in zip(shape[:2], kernel, strict=True)
    )

  def add(
    self, name: str, input_shape: Shape, shape: Shape, weights: int = 0
  ) -> Shape:
    places = math.prod(shape[:-1]) if len(shape) > 1 else 1
    self.operations.append(
      Operation(name, input_shape, shape, places * weights, weights)
    )
    return shape

  def conv(self, path: str, conv: Conv, shape: Shape) -> Shape:
    sides = self.windows(shape, conv.shape, conv.stride, conv.padding)
    weights = math.prod(conv.shape) * shape[-1] * conv.width
    name = f'{path}/{conv.name}'
    return self.add(name, shape, (*sides, conv.width), weights)

  def run(self, path: str, ops, shape: Shape) -> tuple[Shape, int]:
    """Applies operations; returns what comes out and the depth."""
    depth = 0
    for op in ops:
      if isinstance(op, Conv):
        shape, depth = self.conv(path, op, shape), depth + 1
      elif isinstance(op, MaxPool | AvgPool):
        kernel = (op.window, op.window)
        sides = self.windows(shape, kernel, op.stride, op.padding)
        shape = self.add(path, shape, (*sides, shape[-1]))
      elif isinstance(op, AdaptiveAvgPool):
        shape = self.add(path, shape, (op.size, op.size, shape[-1]))
      elif isinstance(op, Fork):
        shape, more = self.join(path, op.branches, shape)
        depth += more
      elif isinstance(op, GlobalMean):
        shape = self.add(path, shape, shape[-1:])
      elif isinstance(op, Flatten):
        shape = (math.prod(shape),)
      elif isinstance(op, Dense):
        name = f'{path}/{op.name}' if path else op.name
        shape = self.add(name, shape, (op.width,), shape[-1] * op.width)
        depth += 1
    return shape, depth

  def join(self, path: str, branches, shape: Shape) -> tuple[Shape, int]:
    outs, depths = zip(
      *(self.run(path, branch, shape) for branch in branches), strict=True
    )
    if len({out[:-1] for out in outs}) > 1:
      raise ValueError(f'{path}: its branches differ in size: {outs}')
    return (*outs[0][:-1], sum(out[-1] for out in outs)), max(depths)

  def block(self, block: Block, shape: Shape) -> tuple[Shape, int]:
    out, depth = self.join(block.name, block.branches, shape)
    if not block.residual:
      return out, depth
    width = block.residual.width
    if shape[-1] != width:
      self.conv(block.name, Conv('shortcut', width, 1), shape)
    return self.conv(block.name, Conv('linear', width, 1), out), depth + 1


def walk(
  architecture: Architecture, image_shape: Shape, num_classes: int
) -> Walk:
  """Follows one image through a network.

  Args:
    architecture: as `architectures.resolve` returns it.
    image_shape: (H, W, C).
    num_classes: outputs of each head.

  Raises:
    ValueError: the image is too small for some window.
  """
  walker = _Walker()
  shapes: dict[str, Shape] = {}
  heads = {head.after: head for head in architecture.aux_heads}
  shape, depth = image_shape, 0
  for stage in architecture.stages:
    for row in stage.rows:
      more = 0
      if isinstance(row, ConvLayer):
        shape, more = walker.run(row.name, row.convs, shape)
      elif isinstance(row, Block):
        shape, more = walker.block(row, shape)
      else:
        shape, _ = walker.run(stage.name, (row,), shape)
      depth += more
      name = getattr(row, 'name', None)
      if name:
        shapes[name] = shape
      if name in heads:
        head = heads[name]
        ops = (*head.ops, Dense('logits', num_classes))
        shapes[head.name], _ = walker.run(head.name, ops, shape)
    shapes[stage.name] = shape
  ops = architecture.head
  if architecture.has_logits:
    ops = (*ops, Dense('logits', num_classes))
  for op in ops:
    shape, more = walker.run('', (op,), shape)
    depth += more
    if isinstance(op, Dense):
      shapes[op.name] = shape
    elif isinstance(op, GlobalMean):
      # The last stage ends in the global average pool, as in Table 1.
      shapes[architecture.stages[-1].name] = shape
  shapes['logits'] = shape
  return Walk(tuple(walker.operations), shapes, walker.smallest, depth)


@functools.cache
def smallest_image(architecture: Architecture) -> int:
  """Returns the smallest image side, in pixels, that the network can use.

  With 'SAME' padding nothing ever fails, but a smaller image reaches some
  downsampling step as a single pixel, which then sees padding only.
  """
  for size in range(1, 4097):
    try:
      if walk(architecture, (size, size, 1), 1).smallest > 1:
        return size
    except ValueError:
      continue
  raise ValueError('no image of up to 4096 pixels is large enough')


def first_convolution(architecture: Architecture) -> str:
  """Returns the module that sees the images."""
  layer = architecture.stages[0].rows[0]
  return f'{layer.name}/{layer.convs[0].name}'
