"""GoogLeNet on JAX: train, look at and use what a config file says.

  python launch.py --config=configs/fmnist96.py
  python launch.py --help

Flags become a config, a mode works on it, errors are one line and an exit code.
"""

import os
import signal
import sys
import time

from googlenet.cli import help as help_lib
from googlenet.errors import UserError
from googlenet.runtime import backend, supervisor
from googlenet.runtime.terminal import tell_error

EXIT_DONE, EXIT_BAD_INPUT = 0, 2


def answer(argv: list[str]) -> int | None:
  """Prints what --help or --version ask for; returns the exit code, or None."""
  try:
    text = help_lib.answer(argv, sys.stdout)
  except UserError as error:
    tell_error(str(error))
    return EXIT_BAD_INPUT
  if not text:
    return None
  print(text)
  return EXIT_DONE


# The imports below take seconds: they count as part of the start, and Ctrl-C
# in the midst of them ends the program without a page of traceback.
_STARTED = time.time()
if __name__ == '__main__':
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  # Nothing is begun: the same command starts again.
  signal.signal(signal.SIGTERM, lambda *_: os._exit(supervisor.EXIT_CONTINUE))
  if (_code := answer(sys.argv)) is not None:
    sys.exit(_code)
  supervisor.supervise()
  backend.prepare(
    os.environ,
    help_lib.mode_of(sys.argv).preallocates,
    not supervisor.is_one_of_several(sys.argv[1:], os.environ),
  )
elif __name__ == '__mp_main__':  # a process that reads data: its parent ends it
  signal.signal(signal.SIGINT, signal.SIG_IGN)

import jax  # noqa: E402

from googlenet.cli import field_table  # noqa: E402
from googlenet.cli.command_line import (  # noqa: E402
  Arguments,
  parse,
  read_config,
)
from googlenet.cli.modes import MODES, function_of  # noqa: E402
from googlenet.runtime import compilation, distributed, memory  # noqa: E402
from googlenet.runtime.machine import tune_machine  # noqa: E402
from googlenet.runtime.preemption import Stopped  # noqa: E402


def main(argv: list[str]) -> int:
  """Runs the mode of a command line and returns the exit code."""
  signal.signal(signal.SIGINT, signal.default_int_handler)
  if (code := answer(argv)) is not None:
    return code
  try:
    if help_lib.asks_for_help(argv):
      config = read_config(help_lib.without_help(argv))
      print(field_table.render(config, sys.stdout))
      return EXIT_DONE
    is_alone = not supervisor.is_one_of_several(argv[1:], os.environ)
    return _run(parse(argv), is_alone)
  except (UserError, OSError, KeyboardInterrupt) as error:
    if not jax.distributed.is_initialized():
      return _tell(error)
    distributed.silence_threads()
    distributed.end_process(_tell(error))


def _tell(error: BaseException) -> int:
  """Says in a line why this has ended; returns the exit code."""
  if isinstance(error, KeyboardInterrupt):
    print('interrupted', file=sys.stderr)
    return supervisor.EXIT_INTERRUPTED
  if isinstance(error, Stopped):
    print(error, file=sys.stderr, flush=True)
  else:
    tell_error(str(error))
  return getattr(error, 'exit_code', EXIT_BAD_INPUT)


def _run(arguments: Arguments, is_alone: bool) -> int:
  mode = MODES[arguments.mode]
  if mode.workdir != 'continues':  # nothing to continue
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
  if not is_alone and not mode.uses_devices:
    raise UserError(
      f'--mode={arguments.mode} is one process, and starts others itself: give '
      '--num_processes=1'
    )
  if not is_alone:
    distributed.initialize(
      arguments.address, arguments.heartbeat_timeout_seconds
    )
  if mode.uses_devices:
    tune_machine(arguments.config.train.compilation_cache)
  run_mode = function_of(arguments.mode)
  try:  # stdout may be data: what is compiled is told on stderr
    with compilation.told_on(sys.stderr), memory.explained(mode.memory):
      run_mode(
        arguments.config, arguments.workdir, _STARTED, **arguments.options
      )
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    raise distributed.PeerError(error) from error
  return EXIT_DONE


if __name__ == '__main__':
  sys.exit(main(sys.argv))
