"""Metrics of training steps: fetched from the device late, averaged, checked.

A step is asked for its numbers only when it is finished, so that a GPU or TPU
never waits for Python.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator

import jax

from googlenet.errors import UserError
from googlenet.io.workdir import write_text

DIVERGED = 'diverged.json'  # in the workdir of a run that ended like this
# Not averaged: the curve shows what the last step used, or has counted.
_LAST = ('learning_rate', 'skipped_steps', 'loss_scale')


class NonFiniteError(UserError):
  """A loss, a gradient or a parameter is infinite or not a number.

  Attributes:
    what: what is not finite, and since which step, in words.
  """

  def __init__(self, step: int, name: str, value: float, where: str = ''):
    self.what = f'{name} is {value} at step {step}{where}'
    super().__init__(
      f'{self.what}: training stopped. Lower '
      'config.optimizer.learning_rate, lengthen '
      'config.optimizer.warmup_steps or set config.optimizer.grad_clip_norm'
    )
    self.step, self.name, self.value = step, name, value


@contextlib.contextmanager
def divergence_recorded(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Leaves diverged.json in a workdir if training ends with NonFiniteError.

  An older one is removed. Without a folder, as when nothing was written so far,
  none is left.
  """
  path = pathlib.Path(workdir) / DIVERGED
  if jax.process_index():
    yield
    return
  path.unlink(missing_ok=True)
  try:
    yield
  except NonFiniteError as error:
    with contextlib.suppress(OSError):
      if path.parent.is_dir():
        write_text(path, json.dumps({'error': error.what}, indent=2) + '\n')
    raise


def check_finite(step: int, name: str, value: float) -> None:
  """Raises NonFiniteError unless the value seen at a step is finite."""
  if not math.isfinite(value):
    raise NonFiniteError(step, name, value)


@dataclasses.dataclass
class Mean:
  """The mean over steps of each metric, as JSON can hold it.

  Steps that were skipped for not being finite count for nothing but the
  metrics of which the last value is shown.

  Attributes:
    steps: that were added.
    count: those of them that are finite.
    sums: over them, by name.
    last: the values of the last step that are not averaged.
  """

  steps: int = 0
  count: int = 0
  sums: dict[str, float] = dataclasses.field(default_factory=dict)
  last: dict[str, float] = dataclasses.field(default_factory=dict)

  def add(self, metrics: dict[str, float]) -> None:
    """Adds the metrics of a step."""
    self.steps += 1
    self.last = {k: v for k, v in metrics.items() if k in _LAST}
    if all(map(math.isfinite, metrics.values())):
      self.count += 1
      for name in metrics.keys() - self.last.keys():
        self.sums[name] = self.sums.get(name, 0.0) + metrics[name]

  def value(self) -> dict[str, float]:
    """Returns the means and the last values, in alphabetical order."""
    means = {name: total / self.count for name, total in self.sums.items()}
    return dict(sorted((means | self.last).items()))


class StepMetrics:
  """Metrics of training steps on their way from the device."""

  def __init__(self, in_flight: int, max_in_row: int = 1):
    """Holds nothing yet.

    Args:
      in_flight: steps that may be unfinished.
      max_in_row: consecutive non-finite steps that end a run.
    """
    self._in_flight, self._max_in_row = in_flight, max_in_row
    self._pending: list[tuple[int, dict[str, jax.Array]]] = []

  def push(self, step: int, metrics: dict[str, jax.Array]) -> int:
    """Takes the metrics of a step that was just started (1 is the first).

    Waits, without a transfer, until only `in_flight` steps are unfinished.

    Returns:
      The number of the last finished step.
    """
    self._pending.append((step, metrics))
    if len(self._pending) > self._in_flight:
      finished, oldest = self._pending[-1 - self._in_flight]
      jax.block_until_ready(oldest['loss'])
      return finished
    return step - len(self._pending)

  def fetch(self, last: int) -> list[dict[str, float]]:
    """Waits for all steps up to `last`; returns those not fetched before.

    Raises:
      NonFiniteError: the loss, the gradient or a running statistic of a step is
        not finite, and it is one such step in a row too many.
    """
    ready = [item for item in self._pending if item[0] <= last]
    self._pending = self._pending[len(ready) :]
    values = jax.device_get([metrics for _, metrics in ready])
    fetched = []
    for (step, _), metrics in zip(ready, values, strict=True):
      metrics = {name: float(value) for name, value in metrics.items()}
      in_row = metrics.pop('nonfinite_in_row', None)
      if in_row is None or in_row >= self._max_in_row:
        for name in ('loss', 'grad_norm'):
          check_finite(step, f'train/{name}', metrics[name])
        if in_row:
          raise NonFiniteError(step, 'a running statistic', math.nan)
      fetched.append(metrics)
    return fetched
