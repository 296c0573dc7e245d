"""Resuming a run: reads its workdir and checks that it fits the config.

Only process 0 reads the workdir; it broadcasts the result to the others.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.io import checkpoint
from googlenet.io.archive import DamagedError
from googlenet.io.metrics import Progress
from googlenet.io.workdir import (
  Lock,
  check_not_of_another,
  check_workdir,
  check_writable,
  read_object,
)
from googlenet.runtime.distributed import broadcast, on_process_0
from googlenet.runtime.parallel import replicated
from googlenet.train.state import TrainState

# Fields that no resumed run may change: its parameters or the order of its data
# depend on them.
NEVER_CHANGES = (
  'seed',
  'model.variant',
  'model.num_classes',
  'model.width_multiplier',
  'model.normalization',
  'model.activation',
  'model.aux_heads',
  'model.initializer',
  'data.source',
  'data.name',
  'data.channels',
  'data.train_split',
  'train.batch_size',
  'optimizer.name',
  'optimizer.muon_rest',
)
# Fields that any resumed run may change: they do not affect its results.
MAY_CHANGE = (
  'data.data_dir',
  'data.on_device_mb',
  'data.workers',
  'eval.crops',
  'train.compilation_cache',
  'train.parallel',
  *(name for name in FIELDS if name.startswith('benchmark.')),
)


class Found(NamedTuple):
  """What a workdir holds.

  Attributes:
    is_run: whether it holds a run, which is then continued.
    result: contents of result.json; None if the run is not finished.
    lock: lock of the workdir; None without a run or outside process 0.
  """

  is_run: bool
  result: dict[str, Any] | None
  lock: Lock | None


class Start(NamedTuple):
  """Where training begins.

  Attributes:
    step: steps made so far.
    state: training state, on every local device.
    progress: progress of the run so far.
    metrics_bytes: length of metrics.jsonl at this step.
    path: path of the checkpoint; '' without one.
  """

  step: int
  state: TrainState
  progress: Progress
  metrics_bytes: int = 0
  path: str = ''


def look(
  workdir: str | os.PathLike[str],
  config: ml_collections.FrozenConfigDict,
  allow_config_change: bool,
) -> Found:
  """Returns what a workdir holds; if it holds a run, locks it.

  Args:
    workdir: may be missing.
    config: resolved.
    allow_config_change: whether the stored config may differ.

  Raises:
    UserError: another process uses the workdir, its run has another config, or
      it is not writable.
  """
  path, locks = pathlib.Path(workdir), []

  def at_process_0() -> tuple[bool, dict[str, Any] | None]:
    if os.path.exists(path / 'sweep.json'):
      raise UserError(
        f'--workdir={workdir} holds a sweep: give --mode=sweep to continue it, '
        'or the folder of one of its trials'
      )
    if not os.path.exists(path / 'config.json'):
      check_workdir(path)
      return False, None
    check_not_of_another(path)
    try:
      check_writable(path)
      locks.append(Lock(path))
    except OSError as error:
      raise UserError(
        f'--workdir={workdir} holds a run but cannot be written to '
        f'({error.strerror}): nothing was changed'
      ) from error
    try:
      stored = config_lib.load(path / 'config.json', with_local=True)
      stored = config_lib.resolve(stored)
      is_changed = check_config(workdir, stored, config, allow_config_change)
      if not (path / 'checkpoints').is_dir():
        raise UserError(
          f'--workdir={workdir} holds a run, but its folder checkpoints is '
          'missing: restore it, or give another folder'
        )
      result = None if is_changed else _read_result(path / 'result.json')
    except UserError:
      locks.pop().release()
      raise
    return True, result

  is_run, result = on_process_0(at_process_0)
  return Found(is_run, result, locks[0] if locks else None)


def _read_result(path: pathlib.Path) -> dict[str, Any] | None:
  try:
    return read_object(path, 'run')
  except FileNotFoundError:
    return None


def differences(
  stored: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Returns {field: (value there, value here)} where two configs differ."""
  there, here = config_lib.flatten(stored), config_lib.flatten(config)

  def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value

  return {
    name: (there.get(name), here[name])
    for name in FIELDS
    if plain(there.get(name)) != plain(here[name])
  }


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


