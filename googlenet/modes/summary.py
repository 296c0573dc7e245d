"""--mode=summary: the layer table of a network, or a table of all networks."""

from typing import NamedTuple

import ml_collections

from googlenet import architectures, loop
from googlenet.architectures import analysis
from googlenet.initialization import abstract_init, count_parameters
from googlenet.network import make_network


class Row(NamedTuple):
  """One line of the table."""

  name: str
  shape: tuple[int, ...]  # of the output, for one image
  parameters: int
  multiply_adds: int
  is_stage: bool  # a sum over the layers above it


def run(
  config: ml_collections.FrozenConfigDict, workdir: str, started: float
) -> None:
  """Prints output shape, parameters and multiply-adds of layers and stages."""
  del workdir, started
  dataset = loop.load_split(config, 'train_split')
  height, width, channels = image_shape = loop.image_shape(config, dataset)
  rows = summarize(config.model, image_shape)
  print(f'{config.model.variant}, {height}x{width}x{channels}')
  print(render(rows))


def summarize(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> list[Row]:
  """Returns the table of a network, its totals last.

  Multiply-adds are those of convolutions and fully connected layers, as in
  Table 1. Auxiliary heads stand below the layer that they follow, and count.

  Args:
    model_config: the `model` section.
    image_shape: (H, W, C).
  """
  network = make_network(model_config)
  architecture = network.architecture
  params, _ = abstract_init(network, image_shape)
  walk = analysis.walk(architecture, image_shape, network.num_classes)

  def layer(name: str) -> Row:
    return Row(
      name,
      walk.shapes[name],
      count_parameters(
        {k: v for k, v in params.items() if k.split('/')[0] == name}
      ),
      sum(
        operation.multiply_adds
        for operation in walk.operations
        if operation.name.split('/')[0] == name
      ),
      False,
    )

  heads = {head.after: head.name for head in architecture.aux_heads}
  table = []
  for stage in architecture.stages:
    layers = []
    for name in (getattr(row, 'name', None) for row in stage.rows):
      if name:
        layers.append(layer(name))
      if name in heads:
        layers.append(layer(heads[name]))
    table += layers
    table.append(_sum(stage.name, walk.shapes[stage.name], layers))
  table += [
    layer(op.name)
    for op in architecture.head
    if isinstance(op, architectures.Dense)
  ]
  if architecture.has_logits:
    table.append(layer('logits'))
  layers = [row for row in table if not row.is_stage]
  return [*table, _sum('total', walk.shapes['logits'], layers)]


def _sum(name: str, shape: tuple[int, ...], layers: list[Row]) -> Row:
  return Row(
    name,
    shape,
    sum(row.parameters for row in layers),
    sum(row.multiply_adds for row in layers),
    True,
  )


def render(rows: list[Row]) -> str:
  """Returns the table as text; a stage stands below its layers."""
  lines = [('layer', 'output', 'parameters', 'multiply-adds')]
  for row in rows:
    is_inner = not row.is_stage and len(row.shape) > 1 or 'aux' in row.name
    indent = '  ' if is_inner else ''
    lines.append(
      (
        indent + row.name,
        'x'.join(str(side) for side in row.shape),
        f'{row.parameters:,}',
        f'{row.multiply_adds:,}',
      )
    )
  widths = [max(len(line[i]) for line in lines) for i in range(4)]
  return '\n'.join(
    f'{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}'
    for a, b, c, d in lines
  )
