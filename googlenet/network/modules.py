"""Haiku modules: from rows of data to layers with parameters.

Parameters of a convolution are `<layer>/<convolution>/w` [kh, kw, C_in, C_out]
and `b` [C_out], or with batch norm `scale` and `offset` [C_out] in place of
`b`; its running statistics are the state `mean` and `variance` [C_out] of the
same path. Fully connected layers have `w` [C_in, C_out] and `b`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from googlenet.architectures import rows
from googlenet.layers import Kernels
from googlenet.layers.batch_norm import batch_norm, normalize
from googlenet.network.initializers import (
  INITIALIZERS,
  LOGITS,
  Scheme,
  of_haiku,
)

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': jax.nn.relu,
  'leaky_relu': jax.nn.leaky_relu,
  'elu': jax.nn.elu,
  'gelu': jax.nn.gelu,
  'silu': jax.nn.silu,
  'sigmoid': jax.nn.sigmoid,  # Ioffe and Szegedy, 2015, section 4.2.2
  'tanh': jnp.tanh,
}
# Sets the keys of stochastic depth apart from those of dropout.
_DEPTH_PLACES = 1_000_000


def is_within(module: str, parts: Sequence[str]) -> bool:
  """Whether a path of parameters is one of some parts or lies within it."""
  return any(f'{module}/'.startswith(f'{part}/') for part in parts)


class Setting(NamedTuple):
  """What all layers of a network have in common.

  Attributes:
    kernels: the implementation of the primitive operations.
    normalization: 'batch', or anything else for none in the convolutions.
    activation: a key of `ACTIVATIONS`.
    initializer: a key of `INITIALIZERS`.
    decay: of the running statistics of batch norm, a call in training.
    is_training: dropout is on, batch norm takes the statistics of the batch.
    keys: [B] random keys, one an image; None where nothing is random.
    axis_name: the pmapped axis over which batch norm averages, or None.
    frozen: parts in which batch norm takes and keeps its running statistics in
      training, too.
  """

  kernels: Kernels
  normalization: str
  activation: str
  initializer: str = 'he'
  decay: float = 0.9
  is_training: bool = False
  keys: jax.Array | None = None
  axis_name: str | None = None
  frozen: tuple[str, ...] = ()

  @property
  def is_fused(self) -> bool:
    """Whether bias and ReLU follow a convolution at once."""
    return self.normalization != 'batch' and self.activation == 'relu'

  def activate(self, x: jax.Array) -> jax.Array:
    """Applies the activation."""
    return ACTIVATIONS[self.activation](x)


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
      x = kernels.enter(dropout(kernels.leave(x), op.rate, op.place, setting))
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


def dropout(
  x: jax.Array, rate: float, place: int, setting: Setting
) -> jax.Array:
  """Zeroes elements of x [B, ...] with probability `rate` while training.

  Each image has its own key, so what happens to it does not depend on the
  number of devices or microbatches.

  Args:
    x: activations.
    rate: 0 for none.
    place: of this dropout in the network, so that no two drop alike.
    setting: of the network; `keys` are needed.

  Raises:
    ValueError: there are no keys.
  """
  if not rate or not setting.is_training or hk.running_init():
    return x
  if setting.keys is None:
    raise ValueError('dropout needs keys while training: one for each image')
  chex.assert_equal_shape_prefix([x, setting.keys], 1)

  def one(x: jax.Array, key: jax.Array) -> jax.Array:
    keep = jax.random.bernoulli(
      jax.random.fold_in(key, place), 1 - rate, x.shape
    )
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)

  return jax.vmap(one)(x, setting.keys)


def drop_branches(x: jax.Array, rate: float, place: int, setting: Setting):
  """Zeroes all of x [B, ...] for an image with probability `rate` in training.

  Stochastic depth: Huang et al., 2016, arXiv 1603.09382; what stays is scaled
  up, so that evaluation has nothing to do. Each image has its own key.

  Args:
    x: what is added to a residual block's input.
    rate: 0 for none.
    place: of the block among the residual ones, from 1.
    setting: of the network; `keys` are needed.

  Raises:
    ValueError: there are no keys.
  """
  if not rate or not setting.is_training or hk.running_init():
    return x
  if setting.keys is None:
    raise ValueError('stochastic depth needs keys while training')
  chex.assert_equal_shape_prefix([x, setting.keys], 1)

  def one(x: jax.Array, key: jax.Array) -> jax.Array:
    key = jax.random.fold_in(key, _DEPTH_PLACES + place)
    is_kept = jax.random.bernoulli(key, 1 - rate)
    return jnp.where(is_kept, x / (1 - rate), 0).astype(x.dtype)

  return jax.vmap(one)(x, setting.keys)


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
      added = drop_branches(added, drop_rate, place, setting)
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


def dense(
  name: str, width: int, x: jax.Array, scheme: Scheme = LOGITS
) -> jax.Array:
  """A fully connected layer: [B, C] -> [B, width]."""
  b_init = hk.initializers.Constant(scheme.bias)
  return hk.Linear(width, w_init=of_haiku(scheme), b_init=b_init, name=name)(x)


def apply_head(
  ops: Sequence[rows.HeadOp], x: jax.Array, place: int, setting: Setting
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Applies what follows the maps.

  Args:
    ops: of a head.
    x: a map in the layout of the kernels.
    place: of the head in the network, for its dropout.
    setting: of the network.

  Returns:
    Features [B, C] (without a fully connected layer to the classes), and what
    came out of each named layer.
  """
  kernels, named = setting.kernels, {}
  for i, op in enumerate(ops):
    if isinstance(op, rows.GlobalMean):
      x = kernels.global_mean(x)
    elif isinstance(op, rows.Flatten):
      x = kernels.leave(x)
      x = x.reshape(x.shape[0], -1)
    elif isinstance(op, rows.Dense):
      scheme = INITIALIZERS[setting.initializer]
      x = setting.activate(dense(op.name, op.width, x, scheme))
      named[op.name] = x
    elif isinstance(op, rows.Dropout):
      x = dropout(x, op.rate, 100 * (place + 1) + i, setting)
    else:
      x = apply_ops((op,), x, setting)
  chex.assert_rank(x, 2)
  return x, named


class AuxHead(hk.Module):
  """A classifier on an earlier row: its logits."""

  def __init__(self, row: rows.AuxHead, place: int, setting: Setting):
    super().__init__(name=row.name)
    self._row, self._place, self._setting = row, place, setting

  def __call__(self, x: jax.Array, num_classes: int) -> jax.Array:
    features, _ = apply_head(self._row.ops, x, self._place, self._setting)
    return dense('logits', num_classes, features)
