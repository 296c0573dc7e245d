"""--mode=sweep: trains on a grid of fields, one trial after another."""

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
from googlenet.runtime.terminal import paint
from googlenet.tools.sweep import folder, grid, plot, summary, trials

Config = ml_collections.FrozenConfigDict


def run(
  config: Config,
  workdir: str,
  started: float,
  sweep: str = '',
  shard: str = '',
  dry_run: bool = False,
) -> None:
  """Trains the trials of a sweep that are not finished, and summarizes all.

  Args:
    config: that they start from, resolved.
    workdir: a folder without a sweep, or with this one. Each trial is a run in
      a folder of its own there.
    started: unused.
    sweep: fields and values, in the grammar of `sweep.grid`; '': those that the
      folder holds.
    shard: I/N for the trials I, I + N, I + 2 N and so on; '': all.
    dry_run: only says how far they are; writes nothing.

  Raises:
    UserError: the input is bad, or some trials failed; the others were trained.
    Stopped: a signal asked for the end; the same command goes on.
    WriteError: an output of a trial cannot be written.
  """
  del started
  path = pathlib.Path(workdir)
  base = config_lib.from_json(config_lib.to_json(config))
  stored = folder.read(path, config)
  values = grid.parse(sweep, base) if sweep else stored
  if not values:
    raise UserError(
      f'--sweep is missing: give fields and their values, like {grid.EXAMPLE}'
    )
  if stored is not None:
    folder.check_same(path, stored, values)
    values = stored
  every = grid.make_trials(values, base)
  mine = grid.shard(every, shard)
  for trial in every:  # a folder that does not fit is told now, not in a week
    trials.look(path / trial.name, trial)
  if dry_run:
    _list(path, mine, len(every))
    return
  begun = folder.begin(path, config, values)
  if list(begun.items()) != list(values.items()):
    # Another process was faster, with another order.
    every = grid.make_trials(begun, base)
    mine = grid.shard(every, shard)
  failed, stopped = _train(path, config, mine, len(every))
  _sum_up(path, every)
  _end(path, mine, failed, stopped)


def _list(path: pathlib.Path, mine: Sequence[grid.Trial], count: int) -> None:
  for trial in mine:
    print(f'{_title(trial, count)}: {_describe(path, trial)}')


def _title(trial: grid.Trial, count: int) -> str:
  number = str(trial.index + 1).rjust(len(str(count)))
  return f'trial {number}/{count}  {trial.name}'


def _describe(path: pathlib.Path, trial: grid.Trial) -> str:
  state = trials.look(path / trial.name, trial)
  if state.name == 'finished':
    accuracy = state.result.get('eval/accuracy')
    return f'finished, eval accuracy {accuracy}'
  if state.name == 'diverged':
    return f'diverged: {state.result.get("error")}'
  return {'in use': 'in use by another process'}.get(state.name, state.name)


def _train(
  path: pathlib.Path, config: Config, mine: Sequence[grid.Trial], count: int
) -> tuple[dict[str, str], str]:
  """Trains what is left; returns why trials failed, and the signal, or ''."""
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
      # Made here, so that a run can leave there how it ended from the start.
      (path / trial.name).mkdir(exist_ok=True)
      end = process.run(trials.command(path, trial, flags))
      if end.exit_code == 0:
        continue
      if end.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
      if process.signal_name or end.exit_code == EXIT_CONTINUE:
        return failed, process.signal_name or 'SIGTERM'
      if end.exit_code == WriteError.exit_code:
        raise WriteError(f'{end.error}; the same command goes on with the rest')
      if trials.look(path / trial.name, trial).name != 'diverged':
        failed[trial.name] = end.words
  return failed, ''


def _sum_up(path: pathlib.Path, every: Sequence[grid.Trial]) -> None:
  """Prints and writes the summary of all trials, whoever trained them."""
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
  """Raises what a sweep ends with, if not all of it is done."""
  left = [
    trial
    for trial in mine
    if trials.look(path / trial.name, trial).name in ('begun', 'to do')
  ]
  if stopped:
    raise Stopped(
      f'ended on {stopped} with {len(left)} trial(s) to go: the same command '
      f'with --workdir={path} goes on'
    )
  if failed:
    name, why = next(iter(failed.items()))
    more = f' and {len(failed) - 1} more' if len(failed) > 1 else ''
    raise UserError(
      f'{len(failed)} of {len(mine)} trials failed, {name}{more}: {why}; the '
      f'same command with --workdir={path} tries them again'
    )
