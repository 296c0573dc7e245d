"""Hooks, called between the steps of a run: log, evaluate, save, stop.

Hooks communicate through `Progress` and through functions passed to them.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from googlenet.errors import Stopped
from googlenet.io import checkpoint
from googlenet.io.console import Console
from googlenet.io.metrics import (
  Mean,
  NonFiniteError,
  Progress,
  StepMetrics,
  Stopwatch,
  check_finite,
)
from googlenet.io.saver import Saver
from googlenet.io.writer import Writer
from googlenet.runtime import distributed, memory
from googlenet.runtime.allocator import release_free_memory
from googlenet.runtime.compilation import seconds_compiled
from googlenet.runtime.parallel import steps_in_flight
from googlenet.runtime.preemption import PreemptionHandler
from googlenet.train import messages, precise_bn
from googlenet.train.evaluate import evaluate
from googlenet.train.finite import make_policy
from googlenet.train.same_run import data_of
from googlenet.train.setup import Run
from googlenet.train.state import TrainState

# A hook is called after each step with (step, state, metrics) and returns the
# state to continue with. Steps count from 1. Metrics are device scalars; see
# `make_update_step` and `make_loss_fn`. Reading one waits for its step, so
# `Log` fetches them late. They are None when a resumed run starts with the
# evaluation of an epoch that was already trained.
Metrics = dict[str, jax.Array] | None
Hook = Callable[[int, TrainState, Metrics], TrainState]


class Session(NamedTuple):
  """Objects that the hooks of this process share.

  Attributes:
    run: data, network and steps.
    progress: how far the run is; hooks change it.
    writer: writes metrics and other files of the run.
    saver: writes checkpoints.
    console: prints lines and progress.
    preemption: reports when a signal asks the run to stop.
    stopwatch: measures training time.
    first_step: first step that this process computes.
    started: `time.monotonic()` at the start of the program.
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

  def is_last(self, step: int) -> bool:
    """Whether the run is finished after this step."""
    ends_early = self.progress.ends_early(
      step, self.run.config.train.early_stopping
    )
    return ends_early or step == self.run.durations.num_steps

  def write(self, step: int, prefix: str, scalars: dict[str, float]) -> None:
    """Writes a record: `<prefix>/<name>` for each scalar."""
    named = {f'{prefix}/{name}': value for name, value in scalars.items()}
    self.writer.write(step, self.run.epoch(step), named)


class Log:
  """Writes the mean of the metrics, every `logging.every_steps` steps."""

  def __init__(self, session: Session):
    self._session, self._compiled = session, seconds_compiled()
    max_in_row = make_policy(session.run.config.train).max_in_row
    self._steps = StepMetrics(steps_in_flight(), max_in_row)
    self._mean = Mean()  # over the steps since the last record

  def __call__(
    self, step: int, state: TrainState, metrics: Metrics
  ) -> TrainState:
    """Stores the metrics of a step; fetches those of finished steps."""
    if metrics is None:
      return state
    session, run = self._session, self._session.run
    is_first = step == session.first_step
    if is_first:
      self._wait_for_first_step(metrics)
    finished = self._steps.push(step, metrics)
    is_compiled = is_first or run.image_size(step) != run.image_size(step - 1)
    if is_compiled:
      # Compiling leaves free device memory in small pieces, so the next step
      # would allocate as much memory again.
      release_free_memory()
    if is_compiled or step in run.traced_steps:  # not a typical step time
      session.stopwatch.start(step)
      session.console.start_clock(step)
    if step % run.config.logging.every_steps == 0:
      self.flush(step)
    elif session.console.wants_progress:
      self.settle(finished)
      if self._mean.steps:
        self._show(finished, self._mean.value())
    return state

  def _wait_for_first_step(self, metrics: dict[str, jax.Array]) -> None:
    session = self._session
    jax.block_until_ready(metrics)
    seconds = time.monotonic() - session.started
    if not session.progress.first_step_seconds:
      session.progress.first_step_seconds = seconds
    compiled = seconds_compiled() - self._compiled
    session.console.line(
      f'start    first step after {seconds:.1f} s, {compiled:.1f} s of them '
      'compiling'
    )

  def settle(self, last: int) -> None:
    """Fetches the metrics of the steps up to `last`.

    Raises:
      NonFiniteError: a loss, gradient or running statistic is not finite.
    """
    for metrics in self._steps.fetch(last):
      self._mean.add(metrics)
      self._session.progress.epoch.add(metrics)

  def flush(self, step: int) -> None:
    """Writes the mean over the steps since the last record, up to this one.

    Raises:
      NonFiniteError: a loss, gradient or running statistic is not finite.
    """
    self.settle(step)
    if not self._mean.steps:
      return
    session, progress = self._session, self._session.progress
    metrics, self._mean = self._mean.value(), Mean()
    steps, seconds = session.stopwatch.read(step)
    rate = self._show(step, metrics)
    if rate is not None:
      metrics['images_per_second'] = rate
      progress.timed_steps += steps
      progress.timed_seconds += seconds
    session.stopwatch.start(step)
    session.write(step, 'train', metrics)

  def _show(self, step: int, metrics: dict[str, float]) -> float | None:
    """Shows the progress; returns images/s, or None if no step was timed."""
    session = self._session
    steps, seconds = session.stopwatch.read(step)
    rate = None
    if steps > 0:
      rate = steps * session.run.config.train.batch_size / seconds
    session.console.progress(step, session.run.epoch(step), metrics, rate)
    return rate


