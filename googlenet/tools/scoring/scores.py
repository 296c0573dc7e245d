"""Scores of predictions, computed by NumPy from probabilities and labels."""

import math
from typing import Any, NamedTuple

import numpy as np

NUM_BINS = 15
# Confusion matrices of more classes take over 8 MB and are hardly readable.
_MAX_CONFUSION = 1000
_CHUNK = 4096  # examples that are ranked at the same time


class Bin(NamedTuple):
  """The examples whose confidence lies in one interval.

  Attributes:
    count: number of examples.
    confidence: mean confidence; NaN without examples.
    accuracy: mean accuracy; NaN without examples.
  """

  count: int
  confidence: float
  accuracy: float


class Scores(NamedTuple):
  """Scores over N examples of K classes.

  Attributes:
    count: N.
    loss: mean negative log-likelihood (NLL), in nats, without label smoothing.
    brier: mean Brier score (Brier, 1950): the squared distance of the
      probabilities and the true class, summed over classes; 0 to 2.
    accuracy: top-1 accuracy.
    top_5: top-5 accuracy; 1 with at most five classes.
    calibration_error: ECE, Guo et al., 2017 (arXiv 1706.04599), equation 3: the
      mean distance of confidence and accuracy over bins, weighted by examples.
    bins: the `NUM_BINS` bins of the ECE, of equal width, (low, high] each.
    counts: int64 [K], examples of each class.
    precision: float64 [K]; NaN if a class is never predicted.
    recall: float64 [K]; NaN if a class has no examples.
    f1: float64 [K], harmonic mean of precision and recall; NaN if a class has
      no examples and is never predicted.
    confusion: int64 [K, K], rows are true classes, columns predicted classes;
      None with more than 1000 classes.
  """

  count: int
  loss: float
  brier: float
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
  """Returns the scores of predictions.

  Args:
    probabilities: float [N, K], with N at least 1.
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
    brier=float(brier_scores(probabilities, labels).mean()),
    accuracy=float((ranks < 1).mean()),
    top_5=float((ranks < 5).mean()),
    calibration_error=calibration_error(bins),
    bins=bins,
    counts=by_true,
    precision=_ratio(right, by_predicted),
    recall=_ratio(right, by_true),
    f1=_ratio(2 * right, by_true + by_predicted),
    confusion=confusion,
  )


def accuracy_interval(accuracy: float, count: int) -> tuple[float, float]:
  """Returns the 95 % interval of an accuracy over `count` examples.

  Wilson's interval of a binomial: what another draw of as many examples would
  change, but not another seed of training.
  """
  z = 1.959964
  centre = (accuracy + z**2 / (2 * count)) / (1 + z**2 / count)
  spread = accuracy * (1 - accuracy) / count + z**2 / (4 * count**2)
  half = z * math.sqrt(spread) / (1 + z**2 / count)
  return max(centre - half, 0.0), min(centre + half, 1.0)


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the negative log-likelihood of each example, float64 [N].

  A probability of 0 is replaced by the smallest positive float32, so that the
  mean is finite.
  """
  true = probabilities[np.arange(len(labels)), labels]
  return -np.log(np.maximum(true, np.finfo(np.float32).tiny), dtype=np.float64)


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the Brier score of each example, summed over classes: [N]."""
  true = np.take_along_axis(probabilities, labels[:, None], -1)[:, 0]
  squares = np.einsum(
    'nk,nk->n', probabilities, probabilities, dtype=np.float64
  )
  return squares + 1 - 2 * true.astype(np.float64)


def true_ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the number of classes that rank above the true one, int64 [N].

  Of two equal probabilities the lower class ranks first, as in argmax. If the
  probability of the true class is not finite, the result is K.
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
  """Divides examples into `NUM_BINS` bins by their confidence.

  Args:
    confidence: float [N], in 0..1.
    is_right: bool [N], whether the prediction is correct.
  """
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


def calibration_error(bins: tuple[Bin, ...]) -> float:
  """Returns the ECE of the bins of all examples."""
  total = sum(part.count for part in bins)
  return sum(
    part.count / total * abs(part.accuracy - part.confidence)
    for part in bins
    if part.count
  )


def class_means(scores: Scores) -> tuple[float, float, float]:
  """Returns the unweighted means of precision, recall and F1 over classes.

  Classes whose value is NaN are left out.
  """
  return tuple(
    float(values[np.isfinite(values)].mean())
    if np.isfinite(values).any()
    else float('nan')
    for values in (scores.precision, scores.recall, scores.f1)
  )


def to_dict(scores: Scores, class_names: tuple[str, ...]) -> dict[str, Any]:
  """Returns the scores for JSON, with None for values that are not finite."""

  def number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

  return {
    'count': scores.count,
    'accuracy': scores.accuracy,
    'accuracy_interval': accuracy_interval(scores.accuracy, scores.count),
    'top_5': scores.top_5,
    'loss': scores.loss,
    'brier': scores.brier,
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


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Returns part / whole, NaN where `whole` is 0."""
  out = np.full(np.shape(whole), np.nan)
  return np.divide(part, whole, out=out, where=whole > 0)
