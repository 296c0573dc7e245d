"""What belongs to a process that computes, set before JAX starts."""

import os

import jax

from googlenet.errors import UserError
from googlenet.runtime.allocator import tune_allocator


def tune_machine(compilation_cache: str) -> None:
  """Sets what belongs to the process: compilation cache, allocator.

  Args:
    compilation_cache: folder of compiled programs, so that a second start
      compiles none of them (but those that call oneDNN, see `compilation`); ''
      for none.

  Raises:
    UserError: the folder cannot be made, or JAX finds no device.
  """
  if compilation_cache:
    folder = os.path.expanduser(compilation_cache)
    try:
      os.makedirs(folder, exist_ok=True)
    except OSError as error:
      raise UserError(
        f'config.train.compilation_cache={compilation_cache!r} cannot be '
        f"made ({error.strerror}): give another folder, or '' for none"
      ) from error
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  # Before JAX starts its threads, which keep the heap that they start with
  # (docs/performance.md has what it gives).
  tune_allocator()
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    platforms = os.environ.get('JAX_PLATFORMS', '')
    raise UserError(
      f'JAX finds no device (JAX_PLATFORMS={platforms!r}): unset it, or '
      'install the JAX of that platform'
    ) from error
