"""What a run tells: metrics fetched from the device late, and the screen.

writer.py and events.py are its files: metrics.jsonl, result.json, and those of
TensorBoard.
"""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import TextIO

import jax
import numpy as np
import tqdm

from googlenet.errors import UserError
from googlenet.io.workdir import write_text

DIVERGED = 'diverged.json'  # in the workdir of a run that ended like this


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


class StepMetrics:
  """Metrics of training steps, on their way from the device."""

  def __init__(self, in_flight: int, max_in_row: int = 1):
    """Takes nothing yet.

    Args:
      in_flight: steps that may be unfinished.
      max_in_row: steps that are not finite, one after another, that end a run.
    """
    self._in_flight, self._max_in_row = in_flight, max_in_row
    self._pending: list[tuple[int, dict[str, jax.Array]]] = []
    self._fetched: list[dict[str, float]] = []

  @property
  def fetched(self) -> list[dict[str, float]]:
    """The metrics of the steps that were fetched and not yet taken."""
    return self._fetched

  def restore(self, fetched: list[dict[str, float]]) -> None:
    """Puts back what was fetched by an earlier process."""
    self._fetched = fetched

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
      NonFiniteError: at a step whose loss or gradient is not finite, if it is
        one too many.
    """
    ready = [item for item in self._pending if item[0] <= finished]
    self._pending = self._pending[len(ready) :]
    values = jax.device_get([metrics for _, metrics in ready])
    for (step, _), metrics in zip(ready, values, strict=True):
      metrics = {k: float(v) for k, v in metrics.items()}
      in_row = metrics.pop('nonfinite_in_row', None)
      if in_row is None or in_row >= self._max_in_row:
        for name in ('loss', 'grad_norm'):
          check_finite(step, f'train/{name}', metrics[name])
        if in_row:
          raise NonFiniteError(step, 'a running statistic', math.nan)
      self._fetched.append(metrics)
    return self._fetched[-1] if self._fetched else {}

  def take(self, finished: int) -> list[dict[str, float]]:
    """Returns the metrics of all steps up to `finished` not yet taken."""
    self.fetch(finished)
    taken, self._fetched = self._fetched, []
    return taken


# The curve shows what the last step used, or has counted.
_NOT_AVERAGED = ('learning_rate', 'skipped_steps', 'loss_scale')


def mean(records: list[dict[str, float]]) -> dict[str, float]:
  """Returns the mean of each key over the records of steps.

  Steps that were left out for not being finite do not count; a key of which
  nothing is left is not there.
  """
  means = {}
  for key, last in records[-1].items():
    if key in _NOT_AVERAGED:
      means[key] = last
      continue
    values = [r[key] for r in records if all(map(math.isfinite, r.values()))]
    if values:
      means[key] = float(np.mean(values))
  return means


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
      f'loss {metrics.get("loss", math.nan):.3f}  '
      f'accuracy {metrics.get("accuracy", math.nan):.3f}  '
      f'{rate} images/s  {self._left(step)} left'
    )
    if metrics.get('skipped_steps'):
      text += f'  {metrics["skipped_steps"]:.0f} step(s) skipped'
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
