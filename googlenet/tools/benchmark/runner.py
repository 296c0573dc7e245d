"""Starts every peer in turn, round by round, and collects their reports.

Each peer starts once a round and runs alone: a disturbance of the machine then
affects all peers similarly, and each has all of the memory.
"""

import time
from collections.abc import Callable

from googlenet.errors import UserError
from googlenet.runtime import progress
from googlenet.tools.benchmark import process, stolen
from googlenet.tools.benchmark.contenders import OURS, Contender
from googlenet.tools.benchmark.process import Message, Report

Reports = dict[str, list[Report]]  # by name of the peer, one report per round
Run = Callable[[Contender, Callable[[Message], None]], None]

_GIB = 2**30


def play(
  ours: list[Contender],
  make_others: Callable[[Report], list[Contender]],
  rounds: int,
  run: Run,
  reports: Reports,
  changed: Callable[[], None] = lambda: None,
  say: Callable[..., None] = print,
  ticks: Callable[[], stolen.Ticks | None] = stolen.ticks,
) -> None:
  """Runs all peers, one after another, round by round.

  A peer that fails or reaches the time limit is not started again.

  Args:
    ours: peers of this project; they start first.
    make_others: returns the other peers, given the devices and batch sizes that
      this project's peers reported.
    rounds: number of rounds.
    run: runs one peer and passes on its messages.
    reports: empty; messages are merged into it as they arrive.
    changed: called after each message.
    say: prints, as `print` does.
    ticks: returns processor time, to tell what other virtual machines took.

  Raises:
    UserError: a peer of this project got bad input, or failed before anything
      was measured.
  """
  others: list[Contender] = []

  def turn(contender: Contender, number: int) -> bool:
    """Runs one peer; returns whether it may start again."""
    say(f'round {number}/{rounds}  {contender.name}', flush=True)
    report: Report = {'sizes': {}}
    reports.setdefault(contender.name, []).append(report)
    begun, before = time.perf_counter(), ticks()

    def tell(message: Message) -> None:
      process.merge(report, message)
      if text := outcome(message):
        say(f'  {text} ({time.perf_counter() - begun:.0f} s)', flush=True)
      changed()

    with progress.working(f'measure  {contender.name}'):
      run(contender, tell)
    if (share := stolen.share(before, ticks())) is not None:
      report['stolen'] = share
    if contender.name.startswith(OURS):
      check_ours(contender.name, reports)
    return 'error' not in report

  for number in range(1, rounds + 1):
    ours = [contender for contender in ours if turn(contender, number)]
    if number == 1:
      others = make_others(facts(reports))
    others = [contender for contender in others if turn(contender, number)]


def has_result(reports: Reports) -> bool:
  """Returns whether anything was measured at any batch size."""
  return any(report['sizes'] for own in reports.values() for report in own)


def check_ours(name: str, reports: Reports) -> None:
  """Checks the last report of a peer of this project.

  Raises:
    UserError: its input is bad, or it failed before anything was measured.
      Reaching the time limit is no failure.
  """
  last = reports[name][-1]
  failed = 'error' in last and not last.get('is_cut_off')
  if last.get('is_bad_input') or (failed and not has_result(reports)):
    raise UserError(f'{name}: {last["error"]}')


def facts(reports: Reports) -> Report:
  """Returns the merged reports of this project; first values count."""
  found: Report = {}
  for name, own in reports.items():
    if name.startswith(OURS):
      for report in own:
        found = {**report, **found}
  return found


def outcome(message: Message) -> str:
  """Returns the line to print for a message, '' for nothing."""
  if message.get('is_bad_input'):  # raised and printed by `check_ours`
    return ''
  if 'error' in message:
    is_cut_off = message.get('is_cut_off')
    return ('' if is_cut_off else 'failed: ') + message['error']
  parts = []
  for size, measured in message.get('sizes', {}).items():
    for use, words in (('train', 'training'), ('infer', 'inference')):
      rate = measured.get(f'{use}_images_per_s')
      if rate is not None:
        parts.append(f'batch {size}: {words} {rate:,.1f} images/s')
    if measured.get('peak_bytes') is not None:
      parts.append(f'peak {measured["peak_bytes"] / _GIB:.2f} GiB')
  return ', '.join(parts)
