"""Rows of data as Haiku modules on maps: layers and blocks.

Maps are in the layout of the kernels.
"""

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from googlenet.model import regularization, rows
from googlenet.model.context import Setting
from googlenet.model.convolution import convolve, convolve_1x1s


def _is_1x1(branch: rows.Branch) -> bool:
  first = branch[0]
  return (
    isinstance(first, rows.Conv)
    and first.shape == (1, 1)
    and first.stride == 1
    and not first.is_linear
  )


def join(
  branches: Sequence[rows.Branch], x: jax.Array, setting: Setting
) -> jax.Array:
  """Applies branches to one input and joins them on channels.

  The 1x1 convolutions that branches begin with are computed together.
  """
  leads = [branch[0] for branch in branches if _is_1x1(branch)]
  reduced = iter(convolve_1x1s(leads, x, setting) if leads else ())
  outs = [
    apply_ops(branch[1:], next(reduced), setting)
    if _is_1x1(branch)
    else apply_ops(branch, x, setting)
    for branch in branches
  ]
  return jnp.concatenate(outs, axis=-1)


def apply_ops(
  ops: Sequence[rows.Op | rows.Row], x: jax.Array, setting: Setting
) -> jax.Array:
  """Applies operations on maps in sequence, in the layout of the kernels."""
  kernels = setting.kernels
  for op in ops:
    if isinstance(op, rows.Conv):
      x = convolve(op, x, setting)
    elif isinstance(op, rows.MaxPool):
      x = kernels.max_pool(x, *op)
    elif isinstance(op, rows.AvgPool):
      x = kernels.avg_pool(x, *op)
    elif isinstance(op, rows.LocalResponseNorm):
      x = kernels.lrn(x, *op)
    elif isinstance(op, rows.Fork):
      x = join(op.branches, x, setting)
    elif isinstance(op, rows.AdaptiveAvgPool):
      x = kernels.enter(adaptive_avg_pool(kernels.leave(x), op.size))
    elif isinstance(op, rows.Dropout):
      x = kernels.enter(
        regularization.dropout(kernels.leave(x), op.rate, op.place, setting)
      )
    else:
      raise TypeError(f'{op} is no operation on maps')
  return x


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
  """Mean over size x size windows: [B, H, W, C] -> [B, size, size, C].

  Window i lies from i H / size to (i + 1) H / size, both rounded outwards, so
  that windows may share a pixel, as in PyTorch's AdaptiveAvgPool2d.
  """
  for axis in (1, 2):
    length = x.shape[axis]
    ends = [
      (i * length // size, -(-(i + 1) * length // size)) for i in range(size)
    ]
    x = jnp.concatenate(
      [
        jax.lax.slice_in_dim(x, low, high, axis=axis).mean(axis, keepdims=True)
        for low, high in ends
      ],
      axis,
    )
  return x


class ConvLayer(hk.Module):
  """Convolutions in sequence."""

  def __init__(self, row: rows.ConvLayer, setting: Setting):
    super().__init__(name=row.name)
    self._row, self._setting = row, setting

  def __call__(
    self, x: jax.Array, pool: rows.MaxPool | None = None
  ) -> jax.Array:
    """Applies the row, and the pooling that follows it if one is given."""
    *first, last = self._row.convs
    for conv in first:
      x = convolve(conv, x, self._setting)
    return convolve(last, x, self._setting, pool)


class Block(hk.Module):
  """Parallel branches, joined on channels or added to the input."""

  def __init__(self, row: rows.Block, setting: Setting):
    super().__init__(name=row.name)
    self._row, self._setting = row, setting

  def __call__(self, x: jax.Array) -> jax.Array:
    row, setting = self._row, self._setting
    y = join(row.branches, x, setting)
    if not row.residual:
      return y
    width, scale, drop_rate, place = row.residual
    kernels = setting.kernels

    def linear(name: str, x: jax.Array) -> jax.Array:
      return convolve(rows.Conv(name, width, 1, is_linear=True), x, setting)

    if x.shape[-1] != width:
      x = linear('shortcut', x)
    added = scale * linear('linear', y)
    if drop_rate:
      added = kernels.leave(added)
      added = regularization.drop_branches(added, drop_rate, place, setting)
      added = kernels.enter(added)
    return setting.activate(x + added)


def apply_row(
  row: rows.Row,
  pool: rows.MaxPool | None,
  x: jax.Array,
  setting: Setting,
) -> jax.Array:
  """Applies a row, and the pooling paired with it; both in `kernels` layout."""
  if isinstance(row, rows.ConvLayer):
    return ConvLayer(row, setting)(x, pool)
  if isinstance(row, rows.Block):
    return Block(row, setting)(x)
  return apply_ops((row,), x, setting)
