"""--mode=examples: finds the images of a split that excite channels."""

import time

import jax
import ml_collections
import numpy as np
from PIL import Image

from googlenet.data import pipeline
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.tools.examples import gallery, made, sheet
from googlenet.tools.examples.ranking import Excited, top_images
from googlenet.tools.inference import outputs, trained
from googlenet.tools.inference.channels import Channel, parse
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers
from googlenet.tools.modes.predict import count_images
from googlenet.tools.visualize.render import STEPS

Config = ml_collections.FrozenConfigDict

FORMATS = {'.png': 'png', '.npz': 'npz'}
_SIDE = 112  # of an image in the picture, in pixels
_READ = 64  # images in memory at once


def run(
  config: Config,
  workdir: str,
  started: float,
  channels: str = '',
  top_k: int = 5,
  least: int = 0,
  visualize: bool = False,
  steps: int = 0,
  seed: int = 0,
  format: str = '',
  output: str = '',
) -> None:
  """Writes the images of `data.eval_split` that excite channels most and least.

  Each image is computed once, without the views of evaluation.

  Args:
    config: of the run; its `data` and `eval` sections may differ.
    workdir: of a trained run; nothing is written there.
    started: unused.
    channels: see `inference.channels.parse`.
    top_k: number of images that excite a channel most.
    least: number of images that excite it least.
    visualize: whether an image is made for each channel, too.
    steps: of that; 0: as many as `--mode=visualize` makes.
    seed: of that.
    format: 'png' or 'npz'; '': given by the ending of `output`.
    output: path of a new file.

  Raises:
    UserError: the checkpoint, the data or a channel does not exist, activations
      are not finite, or the output cannot be made; nothing is written.
  """
  del started
  outputs.check_one_process('examples', jax.process_count())
  for flag, value, lowest in (('top_k', top_k, 1), ('least', least, 0)):
    if value < lowest:
      raise UserError(
        f'--{flag}={value} is not allowed: it takes a whole number from '
        f'{lowest}'
      )
  if (steps or seed) and not visualize:
    raise UserError(
      f'--steps={steps} and --seed={seed} are those of images that are made: '
      'add --visualize'
    )
  check_numbers(**{'--steps': (steps, 0), '--seed': (seed, 0, MAX_SEED)})
  format = outputs.format_of(output, format, FORMATS)
  outputs.check_new(output)
  if format == 'png' and top_k + least > sheet.MAX_COLUMNS:
    raise UserError(
      f'--top_k={top_k} and --least={least} are {top_k + least} images in a '
      f'row, and a picture has at most {sheet.MAX_COLUMNS}: give fewer, or '
      'write an .npz'
    )
  dataset = pipeline.load_split(config, 'eval_split')
  seen = pipeline.image_shape(config, dataset)[-1]
  net = trained.load_run(workdir, config, seen)
  wanted = parse(channels, net.network.architecture, net.class_names)
  if format == 'png' and len(wanted) > sheet.MAX_ROWS:
    raise UserError(
      f'--channels={channels} are {len(wanted)} channels, and a picture has at '
      f'most {sheet.MAX_ROWS}: name fewer, or write an .npz'
    )
  start = time.perf_counter()
  found = top_images(net, dataset, wanted, top_k, least)
  images = None
  if visualize:
    images = made.images(net, wanted, steps or STEPS, seed)
  with outputs.written_aside(output) as file:
    if format == 'npz':
      arrays = _arrays(net, dataset, wanted, found)
      np.savez(file, **arrays | ({'made': images} if visualize else {}))
    else:
      _picture(net, dataset, wanted, found, images).save(file, 'PNG')
  seconds = time.perf_counter() - start
  print(
    f'examples {output}: {len(wanted)} '
    f'channel{"s" if len(wanted) > 1 else ""} of '
    f'{count_images(dataset.num_examples)}, {seconds:.1f} s'
  )
  print(f'from     {net.path}: step {net.step:,}')


def _picture(
  net: trained.Trained,
  dataset: Dataset,
  channels: tuple[Channel, ...],
  found: Excited,
  images: np.ndarray | None,
) -> Image.Image:
  size = net.image_shape[0]
  entries = gallery.entries(net, dataset, channels, found)
  firsts = [None] * len(channels) if images is None else images
  return sheet.draw(
    (
      (sheet.title(entry, size), sheet.parts_of(entry, size, _SIDE, first))
      for entry, first in zip(entries, firsts, strict=True)
    ),
    _SIDE,
  )


def _arrays(
  net: trained.Trained,
  dataset: Dataset,
  channels: tuple[Channel, ...],
  found: Excited,
) -> dict[str, np.ndarray]:
  """Returns the arrays of the .npz, [n, k, ...] for n channels."""
  by_point = gallery.fields(net, channels)
  arrays = {'channels': np.array([f'{c.point}:{c.index}' for c in channels])}
  for prefix, ranking in (('', found.most), ('least_', found.least)):
    labels = _labels(dataset, ranking.indices)
    boxes = gallery.boxes(ranking, channels, by_point)
    for name, array in ranking._asdict().items():
      arrays[prefix + name] = array
    arrays |= {prefix + 'labels': labels, prefix + 'boxes': boxes}
  return arrays | {'class_names': np.array(dataset.class_names)}


def _labels(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
  """Returns the labels of images: int32, of the shape of the indices."""
  places, back = np.unique(indices, return_inverse=True)
  labels = np.zeros(len(places), np.int32)
  for start in range(0, len(places), _READ):  # with their images, a few
    part = slice(start, start + _READ)
    labels[part] = dataset.read(places[part])[1]
  return labels[back].reshape(indices.shape)
