"""Scores of predictions: NumPy, from probabilities and labels alone."""

from typing import Any, NamedTuple

import numpy as np

NUM_BINS = 15
# Above that a confusion matrix has more than 8 MB and nobody reads it.
_MAX_CONFUSION = 1000
_CHUNK = 4096  # examples whose ranks are found at a time


class Bin(NamedTuple):
  """Examples whose confidence lies in one part of 0 to 1.

  Attributes:
    count: of examples.
    confidence: their mean; NaN without any.
    accuracy: likewise.
  """

  count: int
  confidence: float
  accuracy: float


class Scores(NamedTuple):
  """What is known of K classes over N examples.

  Attributes:
    count: N.
    loss: mean negative log-likelihood, nats.
    accuracy: top-1.
    top_5: whether the true class is among five; top-K with fewer classes.
    calibration_error: ECE, Guo et al., 2017 (arXiv 1706.04599), equation 3: the
      mean distance of confidence and accuracy over bins, weighted by examples.
    bins: its `NUM_BINS` bins of equal width, (low, high] each.
    counts: int64 [K], examples of each class.
    precision: float64 [K], of what is predicted as a class; NaN if nothing is.
    recall: float64 [K], of what is in a class; NaN if nothing is.
    f1: float64 [K], their harmonic mean; NaN without either.
    confusion: int64 [K, K], true classes down, predicted ones across; None with
      more than 1000 classes.
  """

  count: int
  loss: float
  accuracy: float
  top_5: float
  calibration_error: float
  bins: tuple[Bin, ...]
  counts: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  f1: np.ndarray
  confusion: np.ndarray | None


def compute(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
  """Scores predictions.

  Args:
    probabilities: float [N, K], N at least 1.
    labels: int [N], each in range(K).
  """
  num_classes = probabilities.shape[1]
  predicted = probabilities.argmax(-1)
  is_right = predicted == labels
  ranks = true_ranks(probabilities, labels)
  by_true = np.bincount(labels, minlength=num_classes)
  by_predicted = np.bincount(predicted, minlength=num_classes)
  right = np.bincount(labels[is_right], minlength=num_classes)
  confusion = None
  if num_classes <= _MAX_CONFUSION:
    pairs = np.bincount(
      labels.astype(np.int64) * num_classes + predicted,
      minlength=num_classes**2,
    )
    confusion = pairs.reshape(num_classes, num_classes)
  bins = calibration_bins(probabilities.max(-1), is_right)
  return Scores(
    count=len(labels),
    loss=float(losses(probabilities, labels).mean()),
    accuracy=float((ranks < 1).mean()),
    top_5=float((ranks < 5).mean()),
    calibration_error=_expected_error(bins, len(labels)),
    bins=bins,
    counts=by_true,
    precision=_ratio(right, by_predicted),
    recall=_ratio(right, by_true),
    f1=_ratio(2 * right, by_true + by_predicted),
    confusion=confusion,
  )


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the negative log-likelihood of each example, float64 [N].

  A probability of 0 counts as the smallest float32, so that a mean is finite.
  """
  true = probabilities[np.arange(len(labels)), labels]
  return -np.log(np.maximum(true, np.finfo(np.float32).tiny), dtype=np.float64)


def true_ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns how many classes stand above the true one, int64 [N].

  As for argmax, the lower of two equal classes stands first. Nothing compares
  with NaN: there it is K.
  """
  found = []
  for start in range(0, len(labels), _CHUNK):
    part = probabilities[start : start + _CHUNK]
    label = labels[start : start + _CHUNK, None]
    true = np.take_along_axis(part, label, -1)
    is_lower = np.arange(part.shape[1]) < label
    above = ((part > true) | ((part == true) & is_lower)).sum(-1)
    found.append(np.where(np.isfinite(true[:, 0]), above, part.shape[1]))
  return np.concatenate(found)


def calibration_bins(
  confidence: np.ndarray, is_right: np.ndarray
) -> tuple[Bin, ...]:
  """Returns `NUM_BINS` bins of confidences [N] in 0 to 1 and hits [N]."""
  place = np.ceil(np.nan_to_num(confidence) * NUM_BINS).astype(np.int64) - 1
  place = place.clip(0, NUM_BINS - 1)
  counts = np.bincount(place, minlength=NUM_BINS)
  sums = [
    np.bincount(place, weights, minlength=NUM_BINS)
    for weights in (confidence, is_right)
  ]
  means = [_ratio(total, counts) for total in sums]
  return tuple(
    Bin(int(count), float(mean), float(hits))
    for count, mean, hits in zip(counts, *means, strict=True)
  )


def class_means(scores: Scores) -> tuple[float, float, float]:
  """Returns precision, recall and F1 averaged over the classes that have one.

  Each class counts the same, however many examples it has.
  """
  return tuple(
    float(values[np.isfinite(values)].mean())
    if np.isfinite(values).any()
    else float('nan')
    for values in (scores.precision, scores.recall, scores.f1)
  )


def to_dict(scores: Scores, class_names: tuple[str, ...]) -> dict[str, Any]:
  """Returns what JSON can hold; None for what is undefined."""

  def number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

  return {
    'count': scores.count,
    'accuracy': scores.accuracy,
    'top_5': scores.top_5,
    'loss': scores.loss,
    'calibration_error': scores.calibration_error,
    'calibration_bins': [
      {
        'above': i / NUM_BINS,
        'count': part.count,
        'confidence': number(part.confidence),
        'accuracy': number(part.accuracy),
      }
      for i, part in enumerate(scores.bins)
    ],
    'classes': [
      {
        'name': name,
        'count': int(count),
        'precision': number(precision),
        'recall': number(recall),
        'f1': number(f1),
      }
      for name, count, precision, recall, f1 in zip(
        class_names,
        scores.counts,
        scores.precision,
        scores.recall,
        scores.f1,
        strict=True,
      )
    ],
    'confusion': None
    if scores.confusion is None
    else scores.confusion.tolist(),
  }


def _expected_error(bins: tuple[Bin, ...], count: int) -> float:
  return sum(
    part.count / count * abs(part.accuracy - part.confidence)
    for part in bins
    if part.count
  )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Divides; NaN where there is nothing."""
  out = np.full(np.shape(whole), np.nan)
  return np.divide(part, whole, out=out, where=whole > 0)
