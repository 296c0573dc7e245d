"""The printed results: text of at most 100 columns."""

import textwrap
from typing import Any

from googlenet.tools.benchmark.contenders import REFERENCE
from googlenet.tools.benchmark.stolen import WORTH_TELLING
from googlenet.tools.runs import aligned

_GIB = 2**30


def number(value: float | None, form: str = ',.0f') -> str:
  """Returns a formatted number, '-' for None."""
  return '-' if value is None else format(value, form)


def render(result: dict[str, Any]) -> str:
  """Returns the text printed at the end of a benchmark.

  Args:
    result: the content of benchmark.json.
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
    'step(s) or more; each batch is divided over all devices',
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
    parts.append('torch uses one device, this project uses all')
  if text := _stolen(result['stolen']):
    parts.append(textwrap.fill(text, 100))
  if not result['complete']:
    parts.append('not complete: the benchmark did not reach its end')
  return '\n\n'.join(parts)


def _stolen(found: dict[str, list[float | None]]) -> str:
  """Says how much time other virtual machines took, '' if little or unknown."""
  shares = {
    name: max(filter(None, own), default=0) for name, own in found.items()
  }
  worst = max(shares, key=shares.__getitem__, default='')
  if shares.get(worst, 0) < WORTH_TELLING:
    return ''
  return (
    f'disturbed: other virtual machines took up to {shares[worst]:.0%} of the '
    f'processor time ({worst}), so rates are too low and ratios uncertain; '
    'all shares are in the file below'
  )


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
  text = aligned(lines, has_numbers=True)
  if with_torch:
    text += (
      f'\nT, I: ratios in training and inference, to {REFERENCE} (ref)\n'
      'and to the fastest torch peer at that batch size (best)'
    )
  return text + '\nGiB: peak memory of the process, or of the GPU'


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
    f'compile: the training step at batch {number(batch_size)}; start: from '
    'the start of the process to the\nend of its first training step, at the '
    'smallest batch'
  )
  return '\n'.join([aligned(lines, has_numbers=True), note, *stopped])


def _shares(shares: list[dict[str, Any]]) -> str:
  parts = list(shares[0]['shares'])
  title = f'share of a training step (batch {shares[0]["batch_size"]})'
  lines = [[title, *parts]]
  for row in shares:
    cells = [number(row['shares'][part], '.1%') for part in parts]
    lines.append([row['contender'], *cells])
  return aligned(lines, has_numbers=True)


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
    aligned(lines, has_numbers=True),
    'T, I: training and inference; prod: FLOP/s divided by those of a matrix '
    'product;\nroofline: least time of the layers divided by the measured '
    'time; a layer needs the time of its\noperations or of its memory traffic, '
    'whichever is longer',
    f'FLOP per image: {flop["train"]:,} in training, {flop["infer"]:,} in '
    'inference',
  ]
  for dtype, rates in result['rates'].items():
    notes.append(
      f'{dtype}: matrix product {rates["product_flop_per_s"] / 1e12:,.3f} '
      f'TFLOP/s, copy {rates["copy_bytes_per_s"] / 1e9:,.1f} GB/s read and '
      'written'
    )
  return '\n'.join(notes)
