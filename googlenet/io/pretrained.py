"""Parameters of a run: which checkpoint, which of its parameters; new runs.

Evaluation, prediction, export, publishing and fine-tuning read a run here, so
that all of them use the same parameters.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.errors import UserError, did_you_mean
from googlenet.io import archive, array_files, checkpoint, workdir
from googlenet.io.archive import DamagedError
from googlenet.runtime.terminal import warn

Tree = dict[str, dict[str, Any]]

_WORDS = ('last', 'best', 'all')


def stored_shapes(path: pathlib.Path) -> dict[str, Tree]:
  """Returns the trees of parameters and state in a checkpoint.

  Returns:
    'params', 'network_state' and both with 'ema_' before, empty where there are
    none, with shapes and dtypes in place of arrays.

  Raises:
    DamagedError: the file is not whole.
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


def stored_image_shape(path: pathlib.Path) -> tuple[int, int, int] | None:
  """Returns (H, W, C) of the training set's images, as a checkpoint says.

  None where the parameters come from elsewhere.
  """
  about = array_files.read(path).get('about')
  if about is None:
    return None
  try:
    shape = json.loads(about.read().tobytes())['data']['image_shape']
    height, width, channels = (int(side) for side in shape)
  except (ValueError, TypeError, KeyError, RecursionError):
    return None
  return height, width, channels


def prefix_of(config: ml_collections.ConfigDict) -> str:
  """Returns what the names of the evaluated trees begin with: 'ema_' or ''.

  Where a run averages its parameters over the steps, the average is evaluated.
  """
  return 'ema_' if config.train.ema_decay else ''


def read_run(
  folder: str | os.PathLike[str],
  config: ml_collections.ConfigDict | None = None,
  path: pathlib.Path | None = None,
  expected: Callable[[pathlib.Path, Tree], tuple[Tree, Tree]] | None = None,
) -> tuple[pathlib.Path, checkpoint.Checkpoint]:
  """Reads the parameters and state that a run is evaluated with.

  Args:
    folder: workdir of the run.
    config: of the run; None: the average is taken where the file has one.
    path: of one of its checkpoints, see `select`; None: the newest whole one.
    expected: takes a path and the stored parameters' shapes; returns the shapes
      of parameters and state that the file must have. None: anything goes.

  Returns:
    The path of the checkpoint and what it holds.

  Raises:
    UserError: there is no checkpoint, or none that is whole and as expected.
  """

  def read(path: pathlib.Path) -> checkpoint.Checkpoint:
    trees = stored_shapes(path)
    prefix = 'ema_' if trees['ema_params'] else ''
    if config is not None:
      prefix = prefix_of(config)
    params, state = trees[f'{prefix}params'], trees[f'{prefix}network_state']
    if expected is not None:
      params, state = expected(path, params)
    return checkpoint.restore(path, params, state, bool(prefix))

  if path is not None:
    return path, read(path)
  return checkpoint.newest_whole(folder, read, warn)


def select(
  workdir: str | os.PathLike[str], which: str
) -> list[pathlib.Path | None]:
  """Returns the paths of the checkpoints that a word or a step number means.

  Args:
    workdir: of a run.
    which: 'last'; 'best' by `checkpoint.best_metric`; 'all' that are kept, the
      oldest first; or a number of steps.

  Returns:
    [None] for 'last': the newest that is whole.

  Raises:
    UserError: the run has no such checkpoint.
  """
  if which == 'last':
    return [None]
  found = sorted(checkpoint.paths(workdir))
  steps = {int(path.stem.removeprefix('step_')): path for path in found}
  if not found:
    raise UserError(
      f'--workdir={workdir} holds no checkpoint: give the folder of a run '
      'that has been trained'
    )
  kept = f'it keeps those of step {", ".join(map(str, steps))}'
  if which == 'all':
    return list(found)
  if which == 'best':
    step = _best_step(found[-1])
    if step is None:
      raise UserError(
        f'--checkpoint=best: the run in {workdir} has not told which is best, '
        f'as training with --config.checkpoint.best_metric does; {kept}'
      )
  elif which.isdecimal() and len(which) < 12:
    step = int(which)
  else:
    raise UserError(
      f'--checkpoint={which} is not allowed{did_you_mean(which, _WORDS)}: it '
      f'takes {", ".join(_WORDS)} or a step; the run in {workdir}: {kept}'
    )
  if step not in steps:
    raise UserError(
      f'--checkpoint={which}: the run in {workdir} has no checkpoint of step '
      f'{step}; {kept}'
    )
  return [steps[step]]


def _best_step(path: pathlib.Path) -> int | None:
  """Returns the step of the best checkpoint, as a later one knows it."""
  arrays, _ = archive.read(path, {}, {'about': 2**20})
  try:
    about = json.loads(arrays['about'].tobytes())
    # Older checkpoints hold it beside what is now `progress`.
    return int(about.get('progress', about)['best']['step'])
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
    return None


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
  config: ml_collections.ConfigDict,
  params: Tree,
  network_state: Tree,
  step: int = 0,
  about: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes a run that can be used but not continued.

  It consists of config.json and a checkpoint of parameters and state alone.

  Args:
    folder: a workdir that holds no run.
    config: of the network.
    params: tree of arrays.
    network_state: tree of arrays.
    step: steps of training behind them.
    about: what the checkpoint says of its run, for JSON.

  Returns:
    The path of the checkpoint.
  """
  prefix = prefix_of(config)
  state = {
    f'{prefix}params': params,
    f'{prefix}network_state': network_state,
  }
  checkpoint.folder_of(folder).mkdir(parents=True)
  snapshot = checkpoint.Snapshot(step, state, about or {})
  path = checkpoint.save(folder, snapshot)
  config_path = pathlib.Path(folder) / 'config.json'
  workdir.write_text(config_path, config_lib.to_json(config))
  return path
