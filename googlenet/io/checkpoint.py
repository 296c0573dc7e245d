"""Checkpoints: the whole state of a run, one file with a checksum each.

In `<workdir>/checkpoints/step_000000042.npz`, each array is named after its
path in the state: `params/conv_1/conv_7x7/w`, `opt_state/1/0/trace/...`. There
are also `step` and `about`, JSON as bytes: the config, a description of the
training data, and the progress of the run.

We do not use orbax: it restores a file with a flipped byte without an error.

archive.py defines the file format, saver.py the thread that writes checkpoints,
workdir.py the folder of a run and its lock.
"""

import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UnreadableError, UserError
from googlenet.io import archive
from googlenet.io.archive import DamagedError, MismatchError
from googlenet.runtime.files import near_run

_SUFFIX = '.npz'
# Parts of a state that keep an older name in the file.
_STORED_NAMES = {'finite_check': 'guard'}
_ABOUT = 'about'
MAX_ABOUT_BYTES = 2**22
# An array of version 0.1.0 that is ignored: metrics of single steps.
_PROGRESS = 'progress'
_NAME = re.compile(r'step_(\d{9}|[1-9]\d{9})' + re.escape(_SUFFIX))
# Only a checkpoint of training has it; a network without training has none.
_WHOLE_STATE = 'guard/loss_scale'
Warn = Callable[[str], None]
FindSources = Callable[
  [Mapping[str, Any], set[str], dict[str, Any]], dict[str, tuple[str, ...]]
]


class Checkpoint(NamedTuple):
  """Parameters and network state from a checkpoint, as NumPy arrays."""

  step: int
  params: dict[str, Any]
  network_state: dict[str, Any]


class Snapshot(NamedTuple):
  """The contents of a checkpoint, in host memory."""

  step: int
  state: Any  # a TrainState, or a dict of trees, of NumPy arrays
  about: Mapping[str, Any]  # JSON values


def to_host(tree: Any) -> Any:
  """Copies arrays from the device.

  On a CPU `jax.device_get` returns views of device memory, which the next step
  may overwrite because the state is donated to it.
  """
  return jax.tree.map(lambda x: np.array(x, copy=True), jax.device_get(tree))


