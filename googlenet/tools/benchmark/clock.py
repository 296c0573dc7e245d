"""Times of work that a device does behind the back of the host."""

import collections
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

# What is timed goes on for so many seconds, in at most so many steps (the
# field benchmark.steps may ask for more): a GPU is done with five in 50 ms.
# torch_peer.py has the same.
ENOUGH_SECONDS = 1.0
ENOUGH_STEPS = 200


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


def num_steps(times: list[float], at_least: int) -> int:
  """Returns how many steps to time, given the seconds of some of them."""
  step = max(statistics.median(times), 1e-9)
  return max(at_least, min(math.ceil(ENOUGH_SECONDS / step), ENOUGH_STEPS))


def step_seconds(
  start_steps: Callable[[int], Iterable[Any]], at_least: int, in_flight: int
) -> float:
  """Returns the median seconds of a step.

  `at_least` steps are timed; where they are too short to tell, as many as
  `num_steps` says.

  Args:
    start_steps: given a count, returns an iterator that starts so many steps
      and gives their arrays. The very first may compile.
    at_least: steps.
    in_flight: as for `intervals`.
  """

  def timed(count: int) -> list[float]:
    return intervals(start_steps(1 + count + in_flight), in_flight)

  times = timed(at_least)
  count = num_steps(times, at_least)
  return statistics.median(timed(count) if count > at_least else times)


def seconds(call: Callable[[], Any]) -> float:
  """Returns the seconds until the arrays that `call` returns are there."""
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def median_seconds(call: Callable[[], Any], count: int) -> float:
  """Returns the median over `count` calls; one before them compiles."""
  seconds(call)
  return statistics.median(seconds(call) for _ in range(count))
