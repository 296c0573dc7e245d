"""Results as text, at most 100 columns."""

import textwrap
from collections.abc import Iterable
from typing import Any

from googlenet.benchmark.contenders import REFERENCE

_GIB = 2**30


def number(value: float | None, form: str = ',.0f') -> str:
  """Returns a number in a form, '-' where there is none."""
  return '-' if value is None else format(value, form)


def aligned(lines: Iterable[Iterable[str]]) -> str:
  """Returns lines of cells as columns: the first to the left, others right."""
  lines = [list(line) for line in lines]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      f'{cell:<{width}}' if place == 0 else f'{cell:>{width}}'
      for place, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )


def render(result: dict[str, Any]) -> str:
  """Returns all that is printed at the end of a benchmark.

  Args:
    result: what benchmark.json holds.
  """
  network, machine = result['network'], result['machine']
  shape = 'x'.join(str(side) for side in network['image_shape'])
  benchmark = result['config']['benchmark']
  parts = [
    f'{network["variant"]}, {shape} -> {network["num_classes"]} classes, '
    f'{network["parameters"]:,} parameters; kernels {machine["kernels"]}\n'
    f'{machine["devices"]} ({machine["backend"]}), {machine["cpus"]} CPU cores,'
    f' Python {machine["python"]}\n'
    f'medians of {benchmark["rounds"]} round(s) of {benchmark["steps"]} '
    'step(s); batches over all devices',
    _rates(result),
    _starts(result['starts']),
    _shares(result['efficiency']),
    _flops(result['efficiency'], network['flop_per_image']),
  ]
  if result['torch_left_out']:
    text = f'torch is left out: {result["torch_left_out"]}'
    parts.append(textwrap.fill(text, 100))
  elif machine['backend'] != 'cpu' and machine['devices'][:2] != '1 ':
    parts.append('torch uses one device, this project all of them')
  return '\n\n'.join(parts)


def _rates(result: dict[str, Any]) -> str:
  with_torch = not result['torch_left_out']
  lines = [['images/s', 'batch', 'training', 'inference', 'GiB']]
  if with_torch:
    lines[0] += ['T/ref', 'T/best', 'I/ref', 'I/best']
  for row in result['rows']:
    line = [
      row['contender'],
      str(row['batch_size']),
      number(row['train_images_per_s'], ',.1f'),
      number(row['infer_images_per_s'], ',.1f'),
      number(
        None if row['peak_bytes'] is None else row['peak_bytes'] / _GIB, '.2f'
      ),
    ]
    if with_torch:
      line += [
        number(row[f'{use}_vs_{other}'], '.2f')
        for use in ('train', 'infer')
        for other in ('reference', 'best_torch')
      ]
    lines.append(line)
  text = aligned(lines)
  if with_torch:
    text += (
      f'\nT, I: training and inference, as ratios to {REFERENCE} (ref)\n'
      'and to the fastest torch of that batch size (best)'
    )
  return text + '\nGiB: peak of the process, or allocated on a GPU'


def _starts(starts: list[dict[str, Any]]) -> str:
  lines = [['seconds', 'compile', 'cold start', 'warm start', 'framework']]
  for row in starts:
    lines.append(
      [
        row['contender'],
        number(row['compile_s'], '.1f'),
        number(row['start_cold_s'], '.1f'),
        number(row['start_warm_s'], '.1f'),
        row['framework'] or '-',
      ]
    )
  failed = [
    textwrap.fill(f'{row["contender"]} failed: {row["error"]}', 100)
    for row in starts
    if row['error']
  ]
  note = (
    'compile: the training step of train.batch_size; start: from the process '
    'to the end of its\nfirst training step (of the smallest batch)'
  )
  return '\n'.join([aligned(lines), note, *failed])


def _shares(efficiency: list[dict[str, Any]]) -> str:
  parts = list(efficiency[0]['shares'])
  title = f'share of a training step (batch {efficiency[0]["batch_size"]})'
  lines = [[title, *parts]]
  for row in efficiency:
    shares = [number(row['shares'][part], '.1%') for part in parts]
    lines.append([row['contender'], *shares])
  return aligned(lines)


def _flops(
  efficiency: list[dict[str, Any]], flop_per_image: dict[str, int]
) -> str:
  title = f'GFLOP/s (batch {efficiency[0]["batch_size"]})'
  lines = [[title, 'training', 'inference', 'matrix product', 'shares of it']]
  for row in efficiency:
    shares = [row[f'{use}_of_product'] for use in ('train', 'infer')]
    lines.append(
      [
        row['contender'],
        number(row['train_flop_per_s'] / 1e9, ',.1f'),
        number(row['infer_flop_per_s'] / 1e9, ',.1f'),
        number(row['product_flop_per_s'] / 1e9, ',.1f'),
        ', '.join(number(share, '.1%') for share in shares),
      ]
    )
  return (
    aligned(lines) + f'\nan image: {flop_per_image["train"]:,} FLOP in '
    f'training, {flop_per_image["infer"]:,} in inference'
  )
