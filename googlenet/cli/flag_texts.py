"""Texts of flags that no system takes: a flag file may hold any letter."""

from absl import flags

from googlenet.errors import UserError, shown
from googlenet.runtime import places


def check_texts(values: flags.FlagValues) -> None:
  """Checks that a system takes the texts of all flags.

  Raises:
    UserError: one of them holds NUL.
  """
  for name, value in values.flag_values_dict().items():
    if isinstance(value, str) and '\0' in value:
      raise UserError(
        f'--{name}={shown(value)} is not allowed: it holds the character NUL'
      )


def check_path(flag: str, path: str) -> None:
  """Checks that a file or folder can have the path that a flag gives.

  Raises:
    UserError: none can.
  """
  if why := places.unusable(path):
    raise UserError(
      f'--{flag}={shown(path)} cannot be a path ({why}): give another'
    )
