"""What the processor can multiply, for kernels that call oneDNN."""

import functools
import pathlib

import jax.numpy as jnp

# Instructions for products, as Linux names them, by dtype.
_INSTRUCTIONS = {
  jnp.dtype(jnp.bfloat16): {'avx512_bf16', 'amx_bf16'},
  jnp.dtype(jnp.float16): {'avx512_fp16', 'amx_fp16'},
}


@functools.cache
def features() -> frozenset[str]:
  """Returns the words of /proc/cpuinfo, none where there is no such file."""
  try:
    return frozenset(pathlib.Path('/proc/cpuinfo').read_text('utf-8').split())
  except OSError:  # not Linux
    return frozenset()


def has_amx() -> bool:
  """Whether the processor has instructions for products of bfloat16 tiles."""
  return 'amx_bf16' in features()


def product_dtype(dtype: jnp.dtype) -> jnp.dtype:
  """The dtype in which to multiply numbers of this one.

  It is float32 for narrower floats that the processor has no instructions for.
  XLA (JAX 0.12.0) hands bfloat16 to oneDNN on every processor with AVX-512. If
  that has neither AVX512_BF16 nor AMX, oneDNN computes matrix products in a
  plain loop ([128, 1024] times [1024, 1000] in 3 s, float32 in 8 ms), and its
  convolutions take up to four times as long as in float32. Nothing is lost: the
  product of two such floats is exact in float32, and their sum is rounded once.
  """
  dtype = jnp.dtype(dtype)
  instructions = _INSTRUCTIONS.get(dtype)
  if instructions is None or instructions & features():
    return dtype
  return jnp.dtype(jnp.float32)
