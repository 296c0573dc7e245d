"""From the metrics of single steps to lines, records and a result."""

import math
import platform
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from googlenet.config import Durations
from googlenet.io.metrics import Screen, StepMetrics, mean
from googlenet.io.writer import Writer
from googlenet.runtime.compilation import seconds_compiled
from googlenet.runtime.parallel import steps_in_flight
from googlenet.train.finite import make_policy


class Recorder:
  """Turns the metrics of steps into lines, records and a result."""

  def __init__(
    self,
    config: ml_collections.FrozenConfigDict,
    durations: Durations,
    writer: Writer,
    screen: Screen,
    started: float,
  ):
    self._config, self._durations = config, durations
    self._writer, self._screen = writer, screen
    self._started = started
    self._first_step, self._first_step_seconds = 1, 0.0
    self._compiled_before = seconds_compiled()
    self._seconds_before = 0.0  # of the processes that made earlier steps
    self._steps = StepMetrics(
      steps_in_flight(), make_policy(config.train).max_in_row
    )
    self._epoch_records: list[dict[str, float]] = []
    self._train: dict[str, float] = {}
    self._evaluated: dict[str, float] = {}
    self._is_evaluated = False
    self._epoch_started = time.perf_counter()
    self._shown = 0.0
    self._clock = (0, time.perf_counter())  # of the current record
    self._rates: list[tuple[int, float]] = []  # steps, seconds; not the first

  def _epoch(self, step: int) -> float:
    return step / self._durations.steps_per_epoch

  def after_step(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of a step that was just given to the device."""
    if step == self._first_step:
      self._wait_for_first_step(step, metrics)
    finished = self._steps.push(step, metrics)
    if step % self._config.logging.every_steps == 0:
      self.record(step)
    elif self._screen.is_terminal and time.perf_counter() - self._shown > 0.5:
      latest = self._steps.fetch(finished)
      if latest:
        self._show(finished, latest, self._rate(finished))

  def _wait_for_first_step(
    self, step: int, metrics: dict[str, jax.Array]
  ) -> None:
    jax.block_until_ready(metrics)
    self._first_step_seconds = time.time() - self._started
    self._screen.line(
      f'start    first step after {self._first_step_seconds:.1f} s, '
      f'{seconds_compiled() - self._compiled_before:.1f} s of them compiling'
    )
    self.leave_out(step)

  def leave_out(self, step: int) -> None:
    """Starts the clocks after a step whose time says nothing of the speed."""
    self._clock = (step, time.perf_counter())
    self._screen.start_clock(step)

  def open(self) -> None:
    """Makes the workdir, if that has not happened yet."""
    self._writer.open()

  def settle(self, step: int) -> None:
    """Waits for all steps up to this one and checks that they are finite."""
    self._steps.fetch(step)

  def _rate(self, step: int) -> float | None:
    """Images/s since the clock was set; None where it was just now."""
    first, start = self._clock
    if step <= first:
      return None
    seconds = time.perf_counter() - start
    return (step - first) * self._config.train.batch_size / seconds

  def _show(
    self, step: int, metrics: dict[str, float], rate: float | None
  ) -> None:
    self._shown = time.perf_counter()
    self._screen.progress(step, self._epoch(step), metrics, rate)

  def record(self, step: int) -> None:
    """Writes the mean over the steps since the last record."""
    records = self._steps.take(step)
    if not records:
      return
    self._epoch_records += records
    metrics = mean(records)
    rate = self._rate(step)
    if rate is not None:  # the first step is compilation, not speed
      metrics['images_per_second'] = rate
      first, start = self._clock
      self._rates.append((step - first, time.perf_counter() - start))
    self._clock = (step, time.perf_counter())
    self._show(step, metrics, rate)
    self._writer.write(
      step,
      self._epoch(step),
      {f'train/{name}': value for name, value in metrics.items()},
    )

  def after_evaluation(self, step: int, evaluated: dict[str, float]) -> None:
    """Writes an evaluation."""
    self._evaluated = evaluated
    self._writer.write(
      step,
      self._epoch(step),
      {f'eval/{name}': value for name, value in evaluated.items()},
    )
    self._is_evaluated = True

  def after_epoch(self, step: int) -> None:
    """Prints the line of the epoch."""
    self._train = mean(self._epoch_records)
    text = (
      f'epoch {self._epoch(step):.3g}/{self._config.train.epochs}  '
      f'train loss {self._train.get("loss", math.nan):.4f} '
      f'accuracy {self._train.get("accuracy", math.nan):.4f}'
    )
    if self._is_evaluated:
      text += (
        f'  eval loss {self._evaluated["loss"]:.4f} '
        f'accuracy {self._evaluated["accuracy"]:.4f}'
      )
    seconds = time.perf_counter() - self._epoch_started
    self._screen.line(f'{text}  {seconds:.0f} s')

  def restart_clock(self) -> None:
    """Starts the next epoch: evaluation and saving are not training time."""
    self._epoch_records, self._is_evaluated = [], False
    self._epoch_started = time.perf_counter()
    self._clock = (self._clock[0], self._epoch_started)

  @property
  def evaluated(self) -> dict[str, float]:
    """The last evaluation."""
    return self._evaluated

  def snapshot(self, step: int) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what another process needs to go on from here.

    Args:
      step: the last one made; waits until it is finished.

    Returns:
      What JSON can hold; and float64 [steps, metrics], the metrics of the
      steps of this epoch.

    Raises:
      NonFiniteError: a step up to here is not finite.
    """
    self.settle(step)
    records = self._epoch_records + self._steps.fetched
    names = list(records[0]) if records else []
    course = {
      'metrics': names,
      'recorded': len(self._epoch_records),
      'train': self._train,
      'evaluated': self._evaluated,
      'is_evaluated': self._is_evaluated,
      'first_step_seconds': self._first_step_seconds,
      'seconds': self._seconds_before + time.time() - self._started,
      'timed_steps': sum(count for count, _ in self._rates),
      'timed_seconds': sum(spent for _, spent in self._rates),
    }
    rows = [[record[name] for name in names] for record in records]
    return course, np.array(rows, np.float64).reshape(len(rows), len(names))

  def restore(
    self, step: int, course: dict[str, Any], progress: np.ndarray
  ) -> None:
    """Goes on from a snapshot.

    Args:
      step: the last one made.
      course: as `snapshot` returned it.
      progress: likewise.
    """
    records = [
      dict(zip(course['metrics'], map(float, row), strict=True))
      for row in progress
    ]
    self._epoch_records = records[: course['recorded']]
    self._steps.restore(records[course['recorded'] :])
    self._train, self._evaluated = course['train'], course['evaluated']
    self._is_evaluated = course['is_evaluated']
    self._seconds_before = course['seconds']
    self._first_step_seconds = course['first_step_seconds']
    if course['timed_steps']:
      self._rates = [(course['timed_steps'], course['timed_seconds'])]
    self._first_step = step + 1
    self.leave_out(step)

  def result(self, step: int) -> dict[str, Any]:
    """Returns what result.json says of the course of the run."""
    train = dict(self._train)
    if self._rates:
      steps = sum(count for count, _ in self._rates)
      seconds = sum(spent for _, spent in self._rates)
      images = steps * self._config.train.batch_size
      train['images_per_second'] = images / seconds
    return {
      'step': step,
      'epoch': round(self._epoch(step), 4),
      **{f'train/{name}': value for name, value in train.items()},
      **{f'eval/{name}': value for name, value in self._evaluated.items()},
      'first_step_seconds': self._first_step_seconds,
      'seconds': self._seconds_before + time.time() - self._started,
      'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'python': platform.python_version(),
      'jax': jax.__version__,
    }
