"""The console of a run: a progress bar on a terminal, plain lines elsewhere."""

import math
import time
from typing import TextIO

import jax
import tqdm

_REFRESH_SECONDS = 0.5  # of a progress bar


class Console:
  """Shows the lines and the progress of a run, in process 0 only."""

  def __init__(self, stream: TextIO, total_steps: int):
    self._stream = stream
    self._is_shown = jax.process_index() == 0
    self._total = total_steps
    self._bar: tqdm.tqdm | None = None
    self._shown = 0.0  # time of the last update
    self._rate_from: tuple[int, float] | None = None

  @property
  def wants_progress(self) -> bool:
    """Whether there is a progress bar that is due for an update."""
    return (
      self._is_shown
      and self._stream.isatty()
      and time.perf_counter() - self._shown > _REFRESH_SECONDS
    )

  def line(self, text: str) -> None:
    """Prints a line above the progress bar."""
    if not self._is_shown:
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      print(text, file=self._stream, flush=True)

  def start_clock(self, step: int) -> None:
    """Starts the estimate of the time left, after steps were compiled."""
    self._rate_from = (step, time.perf_counter())

  def progress(
    self,
    step: int,
    epoch: float,
    metrics: dict[str, float],
    images_per_second: float | None,
  ) -> None:
    """Updates the progress bar, or prints a line if not on a terminal."""
    self._shown = time.perf_counter()
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
    if not self._stream.isatty():
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
    """Removes the progress bar."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None
