"""Highest rates of the devices, measured on a matrix product and a copy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.runtime.parallel import parallelize, replicated, steps_in_flight
from googlenet.tools.benchmark.clock import step_seconds
from googlenet.tools.benchmark.roofline import Rates

# Side of the multiplied matrices, and MiB of the copied array: larger than any
# cache, smaller than the memory that training needs.
_PRODUCT_SIZE, _COPY_MIB = {'cpu': 2048}, {'cpu': 256}
_PRODUCT_SIZE_ELSEWHERE, _COPY_MIB_ELSEWHERE = 8192, 512


def measure_rates(dtype: jnp.dtype, at_least: int) -> Rates:
  """Returns the rates of all devices together.

  Args:
    dtype: of the matrix product.
    at_least: number of calls to time at least, see `clock.step_seconds`.
  """
  return Rates(product_flop_per_s(dtype, at_least), copy_bytes_per_s(at_least))


def product_flop_per_s(dtype: jnp.dtype, at_least: int) -> float:
  """Returns the FLOP/s of a product of large square matrices."""
  n = _PRODUCT_SIZE.get(jax.default_backend(), _PRODUCT_SIZE_ELSEWHERE)
  rng = np.random.default_rng(0)
  arrays = [
    jnp.asarray(rng.standard_normal((n, n), np.float32), dtype)
    for _ in range(2)
  ]
  seconds = _seconds(lambda a, b: a @ b, arrays, at_least)
  return jax.local_device_count() * 2 * n**3 / seconds


def copy_bytes_per_s(at_least: int) -> float:
  """Returns the bytes/s, read plus written, of a pass over a large array.

  The pass negates, since the compiler may remove a plain copy.
  """
  mib = _COPY_MIB.get(jax.default_backend(), _COPY_MIB_ELSEWHERE)
  array = jnp.ones(mib * 2**20 // 4, jnp.float32)
  seconds = _seconds(lambda x: -x, [array], at_least)
  return jax.local_device_count() * 2 * array.nbytes / seconds


def _seconds(
  function: Callable[..., jax.Array], arrays: list[jax.Array], at_least: int
) -> float:
  """Returns the seconds of a call that runs on all devices at once."""
  call = parallelize(
    lambda _, *arrays: function(*arrays), in_axes=(0, *[None] * len(arrays))
  )
  places = np.zeros(jax.local_device_count(), np.float32)
  arrays = replicated(arrays)

  def calls(count: int) -> Any:
    return (call(places, *arrays) for _ in range(count))

  return step_seconds(calls, at_least, steps_in_flight())
