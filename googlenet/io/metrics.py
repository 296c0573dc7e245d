"""Metrics of a run: fetched from the device, checked, averaged, recorded.

`hooks.Log` uses this file; writer.py writes metrics.jsonl. A record, every
`logging.every_steps`, waits for its last step. Between records a GPU or TPU has
steps queued and never waits for Python.
"""

import contextlib
import dataclasses
import math
import platform
import time
from collections.abc import Iterator
from typing import Any

import jax

from googlenet.errors import UserError

# Metrics that are not averaged: the value of the last step is recorded.
_LAST = ('learning_rate', 'skipped_steps', 'loss_scale')
_FIRST_STEP = '; look at config.data.mean and config.data.std as well'


class NonFiniteError(UserError):
  """A loss, a gradient or a parameter is infinite or not a number.

  Attributes:
    what: text that names the non-finite value and its step.
  """

  def __init__(self, step: int, name: str, value: float, where: str = ''):
    self.what = f'{name} is {value} at step {step}{where}'
    super().__init__(
      f'{self.what}: training stopped. Lower '
      'config.optimizer.learning_rate, lengthen '
      'config.optimizer.warmup_steps or set config.optimizer.grad_clip_norm'
      f'{_FIRST_STEP if step == 1 else ""}'
    )
    self.step, self.name, self.value = step, name, value


def check_finite(step: int, name: str, value: float) -> None:
  """Raises NonFiniteError unless the value seen at a step is finite."""
  if not math.isfinite(value):
    raise NonFiniteError(step, name, value)


@dataclasses.dataclass
class Mean:
  """The mean of each metric over steps; can be stored as JSON.

  Steps with a non-finite metric are left out of the means.

  Attributes:
    steps: number of steps added.
    count: number of those that are finite.
    sums: sums over the finite steps, by name.
    last: metrics of the last step that are not averaged.
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
  """Metrics of training steps that have not been fetched from the device."""

  def __init__(self, in_flight: int, max_in_row: int = 1):
    """Starts empty.

    Args:
      in_flight: number of steps that may be unfinished.
      max_in_row: consecutive non-finite steps that end a run.
    """
    self._in_flight, self._max_in_row = in_flight, max_in_row
    self._pending: list[tuple[int, dict[str, jax.Array]]] = []

  def push(self, step: int, metrics: dict[str, jax.Array]) -> int:
    """Adds the metrics of a step that was just started (1 is the first).

    Waits until at most `in_flight` steps are unfinished; transfers nothing.

    Returns:
      The number of the last finished step.
    """
    self._pending.append((step, metrics))
    if len(self._pending) > self._in_flight:
      finished, last_due = self._pending[-1 - self._in_flight]
      jax.block_until_ready(last_due['loss'])
      return finished
    return step - len(self._pending)

  def fetch(self, last: int) -> list[dict[str, float]]:
    """Waits for all steps up to `last`; returns metrics not yet fetched.

    Raises:
      NonFiniteError: the loss, the gradient or a running statistic was not
        finite for `max_in_row` consecutive steps.
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


@dataclasses.dataclass
class Progress:
  """Metrics, scores and times of a run so far; can be stored as JSON.

  Attributes:
    epoch: metrics of the current epoch.
    train: mean metrics of the last complete epoch.
    evaluated: scores of the last evaluation; empty before the first.
    best: {'step', 'value'} of the best evaluation by `checkpoint.best_metric`.
    since_best: steps evaluated after the best one.
    is_epoch_pending: whether the epoch is trained but not evaluated yet.
    first_step_seconds: from the start of the program to the end of step 1.
    seconds: time that earlier processes spent on the run.
    timed_steps: number of steps in `timed_seconds`.
    timed_seconds: training time without first steps, evaluation and saving.
  """

  epoch: Mean = dataclasses.field(default_factory=Mean)
  train: dict[str, float] = dataclasses.field(default_factory=dict)
  evaluated: dict[str, float] = dataclasses.field(default_factory=dict)
  best: dict[str, Any] | None = None
  since_best: list[int] = dataclasses.field(default_factory=list)
  is_epoch_pending: bool = False
  first_step_seconds: float = 0.0
  seconds: float = 0.0
  timed_steps: int = 0
  timed_seconds: float = 0.0

  def record_scores(
    self, step: int, scores: dict[str, float], best_metric: str
  ) -> None:
    """Records the scores of an evaluation.

    Args:
      step: the evaluated step.
      scores: returned by `evaluate`.
      best_metric: `checkpoint.best_metric`.
    """
    self.evaluated = scores
    if not best_metric:
      return
    value = scores[best_metric.removeprefix('eval/')]
    sign = -1 if best_metric == 'eval/loss' else 1
    if self.best is None or sign * value > sign * self.best['value']:
      self.best, self.since_best = {'step': step, 'value': value}, []
    elif step not in (self.best['step'], *self.since_best):
      self.since_best.append(step)  # once, however often it is evaluated

  def ends_early(self, step: int, patience: int) -> bool:
    """Whether `patience` evaluations, the last at `step`, were not better."""
    return 0 < patience <= len(self.since_best) and step == self.since_best[-1]

  def to_json(self, started: float) -> dict[str, Any]:
    """Returns the values to store in a checkpoint.

    Args:
      started: `time.monotonic()` at the start of this process.
    """
    seconds = self.seconds + time.monotonic() - started
    return {**dataclasses.asdict(self), 'seconds': seconds}

  @classmethod
  def from_json(cls, values: dict[str, Any]) -> 'Progress':
    """Reads what `to_json` returned.

    Raises:
      TypeError, KeyError: `values` has another format.
    """
    return cls(**{**values, 'epoch': Mean(**values['epoch'])})

  def result(
    self,
    step: int,
    epoch: float,
    batch_size: int,
    best_metric: str,
    started: float,
  ) -> dict[str, Any]:
    """Returns the part of result.json about the finished run.

    Args:
      step: steps made.
      epoch: epochs made.
      batch_size: images per step.
      best_metric: `checkpoint.best_metric`.
      started: `time.monotonic()` at the start of this process.
    """
    train = dict(self.train)
    if self.timed_steps:
      images = self.timed_steps * batch_size
      train['images_per_second'] = images / self.timed_seconds
    best = {}
    if best_metric and self.best is not None:
      best = {
        'best/step': self.best['step'],
        f'best/{best_metric}': self.best['value'],
      }
    return {
      'step': step,
      'epoch': round(epoch, 4),
      **{f'train/{name}': value for name, value in train.items()},
      **{f'eval/{name}': value for name, value in self.evaluated.items()},
      'first_step_seconds': self.first_step_seconds,
      'seconds': self.seconds + time.monotonic() - started,
      'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'python': platform.python_version(),
      'jax': jax.__version__,
      **best,
    }


class Stopwatch:
  """Measures the time of training steps, without evaluation and saving."""

  def __init__(self, step: int):
    """Starts to measure after this step."""
    self.start(step)

  def start(self, step: int) -> None:
    """Restarts the measurement after this step."""
    self._first, self._started = step, time.perf_counter()

  def read(self, step: int) -> tuple[int, float]:
    """Returns the steps and the seconds since the start."""
    return step - self._first, time.perf_counter() - self._started

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes the time of a `with` block."""
    before = time.perf_counter()
    try:
      yield
    finally:
      self._started += time.perf_counter() - before
