"""The C library's memory allocator, as training on a CPU needs it."""

import ctypes

# Parameters of mallopt, from glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def tune_allocator() -> bool:
  """Makes glibc's malloc keep and reuse large buffers.

  By default it returns each large buffer to the kernel when it is freed, and
  the next step pays again for the page faults of getting it back. Call this
  before JAX looks for its devices: threads keep the heap that they start with.
  It affects the whole process, and memory once used is returned to the system
  by `release_free_memory` only.

  Returns:
    Whether the settings are in force: False where the C library has no mallopt
    (macOS, Windows) or ignores it (musl).
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return False
  settings = (
    (_M_MMAP_MAX, 0),  # Take large buffers from the heap, not from mmap.
    (_M_TRIM_THRESHOLD, -1),  # Never give free heap back.
    (_M_ARENA_MAX, 1),  # One heap, which all threads reuse.
  )
  results = [mallopt(name, value) for name, value in settings]
  return results == [1] * len(settings)  # mallopt returns 1 for success.


def release_free_memory() -> bool:
  """Gives the memory that is free now back to the system.

  Returns:
    Whether there was any: False also where the C library has no malloc_trim.
  """
  try:
    malloc_trim = ctypes.CDLL(None).malloc_trim
  except (AttributeError, OSError, TypeError):
    return False
  return malloc_trim(0) == 1
