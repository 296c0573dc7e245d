"""The roofline: the least time that a network's layers need on a device.

A layer needs at least the time of its operations and at least the time of its
memory traffic: max(FLOP / product rate, bytes / copy rate). `rates` measures
the product rate on a large matrix product and the copy rate on a pass over a
large array. The roofline time of a step is the sum over its layers. It assumes
that each layer reads its input from memory and writes its output there, so
fused layers can be faster.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import ml_collections

from googlenet.model import graph, variants


class Work(NamedTuple):
  """The fewest operations and memory accesses of one layer."""

  flop: int  # per image
  elements: int  # activations read and written, per image
  weights: int  # elements; read once a step


class Rates(NamedTuple):
  """The highest rates of a device."""

  product_flop_per_s: float
  copy_bytes_per_s: float  # bytes read plus bytes written


def works(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> dict[str, list[Work]]:
  """Returns the work of each layer, by use: 'train' and 'infer'.

  Inference is one pass: read x, write y. Training adds the input gradient
  (read dy, write dx) and, for layers with weights, the weight gradient (read x
  and dy). The images need no gradient, so the first layer has one pass less.
  Elementwise operations (activation, normalization, residual sums) are not
  counted.

  Args:
    model_config: the `model` section.
    image_shape: (H, W, C) of the network's input.
  """
  layers = [
    layer
    for layer in graph.graph(variants.resolve(model_config), image_shape)
    if not layer.is_elementwise
  ]
  return {
    'train': [
      _work(layer, 1 + (graph.IMAGES not in layer.inputs) + (layer.weights > 0))
      for layer in layers
    ],
    'infer': [_work(layer, 1) for layer in layers if not layer.is_side],
  }


def _work(layer: graph.Layer, passes: int) -> Work:
  elements = math.prod(layer.input_shape) + math.prod(layer.shape)
  return Work(
    2 * passes * layer.multiply_adds, passes * elements, layer.weights
  )


def flop_per_image(works: dict[str, list[Work]]) -> dict[str, int]:
  """Returns the FLOP per image, two for each multiply-add, by use."""
  return {use: sum(work.flop for work in own) for use, own in works.items()}


def seconds(
  works: Iterable[Work], batch_size: int, itemsize: int, rates: Rates
) -> float:
  """Returns the roofline time of one step.

  Args:
    works: of all layers.
    batch_size: images.
    itemsize: bytes of an element in the compute dtype.
    rates: of all devices that compute the step, together.
  """
  return sum(
    max(
      batch_size * work.flop / rates.product_flop_per_s,
      (batch_size * work.elements + work.weights)
      * itemsize
      / rates.copy_bytes_per_s,
    )
    for work in works
  )
