"""Primitive operations of the network: one meaning, four implementations.

A network is written once, against `Kernels`, and runs on any of

* 'xla': the plain forms of xla.py. Best on TPUs, and the definition of what
  each operation means.
* 'gpu': the forms of gpu.py, for GPUs.
* 'onednn': the forms of onednn.py, for CPUs where XLA can call oneDNN.
* 'cpu': the forms of cpu.py, for other CPUs: all is matrix products.

XLA for CPUs runs the gradient of max pooling on one thread, and convolution
gradients far below the speed of a matrix product; the last two do neither. XLA
for GPUs has no kernel for the gradient of max pooling; 'gpu' brings one.
All agree in values and gradients up to rounding, for every float dtype.

pooling.py is the max pooling of both forms for CPUs, gpu_pooling.py that of
'gpu'; batch_norm.py is one for all, no part of `Kernels`.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from googlenet.errors import UserError
from googlenet.kernels import cpu, gpu, onednn, xla
from googlenet.runtime.compilation import Options

Array = jax.Array


class Kernels(NamedTuple):
  """One implementation of every primitive operation.

  Activations between `enter` and `leave` are in the implementation's own
  layout: rank 4, channels last, the other axes in any order. So joining
  channels with `jnp.concatenate(..., axis=-1)` is right for all of them.
  `padding` is one of `padding.placement`, 'SAME' unless it is given. Operations
  return the dtype of their first argument, and sums of products accumulate in
  float32 where that dtype is narrower.

  Attributes:
    name: a key of `KERNELS`.
    compiler_options: options of XLA, (name, value) each, for programs that use
      these operations.
    enter: `enter(x)`: [B, H, W, C] to the internal layout.
    leave: `leave(x)`: the internal layout to [B, H, W, C].
    conv: `conv(x, w, stride=1, padding)`: convolution without bias, for weights
      `w` [kh, kw, C_in, C_out].
    bias_relu: `bias_relu(x, b)`: relu(x + b), for `b` [C].
    conv_bias_relu: `conv_bias_relu(x, w, b, stride=1, padding)`.
    conv_1x1s: `conv_1x1s(x, [w0, ...])`: the list of the 1x1 convolutions of
      one input with weights [1, 1, C_in, C_i].
    conv_1x1s_bias_relu: `conv_1x1s_bias_relu(x, [w0, ...], [b0, ...])`.
    max_pool: `max_pool(x, window=3, stride=2, padding)`. The gradient goes to
      the first of tied maxima, row by row.
    conv_bias_relu_max_pool: `conv_bias_relu_max_pool(x, w, b, stride=1,
      padding, pool=(3, 2, 'SAME'))` with window, stride and padding of the
      pooling.
    avg_pool: `avg_pool(x, window, stride, padding, count_padding=False)`: the
      mean over the pixels of a window, with the padding's zeros on request.
    lrn: `lrn(x, size=5, alpha=1e-4, beta=0.75, k=1)`: local response
      normalisation, Krizhevsky et al. 2012.
    global_mean: `global_mean(x)`: mean over height and width, [B, C].
  """

  name: str
  compiler_options: Options
  enter: Callable[[Array], Array]
  leave: Callable[[Array], Array]
  conv: Callable[..., Array]
  bias_relu: Callable[[Array, Array], Array]
  conv_bias_relu: Callable[..., Array]
  conv_1x1s: Callable[..., list[Array]]
  conv_1x1s_bias_relu: Callable[..., list[Array]]
  max_pool: Callable[..., Array]
  conv_bias_relu_max_pool: Callable[..., Array]
  avg_pool: Callable[..., Array]
  lrn: Callable[..., Array]
  global_mean: Callable[[Array], Array]


def _kernels(name: str, forms: ModuleType) -> Kernels:
  """Returns the implementation that a file holds under the names of fields."""
  operations = {
    field: getattr(forms, field)
    for field in Kernels._fields
    if field not in ('name', 'compiler_options')
  }
  return Kernels(name, forms.COMPILER_OPTIONS, **operations)


KERNELS = {
  'xla': _kernels('xla', xla),
  'gpu': _kernels('gpu', gpu),
  'onednn': _kernels('onednn', onednn),
  'cpu': _kernels('cpu', cpu),
}


def select_kernels(kernels: str, backend: str, dtype: Any) -> Kernels:
  """The implementation that the config field `model.kernels` asks for.

  Args:
    kernels: 'auto', or a name in `KERNELS`.
    backend: the platform that 'auto' chooses for, `jax.default_backend()`.
    dtype: what the network computes in.

  Raises:
    UserError: `kernels` is something else, or cannot be had here.
  """
  if kernels not in ('auto', *KERNELS):
    allowed = ', '.join(['auto', *KERNELS])
    raise UserError(
      f'config.model.kernels={kernels!r} is not allowed: it takes one of '
      f'{allowed}'
    )
  if kernels == 'auto' and backend != 'cpu':
    kernels = 'gpu' if backend == 'gpu' else 'xla'
  elif kernels in ('auto', 'onednn'):
    dtype = jnp.dtype(dtype)
    available = backend == 'cpu' and onednn.is_available(dtype)
    if kernels == 'onednn' and not available:
      raise UserError(
        f"config.model.kernels='onednn': XLA computes nothing in {dtype} with "
        f'oneDNN on this {backend} with JAX {jax.__version__}; allowed here is '
        'one of auto, xla, gpu, cpu'
      )
    kernels = 'onednn' if available else 'cpu'
  return KERNELS[kernels]
