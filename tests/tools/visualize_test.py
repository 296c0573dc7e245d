"""Feature visualization: objectives and images against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from googlenet.errors import UserError
from googlenet.tools.visualize import (
  objectives,
  parametrization,
  transforms,
)

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(4, 5, 7, 6)).astype(np.float32)
FLAT = RNG.normal(size=(4, 6)).astype(np.float32)
PIXELS = RNG.uniform(size=(4, 5, 7, 3)).astype(np.float32)
MAPS = {'a': MAP, 'b': FLAT, 'pixels': PIXELS, 'logits': FLAT}
VECTORS = RNG.normal(size=(4, 6)).astype(np.float32)


def value_of(objective) -> np.ndarray:
  maps = jax.tree.map(jnp.asarray, MAPS)
  return np.asarray(objective.function(maps, objective.parameters))


def each(function) -> list[float]:
  """A number for each of the four images, by loops over NumPy arrays."""
  return [function(i) for i in range(4)]


def cosine(x, y):
  return np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y)


def along(i, row, column):
  y, v = MAP[i, row, column], VECTORS[i]
  return y @ v * max(cosine(y, v), 0.1) ** 2


def styles(i):
  y = MAP[i].reshape(-1, 6)
  return y.T @ y


def variation(i):
  x = PIXELS[i]
  down = np.abs(x[1:] - x[:-1]).mean()
  return down + np.abs(x[:, 1:] - x[:, :-1]).mean()


# Each objective, and its value for image i.
VALUES = {
  'channel': (
    objectives.channel('a', [0, 5, 2, 2]),
    lambda i: MAP[i, :, :, [0, 5, 2, 2][i]].mean(),
  ),
  'channel of features': (
    objectives.channel('b', [0, 5, 2, 2]),
    lambda i: FLAT[i, [0, 5, 2, 2][i]],
  ),
  'neuron': (
    objectives.neuron('a', [1] * 4),
    lambda i: MAP[i, 2, 3, 1],
  ),
  'neuron elsewhere': (
    objectives.neuron('a', [1] * 4, (0, 6)),
    lambda i: MAP[i, 0, 6, 1],
  ),
  'class': (
    objectives.class_logit([3, 2, 1, 0]),
    lambda i: FLAT[i, 3 - i],
  ),
  'direction': (
    objectives.direction('a', VECTORS),
    lambda i: np.mean(MAP[i] @ VECTORS[i]),
  ),
  'direction by cosine': (
    objectives.direction('a', VECTORS, 2.0),
    lambda i: np.mean([along(i, *at) for at in np.ndindex(5, 7)]),
  ),
  'neuron direction': (
    objectives.neuron_direction('a', VECTORS, (4, 0), 2.0),
    lambda i: along(i, 4, 0),
  ),
  'layer': (
    objectives.layer('a').repeat(4),
    lambda i: np.mean(MAP[i] ** 2),
  ),
  'caricature': (
    objectives.caricature('a', MAP[::-1], 1.0),
    lambda i: (
      np.sum(MAP[i] * MAP[3 - i])
      / np.linalg.norm(MAP[3 - i])
      * max(cosine(MAP[i], MAP[3 - i]), 0.1)
    ),
  ),
  'diversity': (
    objectives.diversity('a', 4),
    lambda i: (
      -sum(cosine(styles(i), styles(j)) for j in range(4) if j != i) / 3
    ),
  ),
  'diversity of pairs': (
    objectives.diversity('a', 2).repeat(4),
    lambda i: -cosine(styles(i), styles(i ^ 1)),
  ),
  'total variation': (
    objectives.total_variation().repeat(4),
    variation,
  ),
  'L1': (objectives.l1(), lambda i: np.abs(PIXELS[i] - 0.5).mean()),
  'L2': (
    objectives.l2(0.25),
    lambda i: np.sqrt(np.mean((PIXELS[i] - 0.25) ** 2)),
  ),
  'sum': (
    objectives.channel('a', [0, 1, 2, 3]) * [1, 2, 3, 4]
    - 0.5 * objectives.total_variation(),
    lambda i: (i + 1) * MAP[i, :, :, i].mean() - 0.5 * variation(i),
  ),
  'interpolation': (
    objectives.interpolation(
      objectives.channel('a', 1), objectives.channel('b', 2), 4
    ),
    lambda i: (1 - i / 3) * MAP[i, :, :, 1].mean() + i / 3 * FLAT[i, 2],
  ),
}


@pytest.mark.parametrize('name', VALUES)
def test_an_objective_is_its_formula(name):
  objective, expected = VALUES[name]
  np.testing.assert_allclose(
    value_of(objective), each(expected), rtol=2e-5, atol=1e-6
  )


def test_weights_of_numpy_may_stand_on_either_side():
  objective = objectives.channel('a', [0, 1, 2, 0])
  weights = np.array([0.5, 2.0, -1.0, 3.0])
  for weight in (weights, weights[0]):
    np.testing.assert_array_equal(
      value_of(weight * objective), value_of(objective * weight)
    )


@pytest.mark.parametrize(
  'make',
  [
    lambda place: objectives.neuron('a', 1, place),
    lambda place: objectives.neuron_direction('a', MAP[0, 0, 0], place),
  ],
)
def test_a_place_is_a_pair_of_whole_numbers(make):
  np.testing.assert_array_equal(
    value_of(make(np.array([0, 1]))), value_of(make((0, 1)))
  )
  for place in ((0.5, 1), (1,), (1, 1, 1), 3, 'ab', (True, False)):
    with pytest.raises(UserError, match='^place=.*it takes .row, column., who'):
      make(place)


def test_objectives_join_only_where_images_match():
  three = objectives.channel('a', [1, 2, 3])
  assert (three + objectives.l1()).names[2] == 'a:3 + L1'
  with pytest.raises(ValueError, match='3 images cannot serve 4'):
    three + objectives.channel('a', [1, 2, 3, 4])
  pairs = objectives.diversity('a', 2)
  assert (objectives.channel('a', [1, 1, 2, 2]) + pairs).group == 2
  with pytest.raises(ValueError, match='cannot serve 3'):
    three + pairs


@pytest.mark.parametrize(
  ('index', 'words'),
  [
    (-1, '^index=-1 is no channel: allowed are whole numbers from 0$'),
    ([3, -2], '^index=-2 is no channel'),
    (0.5, '^index=0.5 is no channel'),
    ('Bag', "^index='Bag' is a name: .* net.class_names.index"),
  ],
)
def test_an_index_is_a_whole_number_from_0(index, words):
  for make in (
    objectives.class_logit,
    lambda index: objectives.neuron('a', index),
  ):
    with pytest.raises(UserError, match=words):
      make(index)


# ---- Parametrization.


@pytest.mark.parametrize('name', parametrization.PARAMETRIZATIONS)
@pytest.mark.parametrize('shape', [(6, 7, 3), (9, 8, 1), (5, 5, 2)])
def test_variables_and_images_are_inverse(name, shape):
  images = RNG.uniform(1, 254, (2, *shape)).astype(np.float32)
  kind = parametrization.PARAMETRIZATIONS[name]
  variables = jax.jit(kind.variables)(jnp.asarray(images))
  first = kind.init(jax.random.key(0), shape)
  assert variables.shape == (2, *first.shape)
  back = jax.jit(kind.image, static_argnums=1)(variables, shape)
  np.testing.assert_allclose(back, images, atol=0.02)


@pytest.mark.parametrize('name', parametrization.PARAMETRIZATIONS)
def test_images_begin_nearly_grey_and_stay_in_range(name):
  kind, shape = parametrization.PARAMETRIZATIONS[name], (32, 32, 3)
  variables = kind.init(jax.random.key(0), shape)[None]
  to_image = jax.jit(kind.image, static_argnums=1)
  image = to_image(variables, shape)
  np.testing.assert_allclose(image, 127.5, atol=10)
  assert image.std() > 0.01
  extreme = to_image(1e4 * variables, shape)
  assert extreme.min() >= 0
  assert extreme.max() <= 255


def test_coefficients_have_the_spectrum_of_natural_images():
  """Equal coefficients make amplitudes of 1 / frequency."""
  shape = (64, 48, 1)
  keys = jax.random.split(jax.random.key(0), 50)
  draw = parametrization.PARAMETRIZATIONS['fourier'].init
  variables = jax.jit(jax.vmap(lambda key: draw(key, shape)))(keys)
  x = np.asarray(parametrization.spatial(variables, shape))[..., 0]
  power = (np.abs(np.fft.fft2(x)) ** 2).mean(0)
  frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(48)[None, :])
  inner = (frequency > 0.05) & (frequency < 0.4)
  slope, _ = np.polyfit(np.log(frequency[inner]), np.log(power[inner]), 1)
  assert slope == pytest.approx(-2, abs=0.1)


def test_colours_have_the_covariance_of_natural_images():
  """Up to one factor: that of the longest principal colour."""
  x = RNG.normal(size=(200_000, 3)).astype(np.float32)
  y = np.asarray(parametrization.correlate(jnp.asarray(x)))
  root = np.array([[26, 9, 2], [27, 0, -5], [27, -9, 3]]) / 100
  expected = root @ root.T
  found = np.cov(y.T)
  factor = np.trace(expected) / np.trace(found)
  np.testing.assert_allclose(found * factor, expected, atol=0.002)


# ---- Movements.


def keys(count):
  return jax.random.split(jax.random.key(3), count)


def test_jitter_cuts_every_window():
  image = jnp.arange(36.0).reshape(1, 6, 6, 1).repeat(200, 0)
  cuts = np.asarray(jax.jit(transforms.jitter(2))(keys(200), image))
  assert cuts.shape == (200, 4, 4, 1)
  corners = set(cuts[:, 0, 0, 0])
  assert corners == {6.0 * i + j for i in range(3) for j in range(3)}
  for cut in cuts:
    np.testing.assert_array_equal(
      cut[..., 0] - cut[0, 0], cuts[0, ..., 0] - cuts[0, 0, 0]
    )


def test_turn_scales_and_rotates_around_the_centre():
  """A dot goes to the side; the distance from the centre grows by the scale."""
  image = np.full((50, 41, 41, 1), transforms.GREY, np.float32)
  image[:, 19:22, 34:37] = 255
  turn = jax.jit(transforms.turn((0.8, 1.2), 30.0))
  turned = turn(keys(50), jnp.asarray(image))
  weight = np.asarray(turned)[..., 0] - transforms.GREY
  rows, columns = np.mgrid[-20:21, -20:21]
  total = weight.sum((1, 2))
  y = (weight * rows).sum((1, 2)) / total
  x = (weight * columns).sum((1, 2)) / total
  distance, angle = np.hypot(x, y) / 15, np.degrees(np.arctan2(y, x))
  assert 0.8 < distance.min() < 0.85
  assert 1.15 < distance.max() < 1.2
  assert -30 < angle.min() < -24
  assert 24 < angle.max() < 30
  same = jax.jit(transforms.turn())(keys(50), jnp.asarray(image))
  np.testing.assert_allclose(same, image, atol=1e-3)


@pytest.mark.parametrize('side', [28, 96, 224])
def test_standard_movements_keep_the_size_and_are_small(side):
  image = np.full((8, side, side, 1), transforms.GREY, np.float32)
  middle = side // 2
  image[:, middle - 2 : middle + 2, middle - 2 : middle + 2] = 255
  move = jax.jit(transforms.compose(transforms.standard(side)))
  moved = np.asarray(move(keys(8), jnp.asarray(image)))
  assert moved.shape == image.shape
  weight = moved[..., 0] - transforms.GREY
  places = np.arange(side) - (side - 1) / 2
  for axis in (1, 2):
    centre = (weight.sum(3 - axis) * places).sum(1) / weight.sum((1, 2))
    assert np.abs(centre).max() <= side / 224 * 6 + 1.1
    assert np.ptp(centre) > 0.2


def test_fit_cuts_and_surrounds():
  x = jnp.arange(25.0).reshape(1, 5, 5, 1)
  cut = jax.jit(transforms.fit(3, 7))(keys(1), x)[0, ..., 0]
  np.testing.assert_array_equal(cut[:, 1:6], x[0, 1:4, :, 0])
  np.testing.assert_array_equal(cut[:, [0, 6]], transforms.GREY)
  padded = transforms.compose([transforms.pad(2)])(keys(1), x)
  np.testing.assert_array_equal(padded, x)
