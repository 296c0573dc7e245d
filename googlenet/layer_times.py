"""How long each layer of a network takes, run alone, as a table.

A trace does not tell: on CPUs the calls into oneDNN leave no events there, and
everywhere the compiler joins operations of several layers.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import ml_collections
import numpy as np

from googlenet import architectures
from googlenet import network as network_lib
from googlenet.compilation import compile_with
from googlenet.network import Network

# Of each function; their median is shown.
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
    name: of its row, or of both where pooling is computed with it.
    apply: (params, x) -> y, in the layout of the network's kernels.
    weighted: the same up to its last weights, so without that pooling.
    params: its own.
  """

  name: str
  apply: Callable[[hk.Params, jax.Array], jax.Array]
  weighted: Callable[[hk.Params, jax.Array], jax.Array]
  params: hk.Params


class LayerTime(NamedTuple):
  """One line of the table."""

  name: str
  shape: tuple[int, ...]  # of the output, for one image
  mflop: float  # of the forward pass, for one image
  passes: int  # of that size in a training step
  forward_ms: float
  training_ms: float  # forward and backward


def split(network: Network, num_classes: int, params: hk.Params) -> list[Layer]:
  """Returns the layers of a network, in order; the classifier is the last.

  They are split as `network.apply` computes them: pooling after a convolution
  is a part of that convolution.
  """
  kernels = network.kernels

  def pure(function: Callable[[jax.Array], jax.Array]):
    transformed = hk.without_apply_rng(hk.transform(function))
    return transformed.apply

  def own(name: str) -> hk.Params:
    return {k: v for k, v in params.items() if k.split('/')[0] == name}

  def of_row(
    row: architectures.Row, pool: architectures.MaxPool | None
  ) -> Layer:
    def apply(pool: architectures.MaxPool | None):
      # Parameters are given, so the initializer is never called.
      return pure(
        lambda x: network_lib.apply_row(row, pool, x, kernels, jnp.zeros)
      )

    name = getattr(row, 'name', 'max_pool')
    joined = f'{name} + max_pool' if pool else name
    return Layer(joined, apply(pool), apply(None), own(name))

  layers = [
    of_row(row, pool)
    for stage in network.architecture
    for row, pool in network_lib.pair_with_pools(stage.rows, join=True)
  ]
  classify = pure(
    lambda x: network_lib.classify(kernels.global_mean(x), num_classes)
  )
  return [*layers, Layer('logits', classify, classify, own('logits'))]


def measure(
  network: Network, num_classes: int, params: hk.Params, images: jax.Array
) -> list[LayerTime]:
  """Times every layer, each on the output of the one before.

  Args:
    network: as made by `make_network`.
    num_classes: that it was made with.
    params: of it, in the dtype of computation.
    images: [B, H, W, C] in the same dtype.
  """
  kernels = network.kernels

  def compiled(function: Callable[..., Any], *arguments: Any):
    lowered = jax.jit(function).lower(*arguments)
    return compile_with(kernels.compiler_options, lowered)

  x = jax.jit(kernels.enter)(images)
  rows = []
  for layer in split(network, num_classes, params):
    # Images have no gradient: the first layer is spared that of its input.
    is_first = not rows
    forward = compiled(layer.apply, layer.params, x)
    y = forward(layer.params, x)

    def train(params, x, gradient, apply=layer.apply, is_first=is_first):
      if is_first:
        y, pull_back = jax.vjp(lambda p: apply(p, x), params)
      else:
        y, pull_back = jax.vjp(apply, params, x)
      return y, pull_back(gradient)

    arguments = (layer.params, x, jnp.ones_like(y))
    rows.append(
      LayerTime(
        layer.name,
        _image_shape(kernels, y),
        _mflop(kernels, layer, x),
        2 if is_first else 3,
        _milliseconds(forward, *arguments[:2]),
        _milliseconds(compiled(train, *arguments), *arguments),
      )
    )
    x = y
  return rows


