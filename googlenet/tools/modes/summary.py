"""--mode=summary: prints a table of a network's layers, or of all networks."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections

from googlenet.cli import command_line
from googlenet.cli.overrides import as_flags
from googlenet.data import auto, pipeline
from googlenet.errors import UserError
from googlenet.model import ablations, graph, variants
from googlenet.model import points as point_lib
from googlenet.model.architecture_text import OWN
from googlenet.tools import equal_cost
from googlenet.tools.runs import FILES, aligned


class Row(NamedTuple):
  """One line of a network's layer table."""

  name: str
  shape: tuple[int, ...]  # of the output, for one image
  parameters: int
  multiply_adds: int
  is_stage: bool  # whether this is the sum over the layers above it


class Size(NamedTuple):
  """One network in the comparison; None if the image is too small for it.

  Of a network in which an ablation is not possible, only its name is known.
  """

  variant: str
  smallest_image: int | None = None  # pixels a side
  depth: int | None = None
  parameters: int | None = None
  multiply_adds: int | None = None
  activations: int | None = None  # output elements of all layers, per image


def run(
  config: ml_collections.FrozenConfigDict,
  workdir: str,
  started: float,
  compare: bool = False,
  points: bool = False,
  equal_to: str = '',
) -> None:
  """Prints the layers or points of a network, or the sizes of all networks.

  Args:
    config: resolved.
    workdir: unused.
    started: unused.
    compare: whether to print one line for each network.
    points: whether to print every point that can be read or replaced.
    equal_to: config file or run whose multiply-adds the network shall make:
      prints the width at which it does.

  Raises:
    UserError: more than one is wanted, or no width makes that many.
  """
  del workdir, started
  wanted = {'compare': compare, 'points': points, 'equal_to': equal_to}
  given = [f'--{name}' for name, value in wanted.items() if value]
  if len(given) > 1:
    raise UserError(f'{" and ".join(given)}: give one of them')
  dataset = pipeline.load_split(config, 'train_split')
  height, width, channels = image_shape = pipeline.image_shape(config, dataset)
  size = f'{height}x{width}x{channels}'
  if compare:
    print(f'{size}, {config.model.num_classes} classes')
    print(render_sizes(compare_sizes(config.model, image_shape)))
    return
  if equal_to:
    print(_equal_width(config, image_shape, equal_to))
    return
  print(f'{ablations.describe(config.model)}, {size}')
  if points:
    print(render_points(config.model, image_shape))
    return
  print(render(summarize(config.model, image_shape)))


def _equal_width(
  config: ml_collections.FrozenConfigDict,
  image_shape: tuple[int, int, int],
  name: str,
) -> str:
  """Returns the width at which a network costs as much as that of a config.

  Raises:
    UserError: the config cannot be read, or no width makes that many.
  """
  file = command_line.config_of(name)
  other = command_line.read_config(file, '', ())
  if other.data.source in FILES and not other.data.data_dir:
    # A run does not tell the place of its images: the user's flag does.
    place = as_flags({'data.data_dir': config.data.data_dir})
    other = command_line.read_config(file, '', place)
  other = auto.complete(other)
  dataset = pipeline.load_split(other, 'train_split')
  shape = pipeline.image_shape(other, dataset)
  wanted = equal_cost.multiply_adds(other.model, shape)
  found = equal_cost.equal_width(config.model, image_shape, wanted)
  share = found.multiply_adds / wanted - 1
  return (
    f'{wanted:,} multiply-adds: {name}\n{found.multiply_adds:,} ({share:+.2%}):'
    f' --config.model.width_multiplier={found.width_multiplier:g}'
  )


def summarize(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> list[Row]:
  """Returns the layer table of a network, its totals last.

  Multiply-adds of convolutions and fully connected layers are counted, as in
  Table 1 of the paper. Auxiliary heads are counted too; they stand below the
  layer whose output they take.

  Args:
    model_config: the `model` section.
    image_shape: (H, W, C).
  """
  layers = graph.graph(variants.resolve(model_config), image_shape)
  table = []
  for stage, group in itertools.groupby(layers, lambda layer: layer.stage):
    of_stage = list(group)
    for row, of_row in itertools.groupby(of_stage, lambda layer: layer.row):
      if row:
        table.append(_line(row, list(of_row)))
    if stage:
      table.append(_line(stage, of_stage, is_sum=True))
  return [*table, _line('total', layers, is_sum=True)]


def render_points(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> str:
  """Returns the names and shapes of all points of a network as text.

  Args:
    model_config: the `model` section.
    image_shape: (H, W, C).
  """
  architecture = variants.resolve(model_config)
  shapes = point_lib.shapes(architecture, image_shape)
  lines = [('point', 'shape', 'in lucid')]
  for name, shape in shapes.items():
    sides = 'x'.join(str(side) for side in shape)
    lines.append((name, sides, point_lib.to_lucid(name)))
  return aligned(lines)


def _line(
  name: str, layers: Sequence[graph.Layer], is_sum: bool = False
) -> Row:
  """Returns the line of a row, of a stage or of the whole network."""
  main = [layer for layer in layers if not layer.is_side] if is_sum else layers
  return Row(
    name,
    main[-1].shape,
    sum(layer.parameters for layer in layers),
    sum(layer.multiply_adds for layer in layers),
    is_sum,
  )


def compare_sizes(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> list[Size]:
  """Returns the size of every network, without auxiliary heads.

  Args:
    model_config: the `model` section; variant, auxiliary heads and
      normalization are replaced. Other fields, ablations too, count.
    image_shape: (H, W, C).
  """
  sizes = []
  every = [*variants.ARCHITECTURES]
  if model_config.architecture:
    every.append(OWN)
  for variant in every:
    own = equal_cost.with_values(
      model_config,
      variant=variant,
      architecture=model_config.architecture if variant == OWN else '',
      aux_heads='off',
      aux_after=(),
      normalization='auto',
    )
    try:
      architecture = variants.resolve(own)
    except UserError:  # an ablation, or stochastic depth, is not possible
      sizes.append(Size(variant))
      continue
    smallest = graph.smallest_image(architecture)
    if min(image_shape[:2]) < smallest:
      sizes.append(Size(variant, smallest))
      continue
    layers = graph.graph(architecture, image_shape)
    sizes.append(
      Size(
        variant,
        smallest,
        graph.depth(layers),
        sum(layer.parameters for layer in layers),
        sum(layer.multiply_adds for layer in layers),
        sum(
          math.prod(layer.shape) for layer in layers if not layer.is_elementwise
        ),
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
    lines.append((size.variant, *cells, str(size.smallest_image or '-')))
  refused = any(size.smallest_image is None for size in sizes)
  return aligned(lines, has_numbers=True) + (
    '\nactivations: outputs of all layers in float32; auxiliary heads are not '
    'counted; -: the image is too small for the network'
    + (', or it does not allow a change of the config' if refused else '')
  )


def render(rows: list[Row]) -> str:
  """Returns the table as text; the line of a stage follows its layers."""
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
  return aligned(lines, has_numbers=True)
