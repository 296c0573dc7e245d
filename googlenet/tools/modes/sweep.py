"""--mode=sweep: trains all combinations of field values, one after another."""

import pathlib
import sys
from collections.abc import Sequence

import ml_collections

from googlenet import config as config_lib
from googlenet.errors import (
  EXIT_CONTINUE,
  EXIT_INTERRUPTED,
  Stopped,
  UserError,
)
from googlenet.io.saver import WriteError
from googlenet.io.workdir import Lock
from googlenet.runtime.terminal import paint, rounded
from googlenet.tools.sweep import folder, grid, plot, summary, trials

Config = ml_collections.FrozenConfigDict


def run(
  config: Config,
  workdir: str,
  started: float,
  sweep: str = '',
  shard: str = '',
  dry_run: bool = False,
  operations: str = '',
) -> None:
  """Trains the unfinished trials of a sweep, and summarizes all trials.

  Args:
    config: that all trials start from, resolved.
    workdir: a folder that holds this sweep or none. Each trial is a run in its
      own subfolder.
    started: unused.
    sweep: fields and values, in the grammar of `sweep.grid`; '': those of the
      sweep in the folder.
    shard: I/N trains the trials I, I + N, I + 2 N and so on; '': all.
    dry_run: whether to only print the state of the trials.
    operations: file that registers the operations of the network, or ''.

  Raises:
    UserError: the input is bad, or some trials failed; the others were trained.
    Stopped: a signal ended the sweep; the same command continues it.
    WriteError: an output of a trial cannot be written.
  """
  del started
  path = pathlib.Path(workdir)
  base = config_lib.from_json(config_lib.to_json(config))
  stored = folder.read(path, config)
  values = grid.parse(sweep, base) if sweep else stored
  if values and not sweep:
    folder.check_own(path, values)
  if not values:
    raise UserError(
      f'--sweep is missing: give fields and their values, like {grid.EXAMPLE}'
    )
  if stored is not None:
    folder.check_same(path, stored, values)
    values = stored
  every = folder.with_old_names(path, grid.make_trials(values, base))
  mine = grid.shard(every, shard)
  for trial in every:  # reports folders with another config before training
    trials.look(path / trial.name, trial)
  if stored is not None:
    folder.check_data(path, config, every)
  if dry_run:
    for trial in mine:
      print(f'{_title(trial, len(every))}: {_describe(path, trial)}')
    return
  begun = folder.begin(path, config, values)
  if list(begun.items()) != list(values.items()):
    # Another process has just begun the sweep with the fields in another order.
    every = folder.with_old_names(path, grid.make_trials(begun, base))
    mine = grid.shard(every, shard)
  failed, stopped = _train(path, config, mine, len(every), operations)
  _sum_up(path, every)
  _end(path, mine, failed, stopped)


def _title(trial: grid.Trial, count: int) -> str:
  number = str(trial.index + 1).rjust(len(str(count)))
  return f'trial {number}/{count}  {trial.name}'


def _describe(path: pathlib.Path, trial: grid.Trial) -> str:
  state = trials.look(path / trial.name, trial)
  if state.name == 'finished':
    accuracy = rounded(state.result.get('eval/accuracy'))
    return f'finished, eval accuracy {accuracy}'
  if state.name == 'diverged':
    return f'diverged: {state.result.get("error")}'
  return 'in use by another process' if state.name == 'in use' else state.name


def _train(
  path: pathlib.Path,
  config: Config,
  mine: Sequence[grid.Trial],
  count: int,
  operations: str,
) -> tuple[dict[str, str], str]:
  """Trains unfinished trials; returns errors of failed ones, and the signal."""
  flags = folder.config_flags(path, config)
  failed: dict[str, str] = {}
  with trials.Process() as process:
    for trial in mine:
      state = trials.look(path / trial.name, trial)
      if state.name in ('finished', 'diverged', 'in use'):
        print(f'{_title(trial, count)}: {_describe(path, trial)}', flush=True)
        continue
      if process.signal_name:
        return failed, process.signal_name
      print(paint(_title(trial, count), 'heading', sys.stdout), flush=True)
      # Made here, so that the run can always write there how it ended.
      (path / trial.name).mkdir(exist_ok=True)
      end = process.run(trials.command(path, trial, flags, operations))
      if end.exit_code == 0:
        continue
      if end.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
      if process.signal_name or end.exit_code == EXIT_CONTINUE:
        return failed, process.signal_name or 'SIGTERM'
      if end.exit_code == WriteError.exit_code:
        raise WriteError(f'{end.error}; the same command trains the rest')
      if trials.look(path / trial.name, trial).name != 'diverged':
        failed[trial.name] = end.words
  return failed, ''


def _sum_up(path: pathlib.Path, every: Sequence[grid.Trial]) -> None:
  """Prints and writes the summary of all trials, also of other processes."""
  with Lock(path, wait=True):
    states = [trials.look(path / trial.name, trial) for trial in every]
    rows = summary.summarize(every, states)
    summary.write(path, rows, every, states)
    plot.write(path / 'curves.png', plot.make_figure(path, rows))
  print(summary.render(rows))
  print(f'in {path}: summary.csv, summary.json, curves.png', flush=True)


def _end(
  path: pathlib.Path,
  mine: Sequence[grid.Trial],
  failed: dict[str, str],
  stopped: str,
) -> None:
  """Raises the exception that a sweep ends with, if it is not complete."""
  left = [
    trial
    for trial in mine
    if trials.look(path / trial.name, trial).name in ('begun', 'to do')
  ]
  if stopped:
    raise Stopped(
      f'ended on {stopped} with {len(left)} trial(s) to go: the same command '
      f'with --workdir={path} continues'
    )
  if failed:
    name, why = next(iter(failed.items()))
    more = f' and {len(failed) - 1} more' if len(failed) > 1 else ''
    raise UserError(
      f'{len(failed)} of {len(mine)} trials failed, {name}{more}: {why}; the '
      f'same command with --workdir={path} tries them again'
    )
