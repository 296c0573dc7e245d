"""Primitive operations of the network: one meaning, two implementations.

A network is written once, against `Kernels`, and runs on either of

* 'xla': the plain forms of `jax.lax`. Best on GPUs and TPUs, and the definition
  of what each operation means.
* 'cpu': the forms of `layers_cpu`, several times faster on CPUs because XLA
  for CPUs runs the gradient of max pooling on one thread and convolution
  gradients far below the speed of a matrix product.

Both agree in values and gradients up to rounding, for every float dtype.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from googlenet import layers_cpu
from googlenet.errors import UserError

Array = jax.Array


class Kernels(NamedTuple):
  """One implementation of every primitive operation.

  Activations between `enter` and `leave` are in the implementation's own
  layout: rank 4, channels last, the other axes in any order. So joining
  channels with `jnp.concatenate(..., axis=-1)` is right for all of them.
  Padding is 'SAME'. Operations return the dtype of their first argument, and
  sums of products accumulate in float32 where that dtype is narrower.

  Attributes:
    name: 'xla' or 'cpu'.
    enter: `enter(x)`: [B, H, W, C] to the internal layout.
    leave: `leave(x)`: the internal layout to [B, H, W, C].
    conv: `conv(x, w, stride=1)`: convolution without bias, for weights `w`
      [k, k, C_in, C_out], k odd.
    conv_1x1s: `conv_1x1s(x, [w0, w1, ...])`: the list of the 1x1 convolutions
      of one input with weights [1, 1, C_in, C_i].
    bias_relu: `bias_relu(x, b)`: relu(x + b), for `b` [C].
    max_pool: `max_pool(x, window=3, stride=2)`. The gradient goes to the first
      of tied maxima, row by row.
    global_mean: `global_mean(x)`: mean over height and width, [B, C].
    bias_relu_max_pool: `bias_relu_max_pool(x, b, window=3, stride=2)`:
      max_pool(relu(x + b)).
  """

  name: str
  enter: Callable[[Array], Array]
  leave: Callable[[Array], Array]
  conv: Callable[..., Array]
  conv_1x1s: Callable[[Array, Sequence[Array]], list[Array]]
  bias_relu: Callable[[Array, Array], Array]
  max_pool: Callable[..., Array]
  global_mean: Callable[[Array], Array]
  bias_relu_max_pool: Callable[..., Array]


def _identity(x: Array) -> Array:
  return x


def conv(x: Array, w: Array, stride: int = 1) -> Array:
  """[B, H, W, C_in] * [k, k, C_in, C_out] -> [B, H/stride, W/stride, C_out]."""
  return lax.conv_general_dilated(
    x,
    w.astype(x.dtype),
    window_strides=(stride, stride),
    padding='SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def conv_1x1s(x: Array, ws: Sequence[Array]) -> list[Array]:
  """1x1 convolutions of one input, [B, H, W, C] -> [B, H, W, C_i] each."""
  return [conv(x, w) for w in ws]


def bias_relu(x: Array, b: Array) -> Array:
  """relu(x + b) for `b` [C]."""
  return jax.nn.relu(x + b.astype(x.dtype))


def max_pool(x: Array, window: int = 3, stride: int = 2) -> Array:
  """[B, H, W, C] -> [B, H/stride, W/stride, C], maximum of square windows."""
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    window_dimensions=(1, window, window, 1),
    window_strides=(1, stride, stride, 1),
    padding='SAME',
  )


def global_mean(x: Array) -> Array:
  """[B, H, W, C] -> [B, C], summed in float32 or wider."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.mean(x, axis=(1, 2), dtype=wide).astype(x.dtype)


def bias_relu_max_pool(
  x: Array, b: Array, window: int = 3, stride: int = 2
) -> Array:
  """max_pool(relu(x + b)): the three commute, so pool first and save work."""
  return bias_relu(max_pool(x, window, stride), b)


KERNELS = {
  'xla': Kernels(
    name='xla',
    enter=_identity,
    leave=_identity,
    conv=conv,
    conv_1x1s=conv_1x1s,
    bias_relu=bias_relu,
    max_pool=max_pool,
    global_mean=global_mean,
    bias_relu_max_pool=bias_relu_max_pool,
  ),
  'cpu': Kernels(
    name='cpu',
    enter=layers_cpu.enter,
    leave=layers_cpu.leave,
    conv=layers_cpu.conv,
    conv_1x1s=layers_cpu.conv_1x1s,
    bias_relu=layers_cpu.bias_relu,
    max_pool=layers_cpu.max_pool,
    global_mean=layers_cpu.global_mean,
    bias_relu_max_pool=layers_cpu.bias_relu_max_pool,
  ),
}


def select_kernels(kernels: str, backend: str) -> Kernels:
  """The implementation that the config field `model.kernels` asks for.

  Args:
    kernels: 'auto', or a name in `KERNELS`.
    backend: the platform that 'auto' chooses for, `jax.default_backend()`.

  Raises:
    UserError: `kernels` is something else.
  """
  if kernels == 'auto':
    kernels = 'cpu' if backend == 'cpu' else 'xla'
  if kernels not in KERNELS:
    allowed = ', '.join(['auto', *KERNELS])
    raise UserError(
      f'config.model.kernels={kernels!r} is not allowed: it takes one of '
      f'{allowed}'
    )
  return KERNELS[kernels]