def folder_of(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of the checkpoints."""
  return pathlib.Path(workdir) / 'checkpoints'


def path_of(workdir: str | os.PathLike[str], step: int) -> pathlib.Path:
  """Returns the path of a checkpoint."""
  return folder_of(workdir) / f'step_{step:09d}{_SUFFIX}'


def paths(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the paths of all checkpoints, newest first.

  Raises:
    UnreadableError: the folder exists, but may not be read.
  """
  folder = folder_of(workdir)
  try:
    names = os.listdir(folder)
  except PermissionError as error:  # a glob would find nothing
    raise UnreadableError(folder, error) from error
  except OSError:
    return []
  steps = sorted(
    (int(match[1]) for match in map(_NAME.fullmatch, names) if match),
    reverse=True,
  )
  return [path_of(workdir, step) for step in steps]


def save(
  workdir: str | os.PathLike[str],
  snapshot: Snapshot,
  keep: int = 1,
  best_step: int | None = None,
) -> pathlib.Path:
  """Writes a checkpoint, then removes those that are no longer kept.

  Args:
    workdir: folder of the run.
    snapshot: what to write.
    keep: number of newest checkpoints to keep.
    best_step: step of a checkpoint that is always kept.

  Returns:
    The path of the new file.

  Raises:
    OSError: the file cannot be written; older checkpoints are unchanged.
    ValueError: `about` is too large to be read back, or not JSON.
  """
  path = path_of(workdir, snapshot.step)
  about = json.dumps(snapshot.about, allow_nan=False).encode()
  if len(about) > MAX_ABOUT_BYTES:
    raise ValueError(f'the description of the run has {len(about):,} bytes')
  arrays = {
    'step': np.asarray(snapshot.step, np.int64),
    _ABOUT: np.frombuffer(about, np.uint8),
    **_flatten(_trees(snapshot.state)),
  }
  archive.write(path, arrays)
  for old in paths(workdir)[keep:]:
    if best_step is None or old != path_of(workdir, best_step):
      old.unlink(missing_ok=True)
  return path


def restore_state(
  path: str | os.PathLike[str],
  like: Any,
  find_sources: FindSources | None = None,
) -> tuple[Any, dict[str, Any]]:
  """Reads the whole state of a run.

  Args:
    path: the file.
    like: a state with the expected structure, shapes and dtypes.
    find_sources: takes the expected arrays by name, the names in the file, and
      `about`; returns for each expected name the names in the file that it is
      read from: of several the smallest values, of none the value in `like`.
      None: the file must hold exactly the expected names.

  Returns:
    The state as NumPy arrays, and `about`.

  Raises:
    DamagedError: the file is missing or damaged.
    MismatchError: the file has another network or optimizer.
    UserError: the file holds parameters only, without training state.
  """
  expected = _flatten(_trees(like))
  found, names = archive.read(path, _with_step({}), {_ABOUT: MAX_ABOUT_BYTES})
  if _ABOUT not in names or {_WHOLE_STATE} & expected.keys() - names:
    raise UserError(
      f'checkpoint {path} holds only parameters, so its run cannot be '
      f'continued: give a new --workdir and --config.finetune.from_workdir='
      f'{pathlib.Path(path).parent.parent}'
    )
  about = _parse_about(path, found[_ABOUT])
  sources = {name: (name,) for name in expected}
  if find_sources is not None:
    sources = find_sources(expected, names, about)
  for name in sorted(names - {*expected, 'step', _ABOUT, _PROGRESS}):
    if find_sources is None or name.startswith(('params/', 'network_state/')):
      raise MismatchError(path, name, 'an array', 'nothing')
  shapes = {
    theirs: expected[ours]
    for ours, found in sources.items()
    for theirs in found
  }
  arrays, _ = archive.read(path, _with_step(shapes))
  values = {
    ours: functools.reduce(np.minimum, [arrays[theirs] for theirs in found])
    if found
    else np.asarray(expected[ours])
    for ours, found in sources.items()
  }
  state = _unflatten(_trees(like), values)
  if hasattr(like, '_asdict'):
    state = type(like)(step=np.asarray(arrays['step'], np.int32), **state)
  return state, about


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns `about` of a checkpoint; {} if it holds only parameters.

  Raises:
    DamagedError: the file is missing or damaged.
  """
  arrays, _ = archive.read(path, {}, {_ABOUT: MAX_ABOUT_BYTES})
  return _parse_about(path, arrays[_ABOUT]) if _ABOUT in arrays else {}


def _parse_about(
  path: str | os.PathLike[str], array: np.ndarray
) -> dict[str, Any]:
  try:
    about = json.loads(array.tobytes())
    if not isinstance(about, dict):
      raise ValueError('its description of the run is bad')
  except (ValueError, TypeError, RecursionError) as error:
    raise DamagedError(path, str(error)[:100]) from error
  return about


def is_whole(path: str | os.PathLike[str]) -> bool:
  """Whether a checkpoint holds the state of a run, to continue it.

  Published and imported networks are parameters and running statistics only.

  Raises:
    DamagedError: the file is missing or damaged.
  """
  _, names = archive.read(path, {})
  return _WHOLE_STATE in names


def halved(array: np.ndarray, dtype: Any) -> np.ndarray:
  """Returns float32 numbers in two bytes: float16, or the bits of bfloat16.

  NumPy's files know no bfloat16; its bits are of dtype uint16.
  """
  array = array.astype(dtype)
  return array if array.dtype == np.float16 else array.view(np.uint16)


def full_dtype(stored: np.dtype) -> np.dtype:
  """Returns the dtype in which an array of a file is used."""
  return np.dtype(np.float32) if stored in (np.float16, np.uint16) else stored


def _full(array: np.ndarray) -> np.ndarray:
  """The inverse of `halved`; other arrays are returned as they are."""
  numbers = array.view(jnp.bfloat16) if array.dtype == np.uint16 else array
  return numbers.astype(full_dtype(array.dtype), copy=False)


def restore(
  path: str | os.PathLike[str],
  params: Any,
  network_state: Any,
  use_ema: bool = False,
) -> Checkpoint:
  """Reads only the parameters and network state from a checkpoint.

  Args:
    path: the file.
    params: tree of arrays or shapes that the network expects. Where it expects
      float32, the file may hold what `halved` returns.
    network_state: tree of arrays or shapes that the network expects.
    use_ema: whether to read the averages over the steps instead.

  Raises:
    DamagedError: the file is missing or damaged.
    MismatchError: the file has another network.
  """
  prefix = 'ema_' if use_ema else ''
  trees = {
    f'{prefix}params': params,
    f'{prefix}network_state': network_state,
  }
  expected = _flatten(trees)
  kinds = archive.read_kinds(path)
  stored = {
    name: jax.ShapeDtypeStruct(like.shape, kinds[name][1])
    if name in kinds and full_dtype(kinds[name][1]) == like.dtype
    else like
    for name, like in expected.items()
  }
  arrays, names = archive.read(path, _with_step(stored))
  arrays = {name: _full(array) for name, array in arrays.items()}
  ours = tuple(f'{prefix}/' for prefix in trees)
  for extra in sorted(names - expected.keys()):
    if extra.startswith(ours):
      raise MismatchError(path, extra, 'an array', 'nothing')
  trees = _unflatten(trees, arrays)
  return Checkpoint(
    int(arrays['step']),
    trees[f'{prefix}params'],
    trees[f'{prefix}network_state'],
  )


def missing(workdir: str | os.PathLike[str]) -> UserError:
  """Returns the error for a folder without a checkpoint."""
  return UserError(f'--workdir={workdir} {why_none(workdir)}')


def why_none(workdir: str | os.PathLike[str]) -> str:
  """Returns what a folder without a checkpoint is, and what to give instead."""
  if is_sweep(workdir):
    return 'holds a sweep: give the folder of one of its trials'
  return (
    'holds no checkpoint: give the folder of a run that has been trained'
    f'{near_run(workdir)}'
  )


def is_sweep(workdir: str | os.PathLike[str]) -> bool:
  """Whether a folder is that of a sweep, whose trials are runs."""
  return os.path.exists(os.path.join(workdir, 'sweep.json'))


def newest_whole(
  workdir: str | os.PathLike[str],
  read: Callable[[pathlib.Path], Any],
  warn: Warn,
) -> tuple[pathlib.Path, Any]:
  """Reads the newest checkpoint that is not damaged.

  Args:
    workdir: folder of the run.
    read: returns the contents of a file or raises a UserError.
    warn: called with a message for each skipped checkpoint.

  Returns:
    The path, and what `read` returned.

  Raises:
    UserError: there is no checkpoint, none can be read, or the newest may not
      be read; no file is changed.
  """
  found, problems = paths(workdir), []
  if not found:
    raise missing(workdir)
  for path in found:
    try:
      contents = read(path)
    except UnreadableError:
      raise
    except UserError as error:
      if error.field:  # wrong is the config, not the file
        raise
      problems.append(str(error))
      continue
    for problem in problems:
      warn(f'{problem}: going on from {path.name}')
    return path, contents
  more = len(found) - 1
  also = f', nor is any of the {more} before it' if more else ''
  raise UserError(
    f'{problems[0]}{also}: nothing was changed; restore a checkpoint from a '
    'copy, or train again into another --workdir'
  )


def _trees(state: Any) -> dict[str, Any]:
  """Returns the parts of a state by name, without the step number."""
  parts = state._asdict() if hasattr(state, '_asdict') else state
  return {name: tree for name, tree in parts.items() if name != 'step'}


def _with_step(expected: dict[str, Any]) -> dict[str, Any]:
  return {'step': np.zeros((), np.int64), **expected}


def _name(path: tuple[Any, ...]) -> str:
  # 'key' of a dict, 'idx' of a tuple, 'name' of a NamedTuple.
  part, *rest = (
    str(
      next(getattr(key, a) for a in ('key', 'idx', 'name') if hasattr(key, a))
    )
    for key in path
  )
  return '/'.join([_STORED_NAMES.get(part, part), *rest])


def _flatten(trees: dict[str, Any]) -> dict[str, Any]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(trees)
  return {_name(path): leaf for path, leaf in leaves}


def _unflatten(
  trees: dict[str, Any], arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: arrays[_name(path)], trees
  )