def describe_data(dataset: Dataset) -> dict[str, Any]:
  """Returns what identifies a training set, for JSON."""
  return {
    'name': dataset.name,
    'split': dataset.split,
    'num_examples': dataset.num_examples,
    'image_shape': list(dataset.image_shape),
    'num_classes': dataset.num_classes,
  }


def restore(
  workdir: str | os.PathLike[str],
  config: Any,
  data: dict[str, Any],
  state: TrainState,
  warn: checkpoint.Warn,
) -> Start:
  """Reads the newest undamaged checkpoint of a run.

  Without any checkpoint, the run starts again at step 0.

  Args:
    workdir: a folder that holds a run.
    config: resolved.
    data: returned by `describe_data` for the training set.
    state: the state before the first step, on every local device.
    warn: called with a message for each skipped checkpoint.

  Raises:
    UserError: all checkpoints are damaged or have another network; nothing was
      changed.
  """
  restored = []

  def read(path: pathlib.Path) -> Any:
    read_state, about = checkpoint.restore_state(path, state)
    progress = check_about(path, about, config, data)
    return read_state, progress, about['metrics_bytes']

  def at_process_0() -> tuple[str, Any, int]:
    if not checkpoint.paths(workdir):
      return '', dataclasses.asdict(Progress()), 0
    path, found = checkpoint.newest_whole(workdir, read, warn)
    set_aside(workdir, path)
    restored.append(found[0])
    return str(path), dataclasses.asdict(found[1]), found[2]

  path, values, metrics_bytes = on_process_0(at_process_0)
  progress = Progress.from_json(values)
  if not path:
    return Start(0, state, progress)
  state = broadcast(checkpoint.to_host(restored[0] if restored else state))
  step = int(state.step)
  return Start(step, replicated(state), progress, metrics_bytes, path)


def set_aside(workdir: str | os.PathLike[str], used: pathlib.Path) -> None:
  """Renames the checkpoints newer than `used`, so no one reads them again."""
  for path in checkpoint.paths(workdir):
    if path > used:
      os.replace(path, path.with_name(path.name + '.unusable'))
  for path in checkpoint.folder_of(workdir).glob('step_*.tmp'):
    path.unlink()


def check_about(
  path: pathlib.Path,
  about: dict[str, Any],
  config: Any,
  data: dict[str, Any],
) -> Progress:
  """Checks that a checkpoint belongs to this run; returns the progress.

  Raises:
    DamagedError: data, config or progress are missing in the file.
    UserError: the checkpoint belongs to another run.
  """
  try:
    progress = _progress_of(about)
    is_whole = about['metrics_bytes'] >= 0
    changes = differences(about['config'], config)
    theirs = about['data']
  except (KeyError, TypeError, AttributeError, IndexError) as error:
    raise DamagedError(path, 'its description of the run is bad') from error
  if not is_whole:
    raise DamagedError(path, 'its description of the run is bad')
  for name in NEVER_CHANGES:
    if name in changes:
      there, here = changes[name]
      raise UserError(
        f'checkpoint {path} is of another run: config.{name} is {there!r} '
        f'there and {here!r} here'
      )
  for key, value in data.items():
    if theirs.get(key) != value:
      raise UserError(
        f'checkpoint {path} is of a run on other data: {key} was '
        f'{theirs.get(key)!r} and is {value!r}'
      )
  return progress


def _progress_of(about: dict[str, Any]) -> Progress:
  """Reads the progress from a checkpoint.

  Version 0.1.0 called it `course` and kept metrics of single steps; metrics
  since the last record are lost.

  Raises:
    KeyError, TypeError, AttributeError: `about` has another format.
  """
  if 'course' not in about:
    return Progress.from_json(about['progress'])
  kept = ('train', 'evaluated', 'first_step_seconds', 'seconds')
  kept += ('timed_steps', 'timed_seconds')
  return Progress(
    best=about['best'],
    is_epoch_pending=about['is_epoch_pending'],
    **{name: about['course'][name] for name in kept},
  )
