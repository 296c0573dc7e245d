"""Process setup: signals, JAX settings, exit codes.

JAX reads its settings when it is imported, so this file must not import JAX.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

from absl import flags

from googlenet.cli import help as help_lib
from googlenet.cli.modes import MODES, parse_flags
from googlenet.errors import (
  EXIT_BAD_INPUT,
  EXIT_CANNOT_WRITE,
  EXIT_DONE,
  EXIT_INTERRUPTED,
  Stopped,
  UserError,
  is_full,
  write_failure,
)
from googlenet.runtime import backend, signals, streams, supervisor
from googlenet.runtime.terminal import remove_bars, tell, tell_error

if TYPE_CHECKING:
  from googlenet.cli.command_line import Arguments


def prepare(values: flags.FlagValues, argv: list[str]) -> None:
  """Prepares the process of a command line before JAX is imported.

  In a multi-process run this starts a child, and only the child returns. It
  says on stderr what the process does, since JAX takes seconds to load.

  Args:
    values: the defined flags.
    argv: the name of the program, then its arguments.
  """
  streams.protect()
  try:
    rest = parse_flags(values, argv)
  except UserError:  # `launch.main` parses again and reports it
    return
  is_alone = not supervisor.is_one_of_several(
    values.num_processes, values.coordinator_address, os.environ
  )
  supervisor.supervise(is_alone)
  mode = MODES.get(values.mode, MODES['train'])
  backend.prepare(os.environ, mode.preallocates, is_alone)
  is_first = is_alone or values.process_id == 0
  if is_first and values.mode in MODES and not help_lib.is_asked(rest):
    of = values.workdir or values.config
    tell(f'mode     {" ".join([values.mode, of]).strip()}: loading JAX')


def print_result(text: str) -> None:
  """Prints the whole result of a command.

  Raises:
    OSError: it cannot be printed.
    ReaderGoneError: nobody reads it.
  """
  print(text)
  streams.check(sys.stdout)


def run_tool(main: Callable[[list[str]], int]) -> NoReturn:
  """Runs the `main` of a tool with a command line of its own, and ends."""
  streams.protect()
  with ending() as end:
    end.code = main(sys.argv[1:])
    streams.check(sys.stdout)
  leave(end.code)


def leave(code: int) -> NoReturn:
  """Ends the process; a signal meanwhile causes no traceback."""
  sys.stdout.flush()
  signals.end_at_once()
  sys.exit(code)


class End:
  """Holds the exit code of a command."""

  code = EXIT_DONE


@contextlib.contextmanager
def ending() -> Iterator[End]:
  """Reports user errors, OS errors and Ctrl-C in one line, without traceback.

  Yields:
    An `End`; its `code` is the exit code after the block.
  """
  end = End()
  try:
    yield end
    _flush_stdout()
  except (UserError, OSError, KeyboardInterrupt) as error:
    jax = sys.modules.get('jax')
    if jax is not None and jax.distributed.is_initialized():
      from googlenet.runtime import distributed

      distributed.silence_threads()
      distributed.end_process(_tell(error))
    end.code = _tell(error)


def _flush_stdout() -> None:
  """Writes what is left for stdout, which may be a file on a full disk."""
  try:
    sys.stdout.flush()
  except OSError as error:
    if is_full(error):
      raise


def _tell(error: BaseException) -> int:
  """Prints one line that says why the program ends; returns the exit code."""
  remove_bars()
  if isinstance(error, KeyboardInterrupt):
    tell('interrupted')
    return EXIT_INTERRUPTED
  if is_full(error):
    if error.filename is None:  # Python would flush stdout again at its end
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    tell_error(write_failure(error))
    return EXIT_CANNOT_WRITE
  if isinstance(error, Stopped):
    tell(str(error))
  elif not isinstance(error, streams.ReaderGoneError):
    tell_error(str(error))
  return getattr(error, 'exit_code', EXIT_BAD_INPUT)


def read_arguments(values: flags.FlagValues, argv: list[str]) -> 'Arguments':
  """Imports JAX and parses the command line, see `command_line.parse`.

  Raises:
    UserError: as `parse`; or Python runs without docstrings, which Haiku reads
      while it is imported.
  """
  if sys.flags.optimize > 1:
    raise UserError(
      f'Python runs with -{sys.flags.optimize * "O"} (PYTHONOPTIMIZE='
      f'{sys.flags.optimize}), without the docstrings that Haiku needs: leave '
      'that out, or give 1'
    )
  from googlenet.cli import command_line

  return command_line.parse(values, argv)


@contextlib.contextmanager
def computing(arguments: 'Arguments') -> Iterator['Arguments']:
  """Starts JAX for a mode; turns its runtime errors into one-line errors.

  Args:
    arguments: the parsed command line.

  Yields:
    The arguments, their configs with what the data sets decide (unless the
    mode does).

  Raises:
    UserError: the mode does not support several processes, they cannot connect
      or one of them ends, there is no device, memory runs out, or the result
      cannot be printed.
  """
  import jax

  from googlenet.cli import command_line
  from googlenet.runtime import distributed, memory, progress
  from googlenet.runtime.machine import tune_machine

  mode = MODES[arguments.mode]
  signal.signal(signal.SIGINT, signal.default_int_handler)
  if mode.workdir != 'continues':  # no run to save
    signals.restore_defaults()
  address = arguments.address
  if supervisor.is_one_of_several(
    address.num_processes, address.coordinator_address, os.environ
  ):
    if not mode.uses_devices:
      raise UserError(
        f'--mode={arguments.mode} is one process, and starts others itself: '
        'give --num_processes=1'
      )
    distributed.initialize(address, arguments.heartbeat_timeout_seconds)
  if mode.uses_devices:
    tune_machine(arguments.config.train.compilation_cache)
  try:  # progress is shown on stderr, because stdout may carry results
    with (
      progress.shown_on(sys.stderr),
      memory.explained(mode.memory),
    ):
      # Imported weights decide for themselves, and may not fit the data set.
      yield command_line.completed(arguments) if mode.completes else arguments
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    raise distributed.PeerError(error) from error
  if mode.prints_result and not arguments.options.get('output'):
    streams.check(sys.stdout)
