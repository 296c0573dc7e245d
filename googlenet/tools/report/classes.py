"""The sections of the report about classes and single predictions."""

from typing import Any

import matplotlib
import numpy as np

from googlenet.tools.report import figures, pictures
from googlenet.tools.report.page import Section, fill
from googlenet.tools.scoring import score_table
from googlenet.tools.scoring import scores as score_lib
from googlenet.tools.scoring.predictions import Predictions
from googlenet.tools.scoring.scores import Scores

NUM_ERRORS = 24
_NUM_CONFUSIONS = 12
_MAX_CLASSES = 1000  # rows of a table


def classes(
  scores: Scores,
  predictions: Predictions,
  class_names: tuple[str, ...],
  num_views: int,
) -> Section:
  """Returns the section with scores of each class, calibration, confusion."""
  are_many = len(class_names) > score_table.MAX_ROWS
  shown = np.arange(len(class_names))
  if are_many:
    shown = score_table.worst_classes(scores)[:_MAX_CLASSES]
  measures = scores.precision, scores.recall, scores.f1
  rows = [
    (
      class_names[k],
      f'{scores.counts[k]:,}',
      *(score_table.number(values[k]) for values in measures),
    )
    for k in shown
  ]
  means = map(score_table.number, score_lib.class_means(scores))
  rows.append(('mean of classes', f'{scores.count:,}', *means))
  body = fill(
    'classes.html',
    dataset=predictions.dataset,
    scores=scores,
    error=score_table.half_width(scores.accuracy, scores.count),
    num_views=num_views,
    rows=rows,
    num_shown=len(shown) if are_many else None,
    num_classes=len(class_names),
    reliability=figures.reliability(scores.bins, 'calibration'),
    **_confusion(scores, class_names),
  )
  return Section('classes', 'Classes', body)


def _confusion(scores: Scores, class_names: tuple[str, ...]) -> dict[str, Any]:
  """Returns the pairs most often confused, and the confusion matrix.

  The colours show the errors: the most frequent one has the brightest colour,
  and the diagonal has none. The matrix is a table for few classes and a picture
  for many; for more than 1000 classes both are left out.
  """
  found = {'confused': [], 'matrix_head': [], 'matrix': [], 'picture': None}
  if scores.confusion is None:
    return found
  shares = scores.confusion / np.maximum(
    scores.confusion.sum(1, keepdims=True), 1
  )
  found['confused'] = _confused(scores.confusion, shares, class_names)
  errors = shares * ~np.eye(len(class_names), dtype=bool)
  colours = errors / max(errors.max(), 1e-12)
  if len(class_names) <= score_table.MAX_ROWS:
    found['matrix_head'] = [
      'true \\ predicted',
      *map(str, range(len(class_names))),
    ]
    found['matrix'] = [
      (
        f'{k} {name}',
        *(
          _cell(count, None if k == predicted else colours[k, predicted])
          for predicted, count in enumerate(scores.confusion[k])
        ),
      )
      for k, name in enumerate(class_names)
    ]
  else:
    found['picture'] = pictures.Picture(
      pictures.data_uri(pictures.confusion(colours)),
      f'Confusion matrix of {len(class_names)} classes; see the list above',
      'Errors: rows are true classes, columns predicted classes; the brightest '
      f'pixel is {100 * errors.max():.1f} % of a true class, and the diagonal, '
      'which is no error, is grey.',
    )
  return found


def _confused(
  confusion: np.ndarray, shares: np.ndarray, class_names: tuple[str, ...]
) -> list[tuple[str, str, str]]:
  """Returns rows about the pairs of classes that are most often confused."""
  wrong = confusion * ~np.eye(len(class_names), dtype=bool)
  order = np.argsort(-wrong, axis=None, kind='stable')[:_NUM_CONFUSIONS]
  pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
  return [
    (
      f'{class_names[true]} predicted as {class_names[predicted]}',
      f'{wrong[true, predicted]:,}',
      f'{100 * shares[true, predicted]:.1f} %',
    )
    for true, predicted in pairs
    if wrong[true, predicted]
  ]


def _cell(count: int, colour: float | None) -> dict[str, Any]:
  """Returns a cell: its text, and colours for a value in 0..1 or None."""
  cell = {'text': f'{count:,}', 'rgb': None, 'ink': None}
  if colour is not None:
    *rgb, _ = matplotlib.colormaps['cividis'](float(colour), bytes=True)
    is_light = np.dot((0.299, 0.587, 0.114), rgb) > 128
    cell |= {'rgb': rgb, 'ink': '#000' if is_light else '#fff'}
  return cell


def worst_errors(predictions: Predictions, count: int) -> np.ndarray:
  """Returns the indices of misclassified images, the most confident first."""
  predicted = predictions.probabilities.argmax(-1)
  wrong = np.flatnonzero(predicted != predictions.labels)
  confidence = predictions.probabilities[wrong, predicted[wrong]]
  return wrong[np.argsort(-confidence, kind='stable')][:count]


def errors(
  predictions: Predictions,
  places: np.ndarray,
  pixels: np.ndarray,
  class_names: tuple[str, ...],
) -> Section:
  """Returns the section that shows misclassified images.

  Args:
    predictions: of the split.
    places: indices in the split, as `worst_errors` returns them.
    pixels: uint8 [n, H, W, C], these images.
    class_names: of all classes.
  """
  found = []
  for place, one in zip(places, pixels, strict=True):
    odds = predictions.probabilities[place]
    true, predicted = int(predictions.labels[place]), int(odds.argmax())
    found.append(
      {
        'uri': pictures.data_uri(pictures.photograph(one)),
        'place': place,
        'true': class_names[true],
        'true_percent': 100 * odds[true],
        'predicted': class_names[predicted],
        'predicted_percent': 100 * odds[predicted],
      }
    )
  body = fill('errors.html', errors=found)
  return Section('errors', 'Most confident errors', body)
