"""Converts arrays of a weight file to those of a network, and back."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from googlenet.errors import UserError
from googlenet.io.array_files import Stored, damaged, printable
from googlenet.tools.weights.names import Entry, Scheme

# Types that are read as float32; all but float64 without rounding.
_DTYPES = ('float32', 'float16', 'bfloat16', 'float64')
# Number of names that are listed for each kind of problem.
_SHOWN = 60


class Problems(NamedTuple):
  """Why a file does not fit a network: array names by kind of problem."""

  missing: list[str]
  unknown: list[str]
  of_wrong_shape: list[str]
  of_wrong_dtype: list[str]
  not_usable: list[str]  # infinite, NaN, or a negative variance


def without_prefix(
  stored: Mapping[str, Stored], known: str
) -> tuple[dict[str, Stored], str]:
  """Removes what a wrapper of PyTorch puts before the names of a network.

  `DataParallel` and averaged models store `module.conv1.conv.weight`, compiled
  ones `_orig_mod.conv1.conv.weight`.

  Args:
    stored: the arrays of a file.
    known: name of an array that the network has.

  Returns:
    The arrays, and the prefix that was removed; '': there is none.
  """
  prefixes = [
    name.removesuffix(known) for name in stored if name.endswith(f'.{known}')
  ]
  if known in stored or len(prefixes) != 1:
    return dict(stored), ''
  found = {name.removeprefix(prefixes[0]): stored[name] for name in stored}
  if len(found) < len(stored):  # some arrays have a name with and without it
    return dict(stored), ''
  return found, prefixes[0]


def find_problems(
  stored: Mapping[str, Stored], entries: Iterable[Entry]
) -> Problems:
  """Compares names, shapes and dtypes; does not check values."""
  expected = {entry.name: entry.shape for entry in entries}
  shapes, dtypes = [], []
  for name, shape in expected.items():
    if name not in stored:
      continue
    array = stored[name]
    if array.shape != shape:
      shapes.append(f'{name} {array.shape} instead of {shape}')
    if array.dtype not in _DTYPES:
      dtypes.append(f'{name} {printable(array.dtype)} instead of float32')
  return Problems(
    [name for name in expected if name not in stored],
    [printable(name) for name in stored if name not in expected],
    shapes,
    dtypes,
    [],
  )


def refusal(path: str, problems: Problems, hint: str = '') -> UserError:
  """Returns the error that lists all problems in one line."""

  def listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    more = f' and {rest} more' if rest > 0 else ''
    return f'({len(names)}): ' + ', '.join(names[:_SHOWN]) + more

  text = '; '.join(
    f'{kind.replace("_", " ")} {listed(names)}'
    for kind, names in problems._asdict().items()
    if names
  )
  return UserError(
    f'--weights={path} does not fit the network of config.model: {text}{hint}; '
    'nothing was written'
  )


def to_ours(
  path: str, stored: Mapping[str, Stored], entries: list[Entry]
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
  """Reads all arrays of a network.

  Args:
    path: of the file, for messages.
    stored: arrays of the file, without those that are ignored.
    entries: of the network; `find_problems` must have found no problems.

  Returns:
    The trees 'params' and 'network_state', float32.

  Raises:
    UserError: an array is damaged or not finite, or a variance is negative.
  """
  trees: dict[str, Any] = {'params': {}, 'network_state': {}}
  bad = []
  for entry in entries:
    try:
      array = stored[entry.name].read()
    except Exception as error:  # NumPy, zlib and torch raise many types
      raise damaged(path, error) from error
    with np.errstate(over='ignore'):  # becomes infinite, which is refused
      array = np.asarray(array, np.float32)
    is_negative = entry.leaf == 'variance' and (array < 0).any()
    if is_negative or not np.isfinite(array).all():
      bad.append(entry.name)
    leaves = trees[entry.tree].setdefault(entry.module, {})
    leaves[entry.leaf] = np.ascontiguousarray(entry.layout.to_ours(array))
  if bad:
    raise refusal(path, Problems([], [], [], [], bad))
  return trees


def to_theirs(
  scheme: Scheme,
  entries: Iterable[Entry],
  trees: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
  step: int,
) -> dict[str, np.ndarray]:
  """Returns the arrays of a file.

  Args:
    scheme: of the framework.
    entries: of the network.
    trees: 'params' and 'network_state'.
    step: number of training steps, which PyTorch stores with each batch norm.
  """
  arrays = {}
  for entry in entries:
    array = trees[entry.tree][entry.module][entry.leaf]
    arrays[entry.name] = np.ascontiguousarray(entry.layout.to_theirs(array))
    if scheme.ignored and entry.leaf == 'variance':
      name = entry.name.removesuffix(scheme.conv['variance'])
      arrays[f'{name}.bn{scheme.ignored}'] = np.asarray(step, np.int64)
  return arrays
