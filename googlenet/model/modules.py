"""Haiku modules for layer specs: Inception block, convolution layers, heads.

Feature maps are in the kernels' layout, channels last. Fully connected layers
have `w` [C_in, C_out] and `b` [C_out]; convolution.py lists the parameters of
convolutions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from googlenet.kernels.adaptive_pooling import adaptive_avg_pool as pool
from googlenet.model import own, rows
from googlenet.model.context import Context
from googlenet.model.convolution import convolve, convolve_1x1s
from googlenet.model.graph import kind_of
from googlenet.model.initialization import as_haiku, scheme_of
from googlenet.model.regularization import Dropout, StochasticDepth


class Inception(hk.Module):
  """An Inception block: parallel branches, concatenated along channels.

  The branches of the original block (`blocks.inception`) are

    1x1
    1x1 -> 3x3
    1x1 -> 5x5
    3x3 max pooling -> 1x1

  with an activation after every convolution.
  """

  def __init__(self, row: rows.Block, context: Context):
    super().__init__(row.name)
    self._row, self._context = row, context._replace(path=row.name)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies the branches to a map and concatenates their channels."""
    row, context = self._row, self._context
    y = join(row.branches, x, context)
    y = apply_all(row.after, y, context)
    return add(row.residual, x, y, context) if row.residual else y


def join(
  branches: Sequence[rows.Branch], x: jax.Array, context: Context
) -> jax.Array:
  """Applies branches to one input and concatenates their channels.

  The 1x1 convolutions at the start of branches are computed together.
  """
  leads = [branch[0] for branch in branches if _starts_1x1(branch)]
  reduced = iter(convolve_1x1s(leads, x, context) if leads else ())
  outs = [
    apply_all(branch[1:], next(reduced), context)
    if _starts_1x1(branch)
    else apply_all(branch, x, context)
    for branch in branches
  ]
  return context.tap('concat', jnp.concatenate(outs, axis=-1))


def _starts_1x1(branch: rows.Branch) -> bool:
  first = branch[0]
  return (
    isinstance(first, rows.Conv)
    and (first.shape, first.stride) == ((1, 1), 1)
    and not first.is_linear
    # The words ask for no padding here, a number does.
    and (isinstance(first.padding, str) or first.padding == 0)
  )


def add(
  residual: rows.Residual, x: jax.Array, y: jax.Array, context: Context
) -> jax.Array:
  """Adds the branches `y` of a residual block to its input `x`."""
  kernels = context.kernels

  def linear(name: str, x: jax.Array) -> jax.Array:
    row = rows.Conv(name, residual.width, 1, is_linear=True)
    return convolve(row, x, context)

  if x.shape[-1] != residual.width:
    x = linear('shortcut', x)
  y = context.tap('multiply', residual.scale * linear('linear', y))
  if residual.drop_rate:
    drop = StochasticDepth(residual.drop_rate, context)
    y = kernels.to_layout(drop(kernels.from_layout(y)))
  y = context.activate(context.tap('add', x + y))
  return context.tap('activation', y)


