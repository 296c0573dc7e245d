"""Custom networks: rows as text, for `config.model.architecture`.

A config file builds an `Architecture` from `rows` and `blocks`:

  config.model.variant = 'own'
  config.model.architecture = to_text(architecture)

The text is JSON, so a run holds its network as data.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from googlenet.errors import UserError, did_you_mean
from googlenet.model import graph, own, rows
from googlenet.model.initialization import INITIALIZERS

OWN = 'own'  # of `model.variant`
PADDINGS = ('SAME', 'VALID', 'CEIL')  # see kernels/padding.py

_OPS: dict[str, type] = {
  op.__name__: op
  for op in (
    rows.AdaptiveAvgPool,
    rows.Architecture,
    rows.AuxHead,
    rows.AvgPool,
    rows.Block,
    rows.Conv,
    rows.ConvLayer,
    rows.Dense,
    rows.Dropout,
    rows.Flatten,
    rows.Fork,
    rows.GlobalMean,
    rows.LocalResponseNorm,
    rows.MaxPool,
    rows.Own,
    rows.Residual,
    rows.SqueezeExcite,
    rows.Stage,
  )
}


def to_text(architecture: rows.Architecture) -> str:
  """Returns an architecture as JSON, for `config.model.architecture`.

  Raises:
    UserError: it is not a network that can be computed; see `from_text`.
  """
  text = json.dumps(_encode(architecture), separators=(',', ':'))
  from_text(text)
  return text


def from_text(text: str) -> rows.Architecture:
  """Returns the architecture of a text that `to_text` made.

  Raises:
    UserError: the text is not JSON of rows, a row has a value that is not
      allowed, a name occurs twice, or a head mixes up maps and vectors.
  """
  try:
    found = _decode(json.loads(text))
  except UserError:  # a ValueError too
    raise
  except (ValueError, RecursionError) as error:
    raise _error(f'it is no JSON of rows: {error}') from error
  if not isinstance(found, rows.Architecture):
    raise _error('it is no Architecture: give to_text(Architecture(...))')
  _check_names(found)
  for name, ops in (
    ('the head', found.head),
    *((head.name, head.ops) for head in found.aux_heads),
  ):
    _check_head(name, ops)
  return found


def has_operations(text: str) -> bool:
  """Whether a network that is written as text has custom operations."""
  return bool(text) and f'"op":"{rows.Own.__name__}"' in text.replace(' ', '')


def _error(what: str) -> UserError:
  return UserError(f'config.{own.FIELD}: {what}', own.FIELD)


def _encode(node: Any) -> Any:
  """Turns rows into dictionaries, without fields that have their default."""
  if hasattr(node, '_fields'):
    defaults = node._field_defaults
    fields = {
      name: _encode(value)
      for name, value in node._asdict().items()
      if name not in defaults or value != defaults[name]
    }
    return {'op': type(node).__name__, **fields}
  return [_encode(part) for part in node] if isinstance(node, tuple) else node


def _decode(node: Any) -> Any:
  """The inverse of `_encode`; raises UserError for unknown or bad rows."""
  if isinstance(node, list):
    return tuple(_decode(part) for part in node)
  if not isinstance(node, dict):
    return node
  name = node.get('op')
  op = _OPS.get(name) if isinstance(name, str) else None
  if op is None:
    raise _error(
      f'{name!r} is no operation{did_you_mean(str(name), _OPS)}; allowed is '
      f'one of {", ".join(_OPS)}'
    )
  values = {key: _decode(value) for key, value in node.items() if key != 'op'}
  unknown = sorted(values.keys() - set(op._fields))
  missing = sorted(set(op._fields) - op._field_defaults.keys() - values.keys())
  if unknown or missing:
    raise _error(
      f'{name} has the fields {", ".join(op._fields)}: '
      + ', '.join(
        [*(f'{x} is none of them' for x in unknown)]
        + [*(f'{x} is missing' for x in missing)]
      )
    )
  row = op(**values)
  for key, value in row._asdict().items():
    is_valid, allowed = _RULES.get((name, key)) or _RULES.get(key, _ANY)
    if not is_valid(value):
      raise _error(f'{name}.{key}={value!r} is not allowed: {allowed}')
  return row


def _is_count(value: Any, least: int = 1) -> bool:
  return type(value) is int and least <= value <= 1_000_000


def _are(value: Any, *types: type) -> bool:
  return isinstance(value, tuple) and all(type(x) in types for x in value)


_INNER = (
  *(rows.Conv, rows.MaxPool, rows.AvgPool, rows.AdaptiveAvgPool),
  *(rows.SqueezeExcite, rows.Fork, rows.Own),
)
_IN_STAGES = (
  *(rows.ConvLayer, rows.Block, rows.MaxPool, rows.AvgPool),
  *(rows.LocalResponseNorm, rows.Dropout, rows.Own),
)
_IN_HEADS = (
  *_INNER,
  *(rows.GlobalMean, rows.Flatten, rows.Dense, rows.Dropout),
)
_WINDOW = (_is_count, 'a whole number from 1')
_FRACTION = (
  lambda v: type(v) in (int, float) and 0 <= v < 1,
  'a number from 0, below 1',
)
_NUMBER = (
  lambda v: type(v) in (int, float) and math.isfinite(v),
  'a number',
)
_FLAG = (lambda v: type(v) is bool, 'true or false')
_ANY = (lambda v: True, '')
_OPS_OF_HEAD = (
  lambda v: v and _are(v, *_IN_HEADS),
  f'one or more of {", ".join(x.__name__ for x in _IN_HEADS)}',
)
# (is_valid, allowed) by (operation, field), or by field.
_RULES: dict[Any, tuple[Callable[[Any], bool], str]] = {
  'name': (
    lambda v: isinstance(v, str) and re.fullmatch('[a-z][a-z0-9_]*', v),
    'small letters, digits and _, first a letter',
  ),
  'width': _WINDOW,
  ('Dense', 'width'): (
    lambda v: _is_count(v, 0),
    'a whole number from 1, or 0: the number of classes',
  ),
  ('Conv', 'width'): (
    lambda v: _is_count(v, 0),
    'a whole number from 1, or 0: the number of classes',
  ),
  'kernel_size': (
    lambda v: (
      _is_count(v)
      or (isinstance(v, tuple) and len(v) == 2 and all(map(_is_count, v)))
    ),
    'a whole number from 1, or two: height and width',
  ),
  'stride': _WINDOW,
  'window': _WINDOW,
  'size': _WINDOW,
  'reduction': _WINDOW,
  'padding': (
    lambda v: v in PADDINGS if isinstance(v, str) else _is_count(v, 0),
    f'one of {", ".join(PADDINGS)}, or pixels from 0',
  ),
  'alpha': _NUMBER,
  'beta': _NUMBER,
  'k': _NUMBER,
  'scale': _NUMBER,
  'is_linear': _FLAG,
  'count_padding': _FLAG,
  'uses_aux_heads': _FLAG,
  'drop_rate': _FRACTION,
  ('Architecture', 'dropout'): _FRACTION,
  ('Dropout', 'rate'): (lambda v: v is None or _FRACTION[0](v), _FRACTION[1]),
  'normalization': (
    lambda v: v in ('none', 'lrn', 'batch'),
    'one of none, lrn, batch',
  ),
  'initializer': (
    lambda v: v in INITIALIZERS,
    f'one of {", ".join(INITIALIZERS)}',
  ),
  'function': (lambda v: isinstance(v, str), 'the name of an operation'),
  'options': (
    lambda v: (
      _are(v, tuple) and all(len(x) == 2 and isinstance(x[0], str) for x in v)
    ),
    'pairs of a name and a value',
  ),
  'branches': (
    lambda v: (
      isinstance(v, tuple) and v and all(x and _are(x, *_INNER) for x in v)
    ),
    'one or more lists of operations',
  ),
  'after': (
    lambda v: isinstance(v, str) or _are(v, *_INNER),
    'operations; of an AuxHead, the name of a row',
  ),
  'convs': (lambda v: v and _are(v, rows.Conv), 'one or more Conv'),
  'pool': (lambda v: v is None, 'left out'),
  'rows': (
    lambda v: v and _are(v, *_IN_STAGES),
    f'one or more of {", ".join(x.__name__ for x in _IN_STAGES)}',
  ),
  'stages': (lambda v: v and _are(v, rows.Stage), 'one or more Stage'),
  'head': _OPS_OF_HEAD,
  'ops': _OPS_OF_HEAD,
  'aux_heads': (lambda v: _are(v, rows.AuxHead), 'AuxHead'),
  'residual': (
    lambda v: v is None or isinstance(v, rows.Residual),
    'a Residual, or left out',
  ),
}


def _check_names(architecture: rows.Architecture) -> None:
  """Raises UserError if names occur twice or a head stands after no row."""

  def names(node: Any) -> list[str]:
    """Names within a row, of branches too."""
    if hasattr(node, 'name'):
      return [node.name]
    parts = node if isinstance(node, tuple) else ()
    return [name for part in parts for name in names(part)]

  stage_rows = [row for stage in architecture.stages for row in stage.rows]
  named = [row for row in stage_rows if hasattr(row, 'name')]
  tops = [stage.name for stage in architecture.stages]
  tops += [row.name for row in named]
  tops += [head.name for head in architecture.aux_heads]
  tops += names(architecture.head)
  groups = {'the network': tops}
  for row in (*named, *architecture.aux_heads):
    inner = tuple(part for part in row if isinstance(part, tuple))
    groups[row.name] = names(tuple(inner))
  for where, found in groups.items():
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
      raise _error(f'{where} has {twice[0]!r} twice: each needs its own name')
  for head in architecture.aux_heads:
    if head.after not in [row.name for row in named]:
      raise _error(
        f'the head {head.name} stands after {head.after!r}, which is no row; '
        f'allowed is one of {", ".join(row.name for row in named)}'
      )


def _check_head(name: str, ops: tuple[Any, ...]) -> None:
  """Raises UserError if operations of a head mix up maps and vectors."""
  is_map = True
  for op in ops:
    takes_map = not isinstance(op, rows.Dense)
    if takes_map != is_map and not isinstance(op, rows.Dropout):
      kinds = {True: 'map', False: 'vector'}
      raise _error(
        f'{name} has {type(op).__name__}, which takes a {kinds[takes_map]}, '
        f'after a {kinds[is_map]}; GlobalMean and Flatten make a vector of a '
        'map'
      )
    is_map = is_map and not isinstance(op, rows.GlobalMean | rows.Flatten)


@own.cached
def read_network(text: str) -> rows.Architecture:
  """Returns the network of a text.

  Raises:
    UserError: as in `from_text`; or an operation is not registered, the network
      cannot be computed, or a head does not end in one number for each class.
  """
  architecture = from_text(text)
  own.check_registered(architecture)
  try:
    graph.smallest_image(architecture)
  except TypeError as error:  # of an operation, at any size of image
    raise _error(str(error)) from error
  except ValueError as error:
    reason = error
    try:
      graph.graph(architecture, (224, 224, 3))
    except ValueError as first:  # says more than that no size is large enough
      reason = first
    raise _error(str(reason)) from error
  layers = graph.graph(architecture)
  # The last layer of each head: of auxiliary ones by name.
  ends = {layer.row: layer for layer in layers if layer.is_side}
  for name, last in [*ends.items(), ('the head', layers[-1])]:
    if last.shape != (rows.CLASSES,):
      raise _error(
        f'{name} ends with {last.name} of {last.shape} numbers; end it with '
        'rows.LOGITS, a number for each class'
      )
  return architecture
