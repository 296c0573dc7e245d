"""The strongest connections of a channel, from its expanded weights."""

import csv
from collections.abc import Sequence
from typing import NamedTuple, TextIO

import numpy as np

from googlenet.model import graph, rows
from googlenet.tools.circuits import expanded
from googlenet.tools.inference import insight


class Connection(NamedTuple):
  """A kernel between two channels, in numbers.

  Attributes:
    channel: index of the other channel.
    branch: of the other channel in its block, like 'conv_3x3'; '' if its point
      has no branches.
    norm: square root of the sum of the squared weights.
    total: sum of the weights; its sign is that of the connection.
    peak: the weight with the largest absolute value.
    row: where that is, in rows of the source below the middle of the kernel.
    column: ... in columns to the right of the middle.
  """

  channel: int
  branch: str
  norm: float
  total: float
  peak: float
  row: float
  column: float


def branches(
  architecture: rows.Architecture, point: str, channels: int
) -> list[str]:
  """Returns the branch of each channel of a point: '' without branches.

  A branch is named as in `insight.branch_channels`.

  Args:
    architecture: of a network.
    point: name of a point.
    channels: of the point.
  """
  layers = {layer.name: layer for layer in graph.graph(architecture)}

  def of_layer(name: str) -> list[str]:
    layer = layers[name]
    if layer.kind == 'multiply':
      return of_layer(layer.inputs[0])
    if layer.kind != 'concat':
      return [insight.branch_name(layer, layers)] * layer.shape[-1]
    return [branch for part in layer.inputs for branch in of_layer(part)]

  name = expanded.layer_of(architecture, point, 'point')
  has_branches = name in layers and layers[name].kind in ('multiply', 'concat')
  return of_layer(name) if has_branches else [''] * channels


def connections(kernels: np.ndarray, names: Sequence[str]) -> list[Connection]:
  """Returns the connections of one channel, in the order of the others.

  Args:
    kernels: float [kh, kw, N], the kernels between it and N other channels.
    names: the branch of each of the others.
  """
  height, width, count = kernels.shape
  flat = kernels.reshape(-1, count)
  peaks = np.abs(flat).argmax(0)
  return [
    Connection(
      k,
      names[k],
      float(np.sqrt(np.square(flat[:, k], dtype=np.float64).sum())),
      float(flat[:, k].sum(dtype=np.float64)),
      float(flat[peaks[k], k]),
      float(peaks[k] // width - (height - 1) / 2),
      float(peaks[k] % width - (width - 1) / 2),
    )
    for k in range(count)
  ]


class Strongest(NamedTuple):
  """The connections with the largest norm, the largest first."""

  positive: list[Connection]
  negative: list[Connection]


def strongest(found: Sequence[Connection], count: int) -> Strongest:
  """Returns up to `count` connections of each sign; a sum of 0 has none."""
  ordered = sorted(found, key=lambda one: -one.norm)
  return Strongest(
    [one for one in ordered if one.total > 0][:count],
    [one for one in ordered if one.total < 0][:count],
  )


_HEADINGS = ('channel', 'branch', 'norm', 'sum', 'peak', 'at')


def lines(title: str, found: Strongest, point: str) -> list[str]:
  """Returns the table for the console.

  Args:
    title: first line: the channel, and whether the others feed it.
    found: the connections.
    point: of the other channels.
  """
  cells = [
    (
      f'{point}:{one.channel}',
      one.branch,
      f'{one.norm:.3f}',
      f'{one.total:+.3f}',
      f'{one.peak:+.3f}',
      f'{one.row:+g},{one.column:+g}',
    )
    for one in (*found.positive, *found.negative)
  ]
  widths = [max(map(len, column)) for column in zip(_HEADINGS, *cells)]  # noqa: B905

  def line(row: Sequence[str]) -> str:
    first, second, *numbers = (
      cell.ljust(width) if i < 2 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return '  '.join(['', first, second, *numbers]).rstrip()

  return [title, line(_HEADINGS), *map(line, cells)]


CSV_HEADINGS = (
  *('of', 'channel', 'branch', 'norm', 'sum', 'peak', 'row', 'column'),
)


def write_csv(
  file: TextIO, point: str, found: dict[str, Sequence[Connection]]
) -> None:
  """Writes all connections, those with the largest norm of each channel first.

  Args:
    file: an open text file.
    point: of the other channels.
    found: the connections, by the name of the channel that they belong to.
  """
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(CSV_HEADINGS)
  for of, ones in found.items():
    for one in sorted(ones, key=lambda one: -one.norm):
      numbers = map('{:.7g}'.format, one[2:])
      writer.writerow((of, f'{point}:{one.channel}', one.branch, *numbers))
