"""--mode=summary: the layer table of a network, or a table of all networks."""

import math
from typing import NamedTuple

import ml_collections

from googlenet.data import pipeline
from googlenet.model import graph, variants
from googlenet.model.initialization import abstract_init, count_parameters
from googlenet.model.network import make_network


class Row(NamedTuple):
  """One line of the table."""

  name: str
  shape: tuple[int, ...]  # of the output, for one image
  parameters: int
  multiply_adds: int
  is_stage: bool  # a sum over the layers above it


class Size(NamedTuple):
  """One network in the comparison; None where the image is too small."""

  variant: str
  smallest_image: int  # pixels a side
  depth: int | None = None
  parameters: int | None = None
  multiply_adds: int | None = None
  activations: int | None = None  # numbers that layers put out, for one image


def run(
  config: ml_collections.FrozenConfigDict,
  workdir: str,
  started: float,
  compare: bool = False,
) -> None:
  """Prints what a network consists of.

  Args:
    config: resolved.
    workdir: unused.
    started: unused.
    compare: a line for each network, in place of the layers of one.
  """
  del workdir, started
  dataset = pipeline.load_split(config, 'train_split')
  height, width, channels = image_shape = pipeline.image_shape(config, dataset)
  size = f'{height}x{width}x{channels}'
  if compare:
    print(f'{size}, {config.model.num_classes} classes')
    print(render_sizes(compare_sizes(config.model, image_shape)))
    return
  print(f'{config.model.variant}, {size}')
  print(render(summarize(config.model, image_shape)))


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
  walk = graph.walk(architecture, image_shape, network.num_classes)

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
    layer(op.name) for op in architecture.head if isinstance(op, variants.Dense)
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


def compare_sizes(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> list[Size]:
  """Returns the size of every network, without auxiliary heads.

  Args:
    model_config: the `model` section; of it num_classes and width_multiplier
      are used.
    image_shape: (H, W, C).
  """
  sizes = []
  for variant in variants.ARCHITECTURES:
    own = ml_collections.ConfigDict(model_config.to_dict())
    own.update(
      variant=variant, aux_heads='off', normalization='auto', kernels='xla'
    )
    network = make_network(own)
    smallest = graph.smallest_image(network.architecture)
    if min(image_shape[:2]) < smallest:
      sizes.append(Size(variant, smallest))
      continue
    params, _ = abstract_init(network, image_shape)
    walk = graph.walk(network.architecture, image_shape, network.num_classes)
    sizes.append(
      Size(
        variant,
        smallest,
        walk.depth,
        count_parameters(params),
        sum(operation.multiply_adds for operation in walk.operations),
        sum(math.prod(operation.shape) for operation in walk.operations),
      )
    )
  return sizes


def render_sizes(sizes: list[Size]) -> str:
  """Returns the comparison as text."""
  lines = [
    (
      'network',
      'depth',
      'parameters',
      'multiply-adds',
      'activations, MiB/image',
      'smallest image',
    )
  ]
  for size in sizes:
    counts = (size.depth, size.parameters, size.multiply_adds)
    cells = ['-' if count is None else f'{count:,}' for count in counts]
    if size.activations is None:
      cells.append('-')
    else:
      cells.append(f'{4 * size.activations / 2**20:.2f}')
    lines.append((size.variant, *cells, str(size.smallest_image)))
  return _align(lines) + (
    '\nactivations: what layers put out, in float32; without auxiliary '
    'heads; -: the image is too small for it'
  )


def _align(lines: list[tuple[str, ...]]) -> str:
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    for line in lines
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
  return _align(lines)
