"""--mode=probe: how well features of a run tell the classes of a data set."""

import csv
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from googlenet.data import pipeline
from googlenet.data.sources import Dataset
from googlenet.data.splits import some
from googlenet.errors import UserError
from googlenet.model import graph, rows
from googlenet.runtime.terminal import warn
from googlenet.tools.inference import outputs, trained
from googlenet.tools.inference.apply import check_end_points
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers
from googlenet.tools.probe import features, knn, linear
from googlenet.tools.scoring import scores

Config = ml_collections.FrozenConfigDict

FORMATS = {'.json': 'json', '.csv': 'csv'}


class Row(NamedTuple):
  """The result of one point.

  Attributes:
    point: its name.
    width: number of features.
    knn: accuracy of nearest neighbours.
    knn_low, knn_high: its 95 % interval, Wilson's.
    linear: accuracy of the linear probe.
    linear_low, linear_high: its 95 % interval.
    l2: the strength of L2 that was chosen.
  """

  point: str
  width: int
  knn: float
  knn_low: float
  knn_high: float
  linear: float
  linear_low: float
  linear_high: float
  l2: float


def run(
  config: Config,
  workdir: str,
  started: float,
  end_points: str = '',
  k: int = 20,
  flatten: bool = False,
  seed: int = 0,
  format: str = '',
  output: str = '',
) -> None:
  """Prints accuracies of probes, and writes them as a table.

  The features are those of unchanged images. Probes learn those of
  `data.train_split` and are scored on those of `data.eval_split`.

  Args:
    config: of the run; its `data` section may name other data than that of
      training, with other classes.
    workdir: of the run; nothing is written there.
    started: unused.
    end_points: names of points, separated by commas; '': the stages, and the
      fully connected layers before the classifier.
    k: number of nearest neighbours.
    flatten: whether maps are taken whole; False: their means over positions.
    seed: of the training images on which the strength of L2 is chosen.
    format: 'json' or 'csv'; '': given by the ending of `output`.
    output: path of a new file; '': none. A .csv has a line for each `Row`.

  Raises:
    UserError: the run or a point does not exist, the training split has fewer
      than k images or one class, or the output cannot be made; nothing is
      written.
  """
  del started
  outputs.check_one_process('probe', jax.process_count())
  check_numbers(**{'--k': (k, 1), '--seed': (seed, 0, MAX_SEED)})
  if output or format:
    format = outputs.format_of(output, format, FORMATS)
    outputs.check_new(output)
  splits = [
    pipeline.load_split(config, field, is_augmented=False)
    for field in ('train_split', 'eval_split')
  ]
  train, test = splits
  if train.num_examples < k:
    raise UserError(
      f'--k={k}: config.data.train_split={train.split!r} has only '
      f'{train.num_examples:,} images; give a smaller --k or a larger split'
    )
  if train.labels is not None:
    _check_classes(train.labels, train)
  channels = pipeline.image_shape(config, train)[-1]
  net = trained.load_run(workdir, config, channels)
  names = _points(net.network.architecture, end_points)
  check_end_points(names, net.network, '--end_points')
  learnt, asked = features.collect(net, splits, names, flatten)
  _check_classes(learnt.labels, train)
  if unknown := sorted({*asked.labels.tolist()} - {*learnt.labels.tolist()}):
    which = some([test.class_names[i] for i in unknown])
    warn(
      f'config.data.train_split={train.split!r} has no image of {which}: '
      f'those of {test.split!r} count as errors'
    )
  found = [
    probe(name, learnt.vectors.pop(name), learnt.labels, asked, k, seed)
    for name in names
  ]
  for line in table(found, k):
    print(line)
  print(f'train    {train.num_examples:,} of {train.name} {train.split}')
  print(f'test     {test.num_examples:,} of {test.name} {test.split}')
  print(f'from     {net.path}: step {net.step:,}')
  if not output:
    return
  about = {
    'checkpoint': str(net.path),
    'step': net.step,
    'dataset': train.name,
    'train_split': train.split,
    'train_images': train.num_examples,
    'eval_split': test.split,
    'eval_images': test.num_examples,
    'k': k,
    'flatten': flatten,
    'seed': seed,
  }
  outputs.check_new(output)  # again, since the probes took a while
  with outputs.written_aside(output, 'w') as file:
    write(file, format, about, found)
  print(f'in       {output}')


def _points(architecture: rows.Architecture, text: str) -> tuple[str, ...]:
  """Returns the points that are named, or the default ones."""
  names = tuple(dict.fromkeys(name for name in text.split(',') if name))
  if names:
    return names
  dense = [
    layer.name
    for layer in graph.graph(architecture)
    if layer.kind == 'dense' and not layer.is_side
  ]
  stages = [stage.name for stage in architecture.stages]
  return (*stages, *(name for name in dense if name != 'logits'))


def _check_classes(labels: np.ndarray, train: Dataset) -> None:
  """Raises UserError if all training images are of one class."""
  if (labels == labels[0]).all():
    raise UserError(
      f'config.data.train_split={train.split!r} has images of the class '
      f'{train.class_names[labels[0]]} alone; a probe tells two or more apart'
    )


def probe(
  name: str,
  vectors: np.ndarray,
  labels: np.ndarray,
  asked: features.Features,
  k: int,
  seed: int,
) -> Row:
  """Scores both probes of a point.

  Args:
    name: of the point.
    vectors: float32 [N, C], its features of the training split.
    labels: int [N].
    asked: features of the evaluation split.
    k: number of neighbours.
    seed: of the held-out images.
  """
  test = asked.vectors[name]
  # Only classes that occur: of others nothing can be learnt.
  known, targets = np.unique(labels, return_inverse=True)
  near = knn.predict(
    vectors, targets, test, len(known), k, f'probe    {name} kNN'
  )
  fitted = linear.fit(
    vectors, targets, len(known), seed, what=f'probe    {name} linear'
  )
  if not fitted.has_converged:
    warn(
      f'{name}: the linear probe has not converged: its accuracy may be too low'
    )
  accuracies = []
  for predicted in (near, fitted.predict(test)):
    accuracy = float((known[predicted] == asked.labels).mean())
    interval = scores.accuracy_interval(accuracy, len(test))
    accuracies += [accuracy, *interval]
  return Row(name, vectors.shape[1], *accuracies, fitted.strength)


def table(found: Sequence[Row], k: int) -> list[str]:
  """Returns the results as lines."""
  size = max(len('point'), *(len(row.point) for row in found))
  lines = [
    f'{"point":{size}}  {"width":>6}  {f"kNN, k={k}":17}  {"linear":17}  L2'
  ]
  for row in found:
    near = _accuracy(row.knn, row.knn_low, row.knn_high)
    fitted = _accuracy(row.linear, row.linear_low, row.linear_high)
    lines.append(
      f'{row.point:{size}}  {row.width:6,}  {near}  {fitted}  {row.l2:g}'
    )
  return [*lines, '(+-: half the 95 % interval)']


def _accuracy(value: float, low: float, high: float) -> str:
  return f'{value:.4f} +- {(high - low) / 2:.4f}'


def write(
  file: Any, format: str, about: dict[str, Any], found: Iterable[Row]
) -> None:
  """Writes the results to a text file, as JSON or as CSV."""
  if format == 'json':
    points = [row._asdict() for row in found]
    file.write(json.dumps({**about, 'points': points}, indent=1) + '\n')
    return
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(Row._fields)
  writer.writerows(found)
