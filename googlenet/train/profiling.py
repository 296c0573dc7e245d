"""Profiling: traces a few training steps and measures each layer."""

import os
import pathlib
import time
from collections.abc import Callable

import jax

from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.io.workdir import write_text
from googlenet.runtime.streams import is_text
from googlenet.train import layer_times
from googlenet.train.hooks import Metrics, Session
from googlenet.train.state import TrainState


class Profile:
  """A hook that traces some steps, in process 0 only.

  It writes the trace and layers.txt to <workdir>/profile.
  """

  def __init__(
    self,
    session: Session,
    workdir: str | os.PathLike[str],
    settle: Callable[[int], None],
  ):
    """Stores `settle(step)`, which checks the metrics up to a step.

    Raises:
      UserError: JAX cannot write a trace to such a folder.
    """
    self._session, self._settle = session, settle
    self._folder = pathlib.Path(workdir) / 'profile'
    self._steps = session.run.traced_steps
    if jax.process_index():
      self._steps = range(0)
    if self._steps and not is_text(str(self._folder)):
      raise UserError(
        f'config.logging.profile_steps={len(self._steps)}: a trace cannot be '
        f'written to {self._folder}, whose name is not UTF-8 text: give '
        'another --workdir, or 0'
      )
    self._is_tracing, self._started = False, 0.0
    is_late = self._steps and session.first_step >= self._steps[0]
    if is_late and not self._folder.exists():
      session.console.line(
        f'profile  config.logging.profile_steps={len(self._steps)}: nothing '
        f'is traced, because only steps {self._steps[0]} to {self._steps[-1]} '
        'of a run are'
      )

  def __call__(
    self, step: int, state: TrainState, metrics: Metrics
  ) -> TrainState:
    """Starts the trace before its first step and ends it after its last."""
    if metrics is not None and self._steps:
      if step + 1 == self._steps[0]:
        self._settle(step)
        self._start()
      elif step == self._steps[-1] and self._is_tracing:
        jax.block_until_ready((state, metrics))
        seconds = (time.perf_counter() - self._started) / len(self._steps)
        self.close()
        self._report(state, seconds)
    return state

  def _start(self) -> None:
    self._session.writer.open()  # creates and locks the workdir
    self._folder.mkdir(parents=True, exist_ok=True)
    jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
    self._is_tracing, self._started = True, time.perf_counter()

  def close(self) -> None:
    """Ends the trace, if one is running, and writes it.

    Raises:
      UserError: the trace cannot be written.
    """
    if not self._is_tracing:
      return
    self._is_tracing = False
    try:
      jax.profiler.stop_trace()
    except RuntimeError as error:
      raise UserError(f'no trace in {self._folder}: {error}') from error

  def _report(self, state: TrainState, step_seconds: float) -> None:
    console, run = self._session.console, self._session.run
    steps = f'{len(self._steps)} step(s)'
    console.line(f'profile  {steps} traced; timing each layer alone ...')
    text = layer_times.report(
      run.config,
      run.network,
      *jax.device_get((state.params, state.network_state)),
      pipeline.image_shape(run.config, run.train.dataset)[-1],
      step_seconds,
    )
    write_text(self._folder / 'layers.txt', text + '\n')
    console.line(text)
    console.line(f'profile  in {self._folder}')
