"""Parses --sweep and makes the trials of a sweep.

  sweep = field=value,value;field=value,...

A value is written as for the flag --config.field. Commas and semicolons within
brackets or quotes belong to the value, and quotes around a whole value are
removed: data.mean=(0.2,),(0.3,) has two values, as have data.name='a,b','c' and
model.dropout=None,0.4. Every combination is a trial; the last field changes
fastest.
"""

import collections
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.cli.overrides import set_fields
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.fields.flag_text import as_text

Sweep = dict[str, tuple[Any, ...]]  # values by field

EXAMPLE = "--sweep='optimizer.learning_rate=0.05,0.1;seed=0,1,2'"
# More trials are probably a mistake, since training them would take too long.
MAX_TRIALS = 10_000
_MAX_NAME = 200  # bytes; most file systems allow 255


class Trial(NamedTuple):
  """One combination of values."""

  index: int  # from 0
  name: str  # of the folder
  values: dict[str, Any]  # by field
  config: ml_collections.FrozenConfigDict  # resolved
  old_name: str = ''  # of the folder in a sweep of an older version

  @property
  def setting(self) -> tuple[tuple[str, Any], ...]:
    """All values but the seed: trials with equal ones are averaged."""
    return tuple((k, v) for k, v in self.values.items() if k != 'seed')


def parse(text: str, config: ml_collections.ConfigDict) -> Sweep:
  """Reads the text of --sweep.

  Args:
    text: in the grammar above.
    config: its values determine the type of each field.

  Raises:
    UserError: the text does not follow the grammar, a field is unknown or given
      twice, or a value is not allowed or given twice.
  """
  sweep: Sweep = {}
  for part in _split(text, ';'):
    name, equals, values = part.partition('=')
    name = name.strip().removeprefix('config.')
    if not equals:
      raise UserError(
        f'--sweep: {part!r} is not field=value,value: give fields and values '
        f'like {EXAMPLE}'
      )
    if name not in FIELDS:
      raise UserError(f'--sweep: {config_lib.unknown_field(name)}')
    if name in sweep:
      raise UserError(f'--sweep: {name} is given twice: give its values once')
    sweep[name] = _values(name, _split(values, ','), config)
  return sweep


def _values(
  name: str, texts: Sequence[str], config: ml_collections.ConfigDict
) -> tuple[Any, ...]:
  values = []
  for text in texts:
    if not text:
      raise UserError(
        f"--sweep: {name} has an empty value: leave it out, or write it as ''"
      )
    value = _set(config, {name: _unquote(text)})[name]
    value = FIELDS[name].current(value)
    if not FIELDS[name].is_valid(value):
      raise UserError(f'--sweep: {config_lib.invalid(name, value)}')
    if value in values:
      raise UserError(f'--sweep: {name} has the value {value!r} twice')
    values.append(value)
  return tuple(values)


def _set(
  config: ml_collections.ConfigDict, texts: Mapping[str, str]
) -> dict[str, Any]:
  """Returns all fields of a config after setting some of them."""
  copy = ml_collections.ConfigDict(config)
  try:
    set_fields(copy, texts)
  except UserError as error:
    raise UserError(f'--sweep: {error}') from error
  return config_lib.flatten(copy)


def _split(text: str, separator: str) -> list[str]:
  """Splits at separators outside of brackets and quotes; strips the parts."""
  parts, start, depth, quote = [], 0, 0, ''
  for i, letter in enumerate(text):
    if quote:
      quote = '' if letter == quote else quote
    elif letter in '\'"':
      quote = letter
    elif letter in '([{':
      depth += 1
    elif letter in ')]}':
      depth -= 1
    elif letter == separator and depth == 0:
      parts.append(text[start:i].strip())
      start = i + 1
    if depth < 0:
      break
  if depth or quote:
    raise UserError(
      f'--sweep: brackets or quotes in {text!r} are not closed: write values '
      "like (0.2,) and 'a,b'"
    )
  parts.append(text[start:].strip())
  if separator == ';':
    parts = [part for part in parts if part]
  return parts


def _unquote(text: str) -> str:
  return text[1:-1] if re.fullmatch(r"'[^']*'|\"[^\"]*\"", text) else text


def make_trials(
  sweep: Sweep, config: ml_collections.ConfigDict
) -> tuple[Trial, ...]:
  """Returns a trial for every combination of values.

  Raises:
    UserError: the config of a combination is not allowed, or there are more
      than `MAX_TRIALS`.
  """
  count = 1
  for values in sweep.values():
    count *= len(values)
  if count > MAX_TRIALS:
    raise UserError(
      f'--sweep makes {count:,} trials: give fewer values; allowed are at most '
      f'{MAX_TRIALS:,} trials'
    )
  grid = [
    dict(zip(sweep, values, strict=True))
    for values in itertools.product(*sweep.values())
  ]
  trials = []
  # --workdir=a,b splits at commas, which older versions had in names.
  names = zip(_names(grid, '__'), _names(grid, ','), strict=True)
  for i, ((name, old), values) in enumerate(zip(names, grid, strict=True)):
    copy = ml_collections.ConfigDict(config)
    try:
      set_fields(copy, {k: as_text(value) for k, value in values.items()})
      resolved = config_lib.resolve(copy)
    except UserError as error:
      raise UserError(f'--sweep: trial {name}: {error}') from error
    trials.append(Trial(i, name, values, resolved, old))
  return tuple(trials)


def short_names(fields: Sequence[str]) -> dict[str, str]:
  """Returns the last part of each name, or the whole name if two share it."""
  leaves = [field.rpartition('.')[2] for field in fields]
  return {
    field: leaf if leaves.count(leaf) == 1 else field
    for field, leaf in zip(fields, leaves, strict=True)
  }


def _names(grid: Sequence[Mapping[str, Any]], separator: str) -> list[str]:
  """Returns a unique name for each trial, valid as a folder name."""
  short = short_names(list(grid[0]))
  names = []
  for values in grid:
    parts = [f'{short[k]}={_plain(v)}' for k, v in values.items()]
    names.append(separator.join(parts))
  counts = collections.Counter(names)
  for i, (name, values) in enumerate(zip(names, grid, strict=True)):
    if counts[name] > 1 or len(name) > _MAX_NAME:
      digest = hashlib.sha256(repr(dict(values)).encode()).hexdigest()[:8]
      names[i] = f'{name[:_MAX_NAME]}-{digest}'
  return names


def _plain(value: Any) -> str:
  """Returns a value as text without special characters of a shell."""
  if isinstance(value, tuple):
    return '+'.join(map(_plain, value))
  return re.sub(r'[^A-Za-z0-9._+-]', '_', str(value))


def shard(trials: Sequence[Trial], text: str) -> list[Trial]:
  """Returns the trials of --shard=I/N; '': all trials.

  Raises:
    UserError: the text is not I/N with I < N.
  """
  if not text:
    return list(trials)
  match = re.fullmatch(r'(\d{1,9})/(\d{1,9})', text)
  if not match or int(match[1]) >= int(match[2]):
    raise UserError(
      f'--shard={text} is not allowed: it takes I/N with I from 0 to N - 1, '
      'like 0/8'
    )
  return list(trials[int(match[1]) :: int(match[2])])
