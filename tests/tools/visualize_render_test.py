"""Feature visualization of networks: what is made excites what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, small_config
from networks import SMALL, make
from saved_run import save_run

import googlenet
from googlenet.data.sources import load_dataset
from googlenet.errors import UserError
from googlenet.model import points
from googlenet.tools.visualize import (
  dream,
  forward,
  objectives,
  render,
)

FIRST = 'conv_1/conv_7x7'
NONE = {'transforms': (), 'redirected_steps': 0}


@pytest.fixture(scope='module')
def net(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run') / 'run'
  return googlenet.load(save_run(folder, small_config()))


def with_first(net, channel: int, weights=None, bias=None):
  """Puts numbers into a channel of the first convolution."""
  params = {k: dict(v) for k, v in net.params.items()}
  first = params[FIRST]
  if weights is not None:
    first['w'] = first['w'].at[..., channel].set(weights)
  if bias is not None:
    first['b'] = first['b'].at[channel].set(bias)
  return net._replace(params=params)


# Detectors of 7x7 pixels, each number 1 or -1.
ROWS, COLUMNS = np.mgrid[-3:4, -3:4]
PATTERNS = {
  'edge': np.where(COLUMNS + 0.4 * ROWS > 0, 1, -1),
  'blob': np.where(np.hypot(ROWS, COLUMNS) < 2.5, 1, -1),
  'stripes': np.where(ROWS % 4 < 2, 1, -1),
}


def correlations(image: np.ndarray, pattern: np.ndarray) -> np.ndarray:
  """The correlation of a pattern with the image at each place."""
  windows = np.lib.stride_tricks.sliding_window_view(image, (7, 7))
  windows = windows.reshape(*windows.shape[:2], -1).astype(float)
  windows -= windows.mean(-1, keepdims=True)
  flat = (pattern - pattern.mean()).ravel()
  length = np.linalg.norm(windows, axis=-1) * np.linalg.norm(flat)
  return windows @ flat / np.maximum(length, 1e-9)


def test_a_planted_detector_is_shown_as_what_it_detects(net):
  """In the centre, by `neuron`; and not what another channel detects."""
  flat = {
    name: (p - p.mean()).reshape(7, 7, 1) / 49 for name, p in PATTERNS.items()
  }
  for channel, weights in enumerate(flat.values()):
    net = with_first(net, channel, weights, 0.0)
  made = render.render(
    net, objectives.neuron(FIRST, [0, 1, 2]), steps=96, **NONE
  )
  for image, name in zip(made.images[..., 0], PATTERNS, strict=True):
    found = {k: correlations(image, p) for k, p in PATTERNS.items()}
    assert found[name].max() > 0.85
    assert max(found, key=lambda k: found[k].max()) == name
    row, column = np.unravel_index(found[name].argmax(), (22, 22))
    # The window that the neuron in the centre of the 14x14 map sees.
    assert abs(row - 11) <= 1
    assert abs(column - 11) <= 1


def test_a_dead_channel_comes_alive(net):
  """Grey is far below its threshold: only redirected gradients reach it."""
  dead = with_first(net, 0, PATTERNS['edge'][..., None] / 10, -1.0)
  objective = objectives.channel(FIRST, 0)
  found = render.render(dead, objective, steps=24)
  assert found.curves[0, 0] == 0
  assert found.values[0] > 0


def test_redirected_gradients_by_hand():
  """Of three images: alive, dead and to be raised, dead and to be lowered."""
  x = jnp.array([[1.0, -1.0], [-2.0, -1.0], [-2.0, -1.0]])
  gradient = jnp.array([[-1.0, -1.0], [-1.0, 3.0], [1.0, 3.0]])

  def of(redirect):
    y, pull = jax.vjp(forward.redirected_relu, x, jnp.array(redirect))
    np.testing.assert_array_equal(y, jnp.maximum(x, 0))
    return pull(gradient)[0]

  np.testing.assert_array_equal(of(False), [[-1, 0], [0, 0], [0, 0]])
  np.testing.assert_array_equal(of(True), [[-1, 0], [-1, 0], [0, 0]])


@pytest.mark.parametrize(
  'variant',
  ['tiny', pytest.param('residual', marks=pytest.mark.slow)],
)
def test_every_relu_is_redirected_and_nothing_else_changes(variant):
  size = SMALL[variant]
  network, params, state = make(
    (size, size, 1), variant=variant, aux_heads='off'
  )
  x = np.random.default_rng(0).normal(size=(1, size, size, 1))
  x = jnp.asarray(x, jnp.float32)
  names = tuple(points.shapes(network.architecture))
  plain, _ = network.apply(params, state, None, x, False, end_points=names)
  edits = forward.redirects(network, jnp.array(True))
  edited, _ = network.apply(
    params, state, None, x, False, end_points=names, edit=edits
  )
  for name in names:
    np.testing.assert_allclose(
      edited.end_points[name], plain.end_points[name], rtol=1e-5, atol=1e-6
    )
  after = {name for name in names if f'{name}:pre' in edits}
  assert {f'{name}:pre' for name in after} <= set(edits)
  for name in names:
    if name.endswith(':pre') and name not in edits:
      # It is only read: its parts, or the sum before it, are edited.
      assert points._parts(network.architecture)[name][0] in edits


@pytest.fixture(scope='module')
def made(net):
  """Two channels, with frames."""
  return render.render(
    net,
    objectives.channel('inception_2a', [1, 2]),
    steps=20,
    num_frames=4,
    seed=5,
  )


def test_the_ascent_ascends(made):
  assert made.names == ('inception_2a:1', 'inception_2a:2')
  assert made.images.shape == (2, 28, 28, 1)
  assert made.curves.shape == (2, 20)
  assert (made.curves[:, -3:].mean(1) > made.curves[:, 0] + 0.05).all()
  assert made.frames.shape == (4, 2, 28, 28, 1)
  np.testing.assert_array_equal(made.frames[-1], made.images)


def test_values_are_those_of_the_images(net, made):
  features = net.features(made.images, ['inception_2a'])['inception_2a']
  expected = [features[i, ..., i + 1].mean() for i in range(2)]
  np.testing.assert_allclose(made.values, expected, rtol=1e-4)


def test_a_seed_fixes_every_bit_and_the_place_changes_nothing(net, made):
  same = render.render(
    net,
    objectives.channel('inception_2a', [1, 2]),
    steps=20,
    num_frames=4,
    seed=5,
  )
  for one, other in zip(made, same, strict=True):
    np.testing.assert_array_equal(one, other)
  moved = render.render(
    net,
    objectives.channel('inception_2a', [3, 2, 1]),
    steps=20,
    seed=5,
    batch_size=2,
  )
  np.testing.assert_allclose(moved.curves[[2, 1]], made.curves, atol=1e-4)
  change = np.abs(moved.images[[2, 1]].astype(int) - made.images)
  assert change.max() <= 1
  other = render.render(
    net, objectives.channel('inception_2a', [1, 2]), steps=20, seed=6
  )
  assert np.abs(other.images.astype(int) - made.images).mean() > 1


@pytest.mark.slow  # visualize_test.py has the formula
def test_an_interpolation_ends_at_its_ends(net, made):
  ends = [objectives.channel('inception_2a', i) for i in (1, 2)]
  between = render.render(
    net, objectives.interpolation(*ends, 3), steps=20, seed=5
  )
  change = np.abs(between.images[[0, 2]].astype(int) - made.images)
  assert change.max() <= 1
  assert between.names[1] == 'inception_2a:1 to inception_2a:2: 0.50'


@pytest.mark.slow  # visualize_test.py has the formula
def test_diversity_makes_images_of_a_channel_differ(net):
  channel = objectives.channel('inception_2a', 1)
  diversity = objectives.diversity('inception_2a', 3)

  # Two groups, of which only the second is to differ.
  made = render.render(
    net,
    channel + diversity.repeat(6) * [0, 0, 0, 1, 1, 1],
    steps=30,
  )
  features = net.features(made.images, ['inception_2a'])['inception_2a']
  maps = {'inception_2a': jnp.asarray(features)}
  values = diversity.function(maps, ()).reshape(2, 3).mean(1)
  assert values[1] > values[0] + 0.01
  assert len(np.unique(made.images, axis=0)) == 6


@pytest.mark.slow
def test_penalties_make_the_image_plain(net):
  channel = objectives.channel('inception_2a', 1)
  made = render.render(
    net,
    channel * np.ones(2) - objectives.total_variation() * [0.0, 5.0],
    steps=20,
  )
  rough, plain = made.images.astype(float).std((1, 2, 3))
  assert plain < rough / 2


@pytest.mark.slow
def test_other_optimizers_and_parametrizations(net):
  made = render.render(
    net,
    objectives.channel('inception_2a', 1),
    steps=5,
    parametrization='pixels',
    optimizer=optax.sgd(0.0),
    **NONE,
  )
  assert np.ptp(made.curves) == 0
  noise = made.images[0, ..., 0] - 127.5
  assert 0.4 < np.abs(noise).mean() < 1
  assert (
    abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.2
  )


@pytest.mark.slow
def test_fewer_large_images_are_made_at_once():
  sizes = ((28, 28), (224, 224), (448, 448), (4096, 4096))
  assert [render.default_batch_size(*size) for size in sizes] == [64, 64, 16, 1]


def test_sizes(net):
  wide = render.render(
    net, objectives.class_logit(1), steps=2, size=(30, 40), num_frames=1
  )
  assert wide.images.shape == (1, 30, 40, 1)
  with pytest.raises(UserError, match='size=0 is not allowed'):
    render.render(net, objectives.class_logit(1), size=0)


def test_mistakes_of_the_function(net):
  objective = objectives.channel('inception_2', 1)
  with pytest.raises(UserError, match="did you mean 'inception_2a'"):
    render.render(net, objective)
  objective = objectives.class_logit(1)
  with pytest.raises(UserError, match="'fft' is unknown: .*fourier, pixels"):
    render.render(net, objective, parametrization='fft')
  for name, value in (('steps', 0), ('redirected_steps', -1)):
    with pytest.raises(UserError, match=f'^{name}={value} is not allowed'):
      render.render(net, objective, **{name: value})


@pytest.mark.parametrize(
  ('objective', 'name'),
  [
    (objectives.class_logit(1) * np.nan, 'nan logits:1'),
    (
      objectives.class_logit(1)
      + objectives.direction('logits', np.full(10, np.inf)),
      r'logits:1 \+ logits direction 0',
    ),
  ],
)
def test_numbers_of_objectives_are_finite(net, objective, name):
  words = f"^the objective '{name}' holds .* that is NaN or infinite"
  with pytest.raises(UserError, match=words):
    render.render(net, objective, steps=1)
  photo = np.zeros(net.image_shape, np.uint8)
  with pytest.raises(UserError, match=words):
    dream.dream(net, photo, objective)


@pytest.mark.parametrize(
  'objective',
  [
    objectives.channel('inception_2a', [3, 28]),
    2 * objectives.neuron('inception_2a', 28) - objectives.l1(),
    objectives.named(objectives.channel('inception_2a', 28).repeat(2), 'ab'),
  ],
)
def test_channels_that_the_network_does_not_have(net, objective):
  words = '^channels=28: inception_2a has channels 0 to 27$'
  with pytest.raises(UserError, match=words):
    render.render(net, objective, steps=1)


def test_classes_that_the_network_does_not_have(net):
  with pytest.raises(UserError, match='logits has channels 0 to 9$'):
    render.render(net, objectives.class_logit(10), steps=1)


# ---- DeepDream.


def test_a_dream_raises_the_norm_of_the_layer(net):
  photo = np.random.default_rng(0).integers(0, 256, (60, 45, 1), np.uint8)
  made = dream.dream(net, photo, objectives.layer('inception_2a'), steps=4)
  sizes = dream.octave_sizes(60, 45, 28, dream.OCTAVES, dream.RATIO)
  assert sizes == [(60, 45), (43, 32)]
  assert made.curves.shape == (1, 8)
  assert made.images.shape == (1, 60, 45, 1)
  of = forward.make_forward(net.network, net.config.data, ['inception_2a'])
  x = jnp.asarray(photo[None], jnp.float32)
  before = of(net.params, net.network_state, x, None)['inception_2a']
  assert made.values[0] > 1.2 * np.mean(np.square(before))
  change = np.abs(made.images[0].astype(int) - photo)
  assert 1 < change.mean() < 30


# ---- The network of pretrained/fmnist28_long.


# By 2 pixels to a side or corner; in the ascent it is at most 1.
SHIFTS = [
  (i, j) for i in range(-2, 3) for j in range(-2, 3) if max(abs(i), abs(j)) == 2
]


def check_against_the_test_images(point, indices, count, steps):
  net = googlenet.load(ROOT / 'pretrained/fmnist28_long')
  made = render.render(net, objectives.channel(point, indices), steps=steps)
  moved = [np.roll(made.images, shift, (1, 2)) for shift in SHIFTS]
  images, _ = load_dataset(net.config.data, 'test').read(np.arange(count))
  every = np.concatenate([made.images, *moved, images])
  means = net.features(every, [point])[point].mean((1, 2))[:, indices]
  best = means[-count:].max(0)
  own = means[:-count].reshape(1 + len(SHIFTS), len(indices), len(indices))
  values = np.diagonal(own, axis1=1, axis2=2)
  np.testing.assert_allclose(values[0], made.values, rtol=0.05)
  assert (values[0] > 1.1 * best).all(), (values, best)
  # On average over the shifts, at least seven channels of eight.
  assert np.mean(values[1:].mean(0) > best) >= 7 / 8, (values, best)


@pytest.mark.slow
def test_images_excite_their_channels_more_than_test_images():
  check_against_the_test_images('inception_3a', [0, 5], 236, 40)


@pytest.mark.slow
def test_images_excite_their_channels_more_than_all_test_images():
  channels = list(range(0, 32, 4))
  check_against_the_test_images('inception_4c', channels, 10_000, 256)
