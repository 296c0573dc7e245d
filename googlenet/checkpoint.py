"""Arrays of a run on disk: one .npz a checkpoint, no pickle.

Every array is stored under its path in the tree, `params/conv_1/conv_7x7/w`.
A zip archive carries a CRC-32 of each entry, so damage is noticed on reading.
"""

import os
import pathlib
import zipfile
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from googlenet.errors import UserError

_SUFFIX = '.npz'


class Checkpoint(NamedTuple):
  """What `restore` returns: NumPy arrays."""

  step: int
  params: dict[str, Any]
  network_state: dict[str, Any]


def save(
  workdir: str | os.PathLike[str], step: int, params: Any, network_state: Any
) -> pathlib.Path:
  """Writes a checkpoint aside, renames it, and removes the older ones.

  Args:
    workdir: of the run; files go to its folder `checkpoints`.
    step: steps made.
    params: tree of arrays.
    network_state: tree of arrays.

  Returns:
    The path of the new file.
  """
  folder = pathlib.Path(workdir) / 'checkpoints'
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'step_{step:09d}{_SUFFIX}'
  arrays = {
    'step': np.asarray(step, np.int64),
    **_flatten('params', params),
    **_flatten('network_state', network_state),
  }
  aside = path.with_suffix('.tmp')
  with open(aside, 'wb') as file:
    np.savez(file, **arrays)
    file.flush()
    os.fsync(file.fileno())
  os.replace(aside, path)
  for old in folder.glob('step_*' + _SUFFIX):
    if old != path:
      old.unlink()
  return path


def latest(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the path of the newest checkpoint.

  Raises:
    UserError: there is none.
  """
  folder = pathlib.Path(workdir) / 'checkpoints'
  paths = sorted(folder.glob('step_*' + _SUFFIX))
  if not paths:
    raise UserError(
      f'--workdir={workdir} holds no checkpoint: give the folder of a run '
      'that has been trained'
    )
  return paths[-1]


def restore(
  path: str | os.PathLike[str], params: Any, network_state: Any
) -> Checkpoint:
  """Reads a checkpoint into the structure of the given trees.

  Args:
    path: the file.
    params: tree of arrays or shapes that the network expects.
    network_state: likewise.

  Raises:
    UserError: the file is damaged or of another network.
  """
  arrays = _read(path)
  expected = {
    'step': np.zeros((), np.int64),
    **_flatten('params', params),
    **_flatten('network_state', network_state),
  }
  for name in sorted(expected.keys() | arrays.keys()):
    have, want = _kind(arrays.get(name)), _kind(expected.get(name))
    if have != want:
      raise UserError(
        f'checkpoint {path} is of another network: at {name} it holds '
        f'{have}, the config asks for {want}'
      )
  return Checkpoint(
    int(arrays['step']),
    _unflatten('params', params, arrays),
    _unflatten('network_state', network_state, arrays),
  )


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  try:
    # Opened here: np.load leaves a file open that it cannot read.
    with open(path, 'rb') as raw:
      file = np.load(raw, allow_pickle=False)
      return {name: file[name] for name in file.files}
  except (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    AttributeError,  # a single array, no archive
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise UserError(
      f'checkpoint {path} is damaged ({type(error).__name__}): train again, '
      'or restore it from a copy'
    ) from error


def _kind(array: Any) -> str:
  return 'nothing' if array is None else f'{array.dtype} {tuple(array.shape)}'


def _name(prefix: str, path: tuple[Any, ...]) -> str:
  return '/'.join([prefix, *(str(part.key) for part in path)])


def _flatten(prefix: str, tree: Any) -> dict[str, Any]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))
  return {_name(prefix, path): leaf for path, leaf in leaves}


def _unflatten(prefix: str, tree: Any, arrays: dict[str, np.ndarray]) -> Any:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: arrays[_name(prefix, path)], tree
  )
