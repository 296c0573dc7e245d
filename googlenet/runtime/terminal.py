"""Colours, lines, warnings and errors on the terminal."""

import contextlib
import os
import sys
from typing import Any, TextIO

# SGR parameters of ECMA-48: bold in red, yellow or the default colour.
_CODES = {'error': '1;31', 'warning': '1;33', 'heading': '1'}
_COLUMNS = 80  # where a terminal does not say how wide it is


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


def columns(stream: TextIO) -> int:
  """Returns the width of a terminal in characters; 80 if it does not say."""
  try:
    return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
  except (OSError, ValueError):  # not a terminal, or not a file
    return _COLUMNS


def above_bars(stream: TextIO) -> contextlib.AbstractContextManager[None]:
  """Hides progress bars of tqdm while lines are written to a stream."""
  tqdm = sys.modules.get('tqdm')  # without it there is no bar
  if not hasattr(tqdm, 'tqdm'):
    return contextlib.nullcontext()
  # Without the lock: a signal is told while another thread compiles in here.
  return tqdm.tqdm.external_write_mode(file=stream, nolock=True)


def remove_bars() -> None:
  """Removes progress bars that work ended by an error has left."""
  tqdm = sys.modules.get('tqdm')
  for bar in list(getattr(getattr(tqdm, 'tqdm', None), '_instances', ())):
    bar.close()


def rounded(value: Any) -> str:
  """Returns a number with four digits after the point; '?' for what is none."""
  return f'{value:.4f}' if isinstance(value, int | float) else '?'


def tell(text: str, stream: TextIO | None = None) -> None:
  """Prints a line above progress bars, to stderr unless a stream is given."""
  stream = stream or sys.stderr
  with above_bars(stream):
    print(text, file=stream, flush=True)


def warn(text: str) -> None:
  """Prints a warning: something went wrong, but the run continues."""
  tell(f'{paint("warning:", "warning", sys.stderr)} {text}')


def tell_error(text: str) -> None:
  """Prints the error that ended the program, as one line."""
  line = ' '.join(text.split())
  tell(f'{paint("error:", "error", sys.stderr)} {line}')
