"""The roofline: the least time that a network's layers need on a device.

A layer needs the time of its operations or that of its memory traffic,
whichever is longer: max(FLOP / product rate, bytes / copy rate). The product
rate is that of a large matrix product, the copy rate that of a pass over a
large array (`rates`). The roofline time of a step is the sum over its layers;
each layer reads its input from memory and writes its output there, so fusing
layers can beat it.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import ml_collections

from googlenet.model import graph, variants


class Work(NamedTuple):
  """The least that one layer computes and moves."""

  flop: int  # per image
  elements: int  # activations read and written, per image
  weights: int  # elements; read once a step


class Rates(NamedTuple):
  """The best rates of a device."""

  product_flop_per_s: float
  copy_bytes_per_s: float  # bytes read plus bytes written


def works(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> dict[str, list[Work]]:
  """Returns the work of each layer, by use: 'train' and 'infer'.

  Inference is one pass: read x, write y. Training adds the input gradient
  (read dy, write dx) and, for layers with weights, the weight gradient (read x
  and dy). The images need no gradient, which spares the first layer one pass.
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
  """Returns the FLOP of convolutions and fully connected layers, by use.

  Two for each multiply-add.
  """
  return {use: sum(work.flop for work in own) for use, own in works.items()}


def seconds(
  works: Iterable[Work], batch_size: int, itemsize: int, rates: Rates
) -> float:
  """Returns the roofline time of one step.

  Args:
    works: of all layers.
    batch_size: images.
    itemsize: bytes of an element in the compute dtype.
    rates: of everything that computes the step.
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
