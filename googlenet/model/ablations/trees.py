"""Edits of rows: what all ablations are made of."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from googlenet.errors import did_you_mean
from googlenet.model import graph, rows

POOLS = (rows.MaxPool, rows.AvgPool)


def each(node: Any, kind: Any, edit: Callable[[Any], Any]) -> Any:
  """Edits all rows of one or several types in a tree of tuples."""
  if isinstance(node, kind):
    return edit(node)
  if not isinstance(node, tuple):
    return node
  parts = [each(part, kind, edit) for part in node]
  return type(node)(*parts) if hasattr(node, '_fields') else tuple(parts)


def found_in(node: Any, kind: Any) -> list[Any]:
  """Returns all rows of one or several types in a tree of tuples."""
  found: list[Any] = []
  each(node, kind, found.append)
  return found


def branch_name(branch: rows.Branch) -> str:
  """Returns the name of a branch: '1x1', 'double_3x3', 'pool'."""
  if isinstance(branch[0], (*POOLS, rows.AdaptiveAvgPool)):
    return 'pool'
  named = found_in(branch, (rows.Conv, rows.Own))
  if not named:
    return graph.kind_of(branch[0])
  return re.sub('^conv_|_reduce$|_proj$', '', named[0].name)


def blocks_of(architecture: rows.Architecture) -> tuple[rows.Block, ...]:
  """Returns the blocks of all stages, in order."""
  return tuple(found_in(architecture.stages, rows.Block))


def check_keys(what: str, keys: Sequence[str], known: Sequence[str]) -> None:
  """Raises ValueError for a key that is not known; names those without '/'."""
  for key in keys:
    if key not in known:
      short = dict.fromkeys(name for name in known if '/' not in name)
      has = f'; it has {", ".join(short)}' if short else ''
      raise ValueError(f'has no {what} {key!r}{did_you_mean(key, known)}{has}')


def pair(text: str) -> tuple[str, str]:
  """Returns name and value of 'name=value'."""
  key, _, value = text.partition('=')
  return key, value


def number(text: str, value: str, low: int, high: int) -> int:
  """Returns the whole number that `value`, a part of `text`, stands for.

  Raises:
    ValueError: it is none, or not from `low` to `high`.
  """
  if not value.isdecimal() or not low <= int(value) <= high:
    raise ValueError(f'takes in {text!r} a whole number from {low} to {high}')
  return int(value)
