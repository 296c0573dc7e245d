"""Memory maps of this process, of which XLA needs some for each program.

Linux allows a process 65,530 of them. When there is none left, LLVM ends the
process, and Python cannot catch that. Programs that nobody can call any more
keep theirs: `jax.pmap` never forgets a function (JAX 0.10 and 0.12), and each
training of the plain network leaves 2,450 maps, enough for 26 in a notebook.
"""

import gc
import pathlib

import jax

_PROC = pathlib.Path('/proc')


def are_scarce() -> bool:
  """Whether half of the memory maps are in use; False where nobody counts."""
  try:
    most = int((_PROC / 'sys/vm/max_map_count').read_text('utf-8'))
    used = (_PROC / 'self/maps').read_bytes().count(b'\n')
  except (OSError, ValueError):  # not Linux
    return False
  return used > most // 2


def forget_programs() -> None:
  """Frees the programs that only JAX's caches hold, if maps are scarce.

  Functions that are called again are then traced and compiled again, also those
  of the user.
  """
  if are_scarce():
    jax.clear_caches()
    gc.collect()
