"""Colours on a terminal, and nowhere else; warnings in a line; waiting."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

# SGR parameters of ECMA-48: bold, with red, yellow or the colour of the text.
_CODES = {'error': '1;31', 'warning': '1;33', 'heading': '1'}


def has_colours(stream: TextIO) -> bool:
  """Whether to colour what a stream shows (https://no-color.org)."""
  return (
    stream.isatty()
    and not os.environ.get('NO_COLOR')
    and os.environ.get('TERM') != 'dumb'
  )


def paint(text: str, kind: str, stream: TextIO) -> str:
  """Returns text in the colour of an 'error', 'warning' or 'heading'.

  Args:
    text: a part of a line.
    kind: what it is.
    stream: where it will be shown; one without colours gets the text alone.
  """
  if not has_colours(stream):
    return text
  return f'\x1b[{_CODES[kind]}m{text}\x1b[0m'


def warn(text: str) -> None:
  """Prints a line of what went wrong without ending the run."""
  prefix = paint('warning:', 'warning', sys.stderr)
  print(f'{prefix} {text}', file=sys.stderr, flush=True)


def tell_error(text: str) -> None:
  """Prints the line of what ended the program."""
  prefix = paint('error:', 'error', sys.stderr)
  print(f'{prefix} {" ".join(text.split())}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(text: str, stream: TextIO, tick: float = 1.0) -> Iterator[None]:
  """Prints a line; on a terminal, below it, the seconds that its cause takes.

  Args:
    text: the line.
    stream: where it is shown. Bars of tqdm make way meanwhile.
    tick: seconds between two counts.
  """
  if not stream.isatty():
    print(text, file=stream, flush=True)
    yield
    return
  import tqdm  # late: the start of the program does without

  done, started = threading.Event(), time.monotonic()

  def count() -> None:
    while not done.wait(tick):
      # What is printed next begins where this line does, and covers it.
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
