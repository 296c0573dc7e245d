"""The steps of a run: epochs, evaluations, checkpoints, an early end."""

import time
from typing import Any

import jax
import numpy as np

from googlenet.data import batches
from googlenet.errors import Stopped
from googlenet.input import image_sizes
from googlenet.io import checkpoint
from googlenet.io import metrics as metrics_lib
from googlenet.io.saver import Saver
from googlenet.io.writer import Writer
from googlenet.runtime import memory
from googlenet.runtime.allocator import release_free_memory
from googlenet.runtime.parallel import replicated
from googlenet.runtime.preemption import Stopper
from googlenet.train import diagnosis, precise_bn
from googlenet.train.evaluate import evaluate
from googlenet.train.profiling import Profiler
from googlenet.train.recorder import Recorder
from googlenet.train.resume import Start, describe_data
from googlenet.train.state import TrainState
from googlenet.train.summaries import histograms, make_show_inputs


class Training:
  """Makes the steps of a run, from any of them to the last."""

  def __init__(
    self,
    run: Any,
    writer: Writer,
    recorder: Recorder,
    profiler: Profiler,
    saver: Saver,
    stopper: Stopper,
  ):
    """Makes none yet.

    Args:
      run: an `assembly.Run`.
      writer: of the files of the run.
      recorder: of its metrics.
      profiler: makes single steps.
      saver: of its checkpoints.
      stopper: says when to end before the last step.
    """
    self._run, self._config = run, run.config
    self._writer, self._recorder, self._profiler = writer, recorder, profiler
    self._saver, self._stopper = saver, stopper
    self._best: dict[str, Any] | None = None
    self._saved_step, self._saved_time = -1, time.monotonic()
    self._show_inputs = None
    if self._config.logging.images and writer.has_tensorboard:
      self._show_inputs = make_show_inputs(run.config, run.train.dataset)

  def best_result(self) -> dict[str, Any]:
    """Returns what result.json says of the best checkpoint."""
    metric = self._config.checkpoint.best_metric
    if not metric or self._best is None:
      return {}
    return {
      'best/step': self._best['step'],
      f'best/{metric}': self._best['value'],
    }

  def train(self, start: Start) -> TrainState:
    """Makes all steps that are left and returns the last state.

    Raises:
      Stopped: the stopper says so; the state is saved.
      NonFiniteError: a loss, a gradient or a parameter is not finite.
      WriteError: the last state cannot be saved.
    """
    config, num_steps = self._config, self._run.durations.num_steps
    state = start.state
    if start.about is not None:
      self._best, self._saved_step = start.about['best'], start.step
    else:
      self._write_inputs(0)
    seed = replicated(np.uint32(config.seed))
    size_before = self._image_size(start.step + 1)
    try:
      if start.about is not None and start.about['is_epoch_pending']:
        state = self._finish_epoch(start.step, state)
      for step, batch in enumerate(
        self._run.train.batches(self._indices(start.step, num_steps)),
        start=start.step + 1,
      ):
        size = self._image_size(step)
        state, metrics = self._profiler.train_step(
          step, state, batch, seed, *([size] if size else [])
        )
        self._stopper.can_save()
        is_new_size, size_before = size != size_before, size
        if is_new_size:  # compiling is no part of the images/s
          self._recorder.leave_out(step)
        self._recorder.after_step(step, metrics)
        if is_new_size or step == start.step + 1:
          # What the first step leaves in pieces would make the second take as
          # much memory again.
          release_free_memory()
        self._saver.poll()
        if step % self._run.durations.steps_per_epoch == 0 or step == num_steps:
          state = self._finish_epoch(step, state)
        elif self._is_due(step):
          self._save(step, state)
        if self._stopper.poll() and step < num_steps:
          self._stop(step, state)
    except metrics_lib.NonFiniteError as error:
      try:
        where = diagnosis.find(
          self._run,
          state,
          error.step,
          self._indices(error.step - 1, error.step),
          self._image_size(error.step),
        )
      except jax.errors.JaxRuntimeError:  # it takes more memory than a step
        where = ''
      if not where:
        raise
      raise metrics_lib.NonFiniteError(
        error.step, error.name, error.value, f' ({where})'
      ) from error
    self._saver.finish()
    return state

  def _image_size(self, step: int) -> int | None:
    """Returns what takes the place of `data.image_size` in a step, from 1."""
    sizes = image_sizes.parse_sizes(self._config.train.image_sizes)
    return image_sizes.size_at(sizes, step, self._run.durations.total_steps)

  def _indices(self, start: int, stop: int):
    return batches.TrainIndices(
      self._config.seed,
      self._run.train.dataset.num_examples,
      self._config.train.batch_size,
      start,
      stop,
    )

  def _is_due(self, step: int) -> bool:
    """Whether steps or seconds ask for a checkpoint."""
    every = self._config.checkpoint
    if every.every_steps and step % every.every_steps == 0:
      return True
    # Clocks differ between processes; saving is the business of one of them.
    return (
      bool(every.every_seconds)
      and jax.process_index() == 0
      and (time.monotonic() - self._saved_time >= every.every_seconds)
    )

  def _estimated(self, state: TrainState) -> TrainState:
    """Estimates batch norm anew, where the config asks for it.

    The state keeps it: checkpoints hold what was evaluated, and training itself
    reads no running statistics.
    """
    if self._run.statistics_step is None:
      return state
    network_state = precise_bn.estimate(
      self._run.statistics_step,
      state.eval_params,
      state.eval_network_state,
      self._run.statistics,
      self._config,
    )
    return state.with_eval_network_state(network_state)

  def _evaluate(
    self, step: int, state: TrainState
  ) -> tuple[TrainState, dict[str, float] | None]:
    """Scores the state on `data.eval_split`.

    Returns:
      The state, its batch-norm statistics estimated where the config asks for
      it; and the scores, or None where the stopper says so.

    Raises:
      OutOfMemoryError: the state is saved, to be evaluated by the next start.
    """
    try:
      with memory.explained('statistics'):
        state = self._estimated(state)
      with memory.explained('evaluation'):
        return state, evaluate(
          self._run.eval_step,
          state.eval_params,
          state.eval_network_state,
          self._run.evaluation,
          self._config.eval.batch_size,
          self._stopper.poll,
        )
    except memory.OutOfMemoryError:
      self._save(step, state, is_epoch_pending=True)
      self._saver.finish()
      raise

  def _finish_epoch(self, step: int, state: TrainState) -> TrainState:
    """Evaluates and saves what is due; returns the state to go on with."""
    config = self._config
    epoch = step // self._run.durations.steps_per_epoch
    is_last = step == self._run.durations.num_steps
    self._recorder.record(step)
    is_best = False
    if is_last or epoch % config.eval.every_epochs == 0:
      state, evaluated = self._evaluate(step, state)
      if evaluated is None:  # asked to end: it is made again
        self._stop(step, state, is_epoch_pending=True)
      # The loss of the last step was that before its update.
      metrics_lib.check_finite(step, 'eval/loss', evaluated['loss'])
      self._recorder.after_evaluation(step, evaluated)
      is_best = self._is_best(step, evaluated)
    self._recorder.after_epoch(step)
    self._write_inputs(step)
    every = config.logging.histograms
    if every and (is_last or epoch % every == 0):
      self._write_histograms(step, state)
    self._recorder.restart_clock()
    every = config.checkpoint.every_epochs
    by_epoch = bool(every) and epoch % every == 0
    if is_last or is_best or by_epoch or self._is_due(step):
      self._save(step, state)
    return state

  def _write_inputs(self, step: int) -> None:
    """Shows the images that the step after this one will be given."""
    if self._show_inputs and step < self._run.durations.num_steps:
      (batch,) = self._indices(step, step + 1)
      shown = self._show_inputs(batch, step, self._image_size(step + 1))
      self._writer.write_summary(step, shown)

  def _write_histograms(self, step: int, state: TrainState) -> None:
    if self._writer.has_tensorboard:
      self._writer.write_summary(step, histograms(checkpoint.to_host(state)))

  def _is_best(self, step: int, evaluated: dict[str, float]) -> bool:
    metric = self._config.checkpoint.best_metric
    if not metric:
      return False
    value = evaluated[metric.removeprefix('eval/')]
    if self._best is not None:
      before = self._best['value']
      if not (value < before if metric == 'eval/loss' else value > before):
        return False
    self._best = {'step': step, 'value': value}
    return True

  def _stop(
    self, step: int, state: TrainState, is_epoch_pending: bool = False
  ) -> None:
    if self._saved_step != step or is_epoch_pending:
      self._save(step, state, is_epoch_pending)
    self._saver.finish()
    name = self._stopper.signal_name or 'a signal to another process'
    raise Stopped(
      f'ended on {name} after step {step:,}, which is saved: the same command '
      'with this --workdir goes on'
    )

  def _save(
    self,
    step: int,
    state: TrainState,
    is_epoch_pending: bool = False,
  ) -> None:
    """Copies the state and has it written; process 0 alone does.

    Raises:
      NonFiniteError: a parameter is; what was saved before is kept.
    """
    course, progress = self._recorder.snapshot(step)
    state = checkpoint.to_host(state)
    for module, leaves in state.params.items():
      for name, leaf in leaves.items():
        if not np.isfinite(leaf).all():
          raise metrics_lib.NonFiniteError(step, f'{module}/{name}', np.nan)
    self._saved_step, self._saved_time = step, time.monotonic()
    if jax.process_index():
      return
    self._writer.open()
    about = {
      'config': self._config.to_dict(),
      'data': describe_data(self._run.train.dataset),
      'course': course,
      'best': self._best,
      'is_epoch_pending': is_epoch_pending,
      'metrics_bytes': self._writer.size(),
    }
    self._saver.save(
      checkpoint.Snapshot(step, state, about, progress),
      self._best and self._best['step'],
    )
