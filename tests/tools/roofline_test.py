"""The roofline: sums by hand, and how many steps are timed."""

import pytest

from googlenet.tools.benchmark import clock, rates, roofline
from googlenet.tools.benchmark.roofline import Rates, Work

# Of `tiny` on 28x28x1: input and output elements, weights, multiply-adds.
TINY = [
  (28 * 28 + 14 * 14 * 8, 7 * 7 * 8, 14 * 14 * 7 * 7 * 8),  # conv_7x7 / 2
  (14 * 14 * 8 + 7 * 7 * 8, 0, 0),  # max pool / 2
  (49 * 8 + 49 * 8, 8 * 8, 49 * 8 * 8),  # inception_2a: conv_1x1
  (49 * 8 + 49 * 8, 8 * 8, 49 * 8 * 8),  # conv_3x3_reduce
  (49 * 8 + 49 * 12, 9 * 8 * 12, 49 * 9 * 8 * 12),  # conv_3x3
  (49 * 8 + 49 * 4, 8 * 4, 49 * 8 * 4),  # conv_5x5_reduce
  (49 * 4 + 49 * 4, 25 * 4 * 4, 49 * 25 * 4 * 4),  # conv_5x5
  (49 * 8 + 49 * 8, 0, 0),  # max pool
  (49 * 8 + 49 * 4, 8 * 4, 49 * 8 * 4),  # pool_proj
  (49 * 28 + 28, 0, 0),  # global mean
  (28 + 10, 28 * 10, 28 * 10),  # logits
]


def test_the_work_of_every_layer(config):
  works = roofline.works(config.model, (28, 28, 1))
  assert works['infer'] == [
    Work(2 * multiply_adds, elements, weights)
    for elements, weights, multiply_adds in TINY
  ]
  # Forward, input gradient and weight gradient, but: the images need no
  # gradient, and pooling has no weights.
  passes = [2, 2, 3, 3, 3, 3, 3, 2, 3, 2, 3]
  assert works['train'] == [
    Work(2 * n * multiply_adds, n * elements, weights)
    for n, (elements, weights, multiply_adds) in zip(passes, TINY, strict=True)
  ]
  assert roofline.flop_per_image(works) == {
    'infer': 2 * 148_456,
    'train': 2 * (3 * 148_456 - 76_832),
  }


def test_flop_of_the_plain_network(config):
  config.model.variant = 'plain'
  flop = roofline.flop_per_image(roofline.works(config.model, (96, 96, 1)))
  assert flop['infer'] == 2 * 276_066_304
  # conv_1 is the layer whose input needs no gradient.
  assert flop['train'] == 2 * (3 * 276_066_304 - 7_225_344)


def test_auxiliary_heads_are_work_of_training_alone(config):
  config.model.variant = 'paper'
  works = roofline.works(config.model, (96, 96, 1))
  assert len(works['train']) > len(works['infer'])


def test_each_layer_is_bound_by_operations_or_by_memory():
  rates = Rates(product_flop_per_s=100.0, copy_bytes_per_s=10.0)
  busy = Work(flop=1000, elements=20, weights=4)
  moving = Work(flop=10, elements=20, weights=4)
  # Four images: 4 * 1000 / 100 s of operations; (4 * 20 + 4) * 2 / 10 s of
  # memory, the weights once.
  assert roofline.seconds([busy], 4, 2, rates) == pytest.approx(40.0)
  assert roofline.seconds([moving], 4, 2, rates) == pytest.approx(16.8)
  assert roofline.seconds([busy, moving], 4, 2, rates) == pytest.approx(56.8)


def test_rates_count_operations_and_bytes_of_all_devices(monkeypatch):
  counts = []

  def step_seconds(start_steps, at_least, in_flight):
    counts.append(at_least)
    (out,) = start_steps(1)
    assert out.shape[0] == 1  # a device
    return 2.0

  monkeypatch.setattr(rates, 'step_seconds', step_seconds)
  monkeypatch.setattr(rates, '_PRODUCT_SIZE', {'cpu': 8})
  monkeypatch.setattr(rates, '_COPY_MIB', {'cpu': 1})
  measured = rates.measure_rates('bfloat16', 3)
  assert measured == Rates(2 * 8**3 / 2, 2 * 2**20 / 2)
  assert counts == [3, 3]


@pytest.mark.parametrize(
  ('step', 'at_least', 'count'),
  [
    (0.5, 5, 5),  # a CPU
    (0.01, 5, 100),  # a GPU
    (0.0001, 5, 200),  # something small
    (0.0, 5, 200),  # below what a clock tells
    (0.01, 1000, 1000),  # as the user says
  ],
)
def test_short_steps_are_timed_more_often(monkeypatch, step, at_least, count):
  started = []

  def intervals(results, in_flight):
    started.append(len(list(results)))
    return [step] * (started[-1] - 1 - in_flight)

  monkeypatch.setattr(clock, 'intervals', intervals)
  assert clock.step_seconds(range, at_least, 2) == step
  # The first is not timed, nor are those in flight at the end.
  assert started[-1] == 1 + count + 2
  assert len(started) == (1 if count == at_least else 2)
