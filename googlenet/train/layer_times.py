"""A table of layer times, measured by running each layer alone.

A profiler trace does not show them: on CPUs it has no events for oneDNN calls,
and on every device the compiler fuses operations of several layers.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet.model import graph, modules
from googlenet.model.network import Network
from googlenet.model.precision import get_policy
from googlenet.runtime.compilation import compile_with

# Timed calls of each function; the table shows their median.
NUM_CALLS = 7

_COLUMNS = (
  'layer',
  'output',
  'MFLOP/image',
  'forward ms',
  'backward ms',
  'GFLOP/s',
  'share',
)


class Layer(NamedTuple):
  """A part of a network that can be applied alone.

  Attributes:
    name: name of its row, with ' + max_pool' where pooling is fused.
    apply: (params, x) -> y, as in training, in the layout of the network's
      kernels.
    params: parameters of this layer.
    is_side: whether it is an auxiliary head, which no other layer follows.
  """

  name: str
  apply: Callable[[hk.Params, jax.Array], jax.Array]
  params: hk.Params
  is_side: bool = False


class LayerTime(NamedTuple):
  """One line of the table."""

  name: str
  shape: tuple[int, ...]  # of the output, for one image
  mflop: float  # of the forward pass, for one image
  passes: int  # in a training step, each with `mflop`
  forward_ms: float
  training_ms: float  # forward and backward


def split(
  network: Network, params: hk.Params, network_state: hk.State, keys: jax.Array
) -> list[Layer]:
  """Returns the layers of a network, in order; the classifier is the last.

  As in `network.apply`, pooling after a convolution is part of it.

  Args:
    network: made by `make_network`.
    params: its parameters.
    network_state: its state.
    keys: [B] random keys, one per image.
  """
  context = network.context._replace(is_training=True, keys=keys)
  architecture = network.architecture

  def layer(name: str, ops: Sequence[Any], is_side: bool = False) -> Layer:
    own = {getattr(op, 'name', '') for op in ops}

    def select(tree):
      return {k: v for k, v in tree.items() if k.split('/')[0] in own}

    transformed = hk.transform_with_state(
      lambda x: modules.apply_all(ops, x, context)
    )

    def apply(params: hk.Params, x: jax.Array) -> jax.Array:
      return transformed.apply(params, select(network_state), None, x)[0]

    return Layer(name, apply, select(params), is_side)

  heads = {head.after: head for head in architecture.aux_heads}
  layers = []
  for stage in architecture.stages:
    fuse = modules.fuse_pools if context.fuses_relu else tuple
    for row in fuse(stage.rows):
      name = getattr(row, 'name', graph.kind_of(row))
      pooled = ' + max_pool' if getattr(row, 'pool', None) else ''
      layers.append(layer(name + pooled, [row]))
      if name in heads:
        head = heads[name]
        layers.append(layer(head.name, [head], is_side=True))
  names = [op.name for op in architecture.head if hasattr(op, 'name')]
  return [*layers, layer(' + '.join(names) or 'head', architecture.head)]


def measure(
  network: Network,
  params: hk.Params,
  network_state: hk.State,
  images: jax.Array,
) -> list[LayerTime]:
  """Times every layer, each on the output of the layer before it.

  Args:
    network: made by `make_network`.
    params: its parameters, in the compute dtype.
    network_state: its state.
    images: [B, H, W, C] in the compute dtype.
  """
  kernels = network.kernels
  operations = graph.graph(network.architecture, images.shape[1:])
  keys = jax.random.split(jax.random.key(0), images.shape[0])

  def compiled(function: Callable[..., Any], *arguments: Any):
    lowered = jax.jit(function).lower(*arguments)
    return compile_with(kernels.compiler_options, lowered)

  x = jax.jit(kernels.to_layout)(images)
  times = []
  for layer in split(network, params, network_state, keys):
    # The first layer needs no gradient with respect to its input, the images.
    is_first = not times
    forward = compiled(layer.apply, layer.params, x)
    y = forward(layer.params, x)

    def train(params, x, gradient, apply=layer.apply, is_first=is_first):
      if is_first:
        y, pull_back = jax.vjp(lambda p: apply(p, x), params)
      else:
        y, pull_back = jax.vjp(apply, params, x)
      return y, pull_back(gradient)

    arguments = (layer.params, x, jnp.ones_like(y))
    parts = {name.split('/')[0] for name in layer.params}
    multiply_adds = sum(
      operation.multiply_adds
      for operation in operations
      if operation.row in parts
    )
    times.append(
      LayerTime(
        layer.name,
        _image_shape(kernels, y),
        2 * multiply_adds / 1e6,
        2 if is_first else 3,
        _milliseconds(forward, *arguments[:2]),
        _milliseconds(compiled(train, *arguments), *arguments),
      )
    )
    x = x if layer.is_side else y
  return times


def _image_shape(kernels: Any, y: Any) -> tuple[int, ...]:
  """Returns the shape of an activation or of logits, for one image."""
  if y.ndim == 4:
    y = jax.eval_shape(kernels.from_layout, y)
  return y.shape[1:]


def _milliseconds(function: Callable[..., Any], *arguments: Any) -> float:
  """Returns the median time of a call."""
  jax.block_until_ready(function(*arguments))
  # On a GPU, launching a small layer takes longer than computing it, so several
  # calls are queued at once. A CPU might run such calls in parallel.
  at_once = 1 if jax.default_backend() == 'cpu' else 10
  times = []
  for _ in range(NUM_CALLS):
    start = time.perf_counter()
    for _ in range(at_once):
      result = function(*arguments)
    jax.block_until_ready(result)
    times.append((time.perf_counter() - start) / at_once)
  return 1e3 * statistics.median(times)


def render(times: list[LayerTime], batch_size: int) -> str:
  """Returns the table as text; the last line sums all layers.

  Args:
    times: returned by `measure`.
    batch_size: number of images used in the measurement.
  """
  total = sum(row.training_ms for row in times)

  def line(row: LayerTime, gflop: float) -> tuple[str, ...]:
    return (
      row.name,
      'x'.join(str(side) for side in row.shape),
      f'{row.mflop:.2f}',
      f'{row.forward_ms:.3f}',
      # A small difference of two noisy measurements may be negative.
      f'{max(row.training_ms - row.forward_ms, 0):.3f}',
      f'{gflop / (row.training_ms * 1e-3):.1f}' if gflop else '-',
      f'{row.training_ms / total:.1%}',
    )

  gflops = [batch_size * row.passes * row.mflop / 1e3 for row in times]
  summed = LayerTime(
    'sum',
    (),
    sum(row.mflop for row in times),
    0,
    sum(row.forward_ms for row in times),
    total,
  )
  lines = [
    _COLUMNS,
    *map(line, times, gflops),
    line(summed, sum(gflops)),
  ]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    for cells in lines
  )


def report(
  config: ml_collections.FrozenConfigDict,
  network: Network,
  params: hk.Params,
  network_state: hk.State,
  channels: int,
  step_seconds: float,
) -> str:
  """Measures a network on one device; returns the table and notes as text.

  Args:
    config: the `model`, `data` and `train` sections are read.
    network: the network of `config.model`.
    params: its parameters, NumPy arrays.
    network_state: its state, NumPy arrays.
    channels: image channels.
    step_seconds: time of a whole training step, for comparison.
  """
  policy = get_policy(config.train.precision)
  devices, parts = jax.device_count(), config.train.microbatches
  batch_size = config.train.batch_size // (devices * parts)
  size = config.data.image_size
  rng = np.random.default_rng(config.seed)
  images = rng.standard_normal((batch_size, size, size, channels), np.float32)
  params, images = policy.cast_to_compute(
    (jax.device_put(params), jnp.asarray(images))
  )
  times = measure(network, params, network_state, images)
  total = sum(row.training_ms for row in times)
  runs = f'; a step runs every layer {parts} times' if parts > 1 else ''
  return '\n'.join(
    [
      f'{config.model.variant}, {size}x{size}x{channels}, {batch_size} images '
      f'on one of {devices} x {jax.devices()[0].device_kind}, '
      f'kernels {network.kernels.name}, {config.train.precision}',
      render(times, batch_size),
      f'sum of the layers {total:.1f} ms, whole step {step_seconds * 1e3:.1f} '
      f'ms (mean of the traced steps{runs})',
      'Layer times do not add up to the step time: a step also preprocesses '
      'images and updates parameters, and is compiled as one program.',
    ]
  )
