"""How far a run is: what hooks share, checkpoints keep and the end tells."""

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from googlenet.io.console import Console
from googlenet.io.metrics import Mean
from googlenet.io.saver import Saver
from googlenet.io.writer import Writer
from googlenet.runtime.preemption import PreemptionHandler
from googlenet.train.setup import Run
from googlenet.train.state import TrainState

# Called after each step with (step, state, metrics); returns the state to go on
# with. The metrics are None where a continued run begins at the end of an epoch
# that is still to be evaluated.
Metrics = dict[str, jax.Array] | None
Hook = Callable[[int, TrainState, Metrics], TrainState]


@dataclasses.dataclass
class Progress:
  """The course of a run beside its state; JSON can hold all of it.

  Attributes:
    epoch: metrics of the steps of the current epoch.
    train: their means over the last epoch that ended.
    evaluated: the scores of the last evaluation; empty before the first.
    best: {'step', 'value'} of the best evaluation by `checkpoint.best_metric`.
    is_epoch_pending: whether the epoch is trained but not evaluated yet.
    first_step_seconds: from the start of the program to the end of step 1.
    seconds: that processes before this one worked on the run.
    timed_steps: steps behind `timed_seconds`.
    timed_seconds: of training alone: first steps, evaluation, saving left out.
  """

  epoch: Mean = dataclasses.field(default_factory=Mean)
  train: dict[str, float] = dataclasses.field(default_factory=dict)
  evaluated: dict[str, float] = dataclasses.field(default_factory=dict)
  best: dict[str, Any] | None = None
  is_epoch_pending: bool = False
  first_step_seconds: float = 0.0
  seconds: float = 0.0
  timed_steps: int = 0
  timed_seconds: float = 0.0

  def record_scores(
    self, step: int, scores: dict[str, float], best_metric: str
  ) -> None:
    """Takes an evaluation.

    Args:
      step: that was evaluated.
      scores: as `evaluate` returns them.
      best_metric: `checkpoint.best_metric`.
    """
    self.evaluated = scores
    if not best_metric:
      return
    value = scores[best_metric.removeprefix('eval/')]
    sign = -1 if best_metric == 'eval/loss' else 1
    if self.best is None or sign * value > sign * self.best['value']:
      self.best = {'step': step, 'value': value}

  def to_json(self, started: float) -> dict[str, Any]:
    """Returns what a checkpoint keeps.

    Args:
      started: `time.time()` at the start of this process.
    """
    seconds = self.seconds + time.time() - started
    return {**dataclasses.asdict(self), 'seconds': seconds}

  @classmethod
  def from_json(cls, values: dict[str, Any]) -> 'Progress':
    """Reads what `to_json` returned.

    Raises:
      TypeError, KeyError: it is something else.
    """
    return cls(**{**values, 'epoch': Mean(**values['epoch'])})

  def result(self, run: Run, started: float) -> dict[str, Any]:
    """Returns what result.json tells of the course of a finished run.

    Args:
      run: that has come to its end.
      started: `time.time()` at the start of this process.
    """
    step, best_metric = (
      run.durations.num_steps,
      run.config.checkpoint.best_metric,
    )
    train = dict(self.train)
    if self.timed_steps:
      images = self.timed_steps * run.config.train.batch_size
      train['images_per_second'] = images / self.timed_seconds
    best = {}
    if best_metric and self.best is not None:
      best = {
        'best/step': self.best['step'],
        f'best/{best_metric}': self.best['value'],
      }
    return {
      'step': step,
      'epoch': round(run.epoch(step), 4),
      **{f'train/{name}': value for name, value in train.items()},
      **{f'eval/{name}': value for name, value in self.evaluated.items()},
      'first_step_seconds': self.first_step_seconds,
      'seconds': self.seconds + time.time() - started,
      'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'python': platform.python_version(),
      'jax': jax.__version__,
      **best,
    }


class Stopwatch:
  """Times training: a stretch of steps without what is done between them."""

  def __init__(self, step: int):
    """Starts a stretch with the step after this one."""
    self.start(step)

  def start(self, step: int) -> None:
    """Starts a stretch with the step after this one."""
    self._first, self._started = step, time.perf_counter()

  def read(self, step: int) -> tuple[int, float]:
    """Returns the steps and the seconds since the start."""
    return step - self._first, time.perf_counter() - self._started

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves out the time that a block takes."""
    before = time.perf_counter()
    try:
      yield
    finally:
      self._started += time.perf_counter() - before


class Session(NamedTuple):
  """What the hooks of this process share.

  Attributes:
    run: data, network and steps.
    progress: how far the run is; hooks change it.
    writer: of the files of the run.
    saver: of its checkpoints.
    console: of its lines.
    preemption: tells when a signal asks for the end.
    stopwatch: of training time.
    first_step: that this process makes.
    started: `time.time()` at the start of the program.
  """

  run: Run
  progress: Progress
  writer: Writer
  saver: Saver
  console: Console
  preemption: PreemptionHandler
  stopwatch: Stopwatch
  first_step: int
  started: float

  def write(self, step: int, prefix: str, scalars: dict[str, float]) -> None:
    """Writes a record: `<prefix>/<name>` for each scalar."""
    named = {f'{prefix}/{name}': value for name, value in scalars.items()}
    self.writer.write(step, self.run.epoch(step), named)
