"""The results of a sweep: mean and deviation over seeds, by setting."""

import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from googlenet.io.workdir import write_text
from googlenet.tools import runs
from googlenet.tools.sweep.grid import Trial, short_names
from googlenet.tools.sweep.trials import State

_MAX_PAIRS = 10  # that are printed
SCORES = ('eval/accuracy', 'eval/loss')


class Row(NamedTuple):
  """One setting: the trials that differ only in their seed."""

  setting: dict[str, Any]  # values by field, without the seed
  trials: tuple[Trial, ...]
  finished: int  # number of finished trials
  diverged: int  # number of diverged trials
  scores: dict[str, runs.Score]  # of the finished trials; keys are SCORES
  accuracies: dict[int, float]  # eval/accuracy of the finished trials, by seed


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
    accuracies = {
      t.config.seed: s.result['eval/accuracy']
      for t, s in members
      if s.name == 'finished' and 'eval/accuracy' in s.result
    }
    rows.append(
      Row(dict(setting), found, len(results), diverged, scores, accuracies)
    )

  def worst_last(row: Row) -> tuple[bool, float]:
    mean = row.scores['eval/accuracy'].mean
    return mean is None, -(mean or 0.0)

  return tuple(sorted(rows, key=worst_last))


def differences(rows: Sequence[Row]) -> list[tuple[Row, Row, runs.Difference]]:
  """Returns the difference of eval/accuracy of each pair with common seeds."""
  pairs = (
    (first, second, runs.paired(first.accuracies, second.accuracies))
    for first, second in itertools.combinations(rows, 2)
  )
  return [pair for pair in pairs if pair[2] is not None]


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
  return f'{runs.aligned(lines)}\n{explanation}{_render_pairs(rows)}'


def _render_pairs(rows: Sequence[Row]) -> str:
  pairs = differences(rows)
  if not pairs:
    return ''
  short = short_names(list(rows[0].setting))

  def words(row: Row) -> str:
    return ', '.join(f'{short[k]}={v}' for k, v in row.setting.items())

  lines = [['setting', 'minus', 'eval accuracy', 'seeds']] + [
    [words(a), words(b), f'{d.mean:.4f} +- {d.error:.4f}', str(d.seeds)]
    for a, b, d in pairs[:_MAX_PAIRS]
  ]
  explanation = 'mean difference +- its standard error over the same seeds'
  if len(pairs) > _MAX_PAIRS:
    explanation += f'; {len(pairs) - _MAX_PAIRS} more pairs: summary.json'
  return f'\n\n{runs.aligned(lines)}\n{explanation}'


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
  """Writes summary.csv; and summary.json, with all trials and differences."""
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
  pairs = [
    {'setting': a.setting, 'minus': b.setting, **difference._asdict()}
    for a, b, difference in differences(rows)
  ]
  parts = {'settings': records, 'differences': pairs, 'trials': described}
  text = json.dumps(parts, indent=2)
  write_text(workdir / 'summary.json', text + '\n')
