"""Starts every process in turn, round by round, and keeps what each tells.

Each starts once a round, so that what disturbs the machine disturbs all of them
alike, and memory is that of one.
"""

import time
from collections.abc import Callable

from googlenet.errors import UserError
from googlenet.tools.benchmark import process
from googlenet.tools.benchmark.contenders import OURS, Contender
from googlenet.tools.benchmark.process import Message, Report

Reports = dict[str, list[Report]]  # by name; one a round
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
) -> None:
  """Runs all processes, one after another, round by round.

  One that fails or is cut off is not started again.

  Args:
    ours: they start first.
    make_others: given what the first of ours tells of itself, returns the
      others.
    rounds: how often.
    run: runs one process and hands on what it tells.
    reports: empty; what is told is added as it comes.
    changed: called after each addition.
    say: prints, as `print` does.

  Raises:
    UserError: the input of ours is bad, or ours fails without any result.
  """
  others: list[Contender] = []

  def turn(contender: Contender, number: int) -> bool:
    """Runs one; returns whether it may start again."""
    say(f'round {number}/{rounds}  {contender.name}', flush=True)
    report: Report = {'sizes': {}}
    reports.setdefault(contender.name, []).append(report)
    begun = time.perf_counter()

    def tell(message: Message) -> None:
      process.merge(report, message)
      if text := outcome(message):
        say(f'  {text} ({time.perf_counter() - begun:.0f} s)', flush=True)
      changed()

    run(contender, tell)
    if contender.name.startswith(OURS):
      check_ours(contender.name, reports)
    return 'error' not in report

  for number in range(1, rounds + 1):
    ours = [contender for contender in ours if turn(contender, number)]
    if number == 1:
      others = make_others(facts(reports))
    others = [contender for contender in others if turn(contender, number)]


def has_result(reports: Reports) -> bool:
  """Returns whether anything was measured of any batch size."""
  return any(report['sizes'] for own in reports.values() for report in own)


def check_ours(name: str, reports: Reports) -> None:
  """Checks what one of ours has just reported.

  Raises:
    UserError: its input is bad, or it failed and nothing at all is measured so
      far. One that is cut off has not failed.
  """
  last = reports[name][-1]
  failed = 'error' in last and not last.get('is_cut_off')
  if last.get('is_bad_input') or (failed and not has_result(reports)):
    raise UserError(f'{name}: {last["error"]}')


def facts(reports: Reports) -> Report:
  """Returns what ours tell of devices and network; the first that tells."""
  found: Report = {}
  for name, own in reports.items():
    if name.startswith(OURS):
      for report in own:
        found = {**report, **found}
  return found


def outcome(message: Message) -> str:
  """Returns what to print of a message, '' for nothing.

  Bad input ends the run with a line of its own.
  """
  if message.get('is_bad_input'):
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
