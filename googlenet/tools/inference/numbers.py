"""Checks of numbers that users give."""

import math
import operator
from typing import Any

from googlenet.errors import UserError

MAX_SEED = 2**32 - 1  # programs take seeds as uint32


def whole(value: Any) -> int | None:
  """Returns a whole number, of NumPy or JAX too; None: it is none.

  True and False are none: to take them for 1 and 0 would make channels of a
  mask.
  """
  if isinstance(value, bool):
    return None
  try:
    return operator.index(value)
  except TypeError:
    return None


def check_numbers(**numbers: tuple[int, ...]) -> None:
  """Checks whole numbers: name=(value, smallest[, largest]).

  Raises:
    UserError: a number is not whole, too small or too large.
  """
  for name, (value, least, *most) in numbers.items():
    number = whole(value)
    if number is None or number < least or any(number > top for top in most):
      upto = ''.join(f' to {limit}' for limit in most)
      raise UserError(
        f'{name}={value} is not allowed: it takes a whole number from {least}'
        f'{upto}'
      )


def check_from_0(can_be_infinite: bool = False, **numbers: float) -> None:
  """Checks numbers that need not be whole.

  Raises:
    UserError: one is no number, NaN, negative or, unless it can be, infinite.
  """
  for name, value in numbers.items():
    try:
      number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
      number = math.nan
    if not number >= 0 or (number == math.inf and not can_be_infinite):
      kind = 'number' if can_be_infinite else 'finite number'
      raise UserError(
        f'{name}={value} is not allowed: it takes a {kind} from 0'
      )