class Evaluate:
  """Scores the state on `data.eval_split` at the end of epochs."""

  def __init__(self, session: Session, flush: Callable[[int], None]):
    """Stores `flush(step)`, which writes the metrics up to a step."""
    self._session, self._flush = session, flush
    self._epoch_started = time.perf_counter()

  def __call__(
    self, step: int, state: TrainState, metrics: Metrics
  ) -> TrainState:
    """Evaluates at the end of an epoch; if stopped, the epoch stays pending."""
    del metrics
    session, run, progress = (
      self._session,
      self._session.run,
      self._session.progress,
    )
    # An evaluation that was cut off is made up for, even if the config has
    # changed since, and this is no end of an epoch any more.
    is_due = progress.is_epoch_pending
    if run.is_epoch_end(step):
      is_due |= run.ends_epochs(step, run.config.eval.every_epochs)
    elif not is_due:
      return state
    self._flush(step)
    with session.stopwatch.paused():
      if is_due:
        progress.is_epoch_pending = True  # in case memory runs out
        state, scores = self._evaluate(state)
        if scores is None:
          return state
        progress.is_epoch_pending = False
        # The last training loss was computed before the last update.
        check_finite(step, 'eval/loss', scores['loss'])
        progress.record_scores(step, scores, run.config.checkpoint.best_metric)
        session.write(step, 'eval', scores)
      if progress.epoch.steps:  # none if only the evaluation is repeated
        progress.train, progress.epoch = progress.epoch.value(), Mean()
      seconds = time.perf_counter() - self._epoch_started
      session.console.line(
        messages.epoch_ended(run, step, progress, is_due, seconds)
      )
    self._epoch_started = time.perf_counter()
    return state

  def _evaluate(
    self, state: TrainState
  ) -> tuple[TrainState, dict[str, float] | None]:
    """Returns the state and its scores (None if asked to stop meanwhile).

    Statistics of precise BN are stored in the state, so checkpoints hold what
    was evaluated. Training is not affected: it reads no running statistics.
    """
    run = self._session.run
    if run.statistics_step is not None:
      with memory.explained('statistics'):
        network_state = precise_bn.estimate(
          run.statistics_step,
          state.eval_params,
          state.eval_network_state,
          run.statistics,
          run.config,
        )
      state = state.with_eval_network_state(network_state)
    with memory.explained('evaluation'):
      return state, evaluate(
        run.eval_step,
        state.eval_params,
        state.eval_network_state,
        run.evaluation,
        run.config.eval.batch_size,
        self._session.preemption.poll,
      )


class Save:
  """Writes checkpoints when they are due, and stops the run on a signal."""

  def __init__(self, session: Session, flush: Callable[[int], None]):
    """Stores `flush(step)`, which writes the metrics up to a step."""
    self._session, self._flush = session, flush
    self._saved_time = time.monotonic()

  def __call__(
    self, step: int, state: TrainState, metrics: Metrics
  ) -> TrainState:
    """Saves the state if it is due.

    Raises:
      Stopped: a signal asked the run to stop; the state is saved.
      WriteError: the checkpoint cannot be written.
    """
    del metrics
    session = self._session
    session.saver.poll()
    is_last = session.is_last(step)
    stops = session.preemption.poll() and not is_last
    stops |= session.progress.is_epoch_pending
    if stops or is_last or self._is_due(step):
      self.save(step, state)
    if stops:
      # All wait for process 0: JAX and launchers end it when another has ended.
      distributed.on_process_0(session.saver.finish)
      raise Stopped(
        f'ended on {session.preemption.reason} after step {step:,}, which is '
        'saved: the same command with this --workdir continues the run'
      )
    return state

  def _is_due(self, step: int) -> bool:
    run, best = self._session.run, self._session.progress.best
    every = run.config.checkpoint
    if run.is_epoch_end(step) and run.ends_epochs(step, every.every_epochs):
      return True
    if every.every_steps and step % every.every_steps == 0:
      return True
    if best and best['step'] == step:
      return True
    # Clocks differ between processes, and only process 0 writes.
    return (
      every.every_seconds > 0
      and jax.process_index() == 0
      and time.monotonic() - self._saved_time >= every.every_seconds
    )

  def save(self, step: int, state: TrainState) -> None:
    """Writes the metrics up to a step and, in process 0, a checkpoint.

    Raises:
      NonFiniteError: a metric or parameter is not finite; older checkpoints
        stay.
    """
    session, best = self._session, self._session.progress.best
    self._flush(step)
    with session.stopwatch.paused():
      state = checkpoint.to_host(state)
      for module, leaves in state.params.items():
        for name, leaf in leaves.items():
          if not np.isfinite(leaf).all():
            bad = leaf[~np.isfinite(leaf)][0]
            raise NonFiniteError(step, f'{module}/{name}', bad)
      self._saved_time = time.monotonic()
      if jax.process_index():
        return
      session.writer.open()
      about = {
        'config': session.run.config.to_dict(),
        'data': data_of(session.run),
        'progress': session.progress.to_json(session.started),
        **session.writer.synced(),
      }
      snapshot = checkpoint.Snapshot(step, state, about)
      session.saver.save(snapshot, best and best['step'])
