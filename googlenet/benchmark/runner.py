"""Starts every contender as a process of its own, in turn.

A contender is one network in one framework and precision. It gets a job as JSON
on stdin and leaves a report as the last line of stdout:

  {"sizes": {"128": {"train_images_per_s": ..., "infer_images_per_s": ...,
                     "compile_s": ..., "peak_bytes": ...}, ...},
   "start_s": ..., "framework": ..., "error": ...}   (if something stopped it)

Each starts once a round, so that what disturbs the machine disturbs all of them
alike, and memory is that of one contender.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from googlenet.benchmark.contenders import Contender, last_line
from googlenet.errors import UserError

Report = dict[str, Any]
Reports = dict[str, list[Report]]  # by contender; one a round


def start(contender: Contender) -> Report:
  """Runs a contender to its end and returns what it reports."""
  done = subprocess.run(
    contender.command,
    input=json.dumps({**contender.job, 'started': time.time()}),
    capture_output=True,
    text=True,
    env={**os.environ, **contender.environment},
  )
  return read_report(done.returncode, done.stdout, done.stderr)


def read_report(returncode: int, stdout: str, stderr: str) -> Report:
  """Returns the report of a process that has ended; without one, an error."""
  try:
    report = json.loads(last_line(stdout))
    if isinstance(report, dict):
      return {'sizes': {}, **report}
  except ValueError:  # it ended before it could report
    pass
  if returncode < 0:
    reason = f'ended by signal {-returncode}'
    if returncode == -signal.SIGKILL:
      reason += ' (out of memory?)'
  else:
    reason = f'exit code {returncode}: {last_line(stderr)}'
  return {'sizes': {}, 'error': reason}


def play(
  ours: list[Contender],
  make_others: Callable[[Report], list[Contender]],
  rounds: int,
  say: Callable[..., None] = print,
  start: Callable[[Contender], Report] = start,
) -> Reports:
  """Starts all contenders, one after another, round by round.

  Args:
    ours: they start first.
    make_others: given the first report of ours, returns the others.
    rounds: how often.
    say: prints, as `print` does.
    start: runs one contender.

  Returns:
    The reports. Another's that fails is not started again.

  Raises:
    UserError: one of ours fails.
  """
  reports: Reports = {}
  others: list[Contender] = []

  def turn(contender: Contender, number: int) -> Report:
    label = f'round {number}/{rounds}  {contender.name:<33}  '
    say(label, end='', flush=True)
    started = time.perf_counter()
    report = start(contender)
    reports.setdefault(contender.name, []).append(report)
    say(f'{outcome(report)}, {time.perf_counter() - started:.0f} s', flush=True)
    return report

  for number in range(1, rounds + 1):
    for contender in ours:
      report = turn(contender, number)
      if 'error' in report:
        raise UserError(f'{contender.name}: {report["error"]}')
    if number == 1:
      others = make_others(reports[ours[0].name][0])
    others = [c for c in others if 'error' not in turn(c, number)]
  return reports


def outcome(report: Report) -> str:
  """Returns a report in a few words: the rates of its largest batch."""
  if 'error' in report:
    return 'failed'
  size, rates = list(report['sizes'].items())[-1]
  return (
    f'batch {size}: train {rates["train_images_per_s"]:,.0f}, '
    f'infer {rates["infer_images_per_s"]:,.0f} images/s'
  )
