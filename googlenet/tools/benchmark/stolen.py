"""How much processor time other virtual machines take while a peer is measured.

A step then takes longer, by no fault of the peer.
"""

import pathlib
from typing import NamedTuple

# Below this share the rates of two rounds differ more for other reasons.
WORTH_TELLING = 0.02


class Ticks(NamedTuple):
  """Processor time since the machine started, in any unit."""

  wanted: int  # by all processes: busy or stolen
  stolen: int


def ticks() -> Ticks | None:
  """Returns the processor time so far; None where the system does not count."""
  try:
    first = pathlib.Path('/proc/stat').read_text('utf-8').split('\n', 1)[0]
  except OSError:  # not Linux
    return None
  times = [int(word) for word in first.split()[1:]]
  if len(times) < 8:
    return None
  user, nice, system, _, _, irq, softirq, stolen = times[:8]
  return Ticks(user + nice + system + irq + softirq + stolen, stolen)


def share(before: Ticks | None, after: Ticks | None) -> float | None:
  """Returns the stolen part of the time wanted between two calls of `ticks`."""
  if before is None or after is None or after.wanted <= before.wanted:
    return None
  return (after.stolen - before.stolen) / (after.wanted - before.wanted)
