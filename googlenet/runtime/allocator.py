"""Settings of the C library's memory allocator for training on a CPU."""

import ctypes

# Parameters of mallopt, from glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def tune_allocator() -> bool:
  """Makes glibc's malloc keep and reuse large buffers.

  By default malloc returns each large buffer to the kernel when it is freed,
  and the next step pays for page faults to get it back. Call this before JAX
  looks for devices, because threads keep the heap they start with. The settings
  apply to the whole process; only `release_free_memory` then returns memory to
  the system.

  Returns:
    Whether the settings took effect: False if the C library has no mallopt
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
  """Returns free memory of the heap to the system.

  Returns:
    Whether any was returned: always False if the C library has no malloc_trim.
  """
  try:
    malloc_trim = ctypes.CDLL(None).malloc_trim
  except (AttributeError, OSError, TypeError):
    return False
  return malloc_trim(0) == 1
