"""Colours, warnings, errors and a seconds counter on the terminal."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

# SGR parameters of ECMA-48: bold in red, yellow or the default colour.
_CODES = {'error': '1;31', 'warning': '1;33', 'heading': '1'}


def has_colours(stream: TextIO) -> bool:
  """Returns whether to use colours on a stream (https://no-color.org)."""
  return (
    stream.isatty()
    and not os.environ.get('NO_COLOR')
    and os.environ.get('TERM') != 'dumb'
  )


def paint(text: str, kind: str, stream: TextIO) -> str:
  """Returns text with the escape codes of a colour.

  Args:
    text: part of a line.
    kind: 'error', 'warning' or 'heading'.
    stream: where the text will be shown; without colours it stays unchanged.
  """
  if not has_colours(stream):
    return text
  return f'\x1b[{_CODES[kind]}m{text}\x1b[0m'


def warn(text: str) -> None:
  """Prints a warning: something went wrong, but the run continues."""
  prefix = paint('warning:', 'warning', sys.stderr)
  print(f'{prefix} {text}', file=sys.stderr, flush=True)


def tell_error(text: str) -> None:
  """Prints the error that ended the program, as one line."""
  prefix = paint('error:', 'error', sys.stderr)
  print(f'{prefix} {" ".join(text.split())}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(text: str, stream: TextIO, tick: float = 1.0) -> Iterator[None]:
  """Prints a line and, on a terminal, counts seconds below it.

  Args:
    text: the line.
    stream: where to print. Progress bars of tqdm are hidden meanwhile.
    tick: seconds between two updates.
  """
  if not stream.isatty():
    print(text, file=stream, flush=True)
    yield
    return
  import tqdm  # late: the program starts faster without it

  done, started = threading.Event(), time.monotonic()

  def count() -> None:
    while not done.wait(tick):
      # \r: the next output starts in column 0 and overwrites the counter.
      stream.write(f'{time.monotonic() - started:10.0f} s\r')
      stream.flush()

  with tqdm.tqdm.external_write_mode(file=stream, nolock=True):
    print(text, file=stream, flush=True)
    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
      yield
    finally:
      done.set()
      thread.join()
      stream.write(f'{"":12}\r')
      stream.flush()
