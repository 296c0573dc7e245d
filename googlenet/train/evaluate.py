"""Scores of parameters on a whole split."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from googlenet.data import batches
from googlenet.runtime.parallel import steps_in_flight


def evaluate(
  eval_step: Any,
  params: Any,
  network_state: Any,
  feed: batches.Feed,
  batch_size: int,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Scores parameters on every example of a feed, each counted once.

  Args:
    eval_step: made by `train_step.make_eval_step`.
    params: on every local device, as `runtime.devices.replicated` puts them.
    network_state: likewise.
    feed: the examples.
    batch_size: images a step, over all devices.
    should_stop: is asked after each step.

  Returns:
    `loss` (mean cross-entropy), `accuracy`, `top_5` and `count`; None if it
    was stopped.
  """
  sums, in_flight = [], steps_in_flight()
  for batch in batches.eval_batches(feed, batch_size):
    sums.append(eval_step(params, network_state, batch))
    if len(sums) > in_flight:
      jax.block_until_ready(sums[-1 - in_flight])
    if should_stop():
      return None
  return mean_scores(sums)


def mean_scores(sums: list[dict[str, Any]]) -> dict[str, float]:
  """Returns what `evaluate` does of the sums of each batch."""
  totals = {
    # float64: a float32 sum of counts is exact up to 2**24 examples only.
    key: float(np.sum([np.float64(part[key]) for part in jax.device_get(sums)]))
    for key in sums[0]
  }
  count = totals['count']
  return {
    'loss': totals['loss'] / count,
    'accuracy': totals['top_1'] / count,
    'top_5': totals['top_5'] / count,
    'count': int(count),
  }
