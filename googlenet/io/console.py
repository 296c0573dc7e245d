"""The console of a run: a progress bar on a terminal, plain lines elsewhere."""

import math
import time
from typing import TextIO

import jax
import tqdm

from googlenet.runtime.progress import (
  LINE_SECONDS,
  REFRESH_SECONDS,
  make_bar,
  time_left,
)
from googlenet.runtime.terminal import columns, tell


class Console:
  """Shows the lines and the progress of a run, in process 0 only."""

  def __init__(self, stream: TextIO, total_steps: int):
    self._stream = stream
    self._is_shown = jax.process_index() == 0
    self._total = total_steps
    self._bar: tqdm.tqdm | None = None
    self._shown = time.monotonic()  # time of the last update
    self._rate_from: tuple[int, float] | None = None

  @property
  def wants_progress(self) -> bool:
    """Whether an update is due, between those of `logging.every_steps`."""
    every = REFRESH_SECONDS if self._stream.isatty() else LINE_SECONDS
    return self._is_shown and time.monotonic() - self._shown > every

  def line(self, text: str) -> None:
    """Prints a line above the progress bar."""
    if self._is_shown:
      tell(text, self._stream)

  def start_clock(self, step: int) -> None:
    """Starts the estimate of the time left, after steps were compiled."""
    self._rate_from = (step, time.monotonic())

  def progress(
    self,
    step: int,
    epoch: float,
    metrics: dict[str, float],
    images_per_second: float | None,
  ) -> None:
    """Updates the progress bar, or prints a line if not on a terminal."""
    self._shown = time.monotonic()
    if not self._is_shown:
      return
    rate = '?' if images_per_second is None else f'{images_per_second:.0f}'
    left = time_left(self._rate_from, step, self._total, self._shown)
    text = (
      f'loss {metrics.get("loss", math.nan):.3f}  '
      f'accuracy {metrics.get("accuracy", math.nan):.3f}  '
      f'{rate} images/s  {left} left'
    )
    if metrics.get('skipped_steps'):
      text += f'  {metrics["skipped_steps"]:.0f} step(s) skipped'
    if not self._stream.isatty():
      self.line(f'step {step}/{self._total}  epoch {epoch:.2f}  {text}')
      return
    if self._bar is None:
      self._bar = make_bar(
        self._stream,
        self._total,
        '{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}  {desc}',
      )
    self._bar.ncols = columns(self._stream)
    self._bar.set_description_str(text, refresh=False)
    self._bar.n = step
    self._bar.refresh()

  def close(self) -> None:
    """Removes the progress bar."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None
