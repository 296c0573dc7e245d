"""Convolutions with bias or batch norm, and activation.

Parameters are `<layer>/<convolution>/w` [kh, kw, C_in, C_out] and `b` [C_out],
or with batch norm `scale` and `offset` [C_out] instead of `b`. The running
statistics of batch norm are the state `mean` and `variance` [C_out] at the same
path.
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
  """Parameters, batch norm and activation of one convolution.

  The caller computes the convolution itself with `Kernels`, so that several
  convolutions can be computed in one call.
  """

  def __init__(self, row: rows.Conv, context: Context):
    super().__init__(name=row.name)
    self._row, self._context = row, context
    self._has_batch_norm = context.has_batch_norm and not row.is_linear

  def weight(self, in_channels: int) -> jax.Array:
    """Returns w [kh, kw, in_channels, width]."""
    shape = (*self._row.shape, in_channels, self._row.width)
    scheme = INITIALIZERS[self._context.initializer]
    return hk.get_parameter('w', shape, init=as_haiku(scheme))

  def bias(self) -> jax.Array | None:
    """Returns b [width], or None with batch norm."""
    if self._has_batch_norm:
      return None
    value = INITIALIZERS[self._context.initializer].bias
    init = hk.initializers.Constant(value)
    return hk.get_parameter('b', (self._row.width,), init=init)

  @property
  def fuses_relu(self) -> bool:
    """Whether the kernels may apply ReLU: nobody asks for what is before."""
    is_read = f'{self.module_name}:pre' in self._context.taps
    return self._context.fuses_relu and not self._row.is_linear and not is_read

  def finish(self, y: jax.Array, has_relu: bool) -> jax.Array:
    """Applies batch norm, and the activation if the kernels did not."""
    name, taps = self.module_name, self._context.taps
    if self._has_batch_norm:
      y = self._batch_norm(y)
    if not has_relu and not self._row.is_linear:
      y = self._context.activate(taps(f'{name}:pre', y))
    return taps(name, y)

  def _batch_norm(self, x: jax.Array) -> jax.Array:
    """Batch norm (Ioffe and Szegedy, 2015), statistics in float32 or wider.

    The running variance is unbiased, as in the paper's algorithm 2.
    """
    context, width = self._context, (x.shape[-1],)
    scale = hk.get_parameter('scale', width, init=jnp.ones)
    offset = hk.get_parameter('offset', width, init=jnp.zeros)
    old_mean = hk.get_state('mean', width, init=jnp.zeros)
    old_variance = hk.get_state('variance', width, init=jnp.ones)
    is_frozen = is_within(self.module_name, context.frozen)
    if not context.is_training or is_frozen:
      return normalize(x, old_mean, old_variance, scale, offset)
    axis_name = None if hk.running_init() else context.axis_name
    means = context.kernels.channel_means
    y, mean, variance = batch_norm(x, scale, offset, axis_name, means)
    count = x.size // x.shape[-1]
    if axis_name:
      count *= jax.lax.axis_size(axis_name)
    unbiased = variance * (count / max(count - 1, 1))
    decay = context.batch_norm_decay
    both = ('mean', old_mean, mean), ('variance', old_variance, unbiased)
    for name, old, new in both:
      new = decay * old + (1 - decay) * new
      hk.set_state(name, jax.lax.stop_gradient(new).astype(old.dtype))
    return y


def convolve(
  row: rows.Conv,
  x: jax.Array,
  context: Context,
  pool: rows.MaxPool | None = None,
) -> jax.Array:
  """Applies a convolution, bias or batch norm, and the activation.

  Args:
    row: layer spec of the convolution.
    x: feature map in the kernels' layout.
    context: settings of the network.
    pool: max pooling to fuse with the convolution; needs `fuses_relu`.

  Raises:
    ValueError: `pool` is given, but bias and ReLU are not fused.
  """
  conv = Conv(row, context)
  relu = conv.fuses_relu
  if pool and not relu:
    raise ValueError(f'{row.name}: pooling is fused only with bias and ReLU')
  y = context.kernels.conv(
    x,
    conv.weight(x.shape[-1]),
    conv.bias(),
    stride=row.stride,
    padding=row.padding,
    relu=relu,
    pool=pool,
  )
  return conv.finish(y, relu)


def convolve_1x1s(
  parallel: Sequence[rows.Conv], x: jax.Array, context: Context
) -> list[jax.Array]:
  """Applies several 1x1 convolutions to one input; none may be linear."""
  convs = [Conv(row, context) for row in parallel]
  ws = [conv.weight(x.shape[-1]) for conv in convs]
  bs = None
  if not context.has_batch_norm:
    bs = [conv.bias() for conv in convs]
  relu = all(conv.fuses_relu for conv in convs)
  ys = context.kernels.conv_1x1s(x, ws, bs, relu=relu)
  return [conv.finish(y, relu) for conv, y in zip(convs, ys, strict=True)]