def _image_shape(kernels: Any, y: Any) -> tuple[int, ...]:
  """The shape of an activation or of logits, for one image."""
  if y.ndim == 4:
    y = jax.eval_shape(kernels.leave, y)
  return y.shape[1:]


def _mflop(kernels: Any, layer: Layer, x: jax.Array) -> float:
  """Two for each multiply-add of convolutions and the classifier."""
  y = jax.eval_shape(layer.weighted, layer.params, x)
  # Each weight of a layer is used once at every place of its output.
  places = int(np.prod(_image_shape(kernels, y)[:-1]))
  weights = [w for w in jax.tree.leaves(layer.params) if w.ndim > 1]
  return 2 * places * sum(int(np.prod(w.shape)) for w in weights) / 1e6


def _milliseconds(function: Callable[..., Any], *arguments: Any) -> float:
  """The median time of a call."""
  jax.block_until_ready(function(*arguments))
  # The launch of a small layer takes a GPU longer than the layer, so several
  # are given to it at once. A CPU might compute them side by side.
  at_once = 1 if jax.default_backend() == 'cpu' else 10
  times = []
  for _ in range(NUM_CALLS):
    start = time.perf_counter()
    for _ in range(at_once):
      result = function(*arguments)
    jax.block_until_ready(result)
    times.append((time.perf_counter() - start) / at_once)
  return 1e3 * statistics.median(times)


def render(rows: list[LayerTime], batch_size: int) -> str:
  """Returns the table as text, the sum of all layers last.

  Args:
    rows: as measured.
    batch_size: images that they were measured on.
  """
  total = sum(row.training_ms for row in rows)

  def line(row: LayerTime, gflop: float) -> tuple[str, ...]:
    return (
      row.name,
      'x'.join(str(side) for side in row.shape),
      f'{row.mflop:.2f}',
      f'{row.forward_ms:.3f}',
      # A difference of two measurements: noise may turn a small one around.
      f'{max(row.training_ms - row.forward_ms, 0):.3f}',
      f'{gflop / (row.training_ms * 1e-3):.1f}' if gflop else '-',
      f'{row.training_ms / total:.1%}',
    )

  gflops = [batch_size * row.passes * row.mflop / 1e3 for row in rows]
  summed = LayerTime(
    'sum',
    (),
    sum(row.mflop for row in rows),
    0,
    sum(row.forward_ms for row in rows),
    total,
  )
  lines = [
    _COLUMNS,
    *map(line, rows, gflops),
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
  channels: int,
  step_seconds: float,
) -> str:
  """Measures a network on one device and returns table and notes.

  Args:
    config: the `model`, `data` and `train` sections are read.
    network: of `config.model`.
    params: of it, NumPy arrays.
    channels: of the images.
    step_seconds: of the whole training step, for comparison.
  """
  policy = jmp.get_policy(config.train.precision)
  devices, parts = jax.device_count(), config.train.microbatches
  batch_size = config.train.batch_size // (devices * parts)
  size = config.data.image_size
  rng = np.random.default_rng(config.seed)
  images = rng.standard_normal((batch_size, size, size, channels), np.float32)
  rows = measure(
    network,
    config.model.num_classes,
    *policy.cast_to_compute((jax.device_put(params), jnp.asarray(images))),
  )
  total = sum(row.training_ms for row in rows)
  runs = f', which runs every layer {parts} times' if parts > 1 else ''
  return '\n'.join(
    [
      f'{config.model.variant}, {size}x{size}x{channels}, {batch_size} images '
      f'on one of {devices} x {jax.devices()[0].device_kind}, '
      f'kernels {network.kernels.name}, {config.train.precision}',
      render(rows, batch_size),
      f'sum of the layers {total:.1f} ms, whole step {step_seconds * 1e3:.1f} '
      f'ms (mean of the traced ones{runs})',
      'Layers timed alone do not add up to the step exactly: it also prepares '
      'images and updates parameters, and is compiled as one program.',
    ]
  )
