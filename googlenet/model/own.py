"""Custom operations: a registry of Haiku functions.

  own.register('gate', gate)
  rows.Own('my_gate', 'gate', (('start', 0.25),))

A run keeps only the name of an operation: it is used with the config file that
registers it.
"""

import functools
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from googlenet.errors import UserError, did_you_mean
from googlenet.model import rows

FIELD = 'model.architecture'
Operation = Callable[..., jax.Array]  # (map [B, H, W, C], is_training) -> map


_REGISTERED: dict[str, Operation] = {}
_CLEAR: list[Callable[[], None]] = []  # of the caches that depend on those


def cached(function: Callable[..., Any]) -> Any:
  """Caches a function of rows until an operation is registered."""
  wrapped = functools.lru_cache(maxsize=256)(function)
  _CLEAR.append(wrapped.cache_clear)
  return wrapped


def register(name: str, function: Operation) -> None:
  """Registers a Haiku function as an operation: `rows.Own('my_layer', name)`.

  Args:
    name: the name that rows give in `function`.
    function: (x float [B, H, W, C], is_training, **options) -> float
      [B, H', W', C']. It may use Haiku modules and `hk.get_parameter`; nothing
      random and no state. It is compiled, and differentiated by JAX.
  """
  _REGISTERED[name] = function
  for clear in _CLEAR:  # another function may have had this name before
    clear()


def find(row: rows.Own) -> Operation:
  """Returns the operation of a row.

  Raises:
    UserError: no operation is registered under that name.
  """
  if row.function not in _REGISTERED:
    raise UserError(
      f'config.{FIELD}: the operation {row.function!r} of {row.name} is not '
      f'registered{did_you_mean(row.function, _REGISTERED)}; give the file '
      'that calls own.register: --operations=mine.py',
      FIELD,
    )
  return _REGISTERED[row.function]


def check_registered(node: Any) -> None:
  """Raises UserError if a tree of rows names an unregistered operation."""
  if isinstance(node, rows.Own):
    find(node)
  elif isinstance(node, tuple):
    for part in node:
      check_registered(part)


class Layer(hk.Module):
  """A registered operation, its parameters under the name of the row.

  It is computed in `dtype`, which the kernels give for matrix products, since
  nobody knows here whether it has some; None: in the dtype of its map.
  """

  def __init__(self, row: rows.Own, dtype: Any = None):
    super().__init__(row.name)
    self._row, self._dtype = row, dtype

  def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
    """Applies the operation to a map [B, H, W, C]."""
    dtype, options = self._dtype, dict(self._row.options)
    if dtype in (None, x.dtype):
      return find(self._row)(x, is_training, **options)
    with hk.custom_getter(lambda get, value, _: get(value).astype(dtype)):
      y = find(self._row)(x.astype(dtype), is_training, **options)
    return y.astype(x.dtype)


@cached
def sizes(row: rows.Own, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
  """Returns the output shape and the number of parameters, for one image.

  Raises:
    ValueError: the operation does not take maps of this shape.
    TypeError: it returns no map, of whatever shape.
  """
  transformed = hk.transform(lambda x: Layer(row)(x, False))
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  try:
    params = jax.eval_shape(transformed.init, jax.random.key(0), x)
    y = jax.eval_shape(transformed.apply, params, None, x)
  except (TypeError, ValueError, AssertionError) as error:
    raise ValueError(f'{row.name} takes no map of {shape}: {error}') from error
  found = getattr(y, 'shape', ())
  if len(found) != 4 or found[0] != 1:
    what = f'an array {list(found)}' if found else f'a {type(y).__name__}'
    raise TypeError(
      f'{row.name} returns {what} for a map {list(x.shape)}: it returns a map '
      '[B, H, W, C] of as many images'
    )
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  return found[1:], count
