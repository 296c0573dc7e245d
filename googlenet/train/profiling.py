"""A trace of a few training steps, and beside it a table of layer times."""

import os
import pathlib
import time
from typing import Any

import jax
import ml_collections

from googlenet.config import Durations
from googlenet.errors import UserError
from googlenet.io.metrics import Screen
from googlenet.model.network import Network
from googlenet.runtime.parallel import steps_in_flight
from googlenet.train import layer_times
from googlenet.train.recorder import Recorder
from googlenet.train.state import TrainState
from googlenet.train.step import Batch, Metrics

# The first step waits for the compiler, the second touches fresh memory.
WARM_UP_STEPS = 2


def check_profile_steps(profile_steps: int, durations: Durations) -> None:
  """Checks that the first epoch of a run has the steps to trace.

  Later epochs are out of reach: evaluation and saving would be in the trace.

  Raises:
    UserError: it is shorter.
  """
  steps = min(durations.steps_per_epoch, durations.num_steps)
  if profile_steps and profile_steps + WARM_UP_STEPS > steps:
    most = max(steps - WARM_UP_STEPS, 0)
    raise UserError(
      f'config.logging.profile_steps={profile_steps} follow on '
      f'{WARM_UP_STEPS} steps of warm-up, but the first epoch of this run '
      f'has {steps} steps: choose '
      + (f'at most {most}' if most else '0, or a longer run')
    )


class Profiler:
  """Makes the steps of a run, and traces some; only process 0 does that.

  In <workdir>/profile it leaves what `jax.profiler` writes and layers.txt.
  """

  def __init__(
    self,
    config: ml_collections.FrozenConfigDict,
    network: Network,
    train_step: Any,
    channels: int,
    workdir: str | os.PathLike[str],
    recorder: Recorder,
    screen: Screen,
  ):
    """Starts nothing yet.

    Args:
      config: the `logging`, `model`, `data` and `train` sections are read.
      network: of the run.
      train_step: made by `make_train_step`.
      channels: of the images.
      workdir: of the run.
      recorder: is told which steps are traced, which takes longer.
      screen: shows the table.
    """
    self._config, self._network, self._channels = config, network, channels
    self._train_step = train_step
    self._workdir = pathlib.Path(workdir)
    self._recorder, self._screen = recorder, screen
    num_steps = config.logging.profile_steps
    if jax.process_index():
      num_steps = 0
    self._steps = range(WARM_UP_STEPS + 1, WARM_UP_STEPS + 1 + num_steps)
    self._is_tracing = False
    self._started = 0.0

  def train_step(
    self, step: int, state: TrainState, batch: Batch, *more: Any
  ) -> tuple[TrainState, Metrics]:
    """Makes step `step` (1 is the first); `more` is for the training step."""
    if step not in self._steps:
      return self._train_step(state, batch, *more)
    if step == self._steps[0]:
      self._recorder.settle(step - 1)
      self._start()
    is_last = step == self._steps[-1]
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      state, metrics = self._train_step(state, batch, *more)
      # No step waits behind another on a CPU; elsewhere they do here too.
      if is_last or not steps_in_flight():
        jax.block_until_ready(metrics)
    if is_last:
      seconds = (time.perf_counter() - self._started) / len(self._steps)
      self.close()
      self._report(state, seconds)
    self._recorder.leave_out(step)
    return state, metrics

  @property
  def _folder(self) -> pathlib.Path:
    return self._workdir / 'profile'

  def _start(self) -> None:
    self._recorder.open()  # from here on the workdir is that of this run
    self._folder.mkdir(parents=True, exist_ok=True)
    jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
    self._is_tracing = True
    self._started = time.perf_counter()

  def close(self) -> None:
    """Ends the trace if there is one, and writes it.

    Raises:
      UserError: it cannot be written.
    """
    if not self._is_tracing:
      return
    self._is_tracing = False
    try:
      jax.profiler.stop_trace()
    except RuntimeError as error:
      raise UserError(f'no trace in {self._folder}: {error}') from error

  def _report(self, state: TrainState, step_seconds: float) -> None:
    steps = f'{len(self._steps)} step(s)'
    self._screen.line(f'profile  {steps} traced; timing each layer alone ...')
    text = layer_times.report(
      self._config,
      self._network,
      *jax.device_get((state.params, state.network_state)),
      self._channels,
      step_seconds,
    )
    (self._folder / 'layers.txt').write_text(text + '\n')
    self._screen.line(text)
    self._screen.line(f'profile  in {self._folder}')
