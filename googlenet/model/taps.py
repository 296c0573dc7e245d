"""Reads and replaces the maps of a network while it is computed."""

import collections
from collections.abc import Callable, Collection, Mapping

import jax

from googlenet.errors import UserError
from googlenet.kernels import Kernels

Edit = Callable[[jax.Array], jax.Array]


def check(edit: Mapping[str, Edit]) -> None:
  """Raises UserError if it is no mapping to functions."""
  if not isinstance(edit, Mapping):
    raise UserError(
      f'edit: a value of type {type(edit).__name__}; allowed is a dict, from '
      'names of points to functions of their maps'
    )
  for name, function in edit.items():
    if not callable(function):
      raise UserError(
        f'edit of {name!r}: a value of type {type(function).__name__}; allowed '
        'is a function of the map, such as edits.replace(value)'
      )


def _edited(name: str, edit: Edit, y: jax.Array) -> jax.Array:
  """Returns what an edit makes of the map of a point.

  Raises:
    UserError: the edit refuses the map, or gives something of another shape.
  """
  try:
    made = edit(y)
  except UserError as error:
    raise UserError(f'edit of {name!r}: {error}') from error
  shape = getattr(made, 'shape', None)
  if shape != y.shape:
    what = f'type {type(made).__name__}' if shape is None else f'shape {shape}'
    raise UserError(
      f'edit of {name!r}: the function gives a value of {what}; allowed is an '
      f'array of the shape of its map, {y.shape}'
    )
  return made


class Taps:
  """Points of a network that are read or replaced in one call of it.

  Names are those of `points`. Without names nothing happens, and layers may be
  fused.

  Raises:
    UserError: an edit is no function, or gives something of another shape.

  Attributes:
    found: the maps that were read, in the order of computation: [B, H, W, C],
      or [B, C] after the global mean.
  """

  def __init__(
    self,
    kernels: Kernels | None = None,
    wanted: Collection[str] = (),
    edit: Mapping[str, Edit] | None = None,
  ):
    check(edit or {})
    self.found: dict[str, jax.Array] = {}
    self._kernels, self._wanted, self._edit = kernels, wanted, edit or {}
    self._counts = collections.Counter()

  def __bool__(self) -> bool:
    return bool(self._wanted or self._edit)

  def __contains__(self, name: str) -> bool:
    return name in self._wanted or name in self._edit

  def __call__(self, name: str, x: jax.Array) -> jax.Array:
    """Reads and replaces the map of a point, in the kernels' layout."""
    if name not in self:
      return x
    is_map = x.ndim == 4
    y = self._kernels.from_layout(x) if is_map else x
    if name in self._edit:
      y = _edited(name, self._edit[name], y)
      edited = self._kernels.to_layout(y) if is_map else y
      x = edited.astype(x.dtype)
    if name in self._wanted:
      self.found[name] = y
    return x

  def unnamed(self, path: str, kind: str, x: jax.Array) -> jax.Array:
    """Taps an operation without a name: `path/kind`, then `path/kind_2`."""
    if not self:
      return x
    name = f'{path}/{kind}'
    self._counts[name] += 1
    count = self._counts[name]
    return self(f'{name}_{count}' if count > 1 else name, x)
