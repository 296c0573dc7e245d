"""What a run tells: fetched from the device late, written in one place.

A workdir is made by the first record, not before: a run that fails on its
input, or whose loss is never finite, leaves nothing behind.
"""

import json
import math
import os
import pathlib
import time
from typing import Any, TextIO

import jax
import numpy as np
import tensorboardX
import tqdm

from googlenet.errors import UserError


def steps_in_flight() -> int:
  """Returns how many steps to give to the devices ahead of the running one.

  A GPU or TPU should never wait for Python. A CPU does not gain by it:
  it computes on the threads that wait.
  """
  return 0 if jax.default_backend() == 'cpu' else 2


class NonFiniteError(UserError):
  """A loss, a gradient or a parameter is infinite or not a number."""

  def __init__(self, step: int, name: str, value: float):
    super().__init__(
      f'{name} is {value} at step {step}: training stopped. Lower '
      'config.optimizer.learning_rate, lengthen '
      'config.optimizer.warmup_steps or set config.optimizer.grad_clip_norm'
    )


def check_finite(step: int, name: str, value: float) -> None:
  """Raises NonFiniteError unless the value seen at a step is finite."""
  if not math.isfinite(value):
    raise NonFiniteError(step, name, value)


def holds_a_run(workdir: pathlib.Path, name: str) -> str:
  """Returns the refusal of a workdir in which a file of a run was found."""
  return (
    f'--workdir={workdir} already holds a run ({name}), which is never '
    'overwritten: give another folder, or none for a fresh one'
  )


class StepMetrics:
  """Metrics of training steps, on their way from the device."""

  def __init__(self, in_flight: int):
    self._in_flight = in_flight
    self._pending: list[tuple[int, dict[str, jax.Array]]] = []
    self._fetched: list[dict[str, float]] = []

  def push(self, step: int, metrics: dict[str, jax.Array]) -> int:
    """Takes the metrics of step `step` (1 is the first).

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

  def fetch(self, finished: int) -> dict[str, float]:
    """Fetches all steps up to `finished` and returns the last of them.

    Raises:
      NonFiniteError: at the first step whose loss or gradient is not finite.
    """
    ready = [item for item in self._pending if item[0] <= finished]
    self._pending = self._pending[len(ready) :]
    values = jax.device_get([metrics for _, metrics in ready])
    for (step, _), metrics in zip(ready, values, strict=True):
      for name in ('loss', 'grad_norm'):
        check_finite(step, f'train/{name}', float(metrics[name]))
      self._fetched.append({k: float(v) for k, v in metrics.items()})
    return self._fetched[-1] if self._fetched else {}

  def take(self, finished: int) -> list[dict[str, float]]:
    """Returns the metrics of all steps up to `finished` not yet taken."""
    self.fetch(finished)
    taken, self._fetched = self._fetched, []
    return taken


def mean(records: list[dict[str, float]]) -> dict[str, float]:
  """Returns the mean of each key over the records of steps."""
  means = {
    key: float(np.mean([record[key] for record in records]))
    for key in records[0]
  }
  # A rate is not averaged: the curve shows what the last step used.
  return means | {'learning_rate': records[-1]['learning_rate']}


class Writer:
  """Writes a workdir: config.json, metrics.jsonl, TensorBoard, result.json.

  Only process 0 writes; elsewhere every call does nothing.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    config_json: str,
    tensorboard: bool,
  ):
    self._workdir = pathlib.Path(workdir)
    self._config_json = config_json
    self._with_tensorboard = tensorboard
    self._is_writer = jax.process_index() == 0
    self._jsonl: TextIO | None = None
    self._tensorboard: tensorboardX.SummaryWriter | None = None

  def _open(self) -> None:
    self._workdir.mkdir(parents=True, exist_ok=True)
    try:  # 'x': of two runs that were started at once one gets the folder
      self._jsonl = open(self._workdir / 'metrics.jsonl', 'x')  # noqa: SIM115
    except FileExistsError as error:
      raise UserError(holds_a_run(self._workdir, 'metrics.jsonl')) from error
    (self._workdir / 'config.json').write_text(self._config_json)
    if self._with_tensorboard:
      self._tensorboard = tensorboardX.SummaryWriter(
        str(self._workdir / 'tensorboard')
      )

  def write(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
    """Appends one line to metrics.jsonl, and the scalars to TensorBoard.

    Args:
      step: steps made.
      epoch: epochs made, with a fraction.
      scalars: by name, such as `train/loss` and `eval/accuracy`.
    """
    if not self._is_writer:
      return
    if self._jsonl is None:
      self._open()
    record = {'step': step, 'epoch': round(epoch, 4), **scalars}
    self._jsonl.write(json.dumps(record, allow_nan=False) + '\n')
    self._jsonl.flush()
    if self._tensorboard is not None:
      for name, value in scalars.items():
        self._tensorboard.add_scalar(name, value, step)

  def write_result(self, result: dict[str, Any]) -> None:
    """Writes result.json: a run that has one is finished."""
    if self._is_writer:
      text = json.dumps(result, indent=2) + '\n'
      (self._workdir / 'result.json').write_text(text)

  def close(self) -> None:
    """Closes the files."""
    if self._jsonl is not None:
      self._jsonl.close()
    if self._tensorboard is not None:
      self._tensorboard.close()


class Screen:
  """A progress bar on a terminal, plain lines elsewhere."""

  def __init__(self, stream: TextIO, total_steps: int):
    self._stream = stream
    self._is_shown = jax.process_index() == 0
    self._total = total_steps
    self._bar: tqdm.tqdm | None = None
    self._rate_from: tuple[int, float] | None = None

  @property
  def is_terminal(self) -> bool:
    return self._is_shown and self._stream.isatty()

  def line(self, text: str) -> None:
    """Prints a line that stays."""
    if not self._is_shown:
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      print(text, file=self._stream, flush=True)

  def start_clock(self, step: int) -> None:
    """Counts the time left from here: what came before is compilation."""
    self._rate_from = (step, time.perf_counter())

  def progress(
    self,
    step: int,
    epoch: float,
    metrics: dict[str, float],
    images_per_second: float | None,
  ) -> None:
    """Shows how far the run is."""
    if not self._is_shown:
      return
    rate = '?' if images_per_second is None else f'{images_per_second:.0f}'
    text = (
      f'loss {metrics["loss"]:.3f}  accuracy {metrics["accuracy"]:.3f}  '
      f'{rate} images/s  {self._left(step)} left'
    )
    if not self.is_terminal:
      self.line(f'step {step}/{self._total}  epoch {epoch:.2f}  {text}')
      return
    if self._bar is None:
      self._bar = tqdm.tqdm(
        total=self._total,
        file=self._stream,
        bar_format='{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}  {desc}',
        dynamic_ncols=True,
        leave=False,
      )
    self._bar.set_description_str(text, refresh=False)
    self._bar.n = step
    self._bar.refresh()

  def _left(self, step: int) -> str:
    if self._rate_from is None or step <= self._rate_from[0]:
      return '?'
    first, start = self._rate_from
    seconds = (time.perf_counter() - start) / (step - first)
    return tqdm.tqdm.format_interval(round(seconds * (self._total - step)))

  def close(self) -> None:
    """Removes the bar."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None
