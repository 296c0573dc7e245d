"""From the reports of all rounds to medians and ratios.

A rate is the median over rounds of the median of a round. A ratio is the median
over rounds of the ratio in a round: what slowed a whole round cancels out.
"""

import statistics
from collections.abc import Iterable
from typing import Any

from googlenet.benchmark.contenders import OURS, REFERENCE
from googlenet.benchmark.runner import Report, Reports

USES = ('train', 'infer')


def median(values: Iterable[float | None]) -> float | None:
  """Returns the median of the values that are there; None if none is."""
  values = [value for value in values if value is not None]
  return statistics.median(values) if values else None


def rate_key(use: str) -> str:
  """Returns the key of images/s in training or inference."""
  return f'{use}_images_per_s'


def values(reports: list[Report], size: int, key: str) -> list[float | None]:
  """Returns what each round measured with a batch size; None: nothing."""
  return [report['sizes'].get(str(size), {}).get(key) for report in reports]


def ratio(
  reports: Reports, name: str, other: str, size: int, key: str
) -> float | None:
  """Returns the median over rounds of `name` / `other`; None without both."""
  pairs = zip(  # one that failed has no later rounds
    values(reports.get(name, []), size, key),
    values(reports.get(other, []), size, key),
    strict=False,
  )
  return median(a / b for a, b in pairs if a is not None and b is not None)


def fastest(names: Iterable[str], reports: Reports, size: int, key: str) -> str:
  """Returns the name with the highest median, '' if nobody has one."""
  rates = {n: median(values(reports[n], size, key)) for n in names}
  rates = {n: rate for n, rate in rates.items() if rate is not None}
  return max(rates, key=rates.__getitem__) if rates else ''


def rows(reports: Reports, sizes: list[int]) -> list[dict[str, Any]]:
  """Returns one row for each batch size and contender.

  `train_vs_reference` and `train_vs_best_torch` (and `infer_...`) are ratios of
  images/s to `REFERENCE` and to `train_best_torch`, the fastest of torch.
  """
  others = [name for name in reports if not name.startswith(OURS)]
  table = []
  for size in sizes:
    best = {use: fastest(others, reports, size, rate_key(use)) for use in USES}
    for name, own in reports.items():
      row = {'contender': name, 'batch_size': size}
      for use in USES:
        key = rate_key(use)
        row |= {
          key: median(values(own, size, key)),
          f'{key}_by_round': values(own, size, key),
          f'{use}_vs_reference': ratio(reports, name, REFERENCE, size, key),
          f'{use}_vs_best_torch': ratio(reports, name, best[use], size, key),
          f'{use}_best_torch': best[use] or None,
        }
      row |= {
        'peak_bytes': median(values(own, size, 'peak_bytes')),
        'compile_s': values(own[:1], size, 'compile_s')[0],
      }
      table.append(row)
  return table


def starts(reports: Reports, size: int) -> list[dict[str, Any]]:
  """Returns for each contender how it starts, and what stopped it if it did.

  `start_cold_s` and `start_warm_s` are seconds from the start of the process to
  the end of its first training step: nothing compiled yet, or all of it.

  Args:
    reports: of all contenders.
    size: the batch size whose training step `compile_s` is of.
  """
  table = []
  for name, own in reports.items():
    errors = [report['error'] for report in own if 'error' in report]
    table.append(
      {
        'contender': name,
        'framework': own[0].get('framework'),
        'threads': own[0].get('threads'),
        # Later rounds find the compiled programs of the first.
        'compile_s': values(own[:1], size, 'compile_s')[0],
        'start_cold_s': own[0].get('start_s'),
        'start_warm_s': median(report.get('start_s') for report in own[1:]),
        'error': errors[0] if errors else None,
      }
    )
  return table


def efficiency(reports: Reports, size: int) -> list[dict[str, Any]]:
  """Returns for each of ours where the time goes and how much it computes.

  FLOP/s are those of the network's own operations; `..._of_product` is their
  share of what a product of matrices reaches in the same dtype.

  Args:
    reports: of all contenders.
    size: the batch size at which the step was taken apart.
  """
  table = []
  for name, own in reports.items():
    if not name.startswith(OURS):
      continue
    product = median(report['product_flop_per_s'] for report in own)
    row = {
      'contender': name,
      'batch_size': size,
      'shares': {
        part: median(report['shares'][part] for report in own)
        for part in own[0]['shares']
      },
      'product_flop_per_s': product,
    }
    for use in USES:
      rate = median(values(own, size, rate_key(use)))
      flop_per_s = rate * own[0]['flop_per_image'][use]
      row |= {
        f'{use}_flop_per_s': flop_per_s,
        f'{use}_of_product': flop_per_s / product,
      }
    table.append(row)
  return table


def headline(reports: Reports, size: int) -> dict[str, Any]:
  """Returns the rates of our fastest precision, for training and inference."""
  ours = [name for name in reports if name.startswith(OURS)]
  result = {}
  for use in USES:
    key = rate_key(use)
    name = fastest(ours, reports, size, key)
    result |= {
      key: median(values(reports[name], size, key)),
      f'{use}_contender': name,
    }
  return result
