"""What --help --config=FILE prints: every field, its value, what it takes."""

import shlex
import textwrap
from typing import TextIO

import ml_collections

from googlenet import config as config_lib
from googlenet.cli.overrides import as_text
from googlenet.fields import FIELDS
from googlenet.runtime.terminal import paint

_WIDTH = 80


def render(config: ml_collections.FrozenConfigDict, stream: TextIO) -> str:
  """Returns the fields of a config as flags, in sections.

  Args:
    config: resolved.
    stream: where it will be shown.
  """
  values, lines, last = config_lib.flatten(config), [], None
  for name, field in FIELDS.items():
    section = name.rpartition('.')[0]
    if section != last:
      title = f'config.{section}' if section else 'config'
      lines += ['', paint(title, 'heading', stream)]
      last = section
    lines.append(f'  --config.{name}={to_text(values[name])}')
    indent = ' ' * 6
    lines += textwrap.wrap(
      field.allowed,
      _WIDTH,
      initial_indent=indent,
      subsequent_indent=indent,
      break_long_words=False,
    )
  lines += ['', 'Comments and units: configs/fmnist96.py']
  return '\n'.join(lines).lstrip('\n')


def to_text(value: object) -> str:
  """Returns a value as a flag takes it, in a shell's quotes if need be."""
  return shlex.quote(as_text(value)) if value != '' else ''
