"""Resuming a run: reads its workdir and checks that it fits the config.

Only process 0 reads the workdir; it broadcasts the result to the others.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.data.sources import Dataset
from googlenet.errors import UserError, unwritable
from googlenet.fields import FIELDS
from googlenet.io import checkpoint
from googlenet.io.archive import DamagedError
from googlenet.io.metrics import Progress
from googlenet.io.workdir import (
  Lock,
  check_workdir,
  check_writable,
  is_begun,
  read_object,
)
from googlenet.io.writer import LogSize
from googlenet.runtime.distributed import broadcast, on_process_0
from googlenet.runtime.parallel import replicated
from googlenet.train.setup import Run
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


# Fields without which scores cannot be compared, so the best begins anew.
_SCORED_BY = (
  'checkpoint.best_metric',
  'data.eval_split',
  'data.image_size',
  'data.resize',
  'eval.flip',
  'eval.shift',
)


# Fields that say what a trained network computes.
_USED_BY_TOOLS = (
  'model.',
  'data.image_size',
  'data.resize',
  'data.channels',
  'data.mean',
  'data.std',
  'train.ema_decay',
  'train.precision',
)


class Found(NamedTuple):
  """What a workdir holds.

  Attributes:
    is_run: whether it holds a run, which is then continued.
    result: contents of result.json; None if the run is not finished.
    lock: lock of the workdir; None without a run or outside process 0.
    allow_config_change: whether the run may be continued with another config.
  """

  is_run: bool
  result: dict[str, Any] | None
  lock: Lock | None
  allow_config_change: bool = False


class Start(NamedTuple):
  """Where training begins.

  Attributes:
    step: steps made so far.
    state: training state, on every local device.
    progress: progress of the run so far.
    log: size of metrics.jsonl at this step.
    path: path of the checkpoint; '' without one.
  """

  step: int
  state: TrainState
  progress: Progress
  log: LogSize = LogSize()
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
    try:
      check_writable(path)
      locks.append(Lock(path))
    except OSError as error:
      raise unwritable(
        f'nothing was changed: --workdir={workdir} holds a run but cannot be '
        'written to',
        error,
      ) from error
    try:
      stored = config_lib.load(path / 'config.json', with_local=True)
      stored = config_lib.resolve(stored)
      is_changed = check_config(workdir, stored, config, allow_config_change)
      if not (path / 'checkpoints').is_dir() and is_begun(path):
        raise UserError(
          f'--workdir={workdir} holds a run, but its folder checkpoints is '
          'missing: restore it, or give another folder'
        )
      result = None if is_changed else _read_result(path / 'result.json')
    except (UserError, OSError):
      locks.pop().release()
      raise
    return True, result

  is_run, result = on_process_0(at_process_0)
  return Found(is_run, result, locks[0] if locks else None, allow_config_change)


def _read_result(path: pathlib.Path) -> dict[str, Any] | None:
  try:
    return read_object(path, 'run')
  except FileNotFoundError:
    return None


def differences(
  stored: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Returns {field: (value there, value here)} where two configs differ."""
  here = config_lib.flatten(config)
  there = {
    name: FIELDS[name].current(value) if name in FIELDS else value
    for name, value in config_lib.flatten(stored).items()
  }

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
  run: Run,
  allow_config_change: bool,
  warn: checkpoint.Warn,
) -> Start:
  """Reads the newest undamaged checkpoint of a run.

  Without any checkpoint, the run starts again at step 0.

  Args:
    workdir: a folder that holds a run.
    run: made from the config; its state is the one before the first step.
    allow_config_change: whether the config may differ from the one that the
      checkpoint was trained with.
    warn: called with a message for each skipped checkpoint, and if the best
      evaluation cannot be compared with later ones.

  Raises:
    UserError: all checkpoints are damaged or have another network, the config
      differs, or the run has made more steps than it asks for; nothing was
      changed.
  """
  restored = []
  config, data = run.config, describe_data(run.train.dataset)

  def read(path: pathlib.Path) -> Any:
    state, about = checkpoint.restore_state(path, run.state)
    return state, check_about(path, about, config, data), about

  def at_process_0() -> tuple[str, Any, LogSize]:
    if not checkpoint.paths(workdir):
      return '', dataclasses.asdict(Progress()), LogSize()
    path, (state, progress, about) = checkpoint.newest_whole(
      workdir, read, warn
    )
    changes = trained_with(about, config)
    check_trained(workdir, path, changes, allow_config_change)
    check_length(workdir, int(state.step), run)
    for line in adapt(progress, changes, int(state.step), run):
      warn(line)
    set_aside(workdir, path)
    restored.append(state)
    return str(path), dataclasses.asdict(progress), LogSize.of(about)

  path, values, log = on_process_0(at_process_0)
  progress = Progress.from_json(values)
  if not path:
    return Start(0, run.state, progress)
  state = broadcast(checkpoint.to_host(restored[0] if restored else run.state))
  step = int(state.step)
  return Start(step, replicated(state), progress, LogSize(*log), path)


Changes = Mapping[str, tuple[Any, Any]]


def trained_with(about: Mapping[str, Any], config: Any) -> Changes:
  """Returns {field: (value of the checkpoint, value here)} where they differ.

  Fields that are newer than the checkpoint, and those that may always change,
  are left out.
  """
  stored = config_lib.flatten(about['config'])
  return {
    name: values
    for name, values in differences(about['config'], config).items()
    if name in stored and name not in MAY_CHANGE
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
    if name.startswith(_USED_BY_TOOLS)
  }
  if changes:
    yield f'{stored} is not what {path} was trained with: {_words(changes)}'


def _words(changes: Changes) -> str:
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
      f'with: {_words(changes)}. Put the old values back to continue the run, '
      'or give --allow_config_change to continue with the new ones'
    )


def check_length(workdir: str | os.PathLike[str], step: int, run: Run) -> None:
  """Checks that a run has not made more steps than its config asks for.

  Raises:
    UserError: it has; its result would be that of another step.
  """
  durations, train = run.durations, run.config.train
  if step > durations.num_steps:
    name = 'epochs' if durations.num_steps == durations.total_steps else ''
    name = name or 'max_steps'
    raise UserError(
      f'config.train.{name}={train[name]} ends after step '
      f'{durations.num_steps:,}, but the run in {workdir} has made {step:,} '
      'steps: choose more, or give another folder',
      f'train.{name}',
    )


def adapt(
  progress: Progress, changes: Changes, step: int, run: Run
) -> Iterator[str]:
  """Drops from the progress of a run what a new config makes wrong.

  Args:
    progress: changed in place.
    changes: returned by `trained_with`.
    step: steps made.
    run: made from the new config.

  Yields:
    What the user should know.
  """
  scored = {name: changes[name] for name in _SCORED_BY if name in changes}
  if progress.best is not None and scored:
    yield (
      f'{_words(scored)}: the best evaluation is chosen anew, and the '
      f'checkpoint of step {progress.best["step"]:,} is no longer kept as the '
      'best'
    )
    progress.best = None
  # Nothing is left to train, but the scores may be of another step or config.
  if changes and step == run.durations.num_steps:
    progress.is_epoch_pending = True


def set_aside(workdir: str | os.PathLike[str], used: pathlib.Path) -> None:
  """Renames the checkpoints newer than `used`, so no one reads them again."""
  found = checkpoint.paths(workdir)
  for path in found[: found.index(used)]:
    os.replace(path, path.with_name(path.name + '.unusable'))


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
    is_whole = LogSize.of(about).bytes >= 0
    changes = trained_with(about, config)
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
