"""Trains networks of the GoogLeNet family, and uses trained ones.

  python launch.py --config=configs/fmnist96.py
  python launch.py --help

Flags choose a config and a mode; the mode does its work on the config.
"""

import os
import sys
import time

# With PYTHONSAFEPATH Python leaves this file's folder out.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

if __name__ == '__main__':  # a signal may come during the imports
  from googlenet.runtime import signals

  signals.end_at_once()

from absl import flags

from googlenet.cli import help as help_lib
from googlenet.cli import modes, process

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
flags.DEFINE_string('mode', 'train', 'what to do', flag_values=FLAGS)
modes.define_flags(FLAGS)


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


if __name__ == '__main__':
  process.prepare(FLAGS, sys.argv)
  process.leave(main(sys.argv))
