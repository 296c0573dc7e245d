"""--mode=circuits: the strongest connections of channels."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from googlenet.errors import UserError
from googlenet.tools.circuits import expanded, pictures, table
from googlenet.tools.inference import channels as channels_lib
from googlenet.tools.inference import outputs, trained

Config = ml_collections.FrozenConfigDict

FORMATS = {'.png': 'png', '.npz': 'npz', '.csv': 'csv'}
_MAX_STRIPS = 32  # channels in a picture
_MAX_KERNELS = 32  # of each sign and channel in a picture


class Task(NamedTuple):
  """What is computed.

  Attributes:
    point: of the channels that are studied.
    channels: their indices.
    other: the point of the channels that they are connected with.
    is_forward: whether `other` comes after `point`.
  """

  point: str
  channels: list[int]
  other: str
  is_forward: bool

  @property
  def ends(self) -> tuple[str, str]:
    """The source and the target."""
    return (self.point, self.other)[:: 1 if self.is_forward else -1]

  @property
  def verb(self) -> str:
    """How the channels are connected with the others."""
    return 'feeds' if self.is_forward else 'is fed by'


def run(
  config: Config,
  workdir: str,
  started: float,
  channels: str = '',
  to: str = '',
  top_k: int = 5,
  format: str = '',
  output: str = '',
  **points: str,
) -> None:
  """Prints the strongest connections of channels, and writes all of them.

  Args:
    config: of the run.
    workdir: of the run; nothing is written there.
    started: unused.
    channels: those that are studied, of one point, like 'inception_4b:35'.
    to: a later point, to see what the channels feed; '': what feeds them.
    top_k: number of connections to show of each sign.
    format: 'png', 'npz' or 'csv'; '': given by the ending of `output`.
    output: path of a new file; '': none. A .png shows the kernels of the
      connections that are printed; a .csv lists all connections; an .npz holds
      the fields of `expanded.Expanded`, and the indices of the `inputs` and
      `outputs` that it has kernels of.
    **points: `from`, a word that Python keeps for itself: an earlier point,
      whose channels feed those that are studied; '': the row before.

  Raises:
    UserError: the run, a channel or a point does not exist, the points are not
      connected, or the output cannot be made; nothing is written.
  """
  del started
  outputs.check_one_process('circuits', jax.process_count())
  if output or format:
    format = outputs.format_of(output, format, FORMATS)
    outputs.check_new(output)
  if top_k < 1:
    raise UserError(f'--top_k={top_k}: give a number from 1')
  if format == 'png' and top_k > _MAX_KERNELS:
    raise UserError(
      f'--top_k={top_k}: a picture shows at most {_MAX_KERNELS} connections of '
      'each sign; give fewer, or an --output that ends in .npz or .csv'
    )
  net = trained.load_run(workdir, config)
  task = make_task(net, channels, points.get('from', ''), to)
  if format == 'png' and len(task.channels) > _MAX_STRIPS:
    raise UserError(
      f'--channels={channels} are {len(task.channels)} channels: a picture '
      f'shows at most {_MAX_STRIPS}; give fewer, or an --output that ends in '
      '.npz or .csv'
    )
  chosen = {'inputs' if task.is_forward else 'outputs': task.channels}
  found = expanded.expanded_weights(net, *task.ends, **chosen)
  architecture = net.network.architecture
  axis = 2 if task.is_forward else 3  # of the studied channels
  kernels = np.moveaxis(found.kernels, axis, 0)  # [n, kh, kw, others]
  names = table.branches(architecture, task.other, kernels.shape[-1])
  connections = {
    f'{task.point}:{channel}': table.connections(part, names)
    for channel, part in zip(task.channels, kernels, strict=True)
  }
  best = {k: table.strongest(v, top_k) for k, v in connections.items()}
  for name, ones in best.items():
    title = f'{name} {task.verb} {task.other}'
    for line in table.lines(title, ones, task.other):
      print(line)
  print(f'from     {net.path}: step {net.step:,}')
  if not output:
    return
  with outputs.written_aside(output, 'w' if format == 'csv' else 'wb') as file:
    if format == 'png':
      title = (
        f'Expanded weights from {task.ends[0]} to {task.ends[1]}: the strongest'
        ' connections (red: positive, blue: negative)'
      )
      pictures.write(file, pictures.kernels(_strips(kernels, best), title))
    elif format == 'csv':
      table.write_csv(file, task.other, connections)
    else:
      sides = zip(('inputs', 'outputs'), found.kernels.shape[2:], strict=True)
      indices = {name: np.arange(count) for name, count in sides}
      np.savez(file, **found._asdict(), **(indices | chosen))
  print(f'in       {output}')


def make_task(
  net: trained.Trained, channels: str, source: str, target: str
) -> Task:
  """Returns what the flags ask for.

  Args:
    net: the network.
    channels: --channels.
    source: --from.
    target: --to.

  Raises:
    UserError: a channel or point does not exist, or they do not fit together.
  """
  if not channels:
    raise UserError(
      '--channels is missing: it names channels of one point, like '
      'inception_4b:35'
    )
  if source and target:
    raise UserError(
      f'--from={source} and --to={target}: give one of them, since --channels '
      'is the other end'
    )
  architecture = net.network.architecture
  found = channels_lib.parse(channels, architecture, net.class_names)
  names = tuple(dict.fromkeys(one.point for one in found))
  if len(names) > 1:
    raise UserError(
      f'--channels={channels} are channels of {", ".join(names)}: give those '
      'of one point'
    )
  (point,) = names
  indices = [one.index for one in found]
  if target:
    expanded.find_path(net, point, target, ('--channels', '--to'))
    return Task(point, indices, target, True)
  source = source or expanded.row_before(architecture, point)
  expanded.find_path(net, source, point, ('--from', '--channels'))
  return Task(point, indices, source, False)


def _strips(
  kernels: np.ndarray, best: dict[str, table.Strongest]
) -> list[pictures.Strip]:
  def drawn(
    part: np.ndarray, ones: Sequence[table.Connection]
  ) -> list[pictures.Kernel]:
    return [
      pictures.Kernel(
        part[..., one.channel], f'{one.channel} {one.branch}\n{one.total:+.2f}'
      )
      for one in ones
    ]

  return [
    pictures.Strip(name, drawn(part, ones.positive), drawn(part, ones.negative))
    for part, (name, ones) in zip(kernels, best.items(), strict=True)
  ]
