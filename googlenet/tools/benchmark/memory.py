"""Peak memory of this process."""

import sys

import jax

try:
  import resource
except ImportError:  # Windows
  resource = None


def peak_bytes() -> int | None:
  """Returns the peak so far, or None on devices that do not report it.

  On a CPU it is resident memory, which Windows does not report; elsewhere the
  memory of the fullest device.
  """
  if jax.default_backend() != 'cpu':
    peaks = [
      (device.memory_stats() or {}).get('peak_bytes_in_use')
      for device in jax.local_devices()
    ]
    return max((peak for peak in peaks if peak is not None), default=None)
  if resource is None:
    return None
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
