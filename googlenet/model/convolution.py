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
from googlenet.model.context import Setting, is_within
from googlenet.model.initializers import INITIALIZERS, of_haiku


class Conv(hk.Module):
  """The parameters of one convolution; `Kernels` applies them.

  Parallel convolutions can so be computed as one, whatever their names.
  """

  def __init__(self, row: rows.Conv, setting: Setting):
    super().__init__(name=row.name)
    self._row, self._setting = row, setting

  def weight(self, in_channels: int) -> jax.Array:
    """Returns w [kh, kw, in_channels, width]."""
    shape = (*self._row.shape, in_channels, self._row.width)
    scheme = INITIALIZERS[self._setting.initializer]
    return hk.get_parameter('w', shape, init=of_haiku(scheme))

  def bias(self) -> jax.Array:
    """Returns b [width]."""
    value = INITIALIZERS[self._setting.initializer].bias
    init = hk.initializers.Constant(value)
    return hk.get_parameter('b', (self._row.width,), init=init)

  def finish(self, y: jax.Array) -> jax.Array:
    """Applies what follows the product: bias or batch norm, activation."""
    setting = self._setting
    if setting.normalization == 'batch' and not self._row.is_linear:
      y = self._batch_norm(y)
    elif setting.is_fused and not self._row.is_linear:
      return setting.kernels.bias_relu(y, self.bias())
    else:
      y = y + self.bias().astype(y.dtype)
    return y if self._row.is_linear else setting.activate(y)

  def _batch_norm(self, x: jax.Array) -> jax.Array:
    """Ioffe and Szegedy, 2015; statistics in float32 or wider.

    The running variance is the unbiased one, as in the paper's algorithm 2.
    """
    setting, width = self._setting, (x.shape[-1],)
    scale = hk.get_parameter('scale', width, init=jnp.ones)
    offset = hk.get_parameter('offset', width, init=jnp.zeros)
    running_mean = hk.get_state('mean', width, init=jnp.zeros)
    running_variance = hk.get_state('variance', width, init=jnp.ones)
    is_frozen = is_within(self.module_name, setting.frozen)
    if not setting.is_training or is_frozen:
      return normalize(x, running_mean, running_variance, scale, offset)
    axis_name = None if hk.running_init() else setting.axis_name
    y, mean, variance = batch_norm(x, scale, offset, axis_name)
    count = x.size // x.shape[-1]
    if axis_name:
      count *= jax.lax.axis_size(axis_name)
    unbiased = variance * (count / max(count - 1, 1))
    for name, old, new in (
      ('mean', running_mean, mean),
      ('variance', running_variance, unbiased),
    ):
      new = setting.decay * old + (1 - setting.decay) * new
      hk.set_state(name, jax.lax.stop_gradient(new).astype(old.dtype))
    return y


def convolve(
  row: rows.Conv,
  x: jax.Array,
  setting: Setting,
  pool: rows.MaxPool | None = None,
) -> jax.Array:
  """Applies a convolution and all that follows it, `pool` at the end."""
  conv, kernels = Conv(row, setting), setting.kernels
  w = conv.weight(x.shape[-1])
  if setting.is_fused and not row.is_linear:
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
  parallel: Sequence[rows.Conv], x: jax.Array, setting: Setting
) -> list[jax.Array]:
  """Applies 1x1 convolutions of one input."""
  convs = [Conv(row, setting) for row in parallel]
  ws = [conv.weight(x.shape[-1]) for conv in convs]
  if setting.is_fused:
    bs = [conv.bias() for conv in convs]
    return setting.kernels.conv_1x1s_bias_relu(x, ws, bs)
  ys = setting.kernels.conv_1x1s(x, ws)
  return [conv.finish(y) for conv, y in zip(convs, ys, strict=True)]
