"""Scores as lines of text."""

import numpy as np

from googlenet.tools.scoring import scores as score_lib
from googlenet.tools.scoring.scores import Scores

MAX_ROWS = 20


def lines(scores: Scores, class_names: tuple[str, ...]) -> list[str]:
  """Returns calibration, the table of classes, and the confusion matrix.

  With more than `MAX_ROWS` classes the table shows the classes with the lowest
  F1, and the matrix is left out.
  """
  confidence = sum(
    part.count * part.confidence for part in scores.bins if part.count
  )
  out = [
    f'NLL {scores.loss:.4f} (the loss), Brier score {scores.brier:.4f}',
    f'calibration error {scores.calibration_error:.4f} '
    f'({score_lib.NUM_BINS} bins), mean confidence '
    f'{confidence / scores.count:.4f}',
    '',
    *_class_lines(scores, class_names),
  ]
  if scores.confusion is not None and len(class_names) <= MAX_ROWS:
    out += ['', *_confusion_lines(scores.confusion, class_names)]
  return out


def half_width(accuracy: float, count: int) -> float:
  """Returns half the width of the 95 % interval of an accuracy."""
  low, high = score_lib.accuracy_interval(accuracy, count)
  return (high - low) / 2


def worst_classes(scores: Scores) -> np.ndarray:
  """Returns the classes with a defined F1, the lowest first."""
  order = np.argsort(scores.f1, kind='stable')  # NaN comes last
  return order[np.isfinite(scores.f1[order])]


def number(value: float) -> str:
  """Returns a score as text, '-' if it is not finite."""
  return f'{value:.4f}' if np.isfinite(value) else '-'


def _class_lines(scores: Scores, class_names: tuple[str, ...]) -> list[str]:
  shown, note = range(len(class_names)), []
  if len(class_names) > MAX_ROWS:
    shown = worst_classes(scores)[:MAX_ROWS]
    note = [
      f'(the {len(shown)} of {len(class_names):,} classes with the lowest F1; '
      'all of them: --output=scores.json)'
    ]
  names = [*(class_names[i] for i in shown), 'class', 'mean of classes']
  width = max(len(name) for name in names)

  def line(name: str, count: str, values: tuple[str, ...]) -> str:
    texts = ''.join(f'{value:>11}' for value in values)
    return f'{name:<{width}}{count:>9}{texts}'

  means = score_lib.class_means(scores)
  return [
    line('class', 'images', ('precision', 'recall', 'F1')),
    *(
      line(
        class_names[i],
        f'{scores.counts[i]:,}',
        tuple(
          number(values[i])
          for values in (scores.precision, scores.recall, scores.f1)
        ),
      )
      for i in shown
    ),
    line('mean of classes', f'{scores.count:,}', tuple(map(number, means))),
    *note,
  ]


def _confusion_lines(
  confusion: np.ndarray, class_names: tuple[str, ...]
) -> list[str]:
  width = max(len(name) for name in class_names)
  cell = max(len(str(confusion.max())), 2) + 2
  numbers = range(len(class_names))
  return [
    'confusion: rows are true classes, columns predicted classes in the same '
    'order',
    ' ' * (width + 4) + ''.join(f'{i:>{cell}}' for i in numbers),
    *(
      f'{i:>2}  {name:<{width}}' + ''.join(f'{n:>{cell}}' for n in row)
      for i, name, row in zip(numbers, class_names, confusion, strict=True)
    ),
  ]
