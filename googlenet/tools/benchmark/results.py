"""Medians and ratios over the reports of all rounds.

A rate is the median over rounds of each round's median. A ratio is the median
over rounds of each round's ratio, so that a slow round affects both sides
equally. A value that was not measured, because a process failed or reached the
time limit, is None.
"""

import statistics
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

from googlenet.tools.benchmark import roofline
from googlenet.tools.benchmark.contenders import OURS, REFERENCE
from googlenet.tools.benchmark.process import Report
from googlenet.tools.benchmark.roofline import Rates, Work
from googlenet.tools.benchmark.runner import Reports, facts

USES = ('train', 'infer')


def median(values: Iterable[float | None]) -> float | None:
  """Returns the median of the values that are not None; None without any."""
  values = [value for value in values if value is not None]
  return statistics.median(values) if values else None


def rate_key(use: str) -> str:
  """Returns the key of images/s in training or inference."""
  return f'{use}_images_per_s'


def values(reports: list[Report], size: int, key: str) -> list[float | None]:
  """Returns one value of each round for a batch size; None if not measured."""
  return [report['sizes'].get(str(size), {}).get(key) for report in reports]


def ratio(
  reports: Reports, name: str, other: str, size: int, key: str
) -> float | None:
  """Returns the median over rounds of `name` / `other`; None without both."""
  pairs = zip(  # a peer that failed is not started in later rounds
    values(reports.get(name, []), size, key),
    values(reports.get(other, []), size, key),
    strict=False,
  )
  return median(a / b for a, b in pairs if a is not None and b is not None)


def fastest(names: Iterable[str], reports: Reports, size: int, key: str) -> str:
  """Returns the name with the highest median, '' if there are no medians."""
  rates = {n: median(values(reports[n], size, key)) for n in names}
  rates = {n: rate for n, rate in rates.items() if rate is not None}
  return max(rates, key=rates.__getitem__) if rates else ''


def rows(
  reports: Reports, sizes: list[int], works: dict[str, list[Work]]
) -> list[dict[str, Any]]:
  """Returns one row for each batch size and peer.

  `train_vs_reference` and `train_vs_best_torch` (and `infer_...`) are ratios of
  images/s to `REFERENCE` and to `train_best_torch`, the fastest torch peer. For
  the other keys see `efficiency`.

  Args:
    reports: of all peers.
    sizes: batch sizes.
    works: of the layers, by use.
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
          **efficiency(reports, name, size, use, works[use]),
        }
      row |= {
        'peak_bytes': median(values(own, size, 'peak_bytes')),
        'compile_s': values(own[:1], size, 'compile_s')[0],
      }
      table.append(row)
  return table


def starts(reports: Reports, size: int) -> list[dict[str, Any]]:
  """Returns the start-up times of each peer, and the error that stopped it.

  `start_cold_s` and `start_warm_s` are seconds from the start of the process to
  the end of its first training step, without and with cached programs.

  Args:
    reports: of all peers.
    size: the batch size of `compile_s`.
  """
  table = []
  for name, own in reports.items():
    stopped = next((report for report in own if 'error' in report), {})
    table.append(
      {
        'contender': name,
        'framework': own[0].get('framework'),
        'threads': own[0].get('threads'),
        # Later rounds find the compiled programs of the first in the cache.
        'compile_s': values(own[:1], size, 'compile_s')[0],
        'start_cold_s': own[0].get('start_s'),
        'start_warm_s': median(report.get('start_s') for report in own[1:]),
        'error': stopped.get('error'),
        'is_cut_off': stopped.get('is_cut_off', False),
      }
    )
  return table


def rates(reports: Reports) -> dict[str, Rates]:
  """Returns the highest rates of all devices by dtype, medians over reports."""
  found: dict[str, list[Rates]] = {}
  for name, own in reports.items():
    if name.startswith(OURS):
      for report in (report for report in own if 'rates' in report):
        found.setdefault(report['dtype'], []).append(Rates(**report['rates']))
  return {
    dtype: Rates(*map(statistics.median, zip(*measured, strict=True)))
    for dtype, measured in found.items()
  }


def efficiency(
  reports: Reports, name: str, size: int, use: str, works: list[Work]
) -> dict[str, float | None]:
  """Returns how well one peer uses the devices.

  `train_flop_per_s` (and `infer_...`) counts the network's own operations.
  `train_of_product` is that rate divided by the rate of a matrix product in the
  same dtype. `train_of_roofline` is the roofline time divided by the time of a
  step.

  Args:
    reports: of all peers.
    name: of the peer.
    size: batch size.
    use: 'train' or 'infer'.
    works: of the layers, for that use.
  """
  rate = median(values(reports[name], size, rate_key(use)))
  dtype = reports[name][0].get('dtype')
  best = rates(reports).get(dtype)
  flop_per_s = of_product = of_roofline = None
  if rate is not None:
    flop_per_s = rate * sum(work.flop for work in works)
  if rate is not None and best is not None:
    best = _of_its_devices(best, name, facts(reports))
    itemsize = jnp.dtype(dtype).itemsize
    of_product = flop_per_s / best.product_flop_per_s
    of_roofline = roofline.seconds(works, size, itemsize, best) * rate / size
  return {
    f'{use}_flop_per_s': flop_per_s,
    f'{use}_of_product': of_product,
    f'{use}_of_roofline': of_roofline,
  }


def _of_its_devices(best: Rates, name: str, found: Report) -> Rates:
  """Returns the rates of the devices of a peer; torch uses one GPU."""
  if name.startswith(OURS) or found['backend'] == 'cpu':
    return best
  return Rates(*(rate / found['num_devices'] for rate in best))


def stolen(reports: Reports) -> dict[str, list[float | None]]:
  """Returns the share of processor time that each peer lost in each round.

  None where it is unknown.
  """
  return {
    name: [report.get('stolen') for report in own]
    for name, own in reports.items()
  }


def shares(reports: Reports, size: int) -> list[dict[str, Any]]:
  """Returns the shares of a training step for each peer of this project.

  Args:
    reports: of all peers.
    size: the batch size at which the shares were measured.
  """
  table = []
  for name, own in reports.items():
    measured = [report['shares'] for report in own if 'shares' in report]
    if measured:
      parts = {
        part: median(shares[part] for shares in measured)
        for part in measured[0]
      }
      table.append({'contender': name, 'batch_size': size, 'shares': parts})
  return table


def headline(reports: Reports, size: int) -> dict[str, Any]:
  """Returns the rates of this project's fastest precision.

  Training and inference may have different ones; a rate is None if it was not
  measured in any precision.
  """
  ours = [name for name in reports if name.startswith(OURS)]
  result = {}
  for use in USES:
    key = rate_key(use)
    name = fastest(ours, reports, size, key)
    result |= {
      key: median(values(reports[name], size, key)) if name else None,
      f'{use}_contender': name or None,
    }
  return result
