"""The folder of a sweep: it stores the sweep and the config of all trials."""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import ml_collections

from googlenet import config as config_lib
from googlenet.cli.overrides import as_flags
from googlenet.data import sources
from googlenet.data.splits import changed_files
from googlenet.errors import UserError, is_full
from googlenet.fields import FIELDS, LOCAL
from googlenet.io import checkpoint, compare, pretrained
from googlenet.io.workdir import (
  RUN_FILES,
  Lock,
  check_writable,
  holds_a_run,
  write_text,
)
from googlenet.runtime import files
from googlenet.tools.sweep import grid

NAME = 'sweep.json'
Config = ml_collections.FrozenConfigDict


def read(workdir: pathlib.Path, config: Config) -> grid.Sweep | None:
  """Returns the sweep that a folder holds, or None.

  Args:
    workdir: the folder; it need not exist.
    config: that the trials would start from.

  Raises:
    UserError: the folder holds a run, a sweep with another config, or a damaged
      sweep.json.
  """
  path = workdir / NAME
  if not path.exists():
    for name in RUN_FILES:
      # config.json alone may be left from a sweep that was interrupted between
      # writing config.json and sweep.json.
      if name != 'config.json' and (workdir / name).exists():
        raise UserError(holds_a_run(workdir, name))
    return None
  try:
    stored = json.loads(files.read_text(path))['sweep']
    sweep = {
      str(field): tuple(tuple(v) if isinstance(v, list) else v for v in values)
      for field, values in stored.items()
    }
    for field in sweep.keys() - FIELDS.keys():
      raise ValueError(f'{field} is not a field')
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path} is damaged ({type(error).__name__}): delete it and start the '
      'sweep again; finished trials are kept'
    ) from error
  _check_config(workdir, config, sweep)
  return sweep


def _check_config(
  workdir: pathlib.Path, config: Config, sweep: grid.Sweep
) -> None:
  stored = config_lib.load(workdir / 'config.json', with_local=True)
  changes = [
    f'config.{name} is {there!r} there and {here!r} here'
    for name, (there, here) in compare.differences(stored, config).items()
    if name not in sweep
    # Checkpoints of a run tell its teacher; trials to come have none.
    and (name not in compare.MAY_CHANGE or name == 'train.teacher')
  ]
  if changes:
    raise UserError(
      f'--workdir={workdir} holds a sweep with another config: '
      f'{"; ".join(changes)}. Leave out these fields (or --config) to continue '
      'the sweep, or give another folder'
    )


def check_own(workdir: pathlib.Path, sweep: grid.Sweep) -> None:
  """Checks that a stored sweep names no folders or programs of this machine.

  Raises:
    UserError: it does, so the user has to give it.
  """
  for name in LOCAL.keys() & sweep.keys():
    raise UserError(
      f'{workdir / NAME} sweeps {name}={", ".join(map(repr, sweep[name]))}: '
      'only your own command line names folders and programs; give --sweep as '
      'at the start'
    )


def check_data(
  workdir: pathlib.Path, config: Config, trials: Iterable[grid.Trial]
) -> None:
  """Checks that data in another place are those of the trials that have begun.

  Raises:
    UserError: they have other files or labels.
  """
  stored = config_lib.load(workdir / 'config.json', with_local=True)
  places = {'data.data_dir', 'data.classes'}
  if not places & compare.differences(stored, config).keys():
    return
  for trial in trials:
    if places & trial.values.keys():
      return
    for path in checkpoint.paths(workdir / trial.name)[:1]:
      data = trial.config.data
      found = sources.load_dataset(data, data.train_split).identity
      here = found.to_json() if found else {}
      if changed := changed_files(pretrained.stored_data(path), here):
        raise UserError(
          f'--workdir={workdir} holds a sweep on other images than '
          f'config.data.data_dir={data.data_dir!r} has: {changed}; give the '
          'folder of its images, or another --workdir'
        )
      return


def check_same(
  workdir: pathlib.Path, stored: grid.Sweep, given: grid.Sweep
) -> None:
  """Checks that two sweeps have the same trials.

  Raises:
    UserError: the sweeps differ in their fields or values.
  """

  def words(values: tuple[Any, ...]) -> str:
    return ', '.join(map(str, values)) if values else 'not swept'

  def plain(field: str, sweep: grid.Sweep) -> set[Any]:
    return {FIELDS[field].current(value) for value in sweep.get(field, ())}

  changes = [
    f'{field} is {words(stored.get(field, ()))} there and '
    f'{words(given.get(field, ()))} here'
    for field in {**stored, **given}
    if plain(field, stored) != plain(field, given)
  ]
  if changes:
    raise UserError(
      f'--workdir={workdir} holds another sweep: {"; ".join(changes)}. Leave '
      'out --sweep to continue that sweep, or give another folder'
    )


def with_old_names(
  workdir: pathlib.Path, trials: Iterable[grid.Trial]
) -> tuple[grid.Trial, ...]:
  """Gives trials that an older version has begun the names of their folders."""
  return tuple(
    trial._replace(name=trial.old_name)
    if (workdir / trial.old_name).is_dir()
    else trial
    for trial in trials
  )


def begin(
  workdir: pathlib.Path, config: Config, sweep: grid.Sweep
) -> grid.Sweep:
  """Writes a sweep to its folder, unless another process has done so.

  Returns:
    The sweep in the folder: the same one, but its order may differ.

  Raises:
    UserError: the folder holds another sweep, or cannot be written to.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    check_writable(workdir)
    with Lock(workdir, wait=True):
      stored = read(workdir, config)
      if stored is not None:
        check_same(workdir, stored, sweep)
        return stored
      write_text(workdir / 'config.json', config_lib.to_json(config))
      write_text(workdir / NAME, json.dumps({'sweep': sweep}, indent=2) + '\n')
  except OSError as error:
    if is_full(error):
      raise
    raise UserError(
      f'--workdir={workdir} cannot be made or written to '
      f'({error.strerror}): give another folder'
    ) from error
  return sweep


def config_flags(workdir: str | os.PathLike[str], config: Config) -> list[str]:
  """Returns the flags that change the stored config to `config`.

  They name folders and programs, which a trial does not take from the stored
  config, or change fields that do not affect results.
  """
  stored = config_lib.load(pathlib.Path(workdir) / 'config.json')
  values = {
    name: here
    for name, (_, here) in compare.differences(stored, config).items()
    if name in (*compare.MAY_CHANGE, *LOCAL)
  }
  return as_flags(values)
