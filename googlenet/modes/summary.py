"""--mode=summary: the layer table of a network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet import architectures, loop
from googlenet import network as network_lib


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
  size, channels = config.data.image_size, dataset.image_shape[-1]
  rows = summarize(config.model, (size, size, channels))
  print(f'{config.model.variant}, {size}x{size}x{channels}')
  print(render(rows))


def summarize(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> list[Row]:
  """Returns the table of a network, its totals last.

  Multiply-adds are those of convolutions and the classifier, as in Table 1.

  Args:
    model_config: the `model` section.
    image_shape: (H, W, C).
  """
  network = network_lib.make_network(model_config)
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  params, network_state = network_lib.abstract_init(network, image_shape)
  outputs, _ = jax.eval_shape(
    lambda p, s, x: network.apply(p, s, None, x, False, with_end_points=True),
    params,
    network_state,
    image,
  )
  shapes = {name: y.shape for name, y in outputs.end_points.items()}

  def layer(name: str) -> Row:
    weights = [
      leaf
      for module, leaves in params.items()
      if module.split('/')[0] == name
      for leaf in leaves.values()
    ]
    # Each weight of a layer is used once at every place of its output.
    places = int(np.prod(shapes[name][1:-1]))
    return Row(
      name,
      shapes[name],
      sum(int(np.prod(leaf.shape)) for leaf in weights),
      places * sum(int(np.prod(w.shape)) for w in weights if w.ndim > 1),
      False,
    )

  table = []
  for stage in network.architecture:
    layers = [
      layer(row.name)
      for row in stage.rows
      if not isinstance(row, architectures.MaxPool)
    ]
    table += layers
    table.append(_sum(stage.name, shapes[stage.name], layers))
  table.append(layer('logits'))
  layers = [row for row in table if not row.is_stage]
  return [*table, _sum('total', shapes['logits'], layers)]


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
    indent = '' if row.is_stage or row.name == 'logits' else '  '
    lines.append(
      (
        indent + row.name,
        'x'.join(str(side) for side in row.shape[1:]),
        f'{row.parameters:,}',
        f'{row.multiply_adds:,}',
      )
    )
  widths = [max(len(line[i]) for line in lines) for i in range(4)]
  return '\n'.join(
    f'{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}'
    for a, b, c, d in lines
  )
