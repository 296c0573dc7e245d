"""Scores on corrupted images: a table of kinds and severities."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from googlenet.data import batches, pipeline
from googlenet.errors import UserError, did_you_mean
from googlenet.runtime.parallel import parallelize
from googlenet.runtime.progress import Progress
from googlenet.tools.inference import predict
from googlenet.tools.inference.apply import PROBABILITIES
from googlenet.tools.inference.trained import Trained
from googlenet.tools.scoring import scores
from googlenet.tools.scoring.corruptions import KINDS, SEVERITIES, function_of
from googlenet.tools.scoring.predictions import everywhere, load_split

Config = ml_collections.FrozenConfigDict

FLAG, ALL = '--corruptions', 'all'


class Cell(NamedTuple):
  """Scores over the images of a split, all corrupted alike.

  Attributes:
    kind: of the corruption.
    severity: 1 to 5.
    strength: what the kind makes of the severity for images of this size.
    accuracy: top-1 accuracy.
    loss: mean negative log-likelihood, in nats.
    brier: mean Brier score.
    calibration_error: ECE, as in `Scores`.
  """

  kind: str
  severity: int
  strength: float
  accuracy: float
  loss: float
  brier: float
  calibration_error: float


def kinds_of(text: str) -> tuple[str, ...]:
  """Returns the kinds that a flag names, each once, in their order.

  Args:
    text: names separated by commas, or 'all'.

  Raises:
    UserError: a name is unknown, or there is none.
  """
  names = tuple(dict.fromkeys(part.strip() for part in text.split(',')))
  if names == (ALL,):
    return tuple(KINDS)
  for name in names:
    if name not in KINDS:
      raise UserError(
        f'{FLAG}={text}: there is no corruption {name!r}'
        f'{did_you_mean(name, KINDS)}; allowed is {ALL}, or some of '
        f'{", ".join(KINDS)}, separated by commas'
      )
  return names


def check(config: Config) -> None:
  """Raises UserError if the config's images cannot be corrupted."""
  if config.eval.crops > 1:
    raise UserError(
      f'config.eval.crops={config.eval.crops} cuts crops out of whole files, '
      f'but {FLAG} changes images as the data set stores them: give '
      '--config.eval.crops=1'
    )


def evaluate(
  config: Config,
  members: list[Trained],
  names: Sequence[str],
  seed: int = 0,
  temperature: float = 1.0,
) -> list[Cell]:
  """Scores networks on `data.eval_split` under each corruption and severity.

  The images are read once. A program is compiled for each kind; the network is
  the one of `predict_split`. Of a prediction four numbers are kept.

  Args:
    config: its `data` and `eval` sections are used for all members.
    members: networks that take the same images, whose predictions are averaged.
    names: some of `KINDS`.
    seed: of noise and directions.
    temperature: see `predict.with_temperature`.

  Returns:
    The cells by name and severity, the same in every process.

  Raises:
    UserError: the data is missing or does not fit the config, or has crops.
  """
  check(config)
  dataset = load_split(config, members[0])
  inputs = pipeline.make_pipeline(config, dataset)
  strengths = [
    (name, severity, np.float32(strength))
    for name in names
    for severity, strength in zip(
      SEVERITIES, KINDS[name].strengths(dataset.image_shape), strict=True
    )
  ]
  index_batches = batches.eval_indices(
    dataset.num_examples, config.eval.batch_size, jax.device_count()
  )
  step = _make_step(config, members)
  programs = {name: _program(name, config.train.parallel) for name in names}
  found = [[] for _ in strengths]
  with (
    Progress(
      f'corrupt  {dataset.name} {dataset.split}',
      len(index_batches) * len(strengths),
      'batches',
    ) as bar,
    contextlib.closing(inputs.batches(index_batches)) as read,
  ):

    def corrupted() -> Iterator[predict.Batch]:
      for batch in read:
        for cell, (name, _, strength) in enumerate(strengths):
          images = programs[name](
            batch['image'], batch['index'], strength, np.int32(seed)
          )
          yield predict.Batch((cell, batch), images)

    for (cell, batch), outputs in predict.run_batches(step, corrupted()):
      index, label = (
        np.asarray(batch[name]).reshape(-1) for name in ('index', 'label')
      )
      index, label, probabilities = everywhere(index, label, sum(outputs))
      is_real = index >= 0
      found[cell].append(
        _numbers(
          predict.with_temperature(
            probabilities[is_real] / np.float32(len(members)), temperature
          ),
          label[is_real],
        )
      )
      bar.update()
  return [
    Cell(name, severity, float(strength), *_means(np.concatenate(parts)))
    for (name, severity, strength), parts in zip(strengths, found, strict=True)
  ]


