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
from googlenet.errors import UserError, unwritable
from googlenet.io import checkpoint, compare
from googlenet.io.archive import DamagedError, MismatchError
from googlenet.io.compare import (
  Changes,
  check_config,
  check_trained,
  differences,
  trained_with,
)
from googlenet.io.metrics import Progress
from googlenet.io.workdir import (
  Lock,
  check_not_of_another,
  check_workdir,
  check_writable,
  is_begun,
  read_object,
)
from googlenet.io.writer import LogSize
from googlenet.runtime.distributed import broadcast, on_process_0
from googlenet.runtime.parallel import replicated
from googlenet.train import carry_over
from googlenet.train.same_run import check_about, data_of, progress_of
from googlenet.train.setup import Run
from googlenet.train.state import TrainState

# Fields on which the parameters of some networks depend.
_SHAPES_PARAMETERS = ('data.image_size',)
# Fields without which scores cannot be compared, so the best begins anew.
_SCORED_BY = (
  'checkpoint.best_metric',
  'data.eval_split',
  'data.on_bad_image',
  'data.image_size',
  'data.resize',
  'data.interpolation',
  'data.squeeze',
  'data.mean',
  'data.std',
  'augment.random_resized_crop',
  'eval.batch_norm_batches',
  'eval.flip',
  'eval.shift',
)


class Found(NamedTuple):
  """What a workdir holds.

  Attributes:
    is_run: whether it holds a run, which is then continued.
    has_checkpoint: whether that run has a checkpoint to continue from.
    result: contents of result.json; None if the run is not finished.
    lock: lock of the workdir; None without a run or outside process 0.
    allow_config_change: whether the run may be continued with another config.
  """

  is_run: bool
  has_checkpoint: bool
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
    changes: parts of the state that start anew or are dropped, because the
      config was changed; '' if none.
  """

  step: int
  state: TrainState
  progress: Progress
  log: LogSize = LogSize()
  path: str = ''
  changes: str = ''


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
    UserError: another process uses the workdir, its run has another config, it
      is not writable, or it is that of a sweep.
  """
  path, locks = pathlib.Path(workdir), []

  def at_process_0() -> tuple[bool, bool, dict[str, Any] | None]:
    if checkpoint.is_sweep(workdir):
      raise UserError(
        f'--workdir={workdir} holds a sweep: give --mode=sweep to continue it, '
        'or the folder of one of its trials'
      )
    if not os.path.exists(path / 'config.json'):
      check_workdir(path)
      return False, False, None
    check_not_of_another(path)
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
      _check_continues(workdir)
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
    return True, bool(checkpoint.paths(workdir)), result

  is_run, has_checkpoint, result = on_process_0(at_process_0)
  lock = locks[0] if locks else None
  return Found(is_run, has_checkpoint, result, lock, allow_config_change)


def _check_continues(workdir: str | os.PathLike[str]) -> None:
  """Raises UserError if a workdir holds a network without its training."""
  try:
    is_whole = all(map(checkpoint.is_whole, checkpoint.paths(workdir)[:1]))
  except DamagedError:  # perhaps an older one is whole
    return
  if not is_whole:
    raise UserError(
      f'--workdir={workdir} holds a published or imported network, without the '
      'state of its training: it can be used, but not trained further. To '
      'start a new run from it, give another --workdir, --config='
      f'{pathlib.Path(workdir) / "config.json"} and '
      f'--config.finetune.from_workdir={workdir}'
    )


def _read_result(path: pathlib.Path) -> dict[str, Any] | None:
  try:
    return read_object(path, 'run')
  except FileNotFoundError:
    return None


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
  config, data = run.config, data_of(run)

  def read(path: pathlib.Path) -> Any:
    return read_state_of(path, config, data, run.state)

  def at_process_0() -> tuple[str, Any, LogSize, str]:
    if not checkpoint.paths(workdir):
      return '', dataclasses.asdict(Progress()), LogSize(), ''
    path, (state, about, told) = checkpoint.newest_whole(workdir, read, warn)
    progress, changes = progress_of(about), trained_with(about, config)
    check_trained(workdir, path, changes, allow_config_change)
    check_length(workdir, int(state.step), run)
    for line in adapt(progress, changes, int(state.step), run):
      warn(line)
    set_aside(workdir, path)
    restored.append(state)
    return str(path), dataclasses.asdict(progress), LogSize.of(about), told

  path, values, log, told = on_process_0(at_process_0)
  progress = Progress.from_json(values)
  if not path:
    return Start(0, run.state, progress)
  state = broadcast(checkpoint.to_host(restored[0] if restored else run.state))
  step = int(state.step)
  return Start(step, replicated(state), progress, LogSize(*log), path, told)


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
      f'{compare.words_of(scored)}: the best evaluation is chosen anew, and '
      f'the checkpoint of step {progress.best["step"]:,} is no longer kept as '
      'the best'
    )
    progress.best, progress.since_best = None, []
  # Nothing is left to train, but the scores may be of another step or config.
  is_over = step == run.durations.num_steps
  is_over |= progress.ends_early(step, run.config.train.early_stopping)
  if changes and is_over:
    progress.is_epoch_pending = True


def read_state_of(
  path: pathlib.Path, config: Any, data: dict[str, Any], state: TrainState
) -> tuple[TrainState, dict[str, Any], str]:
  """Reads the state of a checkpoint as the config of this run needs it.

  Args:
    path: of the checkpoint.
    config: resolved; may differ from that of the checkpoint.
    data: returned by `data_of`.
    state: the state before the first step, under `config`.

  Returns:
    The state as NumPy arrays; the checkpoint's description of the run; and
    which parts start anew or are dropped, '' if none.

  Raises:
    DamagedError, MismatchError: the file is damaged or of another network.
    UserError: the checkpoint is of another run, or the network has other
      parameters because of a changed field.
  """
  changes, sources = {}, carry_over.Sources({})

  def find_sources(
    expected: Mapping[str, Any], stored: set[str], about: dict[str, Any]
  ) -> dict[str, tuple[str, ...]]:
    nonlocal changes, sources
    check_about(path, about, config, data)
    changes = differences(about['config'], config)
    if not changes:  # arrays that do not fit are those of another run
      return {name: (name,) for name in expected}
    sources = carry_over.find_sources(expected, stored)
    return sources.names

  try:
    restored, about = checkpoint.restore_state(path, state, find_sources)
  except MismatchError as error:
    for name in _SHAPES_PARAMETERS:
      if name in changes:
        there, here = changes[name]
        raise UserError(
          f'config.{name}={here!r}: the run has {there!r}, and this network '
          f'has other parameters for {here!r}: continue with {there!r}, or '
          'train into another --workdir',
          name,
        ) from error
    raise
  restored, told = carry_over.finish(restored, state, sources, changes)
  return restored, about, told


def set_aside(workdir: str | os.PathLike[str], used: pathlib.Path) -> None:
  """Renames the checkpoints newer than `used`, so no one reads them again."""
  found = checkpoint.paths(workdir)
  for path in found[: found.index(used)]:
    os.replace(path, path.with_name(path.name + '.unusable'))
