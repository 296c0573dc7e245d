"""What the files of a workdir tell of a run, finished or not."""

import json
import pathlib
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.io import checkpoint
from googlenet.io.writer import read_records
from googlenet.train.resume import differences

Config = ml_collections.FrozenConfigDict


class RunFiles(NamedTuple):
  """A run as it was written.

  Attributes:
    workdir: as it was given.
    config: of the run, resolved.
    records: of metrics.jsonl, in the order of steps; none for imported weights.
    result: of result.json; empty for a run that is not finished.
    steps: of its checkpoints, rising.
  """

  workdir: str
  config: Config
  records: tuple[dict[str, Any], ...]
  result: dict[str, Any]
  steps: tuple[int, ...]

  @property
  def state(self) -> str:
    """How far it is, in words."""
    if self.result:
      return f'finished after {self.result.get("step", 0):,} steps'
    if self.records:
      last = self.records[-1]['step']
      return f'not finished: going on or cut off, last record of step {last:,}'
    return 'without records of training'

  def curve(self, name: str) -> tuple[list[int], list[float]]:
    """Returns steps and values of a metric; both empty without any."""
    points = [
      (record['step'], record[name])
      for record in self.records
      if isinstance(record.get(name), int | float)
    ]
    return [x for x, _ in points], [y for _, y in points]

  def last(self, name: str) -> float | None:
    """Returns the last value of a metric, or that of the result."""
    if isinstance(self.result.get(name), int | float):
      return self.result[name]
    _, values = self.curve(name)
    return values[-1] if values else None


def read(workdir: str, config: Config | None = None) -> RunFiles:
  """Reads a workdir; lines and files that are damaged count as not there.

  Args:
    workdir: of a run.
    config: in place of its config.json.

  Raises:
    UserError: it holds no run.
  """
  folder = pathlib.Path(workdir)
  if config is None:
    config = config_lib.resolve(config_lib.load(folder / 'config.json'))
  records = sorted(
    read_records(folder / 'metrics.jsonl'), key=lambda record: record['step']
  )
  try:
    result = json.loads((folder / 'result.json').read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError):
    result = {}
  steps = sorted(
    int(path.stem.removeprefix('step_')) for path in checkpoint.paths(folder)
  )
  return RunFiles(
    workdir,
    config,
    tuple(records),
    result if isinstance(result, dict) else {},
    tuple(steps),
  )


def config_rows(
  base: Config, others: list[Config]
) -> list[tuple[str, list[str]]]:
  """Returns (field, values as text) where configs differ from the first."""
  fields = sorted(
    {name for other in others for name in differences(base, other)}
  )
  flat = [config_lib.flatten(config) for config in (base, *others)]
  return [(name, [text_of(one.get(name)) for one in flat]) for name in fields]


def text_of(value: Any) -> str:
  """Returns the value of a field or result as it is shown."""
  if isinstance(value, float):
    return f'{value:.6g}'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}' if abs(value) >= 10_000 else str(value)
  return '-' if value is None else str(value) or "''"
