"""Schedules and first updates against numbers worked out by hand."""

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from googlenet import optimizer as optimizer_lib
from googlenet.errors import UserError
from googlenet.model import groups
from googlenet.optimizer import lookahead, muon


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
    'decay_epochs': 2.0,
    'decay_rate': 0.5,
    'decay_fraction': 0.2,
    'muon_rest': 'sgd',
    'muon_steps': 5,
    'schedule_free': False,
    'rates': (),
    'decays': (),
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
    # Half in two epochs of 10 steps: 0.1 * 2 ** (-step / 20).
    (
      {'schedule': 'exponential'},
      {0: 0.1, 10: 0.0707107, 20: 0.05, 30: 0.0353553, 60: 0.0125},
    ),
    # The same, at the end of the two epochs.
    (
      {'schedule': 'staircase'},
      {0: 0.1, 19: 0.1, 20: 0.05, 39: 0.05, 40: 0.025, 99: 0.00625},
    ),
    # GoogLeNet, 2014: 4 % every 8 epochs; Inception v3: 6 % every 2.
    (
      {'schedule': 'staircase', 'decay_epochs': 8.0, 'decay_rate': 0.96},
      {79: 0.1, 80: 0.096, 159: 0.096, 160: 0.09216},
    ),
    (
      {'schedule': 'staircase', 'decay_rate': 0.94},
      {19: 0.1, 20: 0.094, 99: 0.0780749},
    ),
    # Neither does a warm-up move these epochs.
    (
      {'schedule': 'staircase', 'warmup_steps': 10},
      {0: 0.01, 9: 0.1, 10: 0.1, 19: 0.1, 20: 0.05, 40: 0.025},
    ),
    (
      {'schedule': 'exponential', 'warmup_steps': 10},
      {9: 0.1, 10: 0.0707107, 20: 0.05},
    ),
    (
      {'schedule': 'staircase', 'decay_epochs': 1e30, 'decay_rate': 0.5},
      {0: 0.1, 99: 0.1},
    ),
    # From 1/25 along a cosine to 0.1 after 30 %, then to 1e-4 of 1/25.
    (
      {'schedule': 'one_cycle'},
      {0: 0.004, 15: 0.052, 30: 0.1, 65: 0.0500002, 100: 4e-7},
    ),
    # Warm-up, stable, and evenly to 0 in the last fifth of all steps.
    (
      {'schedule': 'wsd', 'warmup_steps': 10},
      {0: 0.01, 9: 0.1, 10: 0.1, 80: 0.1, 81: 0.095, 90: 0.05, 99: 0.005},
    ),
    ({'schedule': 'wsd', 'decay_fraction': 1.0}, {0: 0.1, 50: 0.05, 100: 0.0}),
    (
      {'schedule': 'wsd', 'decay_fraction': 1.0, 'warmup_steps': 50},
      {49: 0.1, 50: 0.1, 75: 0.05, 100: 0.0},
    ),
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


# ---- Muon.


def orthogonalized(matrix, steps):
  """Newton-Schulz steps in float64: U f(S) V, of all sizes at once."""
  u, s, v = np.linalg.svd(matrix, full_matrices=False)
  s = s / np.linalg.norm(s)
  for _ in range(steps):
    s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
  return u * s @ v


