"""Convolutions: parameters, batch norm or bias, activation.

Parameters are `<layer>/<convolution>/w` [kh, kw, C_in, C_out] and `b` [C_out],
or with batch norm `scale` and `offset` [C_out] in place of `b`; its running
statistics are the state `mean` and `variance` [C_out] of the same path.
"""

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from googlenet.kernels.batch_norm import batch_norm, normalize
from googlenet.model import rows
from googlenet.model.context import Context, is_within
from googlenet.model.initialization import INITIALIZERS, as_haiku


class Conv(hk.Module):
  """The parameters of one convolution; `Kernels` applies them.

  Parallel convolutions can so be computed as one, whatever their names.
  """

  def __init__(self, row: rows.Conv, context: Context):
    super().__init__(name=row.name)
    self._row, self._context = row, context

  def weight(self, in_channels: int) -> jax.Array:
    """Returns w [kh, kw, in_channels, width]."""
    shape = (*self._row.shape, in_channels, self._row.width)
    scheme = INITIALIZERS[self._context.initializer]
    return hk.get_parameter('w', shape, init=as_haiku(scheme))

  def bias(self) -> jax.Array:
    """Returns b [width]."""
    value = INITIALIZERS[self._context.initializer].bias
    init = hk.initializers.Constant(value)
    return hk.get_parameter('b', (self._row.width,), init=init)

  def finish(self, y: jax.Array) -> jax.Array:
    """Applies what follows the product: bias or batch norm, activation."""
    context = self._context
    if context.normalization == 'batch' and not self._row.is_linear:
      y = self._batch_norm(y)
    elif context.fuses_relu and not self._row.is_linear:
      return context.kernels.bias_relu(y, self.bias())
    else:
      y = y + self.bias().astype(y.dtype)
    return y if self._row.is_linear else context.activate(y)

  def _batch_norm(self, x: jax.Array) -> jax.Array:
    """Ioffe and Szegedy, 2015; statistics in float32 or wider.

    The running variance is the unbiased one, as in the paper's algorithm 2.
    """
    context, width = self._context, (x.shape[-1],)
    scale = hk.get_parameter('scale', width, init=jnp.ones)
    offset = hk.get_parameter('offset', width, init=jnp.zeros)
    running_mean = hk.get_state('mean', width, init=jnp.zeros)
    running_variance = hk.get_state('variance', width, init=jnp.ones)
    is_frozen = is_within(self.module_name, context.frozen)
    if not context.is_training or is_frozen:
      return normalize(x, running_mean, running_variance, scale, offset)
    axis_name = None if hk.running_init() else context.axis_name
    y, mean, variance = batch_norm(x, scale, offset, axis_name)
    count = x.size // x.shape[-1]
    if axis_name:
      count *= jax.lax.axis_size(axis_name)
    unbiased = variance * (count / max(count - 1, 1))
    decay = context.batch_norm_decay
    for name, old, new in (
      ('mean', running_mean, mean),
      ('variance', running_variance, unbiased),
    ):
      new = decay * old + (1 - decay) * new
      hk.set_state(name, jax.lax.stop_gradient(new).astype(old.dtype))
    return y


def convolve(
  row: rows.Conv,
  x: jax.Array,
  context: Context,
  pool: rows.MaxPool | None = None,
) -> jax.Array:
  """Applies a convolution and all that follows it, `pool` at the end."""
  conv, kernels = Conv(row, context), context.kernels
  w = conv.weight(x.shape[-1])
  if context.fuses_relu and not row.is_linear:
    b = conv.bias()
    if pool:
      return kernels.conv_bias_relu_max_pool(
        x, w, b, row.stride, row.padding, tuple(pool)
      )
    return kernels.conv_bias_relu(x, w, b, row.stride, row.padding)
  if pool:
    raise ValueError('pooling goes with bias and ReLU alone')
  return conv.finish(kernels.conv(x, w, row.stride, row.padding))


def convolve_1x1s(
  parallel: Sequence[rows.Conv], x: jax.Array, context: Context
) -> list[jax.Array]:
  """Applies 1x1 convolutions of one input."""
  convs = [Conv(row, context) for row in parallel]
  ws = [conv.weight(x.shape[-1]) for conv in convs]
  if context.fuses_relu:
    bs = [conv.bias() for conv in convs]
    return context.kernels.conv_1x1s_bias_relu(x, ws, bs)
  ys = context.kernels.conv_1x1s(x, ws)
  return [conv.finish(y) for conv, y in zip(convs, ys, strict=True)]
