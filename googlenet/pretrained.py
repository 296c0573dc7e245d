"""Parameters that come from elsewhere: reading a run's, writing a new run."""

import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from googlenet import checkpoint
from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.weights import files

Tree = dict[str, dict[str, Any]]


def stored_shapes(path: pathlib.Path) -> tuple[Tree, Tree]:
  """Returns params and network_state of a checkpoint as shapes and dtypes.

  Raises:
    UserError: it is damaged.
  """
  trees: dict[str, Tree] = {'params': {}, 'network_state': {}}
  try:
    stored = files.read(path)
  except UserError as error:
    raise UserError(
      f'checkpoint {path} is damaged: train again, or restore it from a copy'
    ) from error
  for name, array in stored.items():
    tree, _, rest = name.partition('/')
    module, _, leaf = rest.rpartition('/')
    if tree in trees:
      shape = jax.ShapeDtypeStruct(array.shape, np.dtype(array.dtype))
      trees[tree].setdefault(module, {})[leaf] = shape
  return trees['params'], trees['network_state']


def read_run(
  workdir: str | os.PathLike[str],
) -> tuple[pathlib.Path, checkpoint.Checkpoint]:
  """Reads the newest checkpoint of a run, whatever network it is of.

  Returns:
    The path of the file, and its parameters and state.

  Raises:
    UserError: there is none, or it is damaged.
  """
  path = checkpoint.latest(workdir)
  return path, checkpoint.restore(path, *stored_shapes(path))


def write_run(
  workdir: str | os.PathLike[str],
  config: ml_collections.FrozenConfigDict,
  params: Tree,
  network_state: Tree,
) -> pathlib.Path:
  """Writes a run of no steps: config.json and a checkpoint.

  Args:
    workdir: a folder that holds no run.
    config: of the network.
    params: tree of arrays.
    network_state: likewise.

  Returns:
    The path of the checkpoint.
  """
  path = checkpoint.save(workdir, 0, params, network_state)
  text = config_lib.to_json(config)
  (pathlib.Path(workdir) / 'config.json').write_text(text)
  return path
