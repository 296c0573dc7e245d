"""Which checkpoints of a run are meant, and several of them as one."""

import json
import os
import pathlib

import jax
import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.io import archive, checkpoint
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference.trained import Trained

_WORDS = ('last', 'best', 'all')


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
    UserError: there is no such checkpoint.
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
  """Returns what a checkpoint knows of the best one so far."""
  arrays, _ = archive.read(path, {}, {'about': 2**20})
  try:
    about = json.loads(arrays['about'].tobytes())
    # Older checkpoints hold it beside what is now `progress`.
    return int(about.get('progress', about)['best']['step'])
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
    return None


def average_weights(members: list[Trained]) -> Trained:
  """Returns a network with the mean of the parameters of several.

  Izmailov et al., 2018 (arXiv 1803.05407). Running statistics of batch norm are
  averaged like parameters: right for checkpoints that are close to each other,
  as those of one run at its end. For others they are estimated anew, as there
  (`training.running_statistics`).

  Raises:
    UserError: they are not of one network.
  """
  first = members[0]
  for other in members[1:]:
    for name, get in _MUST_EQUAL.items():
      if get(first) != get(other):
        raise UserError(
          f'--average=weights: {first.path} and {other.path} differ in {name}; '
          'give checkpoints of one network, or --average=predictions'
        )

  def mean(*leaves: jax.Array) -> np.ndarray:
    total = sum(np.asarray(jax.device_get(x), np.float64) for x in leaves)
    return (total / len(leaves)).astype(leaves[0].dtype)

  params, network_state = (
    replicated(
      jax.tree.map(mean, *(getattr(member, name) for member in members))
    )
    for name in ('params', 'network_state')
  )
  return first._replace(params=params, network_state=network_state)


_MUST_EQUAL = {
  'config.model, the layers': lambda one: one.network.architecture,
  'config.model.num_classes': lambda one: one.network.num_classes,
  'config.model.activation': lambda one: one.config.model.activation,
  'the channels that they see': lambda one: one.image_shape[-1],
  'config.data.mean': lambda one: tuple(one.config.data.mean),
  'config.data.std': lambda one: tuple(one.config.data.std),
}
