"""The results of a sweep: mean and deviation over seeds, by setting."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from googlenet.io.workdir import write_text
from googlenet.tools import runs
from googlenet.tools.sweep.grid import Trial, short_names
from googlenet.tools.sweep.trials import State

SCORES = ('eval/accuracy', 'eval/loss')


class Row(NamedTuple):
  """One setting: the trials that differ only in their seed."""

  setting: dict[str, Any]  # values by field, without the seed
  trials: tuple[Trial, ...]
  finished: int  # number of finished trials
  diverged: int  # number of diverged trials
  scores: dict[str, runs.Score]  # of the finished trials; keys are SCORES


def summarize(
  trials: Sequence[Trial], states: Sequence[State]
) -> tuple[Row, ...]:
  """Returns a row for each setting, the best eval/accuracy first.

  Args:
    trials: of a sweep.
    states: of these trials.
  """
  groups: dict[Any, list[tuple[Trial, State]]] = {}
  for trial, state in zip(trials, states, strict=True):
    groups.setdefault(trial.setting, []).append((trial, state))
  rows = []
  for setting, members in groups.items():
    results = [s.result for _, s in members if s.name == 'finished']
    scores = {
      name: runs.score([r[name] for r in results if name in r])
      for name in SCORES
    }
    diverged = sum(state.name == 'diverged' for _, state in members)
    found = tuple(trial for trial, _ in members)
    rows.append(Row(dict(setting), found, len(results), diverged, scores))

  def worst_last(row: Row) -> tuple[bool, float]:
    mean = row.scores['eval/accuracy'].mean
    return mean is None, -(mean or 0.0)

  return tuple(sorted(rows, key=worst_last))


def render(rows: Sequence[Row]) -> str:
  """Returns the table as text."""
  short = short_names(list(rows[0].setting))
  lines = [[*short.values(), 'eval accuracy', 'eval loss', 'trials']]
  for row in rows:
    counts = f'{row.finished} of {len(row.trials)}'
    if row.diverged:
      counts += f', {row.diverged} diverged'
    values = map(str, row.setting.values())
    scores = (_words(row.scores[name]) for name in SCORES)
    lines.append([*values, *scores, counts])
  explanation = 'mean +- deviation (n - 1) over the finished trials'
  return f'{runs.aligned(lines)}\n{explanation}'


def _words(score: runs.Score) -> str:
  if score.mean is None:
    return '-'
  text = f'{score.mean:.4f}'
  return text if score.deviation is None else f'{text} +- {score.deviation:.4f}'


def write(
  workdir: pathlib.Path,
  rows: Sequence[Row],
  trials: Sequence[Trial],
  states: Sequence[State],
) -> None:
  """Writes summary.csv, and summary.json, which also lists every trial."""
  records = [
    {
      **row.setting,
      'trials': len(row.trials),
      'finished': row.finished,
      'diverged': row.diverged,
      **{
        f'{name} {part}': value
        for name, score in row.scores.items()
        for part, value in score._asdict().items()
      },
    }
    for row in rows
  ]
  write_text(workdir / 'summary.csv', runs.as_csv(records))
  described = [
    {'name': t.name, 'values': t.values, 'state': s.name, 'result': s.result}
    for t, s in zip(trials, states, strict=True)
  ]
  text = json.dumps({'settings': records, 'trials': described}, indent=2)
  write_text(workdir / 'summary.json', text + '\n')
