"""Networks and operations of one's own: rows as text, and a register.

A config file builds an `Architecture` from `rows` and `blocks`, and gives the
config its text:

  config.model.variant = 'own'
  config.model.architecture = own.to_text(architecture)

The text is JSON, so a run holds its network as data and needs no file of its
author. Only operations that `register` adds are code: such a run is used with
the config file that registers them.
"""

import functools
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from googlenet.errors import UserError, did_you_mean
from googlenet.model import rows
from googlenet.model.initialization import INITIALIZERS

VARIANT = 'own'  # of `model.variant`
FIELD = 'model.architecture'
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
    UserError: the text is no JSON of rows, or a row has a value that is not
      allowed, or names occur twice.
  """
  try:
    found = _decode(json.loads(text))
  except (ValueError, RecursionError) as error:
    raise _error(f'it is no JSON of rows: {error}') from error
  if not isinstance(found, rows.Architecture):
    raise _error('it is no Architecture: give own.to_text(Architecture(...))')
  _check_names(found)
  return found


def _error(what: str) -> UserError:
  return UserError(f'config.{FIELD}: {what}', FIELD)


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
  name, op = node.get('op'), _OPS.get(node.get('op', ''))
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


# ---- Operations.


class Operation(NamedTuple):
  """An operation that is registered: (map [B, H, W, C], **options) -> map."""

  function: Callable[..., jax.Array]


_REGISTERED: dict[str, Operation] = {}


def register(name: str, function: Callable[..., jax.Array]) -> None:
  """Makes a Haiku function an operation: `rows.Own('my_layer', name)`.

  Args:
    name: by which rows call it.
    function: (x float [B, H, W, C], is_training, **options) -> float
      [B, H', W', C']. It may use Haiku modules and `hk.get_parameter`; nothing
      random and no state. It is compiled, and differentiated by JAX.
  """
  _REGISTERED[name] = Operation(function)
  sizes.cache_clear()  # of a function that had this name before


def find(row: rows.Own) -> Operation:
  """Returns the operation of a row.

  Raises:
    UserError: nobody has registered it.
  """
  if row.function not in _REGISTERED:
    raise _error(
      f'the operation {row.function!r} of {row.name} is not registered'
      f'{did_you_mean(row.function, _REGISTERED)}; give the config file that '
      'calls own.register, as in --config=configs/mine.py'
    )
  return _REGISTERED[row.function]


def check_registered(node: Any) -> None:
  """Raises UserError if a row of a tree of rows is not registered."""
  if isinstance(node, rows.Own):
    find(node)
  elif isinstance(node, tuple):
    for part in node:
      check_registered(part)


class Layer(hk.Module):
  """A registered operation, its parameters under the name of the row."""

  def __init__(self, row: rows.Own):
    super().__init__(row.name)
    self._row = row

  def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
    """Applies the operation to a map [B, H, W, C]."""
    options = dict(self._row.options)
    return find(self._row).function(x, is_training, **options)


@functools.lru_cache(maxsize=256)
def sizes(row: rows.Own, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
  """Returns the output shape and the number of parameters, for one image.

  Raises:
    ValueError: the operation does not take maps of this shape.
  """
  transformed = hk.transform(lambda x: Layer(row)(x, False))
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  try:
    params = jax.eval_shape(transformed.init, jax.random.key(0), x)
    y = jax.eval_shape(transformed.apply, params, None, x)
  except (TypeError, ValueError, AssertionError) as error:
    raise ValueError(f'{row.name} takes no map of {shape}: {error}') from error
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  return y.shape[1:], count
