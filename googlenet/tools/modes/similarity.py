"""--mode=similarity: how similar layers of one or two runs are (linear CKA)."""

import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from googlenet.data import pipeline
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.model import graph
from googlenet.tools.circuits import cka, pictures, stream
from googlenet.tools.inference import outputs, trained
from googlenet.tools.inference.apply import check_end_points
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers

Config = ml_collections.FrozenConfigDict

FORMATS = {'.png': 'png', '.npz': 'npz'}


def run(
  config: Config,
  workdir: str,
  started: float,
  others: tuple[tuple[str, Config], ...] = (),
  end_points: str = '',
  seed: int = 0,
  format: str = '',
  output: str = '',
) -> None:
  """Prints the similarities, and writes them as a picture or as arrays.

  Args:
    config: of the first run; its `data.eval_split` gives the images.
    workdir: of the first run; nothing is written there.
    started: unused.
    others: workdir and config of the second run; without one, the layers of the
      first are compared with each other.
    end_points: names of points, separated by commas; '': all rows and the
      logits of each network.
    seed: of the order of the images: which of them share a batch.
    format: 'png' or 'npz'; '': given by the ending of `output`.
    output: path of a new file; '': none. An .npz holds `cka` [A, B], the names
      `rows` and `columns`, and the number of `images`.

  Raises:
    UserError: a run or a point does not exist, there are more than two runs or
      fewer than four images, or the output cannot be made; nothing is written.
  """
  del started
  outputs.check_one_process('similarity', jax.process_count())
  check_numbers(**{'--seed': (seed, 0, MAX_SEED)})
  if output or format:
    format = outputs.format_of(output, format, FORMATS)
    outputs.check_new(output)
  if len(others) > 1:
    raise UserError(
      f'--workdir names {1 + len(others)} runs: --mode=similarity compares '
      'two, a,b, or the layers of one'
    )
  dataset = pipeline.load_split(config, 'eval_split')
  if dataset.num_examples < cka.MIN_IMAGES:
    raise UserError(
      f'config.data.eval_split={dataset.split!r} has {dataset.num_examples} '
      f'images: the estimate needs {cka.MIN_IMAGES} or more'
    )
  nets = [
    _load(folder, theirs, dataset)
    for folder, theirs in ((workdir, config), *others)
  ]
  points = [_points(net, end_points) for net in nets]
  sums = measure(nets, points, dataset, seed)
  found = cka.similarity(sums)
  labels = [_label(folder) for folder in (workdir, *(o for o, _ in others))]
  rows, columns = points[0], points[-1]
  for line in table(found, rows, columns):
    print(line)
  print(f'rows     {workdir}: step {nets[0].step:,}')
  if others:
    print(f'columns  {others[0][0]}: step {nets[1].step:,}')
  print(f'images   {sums.images:,} of {dataset.name} {dataset.split}')
  if not output:
    return
  with outputs.written_aside(output) as file:
    if format == 'png':
      figure = pictures.matrix(found, rows, columns, (labels[0], labels[-1]))
      pictures.write(file, figure)
    else:
      names = {'rows': np.array(rows), 'columns': np.array(columns)}
      np.savez(file, cka=found, images=sums.images, **names)
  print(f'in       {output}')


def _load(workdir: str, config: Config, dataset: Dataset) -> trained.Trained:
  channels = pipeline.image_shape(config, dataset)[-1]
  return trained.load_run(workdir, config, channels)


def _label(workdir: str) -> str:
  return pathlib.Path(workdir).resolve().name


def _points(net: trained.Trained, text: str) -> tuple[str, ...]:
  """Returns the points to compare.

  Raises:
    UserError: the network has no such point.
  """
  layers = graph.graph(net.network.architecture, net.image_shape)
  names = [name for name in text.split(',') if name]
  if not names:
    stages = {layer.stage for layer in layers}
    return tuple(
      name for name in graph.end_points(layers) if name not in stages
    )
  check_end_points(names, net.network, '--end_points')
  return tuple(dict.fromkeys(names))


def measure(
  nets: Sequence[trained.Trained],
  points: Sequence[tuple[str, ...]],
  dataset: Dataset,
  seed: int,
) -> cka.Sums:
  """Reads a split once and returns the sums for `cka.similarity`.

  Args:
    nets: one or two networks.
    points: of each network.
    dataset: the split; the networks resize its images as they need.
    seed: of the order of the images.
  """
  first = nets[0].config
  inputs = pipeline.make_pipeline(first, dataset)
  steps = [
    stream.make_step(net, names)
    for net, names in zip(nets, points, strict=True)
  ]
  sums = cka.no_sums(len(points[0]), len(points[-1]))
  every = stream.shuffled(inputs, first.eval.batch_size, seed, 'similarity')
  for batch in every:
    found = []
    for names, step in zip(points, steps, strict=True):
      grams = cka.grams(step(batch.images))
      found.append([np.asarray(grams[name]) for name in names])
    sums = cka.add(sums, found[0], found[-1], batch.index >= 0)
  return sums


def table(
  values: np.ndarray, rows: Sequence[str], columns: Sequence[str]
) -> list[str]:
  """Returns a matrix as lines: columns have numbers, as names are long."""
  width = max(map(len, (*rows, *columns)))
  digits = len(str(len(columns)))
  heads = ' '.join(f'{i:>5}' for i in range(1, len(columns) + 1))
  lines = [f'{"":{width}}  {heads}']
  lines += [
    f'{name:{width}}  ' + ' '.join(f'{value:5.2f}' for value in line)
    for name, line in zip(rows, values, strict=True)
  ]
  names = [f'{i:>{digits}} {name}' for i, name in enumerate(columns, 1)]
  return [*lines, 'columns: ' + ', '.join(name.strip() for name in names)]
