"""--mode=atlas: an activation atlas of a split at a point of a network."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from PIL import Image

from googlenet.data import pipeline
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.model import graph, points
from googlenet.tools.circuits import (
  atlas,
  icons,
  pictures,
  stream,
)
from googlenet.tools.inference import outputs, predict, trained
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers
from googlenet.tools.visualize import render as render_lib

Config = ml_collections.FrozenConfigDict

FORMATS = {'.png': 'png', '.npz': 'npz'}
_TILE = 62  # pixels: images of 28 pixels twice as large, in a frame of 3


class Examples(NamedTuple):
  """One activation of each image of a split.

  Attributes:
    activations: float32 [N, C].
    labels: int32 [N].
    places: int32 [N, 2], row and column in the map; 0 in a vector.
  """

  activations: np.ndarray
  labels: np.ndarray
  places: np.ndarray


def run(
  config: Config,
  workdir: str,
  started: float,
  end_points: str = '',
  projection: str = 'pca',
  grid: int = 16,
  render: bool = False,
  steps: int = 0,
  seed: int = 0,
  format: str = '',
  output: str = '',
) -> None:
  """Writes an atlas as a picture, or what it is made of as arrays.

  Args:
    config: of the run; its `data.eval_split` gives the images.
    workdir: of the run; nothing is written there.
    started: unused.
    end_points: name of one point; '': the last stage that is a map.
    projection: one of `atlas.PROJECTIONS`.
    grid: number of cells along each side.
    render: whether cells show images made by feature visualization; False: what
      the network saw of the image nearest to the mean of the cell.
    steps: of gradient ascent for `render`; 0: as many as --mode=visualize.
    seed: of the place that is taken of each image, of UMAP and of `render`.
    format: 'png' or 'npz'; '': given by the ending of `output`.
    output: path of a new file. An .npz holds for each image of the split its
      activation (`activations` [N, C]), `labels`, `places` in the map [N, 2],
      its place in the `plane` [N, 2] and its cell (`assigned` [N, 2]); and for
      each cell with examples its row and column (`cells` [M, 2]), `means`
      [M, C] and the image nearest to the mean (`nearest` [M]).

  Raises:
    UserError: the run or the point does not exist, the projection is not
      installed, or the output cannot be made; nothing is written.
  """
  del started
  outputs.check_one_process('atlas', jax.process_count())
  format = outputs.format_of(output, format, FORMATS)
  outputs.check_new(output)
  atlas.check_projection(projection)
  check_numbers(**{'--seed': (seed, 0, MAX_SEED), '--steps': (steps, 0)})
  if render and format != 'png':
    raise UserError('--render draws cells: give an --output that ends in .png')
  if steps and not render:
    raise UserError(f'--steps={steps} is of no use without --render')
  dataset = pipeline.load_split(config, 'eval_split')
  channels = pipeline.image_shape(config, dataset)[-1]
  net = trained.load_run(workdir, config, channels)
  point, shape = _point(net, end_points)
  found = collect(net, dataset, point, shape, seed)
  plane = atlas.project(found.activations, projection, seed)
  assigned = atlas.assign(plane, grid)
  cells = atlas.make_cells(found.activations, assigned)
  if not cells.members:
    raise UserError(
      f'config.data.eval_split={dataset.split!r} has too few images for '
      f'--grid={grid}: no cell holds {atlas.MIN_EXAMPLES}; give a smaller grid'
    )
  nearest = np.array([members[0] for members in cells.members])
  if format == 'npz':
    with outputs.written_aside(output) as file:
      np.savez(
        file,
        plane=plane,
        assigned=assigned,
        cells=cells.places,
        means=cells.means,
        nearest=nearest,
        **found._asdict(),
      )
  else:
    if render:
      steps = steps or render_lib.STEPS
      shown = icons.of_directions(net, point, cells.means, steps, seed)
    else:
      places = found.places[nearest]
      shown = icons.of_images(net, dataset, point, nearest, places)
    picture = _draw(net, found.labels, cells, shown, grid)
    with outputs.written_aside(output) as file:
      picture.save(file, 'PNG', optimize=True)
  inside = sum(map(len, cells.members))
  print(
    f'atlas    {output}: {point}, {len(nearest)} cells with {inside:,} of '
    f'{len(plane):,} images'
  )
  if projection == 'pca':
    whole = _variance(atlas.directions(found.activations))
    part = _variance(plane) / max(whole, 1e-30)
    print(f'plane    {part:.0%} of the variance of their directions')
  print(f'from     {net.path}: step {net.step:,}')


def _variance(x: np.ndarray) -> float:
  return float(x.var(0, dtype=np.float64).sum())


def _point(net: trained.Trained, text: str) -> tuple[str, graph.Shape]:
  """Returns the point and its shape for one image.

  Raises:
    UserError: several points are named, or the network has no such point.
  """
  architecture = net.network.architecture
  shapes = points.shapes(architecture, net.image_shape)
  if not text:
    stages = [stage.name for stage in architecture.stages]
    text = [name for name in stages if len(shapes[name]) == 3][-1]
  if ',' in text:
    raise UserError(f'--end_points={text}: an atlas is of one point')
  try:
    point = points.resolve(text, architecture)
  except UserError as error:
    raise UserError(f'--end_points: {error}') from error
  return point, shapes[point]


def collect(
  net: trained.Trained,
  dataset: Dataset,
  point: str,
  shape: graph.Shape,
  seed: int,
) -> Examples:
  """Takes the activation at one random place of each image of a split.

  Args:
    net: the network.
    dataset: the split.
    point: of the network.
    shape: of the point: (h, w, C) or (C,).
    seed: of the places.
  """
  count, batch_size = dataset.num_examples, net.config.eval.batch_size
  height, width = shape[:2] if len(shape) == 3 else (1, 1)
  places = atlas.draw_places(count, height, width, seed)

  def at_places(found, places):
    x = found[point]
    x = x.reshape(len(x), height, width, -1)
    return x[jnp.arange(len(x)), places[:, 0], places[:, 1]]

  step = stream.make_step(net, (point,), at_places, num_arguments=1)
  inputs = pipeline.make_pipeline(net.config, dataset)

  def given():
    for batch in stream.shuffled(inputs, batch_size, seed, 'atlas'):
      at = stream.on_devices(places[batch.index])
      is_real = batch.index >= 0
      of = batch.index[is_real], batch.labels[is_real]
      yield predict.Batch(of, (batch.images, at), is_real)

  activations = np.zeros((count, shape[-1]), np.float32)
  labels = np.zeros(count, np.int32)
  for (index, label), found in predict.run_batches(
    lambda images: step(*images), given()
  ):
    activations[index], labels[index] = found, label
  return Examples(activations, labels, places)


def _draw(
  net: trained.Trained,
  labels: np.ndarray,
  cells: atlas.Cells,
  shown: Sequence[np.ndarray],
  grid: int,
) -> Image.Image:
  """Draws the cells, each in the colour of its most frequent class.

  Args:
    net: the network.
    labels: int [N], of all examples.
    cells: the cells.
    shown: uint8 [h, w, C], the picture of each cell.
    grid: number of cells along each side.
  """
  names = net.class_names
  if len(names) > pictures.NUM_COLOURS:
    names = ()
  tiles = []
  for place, members, pixels in zip(
    cells.places.tolist(), cells.members, shown, strict=True
  ):
    colour = int(np.bincount(labels[members]).argmax()) if names else -1
    tiles.append(pictures.Tile(*place, pixels, colour))
  return pictures.atlas(tiles, grid, _TILE, names)
