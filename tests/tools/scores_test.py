"""Scores against the definition, an example at a time."""

import json
import math

import numpy as np
import pytest

from googlenet.tools.scoring import score_table, scores


def random_predictions(num_examples=400, num_classes=7):
  """Predictions with ties, a class that is never predicted and one empty."""
  rng = np.random.default_rng(0)
  logits = rng.integers(-3, 4, (num_examples, num_classes)).astype(np.float32)
  labels = rng.integers(0, num_classes - 1, num_examples).astype(np.int32)
  logits[np.arange(num_examples), labels] += rng.integers(0, 4, num_examples)
  logits[:, 2] = -4
  odds = np.exp(logits)
  return odds / odds.sum(-1, keepdims=True), labels


def test_every_score_is_its_definition():
  probabilities, labels = random_predictions()
  found = scores.compute(probabilities, labels)
  count, num_classes = probabilities.shape
  confusion = np.zeros((num_classes, num_classes), int)
  loss = hits = top_5 = brier = 0.0
  bins = [[] for _ in range(15)]
  for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
    # Sorted by probability; Python's sort keeps the lower of equal classes.
    order = sorted(range(num_classes), key=lambda k: -row[k])
    confusion[label, order[0]] += 1
    loss -= math.log(row[label])
    brier += sum((p - (k == label)) ** 2 for k, p in enumerate(row))
    hits += order[0] == label
    top_5 += label in order[:5]
    for m in range(15):
      if m / 15 < max(row) <= (m + 1) / 15:
        bins[m].append((max(row), order[0] == label))
  assert found.count == count
  assert found.loss == pytest.approx(loss / count, rel=1e-6)
  assert found.brier == pytest.approx(brier / count, rel=1e-6)
  assert found.accuracy == hits / count
  assert found.top_5 == top_5 / count
  assert found.accuracy < found.top_5 < 1
  np.testing.assert_array_equal(found.confusion, confusion)
  error = 0.0
  for part, expected in zip(found.bins, bins, strict=True):
    assert part.count == len(expected)
    if expected:
      confidence, right = np.mean(expected, 0)
      assert part.confidence == pytest.approx(confidence)
      assert part.accuracy == pytest.approx(right)
      error += len(expected) / count * abs(confidence - right)
  assert found.calibration_error == pytest.approx(error)
  assert error > 0.01
  for k in range(num_classes):
    right, true = confusion[k, k], confusion[k].sum()
    predicted = confusion[:, k].sum()
    assert found.counts[k] == true
    for value, part, whole in (
      (found.recall[k], right, true),
      (found.precision[k], right, predicted),
      (found.f1[k], 2 * right, true + predicted),
    ):
      assert np.isnan(value) if not whole else value == part / whole
  assert np.isnan(found.precision[2])
  assert np.isnan(found.recall[6])


def test_perfect_and_uncalibrated_predictions():
  labels = np.array([0, 1, 2, 1])
  found = scores.compute(np.eye(3, dtype=np.float32)[labels], labels)
  assert (found.loss, found.accuracy, found.calibration_error) == (0, 1, 0)
  assert found.brier == 0
  wrong = scores.compute(np.eye(3, dtype=np.float32)[labels - 1], labels)
  assert wrong.calibration_error == 1
  assert wrong.brier == 2
  assert wrong.accuracy == 0
  assert wrong.loss == pytest.approx(-math.log(np.finfo(np.float32).tiny))


def test_what_is_not_a_number_is_no_hit():
  probabilities = np.full((3, 9), np.nan, np.float32)
  found = scores.compute(probabilities, np.array([0, 1, 8]))
  assert (found.accuracy, found.top_5) == (0, 0)
  assert np.isnan(found.loss)


def test_ranks_of_more_examples_than_fit_at_once(monkeypatch):
  probabilities, labels = random_predictions()
  whole = scores.true_ranks(probabilities, labels)
  monkeypatch.setattr(scores, '_CHUNK', 7)
  np.testing.assert_array_equal(scores.true_ranks(probabilities, labels), whole)


def test_json_has_no_number_that_is_none():
  found = scores.compute(*random_predictions())
  names = tuple('abcdefg')
  told = json.loads(json.dumps(scores.to_dict(found, names), allow_nan=False))
  assert told['classes'][2]['precision'] is None
  assert told['classes'][6]['count'] == 0
  assert [c['name'] for c in told['classes']] == list(names)
  assert told['confusion'] == found.confusion.tolist()
  assert told['calibration_error'] == found.calibration_error
  assert told['brier'] == found.brier


@pytest.mark.parametrize(
  ('accuracy', 'count', 'interval'),
  [
    (0.9498, 10_000, (0.94534, 0.95391)),
    (0.5, 10, (0.23659, 0.76341)),  # Newcombe, 1998, and R's prop.test
    (1, 300, (0.98736, 1)),
    (0, 300, (0, 0.01264)),
  ],
)
def test_an_accuracy_has_its_binomial_interval(accuracy, count, interval):
  found = scores.accuracy_interval(accuracy, count)
  np.testing.assert_allclose(found, interval, atol=1e-5)
  half = score_table.half_width(accuracy, count)
  assert half == pytest.approx((interval[1] - interval[0]) / 2, abs=1e-5)


def test_the_table_has_every_class_and_the_matrix():
  found = scores.compute(*random_predictions())
  names = ('a', 'much longer', *'cdefg')
  lines = score_table.lines(found, names)
  cells = {line.split('  ')[0]: line.split() for line in lines if line}
  assert cells['g'][1:4:2] == ['0', '-']
  assert cells['much longer'][2:] == [
    f'{found.counts[1]}',
    *(f'{value[1]:.4f}' for value in (found.precision, found.recall, found.f1)),
  ]
  matrix = [line.split()[-7:] for line in lines[-7:]]
  assert [list(map(int, row)) for row in matrix] == found.confusion.tolist()
  assert max(map(len, lines)) < 80


def test_of_many_classes_the_worst_are_shown():
  rng = np.random.default_rng(0)
  probabilities = rng.dirichlet(np.ones(50), 2000).astype(np.float32)
  found = scores.compute(probabilities, rng.integers(0, 50, 2000))
  lines = score_table.lines(found, tuple(f'class {i}' for i in range(50)))
  assert 'the 20 of 50 classes with the lowest F1' in lines[-1]
  shown = [
    int(line.split()[1])
    for line in lines
    if line.startswith('class ') and line.split()[1].isdigit()
  ]
  assert shown == np.argsort(found.f1, kind='stable')[:20].tolist()
  assert not any('confusion' in line for line in lines)
