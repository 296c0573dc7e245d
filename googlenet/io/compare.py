"""Compares configs: of a command, of config.json, and of a checkpoint.

config.json may be edited by anyone; a checkpoint knows what it was trained
with.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.io import checkpoint
from googlenet.model import ablations
from googlenet.runtime import distributed

# Fields that no resumed run may change: its parameters or the order of its data
# depend on them.
NEVER_CHANGES = (
  'seed',
  'model.variant',
  'model.architecture',
  'model.num_classes',
  'model.width_multiplier',
  'model.normalization',
  'model.activation',
  'model.aux_heads',
  'model.initializer',
  *(f'model.{name}' for name in ablations.FIELDS),
  'data.source',
  'data.name',
  'data.channels',
  'data.per_class',
  'data.train_split',
  'train.batch_size',
  'optimizer.name',
  'optimizer.muon_rest',
  'optimizer.schedule_free',
  'finetune.from_workdir',
)
# Fields that any resumed run may change: they do not affect its results.
MAY_CHANGE = (
  'data.classes',  # other labels are found by `train.same_run.check_about`
  'data.data_dir',
  'data.on_device_mb',
  'data.workers',
  'eval.crops',
  'train.compilation_cache',
  'train.parallel',
  'train.teacher',  # another network is found by `train.same_run.check_about`
  *(name for name in FIELDS if name.startswith('benchmark.')),
)
# Of these, what all processes of a run compute together, step by step.
_MUST_BE_ALIKE = ('eval.crops', 'train.parallel')
# Fields that say what a trained network computes.
_USED_BY_TOOLS = (
  'model.',
  'data.image_size',
  'data.resize',
  'data.interpolation',
  'data.squeeze',
  'data.channels',
  'data.mean',
  'data.std',
  'optimizer.schedule_free',
  'train.ema_decay',
  'train.precision',
)

Changes = Mapping[str, tuple[Any, Any]]


def differences(
  stored: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Returns {field: (value there, value here)} where two configs differ."""
  defaults = config_lib.flatten(config_lib.default_config())
  there = defaults | config_lib.flatten(stored)  # older ones lack some fields
  here = config_lib.flatten(config)

  def plain(name: str, value: Any) -> Any:
    value = FIELDS[name].current(value)
    return tuple(value) if isinstance(value, (list, tuple)) else value

  pairs = {n: (plain(n, there[n]), plain(n, here[n])) for n in FIELDS}
  return {n: pair for n, pair in pairs.items() if pair[0] != pair[1]}


def check_config(
  workdir: str | os.PathLike[str],
  stored: Any,
  config: Any,
  allow_config_change: bool,
) -> bool:
  """Checks that a run may continue with a config; returns whether it differs.

  Raises:
    UserError: the config differs in fields that may not change.
  """
  changes = {
    name: values
    for name, values in differences(stored, config).items()
    if name not in MAY_CHANGE
  }
  words = '; '.join(
    f'config.{name} is {there!r} there and {here!r} here'
    for name, (there, here) in changes.items()
  )
  never = [name for name in changes if name in NEVER_CHANGES]
  if never:
    raise UserError(
      f'--workdir={workdir} holds a run with another config: {words}. A run '
      f'keeps {", ".join(never)}: leave out what differs to continue it, or '
      'give another folder'
    )
  if changes and not allow_config_change:
    raise UserError(
      f'--workdir={workdir} holds a run with another config: {words}. Leave '
      'out what differs (or --config) to continue it, give '
      '--allow_config_change to continue with the new values, or give another '
      'folder'
    )
  return bool(changes)


def check_processes(config: Any) -> None:
  """Checks that all processes of a run have the same config.

  With another learning rate, for instance, one would take other steps than the
  rest, unseen, since only process 0 writes. `data.data_dir` may differ.

  Raises:
    UserError: they differ; every process raises it.
  """
  theirs = distributed.on_process_0(config.to_dict)
  distributed.check_none_differs(
    '; '.join(
      f'config.{name} is {there!r} there and {here!r} here'
      for name, (there, here) in differences(theirs, config).items()
      if name not in MAY_CHANGE or name in _MUST_BE_ALIKE
    )
  )


def trained_with(about: Mapping[str, Any], config: Any) -> Changes:
  """Returns {field: (value of the checkpoint, value here)} where they differ.

  Fields that may always change are left out.
  """
  return {
    name: values
    for name, values in differences(about['config'], config).items()
    if name not in MAY_CHANGE
  }


def edited(
  workdir: str | os.PathLike[str], path: pathlib.Path
) -> Iterator[str]:
  """Yields a warning if config.json describes another network than was trained.

  Args:
    workdir: of a run.
    path: of the checkpoint to use.
  """
  about = checkpoint.read_about(path)
  if not isinstance(about.get('config'), dict):
    return  # imported or published weights
  stored = pathlib.Path(workdir) / 'config.json'
  if not stored.exists():  # --config is used instead
    return
  changes = {
    name: values
    for name, values in trained_with(about, config_lib.load(stored)).items()
    if name.startswith(_USED_BY_TOOLS) and name != 'model.kernels'
  }
  if changes:
    yield f'{stored} is not what {path} was trained with: {words_of(changes)}'


def words_of(changes: Changes) -> str:
  """Returns changed fields as text, with the value before and the one now."""
  return '; '.join(
    f'config.{name} was {there!r} and is {here!r}'
    for name, (there, here) in changes.items()
  )


def check_trained(
  workdir: str | os.PathLike[str],
  path: pathlib.Path,
  changes: Changes,
  allow_config_change: bool,
) -> None:
  """Checks the config against the one that a checkpoint was trained with.

  `check_config` compares with config.json, which anyone may edit.

  Raises:
    UserError: they differ, and the user did not ask for it.
  """
  if changes and not allow_config_change:
    raise UserError(
      f'{pathlib.Path(workdir) / "config.json"} is not what {path} was trained '
      f'with: {words_of(changes)}. Put the old values back to continue the '
      'run, or give --allow_config_change to continue with the new ones'
    )
