"""Reads the files of runs, compares configs, and formats tables.

The table of trials (`python -m googlenet.tools.trials`), the summary of a sweep
and the comparison in a report use these functions.
"""

import csv
import io
import json
import math
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.data import auto
from googlenet.errors import UserError
from googlenet.fields import LOCAL
from googlenet.io import checkpoint
from googlenet.io.compare import MAY_CHANGE, differences
from googlenet.io.writer import DIVERGED, read_records
from googlenet.runtime import files

Config = ml_collections.FrozenConfigDict

# Fields that do not belong to a recipe: the seed, and where a run is stored,
# how it is logged and when it is evaluated.
_NO_RECIPE = (
  'seed',
  'data.eval_split',
  'eval.every_epochs',
  'eval.batch_size',
  'eval.crops',
  *(name for name in MAY_CHANGE if not name.startswith('eval.')),
)
_SECTIONS_OF_NO_RECIPE = ('checkpoint', 'logging')
# A continued run need not find its teacher again, but it learnt from it.
_RECIPE = ('train.teacher',)
# Where files of the user are the data set, its place belongs to the recipe.
FILES = ('idx', 'folder', 'csv', 'parquet', 'arrays')
_PLACES = ('data.data_dir', 'data.classes')


class RunFiles(NamedTuple):
  """The files of a run, finished or not.

  Attributes:
    workdir: as given by the user.
    config: of the run, resolved.
    records: of metrics.jsonl, ordered by step; empty for imported weights.
    result: of result.json; empty if the run is not finished.
    steps: of the checkpoints, in ascending order.
    divergence: which value was not finite since which step; '' if the run did
      not diverge.
  """

  workdir: str
  config: Config
  records: tuple[dict[str, Any], ...]
  result: dict[str, Any]
  steps: tuple[int, ...]
  divergence: str = ''

  @property
  def state(self) -> str:
    """How far the run is, in words."""
    if self.result:
      return f'finished after {self.result.get("step", 0):,} steps'
    if self.divergence:
      return f'diverged: {self.divergence}'
    if self.records:
      last = self.records[-1]['step']
      return f'not finished: running or stopped, last record at step {last:,}'
    return 'no training records'

  def curve(self, name: str) -> tuple[list[int], list[float]]:
    """Returns steps and values of a metric; empty lists if it has no values."""
    points = [
      (record['step'], record[name])
      for record in self.records
      if isinstance(record.get(name), int | float)
    ]
    return [x for x, _ in points], [y for _, y in points]

  def last(self, name: str) -> float | None:
    """Returns a value of result.json, else the metric's last recorded value."""
    if isinstance(self.result.get(name), int | float):
      return self.result[name]
    _, values = self.curve(name)
    return values[-1] if values else None


def read(workdir: str, config: Config | None = None) -> RunFiles:
  """Reads a workdir; damaged lines and files are treated as missing.

  Args:
    workdir: of a run.
    config: resolved, used instead of config.json.

  Raises:
    UserError: the folder holds no run, or a sweep.
  """
  check_no_sweep(workdir)
  folder = pathlib.Path(workdir)
  if config is None:
    config = config_lib.load(folder / 'config.json', with_local=True)
    config = config_lib.resolve(config)
  records = sorted(
    read_records(folder / 'metrics.jsonl'), key=lambda record: record['step']
  )
  steps = sorted(
    int(path.stem.removeprefix('step_')) for path in checkpoint.paths(folder)
  )
  return RunFiles(
    workdir,
    config,
    tuple(records),
    _read_object(folder / 'result.json'),
    tuple(steps),
    _read_object(folder / DIVERGED).get('error', ''),
  )