def _make_step(
  config: Config, members: list[Trained]
) -> Callable[[jax.Array], list[jax.Array]]:
  """Returns the function from images to the probabilities of each network."""
  views = predict.views_of(config.eval)
  steps = [member.step_of(views) for member in members]
  return lambda images: [one(images)[PROBABILITIES] for one in steps]


@functools.cache
def _program(name: str, how: str) -> Callable[..., jax.Array]:
  """Returns a corruption of a batch on all devices, by strength and seed."""
  return parallelize(function_of(name), in_axes=(0, 0, None, None), how=how)


def _numbers(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns what `_means` needs of predictions, float64 [N, 4]."""
  return np.stack(
    [
      scores.true_ranks(probabilities, labels) < 1,
      scores.losses(probabilities, labels),
      scores.brier_scores(probabilities, labels),
      probabilities.max(-1),
    ],
    -1,
  )


def _means(numbers: np.ndarray) -> tuple[float, float, float, float]:
  """Returns accuracy, loss, Brier score and calibration error."""
  is_right, losses, briers, confidence = numbers.T
  bins = scores.calibration_bins(confidence, is_right)
  return (
    float(is_right.mean()),
    float(losses.mean()),
    float(briers.mean()),
    scores.calibration_error(bins),
  )


def mean_accuracy(cells: Sequence[Cell]) -> float:
  """Returns the mean accuracy over cells."""
  return float(np.mean([cell.accuracy for cell in cells]))


def _rows(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
  rows: dict[str, list[Cell]] = {}
  for cell in cells:
    rows.setdefault(cell.kind, []).append(cell)
  return rows


def to_dict(
  cells: Sequence[Cell], clean_accuracy: float, seed: int
) -> dict[str, Any]:
  """Returns the table for JSON."""
  return {
    'seed': seed,
    'clean_accuracy': clean_accuracy,
    'mean_accuracy': mean_accuracy(cells),
    'mean_error': 1 - mean_accuracy(cells),
    'kinds': {
      name: {
        'mean_accuracy': mean_accuracy(row),
        'severities': [
          {k: v for k, v in cell._asdict().items() if k != 'kind'}
          for cell in row
        ],
      }
      for name, row in _rows(cells).items()
    },
  }


def lines(cells: Sequence[Cell], clean_accuracy: float) -> list[str]:
  """Returns the table of accuracies as text: a row for each kind."""
  rows = _rows(cells)
  width = max(len(name) for name in (*KINDS, 'mean'))

  def line(name: str, values: Sequence[object]) -> str:
    return f'{name:<{width}}' + ''.join(f'{value:>9}' for value in values)

  def numbers(row: Sequence[Cell]) -> list[str]:
    values = [*(cell.accuracy for cell in row), mean_accuracy(row)]
    return [f'{value:.4f}' for value in values]

  columns = [[row[i] for row in rows.values()] for i in range(len(SEVERITIES))]
  means = [f'{mean_accuracy(column):.4f}' for column in columns]
  mean = mean_accuracy(cells)
  return [
    'accuracy on corrupted images, by severity',
    line('', [*SEVERITIES, 'mean']),
    *(line(name, numbers(row)) for name, row in rows.items()),
    *([line('mean', [*means, f'{mean:.4f}'])] if len(rows) > 1 else []),
    f'clean accuracy {clean_accuracy:.4f}, mean corruption error '
    f'{1 - mean:.4f}',
  ]