class ConvLayer(hk.Module):
  """Convolutions in sequence."""

  def __init__(self, row: rows.ConvLayer, context: Context):
    super().__init__(row.name)
    self._row, self._context = row, context

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies the convolutions, and max pooling if fused with the last."""
    *first, last = self._row.convs
    for conv in first:
      x = convolve(conv, x, self._context)
    return convolve(last, x, self._context, self._row.pool)


class AuxHead(hk.Module):
  """An auxiliary classifier; returns logits [B, num_classes]."""

  def __init__(self, row: rows.AuxHead, context: Context):
    super().__init__(row.name)
    self._row, self._context = row, context._replace(path=row.name)

  def __call__(self, x: jax.Array) -> jax.Array:
    logits = apply_all(self._row.ops, x, self._context)
    chex.assert_rank(logits, 2)
    return logits


def dense(row: rows.Dense, x: jax.Array, context: Context) -> jax.Array:
  """A fully connected layer: [B, C] -> [B, width]."""
  scheme = scheme_of(row.name, context.initializer)
  linear = hk.Linear(
    row.width,
    w_init=as_haiku(scheme),
    b_init=hk.initializers.Constant(scheme.bias),
    name=row.name,
  )
  name = linear.module_name
  y = linear(x.astype(context.kernels.product_dtype(x.dtype))).astype(x.dtype)
  if not row.is_linear:
    y = context.activate(context.taps(f'{name}:pre', y))
  return context.taps(name, y)


def squeeze_excite(
  row: rows.SqueezeExcite, x: jax.Array, context: Context
) -> jax.Array:
  """Multiplies each channel of a map by its gate, a number from 0 to 1."""
  ops = (rows.GlobalMean(), *row.layers(x.shape[-1]))
  gates = jax.nn.sigmoid(apply_all(ops, x, context))  # [B, C]
  gates = context.tap('activation', gates)[:, None, None, :]
  return context.tap('multiply', x * context.kernels.to_layout(gates))


def dropout(row: rows.Dropout, x: jax.Array, context: Context) -> jax.Array:
  """Applies dropout to a map or to features [B, C]."""
  drop, kernels = Dropout(row.rate, context), context.kernels
  return (
    drop(x) if x.ndim == 2 else kernels.to_layout(drop(kernels.from_layout(x)))
  )


def flatten(row: rows.Flatten, x: jax.Array, context: Context) -> jax.Array:
  """Flattens a map to features [B, H * W * C]."""
  del row
  x = context.kernels.from_layout(x)
  return x.reshape(x.shape[0], -1)


def adaptive_avg_pool(
  row: rows.AdaptiveAvgPool, x: jax.Array, context: Context
) -> jax.Array:
  """Mean over windows that cover the map: [B, size, size, C]."""
  kernels = context.kernels
  return kernels.to_layout(pool(kernels.from_layout(x), row.size))


def own_layer(row: rows.Own, x: jax.Array, context: Context) -> jax.Array:
  """Applies a registered operation."""
  kernels = context.kernels
  layer = own.Layer(row, kernels.product_dtype(x.dtype))
  y = layer(kernels.from_layout(x), context.is_training)
  return context.taps(layer.module_name, kernels.to_layout(y))


# The function that applies each layer spec: (row, x, context) -> y.
_APPLY: dict[type, Callable[[Any, jax.Array, Context], jax.Array]] = {
  rows.Conv: convolve,
  rows.ConvLayer: lambda row, x, context: ConvLayer(row, context)(x),
  rows.Block: lambda row, x, context: Inception(row, context)(x),
  rows.Fork: lambda row, x, context: join(row.branches, x, context),
  rows.MaxPool: lambda row, x, context: context.kernels.max_pool(x, *row),
  rows.AvgPool: lambda row, x, context: context.kernels.avg_pool(x, *row),
  rows.AdaptiveAvgPool: adaptive_avg_pool,
  rows.LocalResponseNorm: lambda row, x, context: context.kernels.lrn(x, *row),
  rows.GlobalMean: lambda row, x, context: context.kernels.global_mean(x),
  rows.Flatten: flatten,
  rows.Dense: dense,
  rows.SqueezeExcite: squeeze_excite,
  rows.Dropout: dropout,
  rows.AuxHead: lambda row, x, context: AuxHead(row, context)(x),
  rows.Own: own_layer,
}

# Their points are named after the kind of operation.
_UNNAMED = (
  rows.MaxPool,
  rows.AvgPool,
  rows.AdaptiveAvgPool,
  rows.LocalResponseNorm,
  rows.GlobalMean,
  rows.Flatten,
  rows.Dropout,
)


def apply(row: Any, x: jax.Array, context: Context) -> jax.Array:
  """Applies a row, an operation or an auxiliary head.

  Raises:
    TypeError: the operation is unknown.
  """
  if type(row) not in _APPLY:
    raise TypeError(f'{row} is no known operation of a network')
  y = _APPLY[type(row)](row, x, context)
  if isinstance(row, _UNNAMED):
    y = context.tap(kind_of(row), y)
  return y


def apply_all(ops: Sequence[Any], x: jax.Array, context: Context) -> jax.Array:
  """Applies operations in sequence."""
  for op in ops:
    x = apply(op, x, context)
  return x


def fuse_pools(stage_rows: Sequence[rows.Row]) -> list[rows.Row]:
  """Fuses max pooling into the convolution layer right before it.

  Pooling first, then bias and ReLU, gives the same numbers with less work. Only
  valid if `context.fuses_relu`.
  """
  fused = []
  for row in stage_rows:
    last = fused[-1] if fused else None
    takes_pool = isinstance(last, rows.ConvLayer) and not (
      last.pool or last.convs[-1].is_linear
    )
    if takes_pool and isinstance(row, rows.MaxPool):
      fused[-1] = last._replace(pool=row)
    else:
      fused.append(row)
  return fused
