"""Fields of a config set from texts, as flags and sweeps give them."""

import re
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.fields import FIELDS

_FIELD_FLAG = re.compile('--?(?:no)?config[.]([^=]*)')


class StrayArgument(UserError):
  """An argument that sets no field: a flag like `--name`, or a word."""

  def __init__(self, argument: str):
    is_flag = argument.startswith('--')
    super().__init__(
      f'{argument} is not a flag'
      if is_flag
      else f'{argument!r} is no flag: all input is given as --flag=value'
    )
    self.argument = argument


def set_fields(
  config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> None:
  """Sets fields from arguments like --config.train.epochs=2.

  A text is read as the type of the value that it replaces: numbers, true and
  false, tuples as Python writes them, None where a field may be that.

  Args:
    config: is changed; it may be locked.
    arguments: of a command line, without the name of the program.

  Raises:
    UserError: an unknown field, a text that its type does not allow, or a
      `StrayArgument`.
  """
  for argument in arguments:
    match = _FIELD_FLAG.match(argument)
    if match and match[1] not in FIELDS:
      raise config_lib.unknown_field(match[1])
  # absl wants the name of a program first.
  argv = ['', *_set_none(config, arguments)]
  fields = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=fields, sys_argv=argv
    )
    positional = fields(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    raise StrayArgument(f'--{error.flagname}') from error
  # Beside its own errors absl lets some of Python's through.
  except (flags.Error, ValueError, TypeError, AttributeError) as error:
    raise UserError(_value_problem(argv, str(error))) from error
  if positional:
    raise StrayArgument(positional[0])


def as_text(value: Any) -> str:
  """Returns the text that `set_fields` reads as a value."""
  if isinstance(value, (tuple, list)):
    return str(tuple(value)).replace("'", '"')
  return str(value)


def _set_none(
  config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> list[str]:
  """Sets fields whose last text is None; returns the other arguments.

  absl knows no such value.
  """
  others, nones = [], set()
  for argument in arguments:
    match = _FIELD_FLAG.match(argument)
    name, text = match[1] if match else '', argument.partition('=')[2]
    if match and text == 'None' and FIELDS[name].is_valid(None):
      nones.add(name)
      others = [a for a in others if not a.startswith(f'--config.{name}=')]
    else:
      nones.discard(name)
      others.append(argument)
  config.update_from_flattened_dict(dict.fromkeys(nones))
  return others


def _value_problem(argv: list[str], text: str) -> str:
  """Returns one line for a value that absl refused."""
  for name in re.findall(r'config[.]([\w.]+)', text):
    for arg, following in zip(argv, (*argv[1:], ''), strict=True):
      flag, equals, value = arg.partition('=')
      if flag.lstrip('-') in (f'config.{name}', f'noconfig.{name}'):
        value = value if equals else following
        if f'={value}' in text or not equals:
          return str(config_lib.invalid(name, value))
  return text
