"""Parameters that come from elsewhere: reading a run's, writing a new run."""

import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import array_files, checkpoint, workdir
from googlenet.io.archive import DamagedError
from googlenet.runtime.terminal import warn

Tree = dict[str, dict[str, Any]]


def stored_shapes(path: pathlib.Path) -> dict[str, Tree]:
  """Returns the trees of parameters and state in a checkpoint.

  Returns:
    'params', 'network_state' and both with 'ema_' before, empty where there are
    none, with shapes and dtypes in place of arrays.

  Raises:
    DamagedError: it is not whole.
  """
  trees: dict[str, Tree] = {
    'params': {},
    'network_state': {},
    'ema_params': {},
    'ema_network_state': {},
  }
  try:
    stored = array_files.read(path)
  except UserError as error:
    raise DamagedError(path, 'it cannot be read') from error
  for name, array in stored.items():
    tree, _, rest = name.partition('/')
    module, _, leaf = rest.rpartition('/')
    if tree in trees:
      shape = jax.ShapeDtypeStruct(array.shape, np.dtype(array.dtype))
      trees[tree].setdefault(module, {})[leaf] = shape
  return trees


def read_run(
  folder: str | os.PathLike[str],
) -> tuple[pathlib.Path, checkpoint.Checkpoint]:
  """Reads the newest checkpoint of a run, whatever network it is of.

  Args:
    folder: workdir of the run.

  Returns:
    The path of the file, and its parameters and state: the averaged parameters
    where the run has them, as `--mode=evaluate` takes them.

  Raises:
    UserError: there is none, or none that is whole.
  """

  def read(path: pathlib.Path) -> checkpoint.Checkpoint:
    trees = stored_shapes(path)
    use_ema = bool(trees['ema_params'])
    prefix = 'ema_' if use_ema else ''
    return checkpoint.restore(
      path,
      trees[f'{prefix}params'],
      trees[f'{prefix}network_state'],
      use_ema,
    )

  return checkpoint.newest_whole(folder, read, warn)


def describe_images(folder: str | os.PathLike[str]) -> str:
  """Returns what the network of a run takes, to compare; '' if unknown."""
  try:
    data = config_lib.load(pathlib.Path(folder) / 'config.json').data
  except UserError:
    return ''
  mean, std = (
    ', '.join(f'{value:.4g}' for value in values)
    for values in (data.mean, data.std)
  )
  return f'{data.image_size} pixels, mean ({mean}), std ({std})'


def write_run(
  folder: str | os.PathLike[str],
  config: ml_collections.FrozenConfigDict,
  params: Tree,
  network_state: Tree,
) -> pathlib.Path:
  """Writes a run of no steps: config.json and a checkpoint.

  Args:
    folder: a workdir that holds no run.
    config: of the network.
    params: tree of arrays.
    network_state: likewise.

  Returns:
    The path of the checkpoint.
  """
  state = {
    'params': params,
    'network_state': network_state,
  }
  if config.train.ema_decay:  # evaluation looks for averages then
    state |= {f'ema_{name}': tree for name, tree in state.items()}
  checkpoint.folder_of(folder).mkdir(parents=True)
  snapshot = checkpoint.Snapshot(0, state, {})
  path = checkpoint.save(folder, snapshot)
  config_path = pathlib.Path(folder) / 'config.json'
  workdir.write_text(config_path, config_lib.to_json(config))
  return path
