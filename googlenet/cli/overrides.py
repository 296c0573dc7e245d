"""Sets config fields from texts given by flags and sweeps."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.fields.flag_text import as_text
from googlenet.runtime.terminal import warn

_warn_once = functools.cache(warn)
_FIELD_FLAG = re.compile('--?(no)?config[.]([^=]*)(?:=(.*))?', re.DOTALL)


def split_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
  """Separates flags of config fields from other arguments.

  Args:
    arguments: --config.FIELD=TEXT, --config.FIELD TEXT, --config.FIELD (true),
      --noconfig.FIELD (false), and any other arguments.

  Returns:
    The last text for each field, and the other arguments. A warning says which
    text counts if a field has several.

  Raises:
    UserError: a field does not exist, or a flag lacks its value.
  """
  texts, others, rest = {}, [], list(arguments)
  while rest:
    argument = rest.pop(0)
    match = _FIELD_FLAG.fullmatch(argument)
    if not match:
      others.append(argument)
      continue
    is_denied, name, text = match.groups()
    if name not in FIELDS:
      raise config_lib.unknown_field(name)
    if is_denied:
      text = 'false' if text is None else f'not {text}'  # refused later
    elif text is None:
      is_switch = FIELDS[name].is_valid(True)
      if is_switch and rest[:1] not in (['true'], ['false']):
        text = 'true'
      elif rest and not rest[0].startswith('--'):
        text = rest.pop(0)
      else:
        raise UserError(
          f'--config.{name} has no value: give --config.{name}=VALUE, it takes '
          f'{FIELDS[name].allowed}',
          name,
        )
    if texts.get(name, text) != text:
      _warn_once(
        f'--config.{name} is given more than once: {text!r} counts, not '
        f'{texts[name]!r}'
      )
    texts[name] = text
  return texts, others


def set_fields(
  config: ml_collections.ConfigDict, texts: Mapping[str, str]
) -> None:
  """Sets fields from texts like '2', 'true', '(0.1, 0.2)', 'None'.

  A text is converted to the type of the value that it replaces.

  Args:
    config: modified in place; may be locked.
    texts: texts by field, {'train.epochs': '2'}; all fields must exist.

  Raises:
    UserError: a text cannot be converted to the type of its field.
  """
  for name, text in texts.items():
    if text == 'None' and FIELDS[name].is_valid(None):  # absl has no such value
      config.update_from_flattened_dict({name: None})
      continue
    argv = ['', f'--config.{name}={text}']  # absl skips the program's name
    values = flags.FlagValues()
    try:
      config_flags.DEFINE_config_dict(
        'config', config, flag_values=values, sys_argv=argv
      )
      values(argv)
    # absl also lets some Python errors through.
    except (flags.Error, ValueError, TypeError, AttributeError) as error:
      raise config_lib.invalid(name, text) from error


def as_flags(values: Mapping[str, Any]) -> list[str]:
  """Returns values by field as command-line flags."""
  return [f'--config.{name}={as_text(value)}' for name, value in values.items()]
