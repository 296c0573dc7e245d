"""Settings of a process that computes, made before JAX starts."""

import os

import jax

from googlenet.errors import UserError
from googlenet.runtime import backend
from googlenet.runtime.allocator import tune_allocator
from googlenet.runtime.compilation import tell_cache_errors_once
from googlenet.runtime.streams import is_text
from googlenet.runtime.terminal import warn

# Default of train.compilation_cache. The user did not ask for it, so a run
# continues without a cache if this folder cannot be written.
DEFAULT_CACHE = '~/.cache/googlenet-haiku'
# Options of JAX on which random numbers depend, with their defaults. Variables
# of the environment may change them (JAX_RANDOM_SEED_OFFSET, ...), but a config
# with its seed is one run, and a continued run goes on with the same numbers.
RANDOM_NUMBERS = {
  'jax_threefry_partitionable': True,
  'jax_default_prng_impl': 'threefry2x32',
  'jax_random_seed_offset': 0,
}


def tune_machine(compilation_cache: str) -> None:
  """Sets up JAX, its compilation cache and, on a CPU, the allocator.

  On other devices the allocator keeps its defaults: with one heap, the threads
  of XLA's compiler would wait for each other.

  Args:
    compilation_cache: folder of compiled programs, which later starts read
      instead of compiling (except programs that call oneDNN, see
      `compilation`); '': no cache. JAX_COMPILATION_CACHE_DIR replaces
      `DEFAULT_CACHE`.

  Raises:
    UserError: a folder that the user chose cannot be made, JAX finds no device,
      or it must not compile.
  """
  if jax.config.jax_disable_jit:
    raise UserError(
      'JAX_DISABLE_JIT is set, but programs are compiled ahead of their first '
      'call: unset it'
    )
  for name, value in RANDOM_NUMBERS.items():
    jax.config.update(name, value)
  tell_cache_errors_once()
  if compilation_cache:
    keep_programs(compilation_cache)
  # Before JAX starts its threads, which keep the heap that they start with
  # (docs/performance.md shows the effect).
  foretold = backend.expected_backend(os.environ)
  if foretold == 'cpu':
    tune_allocator()
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    platforms = os.environ.get('JAX_PLATFORMS', '')
    raise UserError(
      f'JAX finds no device (JAX_PLATFORMS={platforms!r}): unset it, or '
      'install JAX for that platform'
    ) from error
  chosen = jax.default_backend()
  if chosen.lower() != foretold:
    warn(
      f'JAX computes on {chosen}, although plugins and device files point to '
      f'{foretold}: results are right, but the settings of this process are '
      f'those of {foretold}, and it may be slower; set JAX_PLATFORMS to choose '
      'one'
    )


def keep_programs(compilation_cache: str) -> None:
  """Makes JAX keep compiled programs in a folder.

  Raises:
    UserError: the folder cannot be made and is not the default.
  """
  is_default = compilation_cache == DEFAULT_CACHE
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  if is_default and os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return  # JAX has read the variable
  folder = os.path.expanduser(compilation_cache)
  try:
    if not is_text(folder):  # JAX cannot read its programs there
      raise OSError(None, 'its name is not UTF-8 text')
    os.makedirs(folder, exist_ok=True)
    if is_default and not os.access(folder, os.W_OK | os.X_OK):
      raise PermissionError(None, 'Permission denied')
  except OSError as error:
    if not is_default:
      raise UserError(
        f'config.train.compilation_cache={compilation_cache!r} cannot be '
        f"made ({error.strerror}): give another folder, or '' for none"
      ) from error
    warn(
      f'compiled programs are not kept: {folder} cannot be written '
      f'({error.strerror}); config.train.compilation_cache takes another '
      "folder, or '' for none"
    )
    return
  jax.config.update('jax_compilation_cache_dir', folder)
