"""Standard streams on which no output can fail.

What a program shows must not stop it: not a reader that has ended (`| head`), a
full disk below a log, a closed terminal, a closed stream, nor characters that
the encoding of the stream lacks. The first failure is kept, for commands whose
result is what they print.
"""

import codecs
import io
import os
import select
import sys
from typing import TextIO

from googlenet.errors import EXIT_BROKEN_PIPE, UserError

_ERRORS = 'googlenet.shown'


class _Output(io.FileIO):
  """A descriptor that drops what cannot be written; keeps the first error."""

  error: OSError | None = None

  def write(self, data) -> int:
    left = memoryview(data).cast('B')
    try:
      while left:
        if (count := super().write(left)) is None:  # it would have to wait
          select.select((), (self,), ())
        left = left[count or 0 :]
    except OSError as error:
      self.error = self.error or error
    return len(data)


def _encode(error: UnicodeError) -> tuple[bytes, int]:
  """Encodes what an encoding lacks: 'é' as '\\xe9', bytes of names as such."""
  if not isinstance(error, UnicodeEncodeError):
    raise error
  bad = error.object[error.start : error.end]
  parts = [
    # Python decodes a byte of a file name that is not UTF-8 to U+DC80 + n.
    bytes([ord(c) & 0xFF])
    if '\udc80' <= c <= '\udcff'
    else c.encode('ascii', 'backslashreplace')
    for c in bad
  ]
  return b''.join(parts), error.end


codecs.register_error(_ERRORS, _encode)


def is_text(name: str) -> bool:
  """Returns whether a file name is UTF-8, which C++ libraries ask for."""
  try:
    name.encode()
  except UnicodeEncodeError:
    return False
  return True


def make(descriptor: int, like: TextIO | None = None) -> TextIO:
  """Returns a stream on which no output can fail.

  Args:
    descriptor: an open file; stays open.
    like: a stream whose encoding and buffering are taken over.
  """
  output = _Output(descriptor, 'wb', closefd=False)
  is_direct = getattr(like, 'write_through', False)  # python -u
  return io.TextIOWrapper(
    output if is_direct else io.BufferedWriter(output),
    encoding=getattr(like, 'encoding', None) or 'utf-8',
    errors=_ERRORS,
    line_buffering=getattr(like, 'line_buffering', True),
    write_through=is_direct,
  )


def protect() -> None:
  """Makes stdout and stderr such streams, and opens those that are closed.

  Call this at the start of the program. Otherwise the first file that it opens
  would take the place of a closed stream.
  """
  while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
    os.set_inheritable(descriptor, True)
  os.close(descriptor)
  if sys.stdin is None:
    sys.stdin = open(0, encoding='locale', closefd=False)  # noqa: SIM115
  sys.stdin.reconfigure(errors='surrogateescape')  # lists of file names
  if os.name == 'nt':  # a console there takes UTF-16 by a call of its own
    return
  sys.stdout = make(1, sys.stdout)
  sys.stderr = make(2, sys.stderr)


class ReaderGoneError(UserError):
  """Who reads the result has ended, as in `| head`: no message."""

  exit_code = EXIT_BROKEN_PIPE


def check(stream: TextIO) -> None:
  """Checks that all output so far was written, if `make` made the stream.

  Raises:
    ReaderGoneError: the stream is a pipe that nobody reads.
    OSError: output is lost for another reason, like a full disk.
  """
  stream.flush()
  buffer = getattr(stream, 'buffer', None)
  output = getattr(buffer, 'raw', buffer)
  if not isinstance(output, _Output) or output.error is None:
    return
  if isinstance(output.error, BrokenPipeError):
    raise ReaderGoneError from output.error
  raise output.error
