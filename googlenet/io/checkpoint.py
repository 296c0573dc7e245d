"""The whole state of a run on disk: one sealed file a checkpoint.

In `<workdir>/checkpoints/step_000000042.npz` each array has its path in the
state as a name: `params/conv_1/conv_7x7/w`, `opt_state/1/0/trace/...`. Beside
them stand `step` and `about`, JSON in bytes: the config, what identifies the
data, and the progress of the run.

By hand, not with orbax: that restores a file with a flipped byte without a
word.

archive.py is the file, saver.py the thread that writes it, workdir.py the
folder of a run and its lock.
"""

import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from googlenet.config import near_run
from googlenet.errors import UserError
from googlenet.io import archive
from googlenet.io.archive import DamagedError, MismatchError

_SUFFIX = '.npz'
# Parts of a state whose name in the file is an older one.
_STORED_NAMES = {'finite_check': 'guard'}
_ABOUT, _MAX_ABOUT_BYTES = 'about', 2**20
# Of version 0.1.0, and of no use any more: metrics of single steps.
_PROGRESS = 'progress'
Warn = Callable[[str], None]


class Checkpoint(NamedTuple):
  """What `restore` returns: NumPy arrays."""

  step: int
  params: dict[str, Any]
  network_state: dict[str, Any]


class Snapshot(NamedTuple):
  """Everything that a checkpoint holds, in memory of the host."""

  step: int
  state: Any  # a TrainState, or a dict of trees: arrays of NumPy
  about: Mapping[str, Any]  # what JSON can hold


def to_host(tree: Any) -> Any:
  """Copies arrays from the device.

  On a CPU `jax.device_get` gives views of memory that the next step, to which
  the state is donated, may write to.
  """
  return jax.tree.map(lambda x: np.array(x, copy=True), jax.device_get(tree))


def folder_of(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of the checkpoints."""
  return pathlib.Path(workdir) / 'checkpoints'


def path_of(workdir: str | os.PathLike[str], step: int) -> pathlib.Path:
  """Returns the path of a checkpoint."""
  return folder_of(workdir) / f'step_{step:09d}{_SUFFIX}'


def paths(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the paths of all checkpoints, the newest first."""
  found = folder_of(workdir).glob('step_*' + _SUFFIX)
  return sorted(
    (p for p in found if re.fullmatch(r'step_\d{9,10}', p.stem)), reverse=True
  )


def save(
  workdir: str | os.PathLike[str],
  snapshot: Snapshot,
  keep: int = 1,
  best_step: int | None = None,
) -> pathlib.Path:
  """Writes a checkpoint, then removes those that are no longer kept.

  Args:
    workdir: of the run.
    snapshot: what to write.
    keep: how many of the last checkpoints stay.
    best_step: of one that stays however old it is.

  Returns:
    The path of the new file.

  Raises:
    OSError: it cannot be written; the older ones are as they were.
  """
  path = path_of(workdir, snapshot.step)
  about = json.dumps(snapshot.about, allow_nan=False).encode()
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
  path: str | os.PathLike[str], like: Any
) -> tuple[Any, dict[str, Any]]:
  """Reads the whole state of a run.

  Args:
    path: the file.
    like: a state of the structure, shapes and dtypes that are expected.

  Returns:
    The state as arrays of NumPy, and `about`.

  Raises:
    DamagedError: the file is not whole.
    MismatchError: it is of another network or optimizer.
  """
  expected = _flatten(_trees(like))
  _, names = archive.read(path, _with_step({}))
  if _ABOUT not in names:
    raise UserError(
      f'checkpoint {path} holds parameters alone, of which no run can be '
      f'continued: give a fresh --workdir and --config.finetune.from_workdir='
      f'{pathlib.Path(path).parent.parent}'
    )
  arrays, names = archive.read(
    path, _with_step(expected), {_ABOUT: _MAX_ABOUT_BYTES}
  )
  for name in sorted(names - {*expected, 'step', _ABOUT, _PROGRESS}):
    raise MismatchError(path, name, 'an array', 'nothing')
  try:
    about = json.loads(arrays[_ABOUT].tobytes())
    if not isinstance(about, dict):
      raise ValueError('it tells nothing of its run')
  except (ValueError, TypeError, RecursionError) as error:
    raise DamagedError(path, str(error)[:100]) from error
  state = _unflatten(_trees(like), arrays)
  if hasattr(like, '_asdict'):
    state = type(like)(step=np.asarray(arrays['step'], np.int32), **state)
  return state, about


def restore(
  path: str | os.PathLike[str],
  params: Any,
  network_state: Any,
  use_ema: bool = False,
) -> Checkpoint:
  """Reads what the network needs, whatever else the file holds.

  Args:
    path: the file.
    params: tree of arrays or shapes that the network expects.
    network_state: likewise.
    use_ema: return the averages over the steps.

  Raises:
    DamagedError: the file is not whole.
    MismatchError: it is of another network.
  """
  prefix = 'ema_' if use_ema else ''
  trees = {
    f'{prefix}params': params,
    f'{prefix}network_state': network_state,
  }
  expected = _flatten(trees)
  arrays, names = archive.read(path, _with_step(expected))
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


def newest_whole(
  workdir: str | os.PathLike[str],
  read: Callable[[pathlib.Path], Any],
  warn: Warn,
) -> tuple[pathlib.Path, Any]:
  """Reads the newest checkpoint that can be read.

  Args:
    workdir: of the run.
    read: returns the contents of a file or raises a UserError.
    warn: is told, in a line each, which ones were passed over.

  Returns:
    The path, and what `read` returned.

  Raises:
    UserError: there is none, or none that can be read; all are still there.
  """
  found, problems = paths(workdir), []
  if not found:
    raise UserError(
      f'--workdir={workdir} holds no checkpoint: give the folder of a run '
      f'that has been trained{near_run(workdir)}'
    )
  for path in found:
    try:
      contents = read(path)
    except UserError as error:
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
  """Returns the parts of a state by name, but for the step number."""
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
