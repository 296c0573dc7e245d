"""Reads the parameters of a trained run, and writes runs without training.

Evaluation, prediction, export, publishing and fine-tuning all read runs here,
so they use the same parameters.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections

from googlenet import config as config_lib
from googlenet.errors import UserError, did_you_mean
from googlenet.io import archive, checkpoint, workdir
from googlenet.model import graph
from googlenet.model.initialization import abstract_init
from googlenet.model.network import Network
from googlenet.runtime.terminal import warn

Tree = dict[str, dict[str, Any]]

_MAX_SIDE = 2**16  # pixels of an image
_WORDS = ('last', 'best', 'all')


def stored_shapes(path: pathlib.Path) -> dict[str, Tree]:
  """Returns the shapes of parameters and state in a checkpoint.

  Their dtypes are those in which they are used, see `checkpoint.restore`.

  Returns:
    Trees 'params', 'network_state', 'ema_params' and 'ema_network_state';
    empty if not stored.

  Raises:
    DamagedError: the file is missing or damaged.
  """
  trees: dict[str, Tree] = {
    'params': {},
    'network_state': {},
    'ema_params': {},
    'ema_network_state': {},
  }
  for name, (shape, dtype) in archive.read_kinds(path).items():
    tree, _, rest = name.partition('/')
    module, _, leaf = rest.rpartition('/')
    if tree in trees:
      kind = jax.ShapeDtypeStruct(shape, checkpoint.full_dtype(dtype))
      trees[tree].setdefault(module, {})[leaf] = kind
  return trees


def stored_data(path: pathlib.Path) -> dict[str, Any]:
  """Returns what a checkpoint tells of its training set, see `train.resume`.

  Empty if the parameters were imported.

  Raises:
    DamagedError: the file is missing or damaged.
  """
  data = checkpoint.read_about(path).get('data')
  return data if isinstance(data, dict) else {}


def stored_image_shape(path: pathlib.Path) -> tuple[int, int, int] | None:
  """Returns (H, W, C) of the training images; None if a file does not say."""
  try:
    return image_shape_of(stored_data(path)['image_shape'])
  except (ValueError, TypeError, KeyError):
    return None


def image_shape_of(value: Any) -> tuple[int, int, int]:
  """Returns (H, W, C) from the JSON of a file.

  Raises:
    ValueError, TypeError: it is no shape of images.
  """
  height, width, channels = value
  for side in value:
    if type(side) is not int or not 0 < side <= _MAX_SIDE:
      raise ValueError(f'{side!r} is not a whole number from 1 to {_MAX_SIDE}')
  return height, width, channels


def prefix_of(config: ml_collections.ConfigDict) -> str:
  """Returns the name prefix of the evaluated trees: 'ema_' or ''.

  If a run averages its parameters over the steps, the average is evaluated.
  """
  is_averaged = config.train.ema_decay or config.optimizer.schedule_free
  return 'ema_' if is_averaged else ''


def read_run(
  folder: str | os.PathLike[str],
  config: ml_collections.ConfigDict | None = None,
  path: pathlib.Path | None = None,
  expected: Callable[[pathlib.Path, Tree], tuple[Tree, Tree]] | None = None,
) -> tuple[pathlib.Path, checkpoint.Checkpoint]:
  """Reads the parameters and state that are used to evaluate a run.

  Args:
    folder: workdir of the run.
    config: config of the run; None: averages are used if the file has them.
    path: path of a checkpoint, see `select`; None: the newest undamaged one.
    expected: takes a path and the stored parameter shapes; returns the shapes
      of parameters and state that the file must have. None: no check.

  Returns:
    The path of the checkpoint and its contents.

  Raises:
    UserError: there is no undamaged checkpoint with the expected shapes.
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


def channels_of(network: Network, params: Tree) -> int:
  """Returns the number of image channels that parameters were made for."""
  first = graph.first_convolution(network.architecture)
  return params[first]['w'].shape[2]


def read_for(
  network: Network,
  folder: str | os.PathLike[str],
  config: ml_collections.ConfigDict,
  path: pathlib.Path | None = None,
) -> tuple[pathlib.Path, checkpoint.Checkpoint]:
  """Does `read_run`, and checks that the file belongs to the run's network.

  Args:
    network: made from `config`.
    folder: workdir of the run.
    config: of the run.
    path: path of a checkpoint; None: the newest undamaged one.

  Raises:
    UserError: there is no undamaged checkpoint of this network.
  """

  def expected(path: pathlib.Path, params: Tree) -> tuple[Tree, Tree]:
    try:
      seen = channels_of(network, params)
    except (KeyError, IndexError) as error:
      first = graph.first_convolution(network.architecture)
      raise UserError(
        f'checkpoint {path} belongs to another network than config.model: it '
        f'has no convolution {first}/w'
      ) from error
    size = config.data.image_size
    return abstract_init(network, (size, size, seen))

  return read_run(folder, config, path, expected)


def select(
  workdir: str | os.PathLike[str], which: str
) -> list[pathlib.Path | None]:
  """Returns the checkpoint paths for the value of --checkpoint.

  Args:
    workdir: folder of a run.
    which: 'last'; 'best' by `checkpoint.best_metric`; 'all' that are kept,
      oldest first; or a step number.

  Returns:
    Paths; [None] for 'last', meaning the newest undamaged checkpoint.

  Raises:
    UserError: the run has no such checkpoint.
  """
  if which == 'last':
    return [None]
  found = sorted(checkpoint.paths(workdir))
  steps = {int(path.stem.removeprefix('step_')): path for path in found}
  if not found:
    raise checkpoint.missing(workdir)
  kept = f'its checkpoints are of step {", ".join(map(str, steps))}'
  if which == 'all':
    return list(found)
  if which == 'best':
    _, step = checkpoint.newest_whole(workdir, _best_step, warn)
    if step is None:
      raise UserError(
        f'--checkpoint=best: the run in {workdir} has no best checkpoint: it '
        f'was trained without --config.checkpoint.best_metric; {kept}'
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
  """Returns the step of the best checkpoint, stored in the newest one."""
  about = checkpoint.read_about(path)
  try:
    # Older checkpoints have no `progress` around it.
    return int(about.get('progress', about)['best']['step'])
  except (AttributeError, KeyError, TypeError, ValueError):
    return None


def describe_images(folder: str | os.PathLike[str]) -> str:
  """Returns image size, mean and std of a run as text; '' if unknown."""
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

  It has only config.json and a checkpoint with parameters and network state.

  Args:
    folder: a workdir that holds no run.
    config: config of the network.
    params: tree of arrays.
    network_state: tree of arrays.
    step: number of training steps that made the parameters.
    about: JSON values to store in the checkpoint.

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
