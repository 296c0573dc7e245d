"""The program: flags choose a config and a mode, which works on the config.

`python launch.py`, the command `googlenet` and `python -m googlenet` run it.
"""

import sys
import time

from absl import flags

from googlenet.cli import help as help_lib
from googlenet.cli import mode_flags, modes, process

FLAGS = flags.FlagValues()
flags.DEFINE_string(
  'config',
  '',
  'config file or run (folder or name); default: that of --workdir',
  flag_values=FLAGS,
)
flags.DEFINE_string(
  'workdir',
  '',
  'folder of a new or existing run; default: a new dated folder in runs/',
  flag_values=FLAGS,
)
flags.DEFINE_string(
  'operations',
  '',
  'file that registers operations of your own (docs/own_network.md); default: '
  '--config',
  flag_values=FLAGS,
)
flags.DEFINE_string('mode', 'train', 'what to do', flag_values=FLAGS)
mode_flags.define_flags(FLAGS)


def main(argv: list[str]) -> int:
  """Runs the mode that a command line names; returns the exit code."""
  started = time.monotonic()
  with process.ending() as end:
    if text := help_lib.answer(FLAGS, argv, sys.stdout):
      process.print_result(text)
      return end.code
    arguments = process.read_arguments(FLAGS, argv)
    with process.computing(arguments) as arguments:
      run = modes.function_of(arguments.mode)
      run(arguments.config, arguments.workdir, started, **arguments.options)
  return end.code


def run() -> None:
  """Runs the command line of this process and ends it."""
  process.prepare(FLAGS, sys.argv)
  process.leave(main(sys.argv))
