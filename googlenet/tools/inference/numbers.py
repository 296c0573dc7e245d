"""Checks of whole numbers that users give."""

from googlenet.errors import UserError

MAX_SEED = 2**32 - 1  # programs take seeds as uint32


def check_numbers(**numbers: tuple[int, ...]) -> None:
  """Checks whole numbers: name=(value, smallest[, largest]).

  Raises:
    UserError: a number is too small or too large.
  """
  for name, (value, least, *most) in numbers.items():
    if value < least or any(value > limit for limit in most):
      upto = ''.join(f' to {limit}' for limit in most)
      raise UserError(
        f'{name}={value} is not allowed: it takes a whole number from {least}'
        f'{upto}'
      )
