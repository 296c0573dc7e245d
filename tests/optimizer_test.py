"""Schedules and first updates against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from googlenet import optimizer as optimizer_lib


def optimizer_config(**changes) -> ml_collections.ConfigDict:
  fields = {
    'name': 'sgd',
    'learning_rate': 0.1,
    'momentum': 0.9,
    'nesterov': False,
    'weight_decay': 0.0,
    'grad_clip_norm': 0.0,
    'schedule': 'constant',
    'warmup_steps': 0,
    'step_epochs': (3.0, 6.0),
    'step_factor': 0.1,
    'poly_power': 0.5,
  }
  return ml_collections.ConfigDict({**fields, **changes})


def rates(config, steps, steps_per_epoch=10, total_steps=100):
  schedule = optimizer_lib.make_schedule(config, steps_per_epoch, total_steps)
  return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({'schedule': 'constant'}, {0: 0.1, 50: 0.1, 99: 0.1}),
    ({'schedule': 'cosine'}, {0: 0.1, 25: 0.0853553, 50: 0.05, 100: 0.0}),
    # Epochs 3 and 6 of 10 steps each.
    (
      {'schedule': 'step'},
      {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 99: 0.001},
    ),
    # Caffe's quick solver: (1 - step / total) ** 0.5.
    ({'schedule': 'poly'}, {0: 0.1, 36: 0.08, 75: 0.05, 100: 0.0}),
    # Warm-up: linear, the first step makes a part of it, then the rest.
    (
      {'schedule': 'cosine', 'warmup_steps': 20},
      {0: 0.005, 9: 0.05, 19: 0.1, 20: 0.1, 60: 0.05, 100: 0.0},
    ),
    # A warm-up does not move the steps.
    (
      {'schedule': 'step', 'warmup_steps': 10},
      {0: 0.01, 9: 0.1, 29: 0.1, 30: 0.01, 60: 0.001},
    ),
    ({'schedule': 'poly', 'warmup_steps': 200}, {0: 0.001, 99: 0.1}),
  ],
)
def test_schedule(changes, expected):
  actual = rates(optimizer_config(**changes), expected)
  np.testing.assert_allclose(
    actual, list(expected.values()), rtol=1e-4, atol=1e-8
  )


PARAMS = {'layer': {'w': jnp.array([2.0, -1.0]), 'b': jnp.array([4.0])}}
GRADS = {'layer': {'w': jnp.array([0.6, 0.0]), 'b': jnp.array([0.8])}}


def two_updates(config) -> list[tuple[list[float], float]]:
  """Returns (w, b) after one and two steps with the same gradient."""
  schedule = optimizer_lib.make_schedule(config, 10, 100)
  optimizer = optimizer_lib.make_optimizer(config, schedule)
  params, state = PARAMS, optimizer.init(PARAMS)
  seen = []
  for _ in range(2):
    updates, state = optimizer.update(GRADS, state, params)
    params = jax.tree.map(jnp.add, params, updates)
    seen.append((params['layer']['w'].tolist(), float(params['layer']['b'][0])))
  return seen


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    # v = g; w -= 0.1 v. v = 0.9 v + g = 1.9 g.
    ({}, [((1.94, -1.0), 3.92), ((1.826, -1.0), 3.768)]),
    ({'momentum': 0.0}, [((1.94, -1.0), 3.92), ((1.88, -1.0), 3.84)]),
    # Nesterov: w -= 0.1 (g + 0.9 v) = 0.1 * 1.9 g, then 0.1 * 2.71 g.
    ({'nesterov': True}, [((1.886, -1.0), 3.848), ((1.7234, -1.0), 3.6312)]),
    # Decay adds 0.5 w to the gradient of weights, nothing to biases.
    (
      {'momentum': 0.0, 'weight_decay': 0.5},
      [((1.84, -0.95), 3.92), ((1.688, -0.9025), 3.84)],
    ),
    # The gradient has norm 1; clipped to 0.5 it is halved.
    (
      {'momentum': 0.0, 'grad_clip_norm': 0.5},
      [((1.97, -1.0), 3.96), ((1.94, -1.0), 3.92)],
    ),
    # Adam's first steps are the learning rate times the sign.
    ({'name': 'adam'}, [((1.9, -1.0), 3.9), ((1.8, -1.0), 3.8)]),
    # AdamW: and 0.1 * 0.5 of a weight, decoupled from the gradient.
    (
      {'name': 'adamw', 'weight_decay': 0.5},
      [((1.8, -0.95), 3.9), ((1.61, -0.9025), 3.8)],
    ),
  ],
)
def test_first_updates(changes, expected):
  actual = two_updates(optimizer_config(**changes))
  for (w, b), (expected_w, expected_b) in zip(actual, expected, strict=True):
    np.testing.assert_allclose(w, expected_w, rtol=1e-5)
    np.testing.assert_allclose(b, expected_b, rtol=1e-5)


@pytest.mark.parametrize('name', optimizer_lib.OPTIMIZERS)
def test_every_optimizer_goes_downhill_and_spares_biases(name):
  """A weight without a gradient moves by decay alone; a bias does not."""
  config = optimizer_config(name=name, weight_decay=0.1, learning_rate=0.01)
  schedule = optimizer_lib.make_schedule(config, 10, 100)
  optimizer = optimizer_lib.make_optimizer(config, schedule)
  params = {'layer': {'w': jnp.array([3.0, 3.0]), 'b': jnp.array([3.0, 3.0])}}
  grads = {'layer': {'w': jnp.array([1.0, 0.0]), 'b': jnp.array([1.0, 0.0])}}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  w, b = updates['layer']['w'], updates['layer']['b']
  assert w[0] < 0
  assert b[0] < 0
  assert w[1] < 0
  assert abs(b[1]) < 1e-5  # yogi's starts at 1e-6, not 0
