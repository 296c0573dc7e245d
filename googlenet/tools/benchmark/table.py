"""Results as text, at most 100 columns."""

import textwrap
from collections.abc import Iterable
from typing import Any

from googlenet.tools.benchmark.contenders import REFERENCE

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
    f'{number(network["parameters"])} parameters; kernels '
    f'{machine["kernels"] or "-"}\n'
    f'{machine["devices"] or "no device"} ({machine["backend"] or "-"}), '
    f'{machine["cpus"]} CPU cores, Python {machine["python"]}\n'
    f'medians of up to {benchmark["rounds"]} round(s) of {benchmark["steps"]} '
    'step(s) or more; batches over all devices',
    _rates(result),
    _starts(result['starts'], result['batch_size']),
  ]
  if result['shares']:
    parts.append(_shares(result['shares']))
  parts.append(_efficiency(result))
  if result['torch_left_out']:
    text = f'torch is left out: {result["torch_left_out"]}'
    parts.append(textwrap.fill(text, 100))
  elif machine['backend'] != 'cpu' and (machine['num_devices'] or 1) > 1:
    parts.append('torch uses one device, this project all of them')
  if not result['complete']:
    parts.append('not complete: the run did not reach its end')
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


def _starts(starts: list[dict[str, Any]], batch_size: int | None) -> str:
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
  stopped = [
    textwrap.fill(
      f'{row["contender"]} '
      f'{"" if row["is_cut_off"] else "failed: "}{row["error"]}',
      100,
    )
    for row in starts
    if row['error']
  ]
  note = (
    f'compile: the training step of batch {number(batch_size)}; start: from '
    'the process to the end of its\nfirst training step (of the smallest batch)'
  )
  return '\n'.join([aligned(lines), note, *stopped])


def _shares(shares: list[dict[str, Any]]) -> str:
  parts = list(shares[0]['shares'])
  title = f'share of a training step (batch {shares[0]["batch_size"]})'
  lines = [[title, *parts]]
  for row in shares:
    cells = [number(row['shares'][part], '.1%') for part in parts]
    lines.append([row['contender'], *cells])
  return aligned(lines)


def _efficiency(result: dict[str, Any]) -> str:
  lines = [
    [
      *('TFLOP/s', 'batch', 'train', 'infer'),
      *('T/prod', 'I/prod', 'T/roofline', 'I/roofline'),
    ]
  ]
  for row in result['rows']:
    lines.append(
      [
        row['contender'],
        str(row['batch_size']),
        *(
          number(rate if rate is None else rate / 1e12, ',.3f')
          for rate in (row['train_flop_per_s'], row['infer_flop_per_s'])
        ),
        *(
          number(row[f'{use}_of_{what}'], '.1%')
          for what in ('product', 'roofline')
          for use in ('train', 'infer')
        ),
      ]
    )
  flop = result['network']['flop_per_image']
  notes = [
    aligned(lines),
    'T, I: training and inference; prod: share of the FLOP/s that a matrix '
    'product reaches;\nroofline: share of the time of a step that the layers '
    'need at least, each for its operations\nor its memory traffic, whichever '
    'takes longer',
    f'an image: {flop["train"]:,} FLOP in training, {flop["infer"]:,} in '
    'inference',
  ]
  for dtype, rates in result['rates'].items():
    notes.append(
      f'{dtype}: matrix product {rates["product_flop_per_s"] / 1e12:,.3f} '
      f'TFLOP/s, copy {rates["copy_bytes_per_s"] / 1e9:,.1f} GB/s read and '
      'written'
    )
  return '\n'.join(notes)
