"""Prints a table of runs, and of means over seeds.

  python -m googlenet.tools.trials runs/*
  python -m googlenet.tools.trials runs/* --format=csv \
    --base=configs/fmnist28_fast.py

Each run has one row: how its config differs from the base, its seed, the
evaluation split, the last and the best accuracy, images/s, minutes, and whether
it is finished. Finished runs that differ only in their seed form a group, with
the mean of their last accuracies; of two runs with the same seed, only the
first counts. Groups with common seeds are compared by the differences of these.
A folder of a sweep is left out: its trials are the folders in it.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.cli.process import ending, run_tool
from googlenet.errors import UserError
from googlenet.io import checkpoint, named, pretrained
from googlenet.tools import operations, runs

# Letters of a cell in a table for people: a network of one's own is a field of
# thousands. CSV and JSON have all of them.
_MAX_CELL = 200


class Trial(NamedTuple):
  """One run; a value is None if its files do not contain it."""

  workdir: str
  changes: str  # to the config: field=value, ...
  seed: int
  split: str  # of evaluation
  epoch: float | None  # of the last evaluation
  epochs: int  # of the whole schedule
  accuracy: float | None  # of the last evaluation
  best_accuracy: float | None
  images_per_second: float | None
  minutes: float | None  # of the whole run, if it is finished
  is_finished: bool


class Group(NamedTuple):
  """Runs that differ only in their seed."""

  changes: str
  split: str
  seeds: int
  mean: float  # of the last accuracies
  deviation: float | None  # n - 1 in the denominator; None for one seed
  minutes: float | None  # mean


class Pair(NamedTuple):
  """Two groups, compared by their accuracies with the same seeds."""

  split: str
  seeds: int
  difference: float  # mean over seeds
  error: float  # standard error of the mean
  changes: str  # of the better group
  minus: str  # changes of the other


def read_trial(
  workdir: str | os.PathLike[str], base: ml_collections.ConfigDict
) -> Trial:
  """Reads a run.

  Raises:
    UserError: the folder holds no run or cannot be read.
  """
  try:
    run = runs.read(str(workdir))
  except OSError as error:
    raise UserError(f'{workdir}: {error.strerror}') from error
  _, accuracies = run.curve('eval/accuracy')
  _, rates = run.curve('train/images_per_second')
  evaluated = [r for r in run.records if 'eval/accuracy' in r]
  seconds = run.result.get('seconds')
  changes = runs.recipe_changes(base, run.config), _files(run)
  return Trial(
    str(workdir),
    ', '.join(filter(None, changes)),
    run.config.seed,
    run.config.data.eval_split,
    evaluated[-1].get('epoch') if evaluated else None,
    run.config.train.epochs,
    accuracies[-1] if accuracies else None,
    max(accuracies, default=None),
    run.result.get(
      'train/images_per_second', statistics.median(rates) if rates else None
    ),
    None if seconds is None else seconds / 60,
    bool(run.result),
  )


def _files(run: runs.RunFiles) -> str:
  """Tells the user's own images of a run whose config names no folder.

  A published run is one: its checkpoint has the SHA-256 of names and labels.
  """
  data, paths = run.config.data, checkpoint.paths(run.workdir)
  if data.source not in runs.FILES or data.data_dir or not paths:
    return ''
  try:
    files = pretrained.stored_data(paths[0]).get('files', '')
  except (UserError, OSError):  # a damaged file loses no table
    return ''
  return f'images={files[:8]}' if files else ''


def _members(
  trials: Sequence[Trial],
) -> dict[tuple[str, str], dict[int, Trial]]:
  """Returns finished trials by (changes, split) and seed."""
  groups: dict[tuple[str, str], dict[int, Trial]] = {}
  for trial in trials:
    if trial.is_finished and trial.accuracy is not None:
      group = groups.setdefault((trial.changes, trial.split), {})
      group.setdefault(trial.seed, trial)
  return groups


def make_groups(trials: Sequence[Trial]) -> list[Group]:
  """Returns the groups of finished runs, the highest mean first."""
  made = []
  for (changes, split), members in _members(trials).items():
    accuracy = runs.score([trial.accuracy for trial in members.values()])
    minutes = [t.minutes for t in members.values() if t.minutes is not None]
    made.append(
      Group(changes, split, len(members), *accuracy, runs.score(minutes).mean)
    )
  return sorted(made, key=lambda group: -group.mean)


def make_pairs(trials: Sequence[Trial]) -> list[Pair]:
  """Returns the differences of groups with at least two common seeds."""
  members = _members(trials)
  made = []
  for first, second in itertools.combinations(make_groups(trials), 2):
    if first.split != second.split:
      continue
    found = runs.paired(
      *(
        {
          seed: trial.accuracy
          for seed, trial in members[group.changes, group.split].items()
        }
        for group in (first, second)
      )
    )
    if found:
      words = (group.changes or '(none)' for group in (first, second))
      made.append(Pair(first.split, *found, *words))
  return made


def load_config(
  path: str | os.PathLike[str], is_code: bool = False
) -> ml_collections.ConfigDict:
  """Returns the resolved config of a config file or of a workdir.

  Args:
    path: of either, or a name if code may be run.
    is_code: whether a file of Python may be run: not what a pattern like runs/*
      has found.

  Raises:
    UserError: the path holds no config, or the config cannot be loaded.
  """
  file = pathlib.Path(path) / 'config.json'
  if is_code:  # as --config takes it: a name of either too
    file = pathlib.Path(command_line.config_of(str(path)))
  if file.suffix == '.json':
    try:
      config = config_lib.load(file, True)
    except OSError as error:
      raise UserError(f'{path}: {error.strerror}') from error
    return config_lib.resolve(config)
  try:
    return config_lib.resolve(command_line.load_config_file(str(file)))
  except UserError as error:
    raise UserError(str(error).replace('--config=', '--base=', 1)) from error


def _cell(value: Any) -> str:
  if value is None:
    return '-'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  text = f'{value:.4g}' if isinstance(value, float) else str(value)
  return text if len(text) <= _MAX_CELL else f'{text[:_MAX_CELL]}...'


def to_text(rows: Sequence[NamedTuple]) -> str:
  """Returns rows as a table; the long columns are the last."""
  if not rows:
    return ''
  long = ('changes', 'minus')
  names = [name for name in rows[0]._fields if name not in long]
  names += [name for name in long if name in rows[0]._fields]
  return runs.aligned(
    [
      [name.replace('_', ' ') for name in names],
      *([_cell(getattr(row, name)) for name in names] for row in rows),
    ]
  )


def render(trials: Sequence[Trial], form: str) -> str:
  """Returns the trials as text in a `--format`; except in CSV, groups too."""
  if form == 'csv':
    return runs.as_csv([row._asdict() for row in trials]).rstrip('\n')
  parts = {
    'trials': trials,
    'groups': make_groups(trials),
    'pairs': make_pairs(trials),
  }
  if form == 'json':
    rows = {
      name: [row._asdict() for row in part] for name, part in parts.items()
    }
    return json.dumps(rows, indent=2)
  return '\n\n'.join(to_text(part) for part in parts.values() if part)


def main(argv: Sequence[str]) -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m googlenet.tools.trials',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('workdirs', nargs='+', help='folders of runs, or names')
  parser.add_argument(
    '--base',
    default='',
    help='what to compare with, as --config takes it; default: the first run',
  )
  parser.add_argument(
    '--format', default='text', choices=('text', 'csv', 'json')
  )
  operations.add_flag(parser)
  options = parser.parse_args(argv)
  with ending() as end:
    operations.register(options.operations)
    trials, base = [], None
    given = load_config(options.base, True) if options.base else None
    for workdir in map(named.find, options.workdirs):
      try:
        runs.check_no_sweep(workdir)
        if base is None:
          first = load_config(workdir, False)
          # What the data set decides is in no config file, but in runs.
          base = runs.as_decided_in(given, first) if given else first
        trials.append(read_trial(workdir, base))
      except UserError as error:
        print(f'warning: left out: {error}', file=sys.stderr)
    if not trials:
      raise UserError('none of these folders holds a run')
    print(render(trials, options.format))
  return end.code


if __name__ == '__main__':
  run_tool(main)
