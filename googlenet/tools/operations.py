"""--operations of the tools with a command line of their own."""

import argparse
import os

from googlenet.cli import command_line

FLAG = '--operations'


def add_flag(parser: argparse.ArgumentParser) -> None:
  """Adds the flag to the parser of a tool."""
  parser.add_argument(
    FLAG,
    default='',
    metavar='FILE',
    help='file that registers operations of your own (docs/own_network.md)',
  )


def register(file: str) -> None:
  """Imports the file that registers the operations of a network; '': none.

  Raises:
    UserError: the file is missing or broken.
  """
  if file:
    command_line.import_file(FLAG, os.path.expanduser(file))
