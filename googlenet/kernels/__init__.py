"""Primitive operations of the network, in four implementations (kernel sets).

Network code calls `Kernels` only, so it runs on any kernel set:

* 'xla': plain `jax.lax` (xla.py). Best on TPUs, and the reference for the other
  sets.
* 'gpu': for GPUs (gpu.py, gpu_pooling.py).
* 'onednn': for CPUs where XLA can call oneDNN (onednn.py).
* 'cpu': for other CPUs (cpu.py). Both use cpu_pooling.py and winograd.py.

Values and gradients agree up to rounding, for every float dtype. Batch norm
(batch_norm.py) is the same for all sets, up to the means that it computes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from googlenet.errors import UserError
from googlenet.kernels import cpu, cpu_means, gpu, onednn, processor, xla
from googlenet.runtime.compilation import Options

Array = jax.Array


class Kernels(NamedTuple):
  """One implementation of every primitive operation.

  Operations work on feature maps in the internal layout of the set: rank 4,
  channels last, other axes in any order. So `jnp.concatenate(..., axis=-1)`
  joins channels in every set. They return the dtype of their first argument and
  accumulate in float32 if it is narrower. `padding.placement` explains
  `padding`; the default is 'SAME'.

  Attributes:
    name: a key of `KERNELS`.
    compiler_options: XLA options, as (name, value) pairs, for programs that use
      these operations.
    to_layout: `to_layout(x)`: from [B, H, W, C] to the internal layout.
    from_layout: `from_layout(x)`: from the internal layout to [B, H, W, C].
    conv: `conv(x, w, b=None, *, stride=1, padding, relu=False, pool=None)`:
      convolution with weights `w` [kh, kw, C_in, C_out], then bias `b` [C_out],
      ReLU, and max pooling with `pool` = (window, stride, padding).
    conv_1x1s: `conv_1x1s(x, ws, bs=None, *, relu=False)`: list of several 1x1
      convolutions of one input, with weights `ws` [1, 1, C_in, C_i] and biases
      `bs` [C_i].
    max_pool: `max_pool(x, window, stride, padding)`. Among equal maxima, the
      first in row-major order gets the gradient.
    avg_pool: `avg_pool(x, window, stride, padding, count_padding=False)`: mean
      over the pixels of a window; `count_padding` includes zeros of padding.
    lrn: `lrn(x, size=5, alpha=1e-4, beta=0.75, k=1)`: local response
      normalization, Krizhevsky et al. 2012.
    global_mean: `global_mean(x)`: mean over height and width, [B, C].
    product_dtype: `product_dtype(dtype)`: dtype of matrix products of this one.
    channel_means: `channel_means(terms, *xs)`: the mean [C] of each of
      `terms(*xs)` over all other axes. `terms` gets parts of the maps, float32
      or wider, and returns functions of each pixel.
  """

  name: str
  compiler_options: Options
  to_layout: Callable[[Array], Array]
  from_layout: Callable[[Array], Array]
  conv: Callable[..., Array]
  conv_1x1s: Callable[..., list[Array]]
  max_pool: Callable[..., Array]
  avg_pool: Callable[..., Array]
  lrn: Callable[..., Array]
  global_mean: Callable[[Array], Array]
  product_dtype: Callable[[Any], Any]
  channel_means: Callable[..., list[Array]]


_XLA = Kernels(
  name='xla',
  compiler_options=xla.COMPILER_OPTIONS,
  to_layout=xla.keep_layout,
  from_layout=xla.keep_layout,
  conv=xla.conv,
  conv_1x1s=xla.conv_1x1s,
  max_pool=xla.max_pool,
  avg_pool=xla.avg_pool,
  lrn=xla.lrn,
  global_mean=xla.global_mean,
  product_dtype=lambda dtype: dtype,
  channel_means=xla.channel_means,
)
KERNELS = {
  'xla': _XLA,
  'gpu': _XLA._replace(
    name='gpu',
    compiler_options=gpu.COMPILER_OPTIONS,
    conv=gpu.conv,
    conv_1x1s=gpu.conv_1x1s,
    max_pool=gpu.max_pool,
  ),
  'onednn': _XLA._replace(
    name='onednn',
    compiler_options=onednn.COMPILER_OPTIONS,
    conv=onednn.conv,
    conv_1x1s=onednn.conv_1x1s,
    max_pool=onednn.max_pool,
    product_dtype=processor.product_dtype,
    channel_means=cpu_means.channel_means,
  ),
  'cpu': _XLA._replace(
    name='cpu',
    compiler_options=cpu.COMPILER_OPTIONS,
    to_layout=cpu.to_layout,
    from_layout=cpu.from_layout,
    conv=cpu.conv,
    conv_1x1s=cpu.conv_1x1s,
    max_pool=cpu.max_pool,
    avg_pool=cpu.avg_pool,
    global_mean=cpu.global_mean,
    channel_means=cpu_means.channel_means,
  ),
}


def select_kernels(kernels: str, backend: str, dtype: Any) -> Kernels:
  """Returns the kernel set for the config field `model.kernels`.

  Args:
    kernels: 'auto', or a key of `KERNELS`.
    backend: `jax.default_backend()`.
    dtype: compute dtype of the network.

  Raises:
    UserError: `kernels` is an unknown name, or 'onednn' where XLA cannot call
      oneDNN.
  """
  if kernels not in ('auto', *KERNELS):
    raise UserError(
      f'config.model.kernels={kernels!r} is not allowed: it takes one of '
      f'{", ".join(["auto", *KERNELS])}'
    )
  if kernels == 'auto' and backend != 'cpu':
    kernels = 'gpu' if backend == 'gpu' else 'xla'
  elif kernels in ('auto', 'onednn'):
    dtype = jnp.dtype(dtype)
    available = backend == 'cpu' and onednn.is_available(dtype)
    if kernels == 'onednn' and not available:
      raise UserError(
        f"config.model.kernels='onednn' is not available here: with JAX "
        f'{jax.__version__}, XLA does not use oneDNN for {dtype} on this '
        f'{backend}; allowed is one of auto, xla, gpu, cpu'
      )
    kernels = 'onednn' if available else 'cpu'
  return KERNELS[kernels]
