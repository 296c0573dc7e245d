"""The parts of the page that tell of classes and of single predictions."""

import matplotlib
import numpy as np

from googlenet.tools.report import figures, pictures
from googlenet.tools.report.markup import (
  Html,
  element,
  figure,
  image,
  join,
  table,
)
from googlenet.tools.report.sections import Section
from googlenet.tools.scoring import score_table
from googlenet.tools.scoring import scores as score_lib
from googlenet.tools.scoring.predictions import Predictions
from googlenet.tools.scoring.scores import Scores

NUM_ERRORS = 24
_NUM_CONFUSIONS = 12
_MAX_CLASSES = 1000  # lines of a table


def classes(
  scores: Scores, predictions: Predictions, class_names: tuple[str, ...]
) -> Section:
  """Scores of each class, calibration, confusion."""
  dataset = predictions.dataset
  shown = np.arange(len(class_names))
  if len(class_names) > score_table.MAX_ROWS:
    shown = score_table.worst_classes(scores)[:_MAX_CLASSES]
  rows = [
    (
      class_names[k],
      f'{scores.counts[k]:,}',
      *(
        score_table.number(values[k])
        for values in (scores.precision, scores.recall, scores.f1)
      ),
    )
    for k in shown
  ]
  means = map(score_table.number, score_lib.class_means(scores))
  rows.append(('mean of classes', f'{scores.count:,}', *means))
  head = ('class', 'images', 'precision', 'recall', 'F1')
  by_class = table(head, rows, 'By class', class_='numbers')
  if len(class_names) > score_table.MAX_ROWS:
    by_class = element(
      'details',
      element(
        'summary',
        f'{len(shown):,} of {len(class_names):,} classes, the lowest F1 first',
      ),
      by_class,
    )
  parts = [
    element(
      'p',
      f'{dataset.name} {dataset.split}, {scores.count:,} images: accuracy '
      f'{scores.accuracy:.4f}, top-5 {scores.top_5:.4f}, loss '
      f'{scores.loss:.4f}, calibration error (ECE) '
      f'{scores.calibration_error:.4f}.',
    ),
    element('div', by_class, *_confused(scores, class_names), class_='pair'),
    confusion(scores, class_names),
    element(
      'div',
      figure(
        figures.reliability(scores.bins, 'calibration'),
        'Accuracy of the images in each of 15 bins of confidence.',
      ),
      class_='grid',
    ),
  ]
  return Section('classes', 'Classes', join(parts))


def confusion(scores: Scores, class_names: tuple[str, ...]) -> Html:
  """The matrix, as a table, or as a picture with many classes."""
  if scores.confusion is None:
    return Html('')
  shares = _shares(scores.confusion)
  if len(class_names) <= score_table.MAX_ROWS:
    rows = [
      (f'{k} {name}', *map(_cell, scores.confusion[k], shares[k]))
      for k, name in enumerate(class_names)
    ]
    head = ('true \\ predicted', *map(str, range(len(class_names))))
    caption = 'Confusion: images by true class (line) and predicted (column)'
    return table(head, rows, caption, class_='matrix')
  picture = pictures.indexed(shares)
  alt = f'Confusion matrix of {len(class_names)} classes; see the list above'
  caption = (
    'Confusion: true classes down, predicted ones across; bright is a large '
    'share of the true class.'
  )
  uri = pictures.data_uri(picture)
  return figure(image(uri, alt, class_='pixels wide'), caption)


def _shares(confusion: np.ndarray) -> np.ndarray:
  return confusion / np.maximum(confusion.sum(1, keepdims=True), 1)


def _confused(scores: Scores, class_names: tuple[str, ...]) -> list[Html]:
  """The table of the pairs that are most often confused, if there are any."""
  if scores.confusion is None:
    return []
  shares = _shares(scores.confusion)
  wrong = scores.confusion * ~np.eye(len(class_names), dtype=bool)
  order = np.argsort(-wrong, axis=None, kind='stable')[:_NUM_CONFUSIONS]
  rows = [
    (
      f'{class_names[true]} taken for {class_names[predicted]}',
      f'{wrong[true, predicted]:,}',
      f'{100 * shares[true, predicted]:.1f} %',
    )
    for true, predicted in zip(
      *np.unravel_index(order, wrong.shape), strict=True
    )
    if wrong[true, predicted]
  ]
  head = ('classes', 'images', 'of the true class')
  made = table(head, rows, 'Most often confused', class_='numbers')
  return [made] if rows else []


def worst_errors(predictions: Predictions, count: int) -> np.ndarray:
  """Returns the images that are wrong with the highest confidence, first."""
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
  """Pictures of errors.

  Args:
    predictions: of the split.
    places: of the images in it, as `worst_errors` returns them.
    pixels: uint8 [n, H, W, C], the images.
    class_names: of all classes.
  """
  cards = []
  for place, one in zip(places, pixels, strict=True):
    odds = predictions.probabilities[place]
    true, predicted = int(predictions.labels[place]), int(odds.argmax())
    told = (class_names[true], class_names[predicted])
    alt = f'Image {place}, a {told[0]} that is taken for {told[1]}'
    picture = image(
      pictures.data_uri(pictures.photograph(one)), alt, class_='pixels'
    )
    caption = element(
      'figcaption',
      element('b', told[1]),
      f' {100 * odds[predicted]:.1f} %',
      Html('<br>'),
      f'is {told[0]} ({100 * odds[true]:.1f} %), image {place}',
    )
    cards.append(element('figure', picture, caption))
  body = element('div', *cards, class_='cells')
  if not cards:
    body = element('p', 'No image of this split is classified wrongly.')
  return Section('errors', 'Most confident errors', body)


def _cell(count: int, share: float) -> Html:
  """A cell in the colour of its share, readable in light and dark."""
  red, green, blue, _ = matplotlib.colormaps['cividis'](
    float(share), bytes=True
  )
  light = 0.299 * red + 0.587 * green + 0.114 * blue > 128
  style = (
    f'background:rgb({red},{green},{blue});color:{"#000" if light else "#fff"}'
  )
  return element('td', f'{count:,}', style=style)