@pytest.mark.parametrize(('rest', 'steps'), [('sgd', 5), ('adamw', 3)])
def test_muon_orthogonalizes_convolutions_and_leaves_the_rest(rest, steps):
  rng = np.random.default_rng(0)
  shapes = {'conv': {'w': (3, 3, 2, 24), 'b': (24,)}, 'logits': {'w': (24, 5)}}
  shapes['logits']['b'] = (5,)
  params, grads = (
    {
      module: {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in leaves.items()
      }
      for module, leaves in shapes.items()
    }
    for _ in range(2)
  )
  config = optimizer_config(
    name='muon',
    nesterov=True,
    weight_decay=0.5,
    muon_rest=rest,
    muon_steps=steps,
  )
  schedule = optimizer_lib.make_schedule(config, 10, 100)
  rule = optimizer_lib.make_optimizer(config, schedule)
  state, w = rule.init(params), params['conv']['w']
  mean = np.zeros((18, 24))
  for step in (1, 2):
    updates, state = rule.update(grads, state, params)
    # Nesterov's look ahead of a mean that is corrected for its beginning.
    g = grads['conv']['w'].reshape(18, 24)
    mean = 0.9 * mean + 0.1 * g
    ahead = 0.9 * mean / (1 - 0.9 ** (step + 1)) + 0.1 * g / (1 - 0.9**step)
    direction = orthogonalized(ahead, steps) * np.sqrt(24 / 18)
    expected = -0.1 * (direction.reshape(w.shape) + 0.5 * w)
    np.testing.assert_allclose(updates['conv']['w'], expected, atol=2e-4)

  alone = optimizer_config(
    name=rest, nesterov=True, weight_decay=0.5, momentum=0.9
  )
  other = optimizer_lib.make_optimizer(alone, schedule)
  other_state = other.init(params)
  for _ in range(2):
    wanted, other_state = other.update(grads, other_state, params)
  for module, leaf in (('conv', 'b'), ('logits', 'w'), ('logits', 'b')):
    np.testing.assert_allclose(
      updates[module][leaf], wanted[module][leaf], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize('is_stacked', [False, True])
def test_muon_is_that_of_optax_state_included(is_stacked):
  """Checkpoints name the state by its places, so those are a promise too."""
  rng = np.random.default_rng(0)
  # Wide, tall and square matrices; two of one shape; two in one stack.
  shapes = ((3, 3, 2, 24), (1, 1, 40, 16), (7, 7, 1, 64), (1, 1, 40, 16))
  shapes += ((1, 1, 16, 16), (5, 5, 1, 9))

  def draw():
    return {
      f'conv_{i}': {'w': jnp.asarray(rng.normal(size=shape), jnp.float32)}
      for i, shape in enumerate(shapes)
    }

  def mask(params):
    return {module: {'w': module != 'conv_1'} for module in params}

  rate, params = optax.linear_schedule(0.1, 0.2, 10), draw()
  expected = optax.contrib.muon(
    rate,
    beta=0.9,
    ns_steps=3,
    nesterov=True,
    weight_decay=0.1,
    weight_decay_mask=mask,
    muon_weight_dimension_numbers=lambda params: jax.tree.map(
      lambda _: optax.contrib.MuonDimensionNumbers((0, 1, 2), 3), params
    ),
  )
  own = muon.muon(rate, 0.9, 3, True, 0.1, mask, is_stacked)
  state, own_state = expected.init(params), own.init(params)
  assert jax.tree.structure(state) == jax.tree.structure(own_state)
  for _ in range(3):
    grads = draw()
    updates, state = expected.update(grads, state, params)
    own_updates, own_state = own.update(grads, own_state, params)
    chex.assert_trees_all_close(own_updates, updates, atol=1e-6)
    chex.assert_trees_all_equal(own_state, state)


def test_matrices_of_about_one_size_are_one_product():
  """A product for each shape is what makes a GPU slow to start."""
  shapes = [(8, 30), (30, 7), (5, 5), (6, 20), (8, 30), (100, 20)]
  matrices = [jnp.ones(shape) for shape in shapes]
  coefficients = jnp.ones(3)

  def products(orthogonalize):
    text = jax.jit(orthogonalize, static_argnums=2).lower(
      matrices, coefficients, 1
    )
    return text.as_text().count('stablehlo.dot_general')

  assert products(muon.orthogonalize_each) == 3 * 6
  assert products(muon.orthogonalize_stacked) == 3 * 2


# ---- Groups.


def test_the_longest_part_and_the_kind_multiply():
  factors = {'a': 2.0, 'a/b': 3.0, '*/b': 10.0, 'a/b/w': 5.0}
  for path, expected in {
    'a/c/w': 2.0,
    'a/b/scale': 3.0,
    'a/b/b': 30.0,
    'a/b/w': 5.0,
    'ab/w': 1.0,
    'ab/b': 10.0,
  }.items():
    assert groups.factor_of(path, factors) == expected


def updates_of(config, params, grads, steps=2):
  schedule = optimizer_lib.make_schedule(config, 10, 100)
  rule = optimizer_lib.make_optimizer(config, schedule)
  state = rule.init(params)
  for _ in range(steps):
    updates, state = rule.update(grads, state, params)
  return updates


GROUPED = {
  'one': {'w': jnp.array([3.0, -2.0]), 'scale': jnp.array([1.0])},
  'two/a': {'w': jnp.array([1.0, 5.0]), 'b': jnp.array([2.0])},
  # A convolution, which is what Muon moves.
  'two/conv': {'w': jnp.array([[[[3.0, -1.0], [2.0, 0.5], [1.0, 4.0]]]])},
}


@pytest.mark.parametrize('name', optimizer_lib.OPTIMIZERS)
def test_groups_have_the_updates_of_other_rates_and_decays(name):
  """Each leaf moves as if the whole network had its rate and decay."""
  grads = jax.tree.map(lambda p: 0.1 * p + 0.3, GROUPED)
  made = updates_of(
    optimizer_config(
      name=name,
      weight_decay=0.2,
      rates=('two=0.5', '*/b=4'),
      decays=('*/scale=1', '*/b=0.5', 'two/a/w=0'),
    ),
    GROUPED,
    grads,
  )
  for path, rate, decay in (
    (('one', 'w'), 0.1, 0.2),
    (('one', 'scale'), 0.1, 0.2),
    (('two/a', 'w'), 0.05, 0.0),
    (('two/a', 'b'), 0.2, 0.1),
    (('two/conv', 'w'), 0.05, 0.2),
  ):
    # As a weight, alone: what decays is a matter of its name.
    leaf, grad = (tree[path[0]][path[1]] for tree in (GROUPED, grads))
    alone = optimizer_config(name=name, weight_decay=decay, learning_rate=rate)
    if name == 'lars' and path[1] != 'w':
      continue  # its trust ratio is of weights alone
    wanted = updates_of(alone, {'m': {'w': leaf}}, {'m': {'w': grad}})
    np.testing.assert_allclose(
      made[path[0]][path[1]], wanted['m']['w'], rtol=1e-5
    )


def test_groups_that_are_not_there():
  groups.check_groups('x', ['one', 'two', 'two/a', 'two/a/b', '*/b'], GROUPED)
  for name in ('three', 'on', '*/offset', 'two/a/w/x'):
    with pytest.raises(UserError, match=r'config\.x: the network has no'):
      groups.check_groups('x', [name], GROUPED)
  with pytest.raises(ValueError, match='is not one of'):
    groups.parse_factors(('*/q=1',))
  assert groups.parse_factors(('a=0',), may_be_zero=True) == {'a': 0.0}


# ---- Lookahead.


def test_lookahead_against_a_loop():
  rng = np.random.default_rng(0)
  params = {'m': {'w': rng.normal(size=3).astype(np.float32)}}
  fast = optax.sgd(0.1, momentum=0.9)
  rule = lookahead.with_lookahead(fast, 3, 0.25)
  state, w, v = rule.init(params), params['m']['w'].astype(float), 0.0
  slow = w
  for step in range(1, 11):
    grad = rng.normal(size=3).astype(np.float32)
    updates, state = rule.update({'m': {'w': grad}}, state, params)
    params = optax.apply_updates(params, updates)
    v = 0.9 * v + grad
    w = w - 0.1 * v
    if step % 3 == 0:
      slow = w = slow + 0.25 * (w - slow)
    np.testing.assert_allclose(params['m']['w'], w, rtol=1e-5)
    np.testing.assert_allclose(state.slow['m']['w'], slow, rtol=1e-5)
  assert lookahead.with_lookahead(fast, 0, 0.5) is fast


def _adamw_old(learning_rate, weight_decay=0.0, mask=None):
  return optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)


def _adamw_new(learning_rate, weight_decay=0.0, weight_decay_mask=None):
  return _adamw_old(learning_rate, weight_decay, weight_decay_mask)


def _adamw_both(
  learning_rate, weight_decay=0.0, mask=None, weight_decay_mask=None
):
  assert mask is None, 'the old name would warn'
  return _adamw_old(learning_rate, weight_decay, weight_decay_mask)


@pytest.mark.parametrize('make', [_adamw_old, _adamw_new, _adamw_both])
def test_the_mask_has_the_name_that_optax_gives_it(make):
  """Before, during and after its rename: weights decay, biases do not."""
  config = ml_collections.ConfigDict({'weight_decay': 0.5})
  rule = optimizer_lib._decoupled(make)(0.1, config, optimizer_lib.is_weight)
  params = {'layer': {'w': jnp.ones(2), 'b': jnp.ones(2)}}
  grads = jax.tree.map(jnp.zeros_like, params)
  updates, _ = rule.update(grads, rule.init(params), params)
  chex.assert_trees_all_close(
    updates, {'layer': {'w': jnp.full(2, -0.05), 'b': jnp.zeros(2)}}
  )
