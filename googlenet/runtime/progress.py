"""Shows what the process does: a line, and below it seconds or a bar."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TextIO, TypeVar

from googlenet.runtime.terminal import above_bars, columns, tell

if TYPE_CHECKING:
  import tqdm

_T = TypeVar('_T')
REFRESH_SECONDS = 0.5  # between two updates of a bar
# Seconds between two lines about the same work where there is no terminal.
LINE_SECONDS = 30.0


class _Process:
  """State of this process."""

  stream: TextIO | None = None  # the console; None: nothing is shown


def _stream() -> TextIO | None:
  """Returns where this process shows its progress, or None."""
  jax = sys.modules.get('jax')
  # Where there is one process, JAX is not asked: it would take a device.
  if jax is not None and jax.distributed.is_initialized():
    return None if jax.process_index() else _Process.stream
  return _Process.stream


@contextlib.contextmanager
def shown_on(stream: TextIO | None) -> Iterator[None]:
  """Shows progress on a stream, in process 0 only; None: nowhere."""
  before, _Process.stream = _Process.stream, stream
  try:
    yield
  finally:
    _Process.stream = before


@contextlib.contextmanager
def working(
  text: str, tick: float = 1.0, line_seconds: float = LINE_SECONDS
) -> Iterator[None]:
  """Shows a line and counts seconds: below it on a terminal, else in lines.

  Args:
    text: the line.
    tick: seconds between two updates on a terminal. Progress bars are hidden
      meanwhile.
    line_seconds: seconds between two lines elsewhere.
  """
  stream = _stream()
  if stream is None:
    yield
    return
  done, started = threading.Event(), time.monotonic()
  is_terminal = stream.isatty()

  def count() -> None:
    while not done.wait(tick if is_terminal else line_seconds):
      seconds = time.monotonic() - started
      if is_terminal:
        # \r: the next output starts in column 0 and overwrites the counter.
        stream.write(f'{seconds:10.0f} s\r')
        stream.flush()
      else:
        print(f'{text}: {seconds:.0f} s so far', file=stream, flush=True)

  with above_bars(stream):
    print(text, file=stream, flush=True)
    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
      yield
    finally:
      done.set()
      thread.join()
      if is_terminal:
        stream.write(f'{"":12}\r')
        stream.flush()


def make_bar(
  stream: TextIO, total: int, bar_format: str, **options
) -> 'tqdm.tqdm':
  """Makes a progress bar on a terminal, which goes away when it is closed."""
  import tqdm  # late: the program starts faster without it

  return tqdm.tqdm(
    total=total,
    file=stream,
    bar_format=bar_format,
    ncols=columns(stream),
    leave=False,
    **options,
  )


class Progress:
  """How far work is: a bar on a terminal, elsewhere a line now and then.

  A context; without a stream (see `shown_on`) it shows nothing.
  """

  def __init__(
    self, what: str, total: int, unit: str, line_seconds: float = LINE_SECONDS
  ):
    """Starts at 0.

    Args:
      what: the work, like 'evaluate fashion_mnist test'.
      total: number of parts.
      unit: what a part is, like 'images'.
      line_seconds: seconds between two lines where there is no terminal.
    """
    self._stream = _stream()
    self._what, self._total, self._unit = what, total, unit
    self._line_seconds = line_seconds
    self._count = 0
    self._shown = time.monotonic()  # time of the last update
    # The first part is not typical: it includes compilation.
    self._rate_from: tuple[int, float] | None = None
    self._bar = None
    if self._stream is not None and self._stream.isatty():
      self._bar = make_bar(
        self._stream,
        total,
        '{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}{postfix}',
        desc=what,
        unit=unit,
      )

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_: object) -> None:
    if self._bar is not None:
      self._bar.close()

  def update(self, count: int = 1) -> None:
    """Adds finished parts."""
    self._count += count
    now = time.monotonic()
    if self._rate_from is None:
      self._rate_from = self._count, now
    if self._stream is None:
      return
    left = time_left(self._rate_from, self._count, self._total, now)
    elapsed = now - self._shown
    if self._bar is not None:
      if elapsed >= REFRESH_SECONDS or self._count == self._total:
        self._bar.ncols = columns(self._stream)
        self._bar.n = self._count
        self._bar.set_postfix_str(f'{left} left')
        self._shown = now
    elif elapsed >= self._line_seconds:
      count = f'{self._count:,}/{self._total:,}'
      tell(f'{self._what}: {count} {self._unit}, {left} left', self._stream)
      self._shown = now


def time_left(
  rate_from: tuple[int, float] | None, count: int, total: int, now: float
) -> str:
  """Returns the time that is left, '01:20', or '?' if it is not known yet.

  Args:
    rate_from: number of parts and `time.monotonic()` from which on the speed is
      measured; None: not yet.
    count: number of parts that are done.
    total: number of all parts.
    now: `time.monotonic()`.
  """
  if rate_from is None or count <= rate_from[0]:
    return '?'
  import tqdm

  seconds = (now - rate_from[1]) / (count - rate_from[0])
  return tqdm.tqdm.format_interval(round(seconds * (total - count)))


def counted(
  parts: Iterable[_T], total: int, what: str, unit: str
) -> Iterator[_T]:
  """Yields `total` parts of work, and shows how many of them are done."""
  with Progress(what, total, unit) as progress:
    for part in parts:
      yield part
      progress.update()
