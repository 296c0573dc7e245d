"""Values of fields as texts that a flag takes."""

from typing import Any


def as_text(value: Any) -> str:
  """Returns the text of a value, as `cli.overrides.set_fields` reads it."""
  return _literal(value) if isinstance(value, (tuple, list)) else str(value)


def _literal(value: Any) -> str:
  """Returns a value of a tuple as Python reads it.

  A text is in double quotes where it can be, as the whole is in single quotes
  in a shell.
  """
  if isinstance(value, (tuple, list)):
    parts = [_literal(part) for part in value]
    return f'({", ".join(parts)}{"," * (len(parts) == 1)})'
  if isinstance(value, str) and '"' not in value:
    return '"' + repr("'" + value)[2:]  # with an apostrophe it takes those
  return repr(value)
