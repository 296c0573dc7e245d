"""Times of work that a device does behind the back of the host."""

import collections
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax


def intervals(results: Iterable[Any], in_flight: int) -> list[float]:
  """Returns the seconds between the ends of consecutive steps.

  Args:
    results: an iterator that starts a step each time and gives its arrays.
    in_flight: steps started ahead of the one that is waited for; so many at
      the end are not timed, and neither is the first.
  """
  pending, ends = collections.deque(), []
  for result in results:
    pending.append(result)
    if len(pending) > in_flight:
      jax.block_until_ready(pending.popleft())
      ends.append(time.perf_counter())
  jax.block_until_ready(list(pending))
  return [after - before for before, after in itertools.pairwise(ends)]


def seconds(call: Callable[[], Any]) -> float:
  """Returns the seconds until the arrays that `call` returns are there."""
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def median_seconds(call: Callable[[], Any], count: int) -> float:
  """Returns the median over `count` calls; one before them compiles."""
  seconds(call)
  return statistics.median(seconds(call) for _ in range(count))
