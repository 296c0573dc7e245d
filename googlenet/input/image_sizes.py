"""Progressive image size: small images first, larger ones later in a run.

Howard, 2018 (fast.ai's DAWNBench entries); Tan and Le, 2021, arXiv 2104.00298.
"""

from collections.abc import Iterable


def parse_sizes(texts: Iterable[str]) -> list[tuple[int, float]]:
  """Turns ('64@0', '96@0.6') into [(64, 0.0), (96, 0.6)].

  Args:
    texts: image size in pixels, '@', and the fraction of the schedule at which
      this size starts.

  Raises:
    ValueError: a text is malformed, the first fraction is not 0, or the
      fractions do not increase or are not below 1.
  """
  sizes = []
  for text in texts:
    size, at, part = text.partition('@')
    if not at or not size.isdecimal() or not 1 <= int(size) <= 4096:
      raise ValueError(f'{text!r} is not size@part')
    sizes.append((int(size), float(part)))
  parts = [part for _, part in sizes]
  if sizes and (parts[0] != 0 or not parts[-1] < 1):
    raise ValueError('the first part must be 0, the last below 1')
  if any(not a < b for a, b in zip(parts, parts[1:], strict=False)):
    raise ValueError('parts must increase')
  return sizes


def size_at(
  sizes: list[tuple[int, float]], step: int, total_steps: int
) -> int | None:
  """Returns the image size of a step in pixels; None if `sizes` is empty.

  Args:
    sizes: what `parse_sizes` returns.
    step: number of the step, counted from 1.
    total_steps: number of steps of the whole schedule.
  """
  now = None
  for size, part in sizes:
    if step - 1 >= round(part * total_steps):
      now = size
  return now
