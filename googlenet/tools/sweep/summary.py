"""What came out of a sweep: mean and deviation over seeds, by setting."""

import csv
import io
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from googlenet.io.workdir import write_text
from googlenet.tools.sweep.grid import Trial, short_names
from googlenet.tools.sweep.trials import State

SCORES = ('eval/accuracy', 'eval/loss')


class Score(NamedTuple):
  """Of the finished trials of a setting; None where there are too few."""

  mean: float | None
  deviation: float | None  # of the sample: n - 1


class Row(NamedTuple):
  """One setting: trials that differ by their seed alone."""

  setting: dict[str, Any]  # values by field
  trials: tuple[Trial, ...]
  finished: int
  diverged: int
  scores: dict[str, Score]  # by SCORES


def summarize(
  trials: Sequence[Trial], states: Sequence[State]
) -> tuple[Row, ...]:
  """Returns a row for each setting, the best eval/accuracy first.

  Args:
    trials: of a sweep.
    states: of each.
  """
  groups: dict[Any, list[tuple[Trial, State]]] = {}
  for trial, state in zip(trials, states, strict=True):
    groups.setdefault(trial.setting, []).append((trial, state))
  rows = []
  for setting, members in groups.items():
    results = [s.result for _, s in members if s.name == 'finished']
    scores = {
      name: score([r[name] for r in results if name in r]) for name in SCORES
    }
    diverged = sum(state.name == 'diverged' for _, state in members)
    rows.append(
      Row(
        dict(setting),
        tuple(trial for trial, _ in members),
        len(results),
        diverged,
        scores,
      )
    )

  def worst_last(row: Row) -> tuple[bool, float]:
    mean = row.scores['eval/accuracy'].mean
    return mean is None, -(mean or 0.0)

  return tuple(sorted(rows, key=worst_last))


def score(values: Sequence[float]) -> Score:
  """Returns mean and deviation of some numbers."""
  return Score(
    statistics.fmean(values) if values else None,
    statistics.stdev(values) if len(values) > 1 else None,
  )


def render(rows: Sequence[Row]) -> str:
  """Returns the table as text."""
  short = short_names(list(rows[0].setting))
  lines = [[*short.values(), 'eval accuracy', 'eval loss', 'trials']]
  for row in rows:
    counts = f'{row.finished} of {len(row.trials)}'
    if row.diverged:
      counts += f', {row.diverged} diverged'
    lines.append(
      [
        *(str(value) for value in row.setting.values()),
        *(_words(row.scores[name]) for name in SCORES),
        counts,
      ]
    )
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  table = '\n'.join(
    '  '.join(
      cell.ljust(width) for cell, width in zip(line, widths, strict=True)
    ).rstrip()
    for line in lines
  )
  return f'{table}\nmean +- deviation (n - 1) over the finished trials'


def _words(score: Score) -> str:
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
  """Writes summary.csv, and summary.json with every trial as well."""
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
  text = io.StringIO()
  table = csv.DictWriter(text, records[0], lineterminator='\n')
  table.writeheader()
  table.writerows(records)
  write_text(workdir / 'summary.csv', text.getvalue())
  told = [
    {'name': t.name, 'values': t.values, 'state': s.name, 'result': s.result}
    for t, s in zip(trials, states, strict=True)
  ]
  text = json.dumps({'settings': records, 'trials': told}, indent=2)
  write_text(workdir / 'summary.json', text + '\n')