def check_no_sweep(workdir: str) -> None:
  """Raises UserError if a folder holds a sweep, whose trials are runs."""
  if checkpoint.is_sweep(workdir):
    raise UserError(
      f'{workdir} holds a sweep and is no run: give its trials, {workdir}/*/'
    )


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file; {} if it is missing or damaged.

  Raises:
    OSError: the file is there, but cannot be read.
  """
  try:
    found = json.loads(files.read_text(path))
  except PermissionError:
    raise
  except (OSError, ValueError, RecursionError):
    return {}
  return found if isinstance(found, dict) else {}


def as_decided_in(config: Config, run: Config) -> Config:
  """Fills in the fields that the data set decides with the values of a run.

  Args:
    config: resolved.
    run: config of a run, which has numbers there.
  """
  filled = ml_collections.ConfigDict(config.to_dict())
  for section, field in auto.open_fields(config):
    if run[section][field] not in ((), []):  # a run without class weights
      filled[section][field] = run[section][field]
  return ml_collections.FrozenConfigDict(filled)


def with_local(config: Config, path: str | os.PathLike[str]) -> Config:
  """Fills in the `LOCAL` fields as a config.json has them, to show a config.

  Args:
    config: resolved; what it has instead of a default stays.
    path: of the config.json, which need not exist.
  """
  if not os.path.exists(path):
    return config
  stored = config_lib.flatten(config_lib.load(path, with_local=True))
  default = config_lib.flatten(config_lib.default_config())
  here = config_lib.flatten(config)
  filled = ml_collections.ConfigDict(config.to_dict())
  filled.update_from_flattened_dict(
    {name: stored[name] for name in LOCAL if here[name] == default[name]}
  )
  return ml_collections.FrozenConfigDict(filled)


def recipe_changes(base: Config, config: Config) -> str:
  """Returns 'train.epochs=2, ...': how a recipe differs from the base."""
  places = _PLACES if config.data.source in FILES else ()
  kept = (*_RECIPE, *places)
  return ', '.join(
    f'{name}={value!r}'
    for name, (_, value) in differences(base, config).items()
    if name in kept
    or name not in _NO_RECIPE
    and name.split('.')[0] not in _SECTIONS_OF_NO_RECIPE
  )


def config_rows(
  base: Config, others: list[Config]
) -> list[tuple[str, list[str]]]:
  """Returns (field, values as text) for each field that differs from `base`."""
  fields = sorted(
    {name for other in others for name in differences(base, other)}
  )
  flat = [config_lib.flatten(config) for config in (base, *others)]
  return [(name, [text_of(one.get(name)) for one in flat]) for name in fields]


class Score(NamedTuple):
  """Mean and standard deviation over runs; None if there are too few."""

  mean: float | None
  deviation: float | None  # n - 1 in the denominator


def score(values: Sequence[float]) -> Score:
  """Returns the mean and standard deviation of numbers."""
  return Score(
    statistics.fmean(values) if values else None,
    statistics.stdev(values) if len(values) > 1 else None,
  )


class Difference(NamedTuple):
  """Mean of the differences of two settings, seed by seed."""

  seeds: int  # that both settings have
  mean: float
  error: float  # standard error of the mean


def paired(
  first: Mapping[int, float], second: Mapping[int, float]
) -> Difference | None:
  """Compares two settings by the seeds that both have; None below two seeds.

  What a seed gives to both settings, such as the same order of the images, is
  not part of the error, unlike in the deviations of the two means.

  Args:
    first: a score by seed.
    second: subtracted from it.
  """
  seeds = sorted(first.keys() & second.keys())
  if len(seeds) < 2:
    return None
  found = score([first[seed] - second[seed] for seed in seeds])
  error = found.deviation / math.sqrt(len(seeds))
  return Difference(len(seeds), found.mean, error)


def text_of(value: Any) -> str:
  """Returns the value of a field or result as text."""
  if isinstance(value, float):
    return f'{value:.6g}'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}' if abs(value) >= 10_000 else str(value)
  return '-' if value is None else str(value) or "''"


def aligned(lines: Sequence[Sequence[str]], has_numbers: bool = False) -> str:
  """Returns lines of cells as text with aligned columns.

  Args:
    lines: cells of each line.
    has_numbers: aligns all columns but the first to the right.
  """
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.rjust(width) if has_numbers and i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns one or more rows as CSV; the keys of the first are the header."""
  text = io.StringIO()
  table = csv.DictWriter(text, rows[0], lineterminator='\n')
  table.writeheader()
  table.writerows(rows)
  return text.getvalue()
