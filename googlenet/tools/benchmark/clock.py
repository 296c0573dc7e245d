"""Timing of work that a device does asynchronously."""

import collections
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

# Steps are timed for about one second, since five steps take a GPU only 50 ms.
# Their number is at most 200, unless benchmark.steps is larger. torch_peer.py
# has the same numbers.
ENOUGH_SECONDS = 1.0
ENOUGH_STEPS = 200


def intervals(results: Iterable[Any], in_flight: int) -> list[float]:
  """Returns the seconds between the ends of consecutive steps.

  Args:
    results: an iterator that starts a step and yields its arrays each time.
    in_flight: number of steps started before the oldest one is waited for. The
      first step and the last `in_flight` steps are not timed.
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
  """Returns how many steps to time, given the seconds of a few steps."""
  step = max(statistics.median(times), 1e-9)
  return max(at_least, min(math.ceil(ENOUGH_SECONDS / step), ENOUGH_STEPS))


def step_seconds(
  start_steps: Callable[[int], Iterable[Any]], at_least: int, in_flight: int
) -> float:
  """Returns the median seconds of a step.

  Times `at_least` steps. If these are too short for a reliable median, times
  more steps: as many as `num_steps` returns.

  Args:
    start_steps: given a count, returns an iterator that starts that many steps
      and yields their arrays. The very first step may compile.
    at_least: number of steps to time at least.
    in_flight: as for `intervals`.
  """

  def timed(count: int) -> list[float]:
    return intervals(start_steps(1 + count + in_flight), in_flight)

  times = timed(at_least)
  count = num_steps(times, at_least)
  return statistics.median(timed(count) if count > at_least else times)


def seconds(call: Callable[[], Any]) -> float:
  """Returns the seconds until the arrays that `call` returns are computed."""
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def median_seconds(call: Callable[[], Any], count: int) -> float:
  """Returns the median seconds of `count` calls, after one that compiles."""
  seconds(call)
  return statistics.median(seconds(call) for _ in range(count))
