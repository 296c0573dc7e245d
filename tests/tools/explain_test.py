"""Attributions against definitions, closed forms and planted evidence."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, small_config
from insight_test import make_trained, pixels

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.model import own, rows
from googlenet.model.architecture_text import to_text
from googlenet.model.small import TINY
from googlenet.runtime.parallel import replicated
from googlenet.tools.explain import (
  baselines,
  cam,
  engine,
  gradients,
  occlusion,
  parts,
  sanity,
)
from googlenet.tools.explain import target as target_lib
from googlenet.tools.inference import insight, trained

BEST = ROOT / 'pretrained/fmnist28_long'


@pytest.fixture(scope='module')
def tiny():
  return make_trained(small_config())


@pytest.fixture(scope='module')
def best():
  """A network with batch norm that was trained."""
  config = config_lib.load(BEST / 'config.json').unlock()
  config.model.kernels = 'xla'
  return trained.load_run(BEST, config_lib.resolve(config))


@pytest.fixture(scope='module')
def photos(best):
  return best.read(sorted((ROOT / 'docs/photos').glob('*.jpg'))[:2])


# ---- The score.

NAMES = ('Shirt', 'Coat', '0', 'Coat')


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    (None, (None, None)),
    ('', (None, None)),
    (3, (3, None)),
    ('1', (1, None)),
    ('0', (2, None)),  # a name goes before a number
    (('Shirt', 1), (0, 1)),
    ((None, 'Shirt'), (None, 0)),
    (target_lib.Target(1, 0), (1, 0)),
    (['Shirt', 1, '0'], ((0, 1, 2), None)),
    (np.array([3, 0]), ((3, 0), None)),
    (jnp.array(3), (3, None)),
    ((['Shirt', 2], 1), ((0, 2), 1)),
    (target_lib.Target((3, 0), 1), ((3, 0), 1)),
  ],
)
def test_a_class_is_found_by_name_or_index(given, expected):
  assert target_lib.resolve(given, NAMES) == expected


@pytest.mark.parametrize(
  ('given', 'words'),
  [
    ('Shirts', ['--class=Shirts', "did you mean 'Shirt'", '0 to 3', 'Coat']),
    (4, ['--class=4', '0 to 3']),
    (-1, ['--class=-1']),
    ('Coat', ['--class=Coat']),  # two classes of that name
    ((None, 'x'), ['--against=x']),
    ((0, 'Shirt'), ['--against=Shirt is the class that is explained']),
    (([1, 0], 'Shirt'), ['--against=Shirt is the class that is explained']),
    ([0, 'Shirts'], ['--class=Shirts', "did you mean 'Shirt'"]),
    ([0, None], ['--class: a class of the list is missing']),
    ((0, 1, 2), ['--class: a tuple of 3', 'pair (class, against)', 'list']),
    (1.5, ['--class=1.5', '0 to 3']),
    (np.array([0.0, 1.0]), ['--class=0.0', '0 to 3']),
    (np.zeros((2, 40), int), ['--class=[0 0 0']),
    ({'a': 1}, ["--class={'a': 1}"]),
  ],
)
def test_other_classes_are_refused_in_one_line(given, words):
  with pytest.raises(UserError) as error:
    target_lib.resolve(given, NAMES, ('--class', '--against'))
  assert '\n' not in str(error.value)
  for word in words:
    assert word in str(error.value)


def test_weights_of_the_logits():
  logits = np.array([[1, 5, 3], [9, 0, 4]], np.float32)
  weights = lambda *pair: target_lib.weights(  # noqa: E731
    target_lib.Target(*pair), logits
  )
  np.testing.assert_array_equal(weights(), [[0, 1, 0], [1, 0, 0]])
  np.testing.assert_array_equal(weights(2), [[0, 0, 1], [0, 0, 1]])
  np.testing.assert_array_equal(weights(2, 0), [[-1, 0, 1], [-1, 0, 1]])
  # The predicted class, or the next one where that is what it is set against.
  np.testing.assert_array_equal(weights(None, 1), [[0, -1, 1], [1, -1, 0]])


def test_one_class_for_each_image(tiny, monkeypatch):
  """Maps in batches of three are those of each image alone."""
  monkeypatch.setattr(engine, 'ROWS', 3)
  images, classes = pixels(4), [3, 0, 7, 3]
  for explain in (gradients.gradient, cam.grad_cam, cam.class_activation_map):
    found = explain(tiny, images, classes)
    for i, label in enumerate(classes):
      alone = explain(tiny, images[i : i + 1], label)[0]
      np.testing.assert_allclose(found[i], alone, rtol=1e-4, atol=1e-6)
    for count in (3, 5):
      words = f'^class: {count} classes for 4 images: give one for each'
      with pytest.raises(UserError, match=words):
        explain(tiny, images, np.zeros(count, int))


@pytest.mark.parametrize(
  'images',
  [
    np.zeros((28, 28, 1), np.uint8),
    np.zeros((1, 28, 28, 1), np.int32),
    np.zeros((1, 28, 28, 2), np.uint8),
    np.zeros((0, 28, 28, 1), np.uint8),
  ],
)
def test_other_images_are_refused(tiny, images):
  with pytest.raises(UserError, match=r'allowed is uint8 or float \[N, H, W'):
    gradients.gradient(tiny, images)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize(
  'explain',
  [gradients.gradient, cam.class_activation_map, occlusion.occlusion],
)
def test_pixels_are_finite(tiny, explain, value):
  images = pixels().astype(np.float32)
  images[0, 3, 3] = value
  with pytest.raises(UserError, match='^images hold pixels that are no finite'):
    explain(tiny, images)


# ---- Pixels.


@pytest.mark.parametrize(
  'explain',
  [gradients.input_x_gradient, cam.class_activation_map, occlusion.occlusion],
)
def test_floats_from_0_to_1_are_told_of_once(tiny, capsys, explain):
  images = pixels(2).astype(np.float32)
  explain(tiny, images)
  explain(tiny, pixels(2) // 255)  # whole numbers are 0 to 255
  assert 'float images' not in capsys.readouterr().err
  explain(tiny, images / images.max())
  told = capsys.readouterr().err
  assert told.count('float images are 0 to 255, and the largest of these') == 1
  assert 'pixels is 1: multiply by 255' in told


def test_the_gradient_is_that_of_finite_differences_in_float64(tiny):
  images = pixels(2)
  found = gradients.gradient(tiny, images, 3)
  assert found.shape == (2, 28, 28, 1)
  assert found.dtype == np.float32
  with jax.enable_x64(True):
    params, state = jax.tree.map(
      lambda x: jnp.asarray(np.asarray(x), jnp.float64),
      (tiny.params, tiny.network_state),
    )
    mean, std = (
      np.asarray(tiny.config.data[name], np.float64) for name in ('mean', 'std')
    )

    @jax.jit
    def logit(x):
      x = (x / 255 - mean) / std
      outputs, _ = tiny.network.apply(params, state, None, x, is_training=False)
      return outputs.logits[:, 3]

    rng, step = np.random.default_rng(0), 1e-3
    for _ in range(6):
      # A pixel of an image, and the largest gradient of all.
      i, row, column = rng.integers((2, 28, 28))
      change = np.zeros(images.shape)
      change[i, row, column, 0] = step
      up, down = logit(images + change), logit(images - change)
      slope = np.asarray(up - down)[i] / (2 * step)
      np.testing.assert_allclose(
        found[i, row, column, 0], slope, rtol=1e-3, atol=1e-7
      )
  assert np.abs(found).max() > 1e-4


def test_input_times_gradient_and_smoothgrad_without_noise(tiny):
  images = pixels(3)
  slope = gradients.gradient(tiny, images, 1)
  np.testing.assert_array_equal(
    gradients.input_x_gradient(tiny, images, 1), images * slope
  )
  same = gradients.smoothgrad(tiny, images, 1, samples=3, noise=0)
  np.testing.assert_allclose(same, slope, rtol=1e-4, atol=1e-8)


def test_numbers_out_of_range(tiny):
  for words, given in (('samples=0', (0,)), ('seed=-1', (4, 0.1, -1))):
    with pytest.raises(UserError, match=f'{words} is not allowed'):
      gradients.smoothgrad(tiny, pixels(), 0, *given)
  for words, given in (
    ('steps=0', {'steps': 0}),
    ('max_steps=0', {'max_steps': 0}),
    ('max_steps=None', {'max_steps': None}),
    ('tolerance=nan', {'tolerance': np.nan}),
    ('tolerance=-1', {'tolerance': -1}),
    ('tolerance=a', {'tolerance': 'a'}),
  ):
    with pytest.raises(UserError, match=f'^{words} is not allowed'):
      gradients.integrated_gradients(tiny, pixels(), 0, **given)
  for noise in (np.nan, np.inf, -0.1, '0.1', None, True):
    with pytest.raises(UserError, match=f'^noise={noise} is not allowed'):
      gradients.smoothgrad(tiny, pixels(), 0, noise=noise)


def test_smoothgrad_is_the_mean_of_gradients_of_noisy_images(tiny):
  images = pixels(2)
  first, other, again = (
    gradients.smoothgrad(tiny, images, 1, samples=5, seed=seed)
    for seed in (0, 1, 0)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-5
  key = jax.random.key(0)
  noise = np.stack(
    [
      jax.random.normal(jax.random.fold_in(key, i), (28, 28, 1))
      for i in range(5)
    ]
  )
  for image, found in zip(images, first, strict=True):
    noisy = image + 0.15 * np.ptp(image) * noise
    expected = gradients.gradient(tiny, noisy.astype(np.float32), 1).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


def random_baseline(net, images):
  del net
  return np.random.default_rng(5).uniform(-40, 300, images.shape[1:])


@pytest.mark.parametrize(
  ('net', 'baseline'),
  [
    ('tiny', 'black'),
    ('tiny', 'mean'),
    ('tiny', 'blurred'),
    ('tiny', 'random'),
    pytest.param('best', 'black', marks=pytest.mark.slow),
    pytest.param('best', 'random', marks=pytest.mark.slow),
  ],
)
def test_integrated_gradients_add_up(net, baseline, request, photos):
  images = photos if net == 'best' else pixels(2)
  net = request.getfixturevalue(net)
  if baseline == 'random':
    baseline = random_baseline(net, images)
  found = gradients.integrated_gradients(net, images, None, baseline)
  label = engine.logits(net, images).argmax(-1)
  start = baselines.make(net, images.astype(np.float32), baseline)
  here, there = (
    engine.logits(net, x)[np.arange(2), label] for x in (images, start)
  )
  assert np.abs(here - there).min() > 0.05
  np.testing.assert_allclose(found.maps.sum((1, 2, 3)), here - there, rtol=0.01)
  np.testing.assert_allclose(found.difference, here - there, atol=1e-4)
  np.testing.assert_allclose(
    found.residual, found.maps.sum((1, 2, 3)) - (here - there), atol=1e-3
  )
  assert (found.steps >= 64).all()
  # Where image and baseline are the same there is nothing to attribute.
  assert not found.maps[images == start].any()


def test_steps_are_doubled_up_to_a_limit(tiny):
  found = gradients.integrated_gradients(
    tiny, pixels(2), 1, steps=2, tolerance=0, max_steps=9
  )
  np.testing.assert_array_equal(found.steps, [8, 8])
  one = gradients.integrated_gradients(
    tiny, pixels(2), 1, steps=2, tolerance=np.inf
  )
  np.testing.assert_array_equal(one.steps, [2, 2])
  middle = sum(
    gradients.gradient(tiny, share * pixels(2).astype(np.float32), 1)
    for share in (0.25, 0.75)
  )
  np.testing.assert_allclose(
    one.maps, pixels(2) * middle / 2, rtol=1e-3, atol=1e-5
  )


def test_baselines(tiny):
  images = pixels(2).astype(np.float32)
  mean = baselines.make(tiny, images, 'mean')
  np.testing.assert_allclose(mean, 255 * tiny.config.data.mean[0], rtol=1e-6)
  flat = np.full((1, 20, 24, 3), 7, np.float32)
  np.testing.assert_allclose(baselines.blurred(tiny, flat), flat, rtol=1e-5)
  point = np.zeros((1, 33, 33, 1), np.float32)
  point[0, 16, 16] = 1
  blurred = baselines.blurred(tiny, point)[0, ..., 0]
  at = np.arange(-16, 17)
  bell = np.exp(-0.5 * (at / (33 / 8)) ** 2) * (np.abs(at) <= 13)
  np.testing.assert_allclose(
    blurred, np.outer(bell, bell) / bell.sum() ** 2, atol=1e-6
  )
  with pytest.raises(UserError, match="blak is no base.*did you mean 'black'"):
    baselines.make(tiny, images, 'blak')
  with pytest.raises(UserError, match=r'shape \(3,\), which does not fit'):
    baselines.make(tiny, images[..., :1], np.zeros(3))


def bright(net):
  """Weights by hand: the logit of class 3 is a sum of bright pixels.

  Channel 0 of each layer is the sum of its window; all other weights are zero.
  """
  params = jax.tree.map(lambda x: np.zeros_like(np.asarray(x)), net.params)
  for module, row in (
    ('conv_1/conv_7x7', slice(None)),
    ('inception_2a/conv_1x1', slice(None)),
  ):
    w = params[module]['w']
    w[row, row, 0, 0] = 1 / w[..., 0, 0].size
    # The network sees black as less than zero.
  mean, std = (net.config.data[name][0] for name in ('mean', 'std'))
  params['conv_1/conv_7x7']['b'][0] = mean / std
  params['logits']['w'][0, 3] = 10
  return net._replace(params=replicated(params))


def test_occlusion_finds_a_planted_patch(tiny):
  net = bright(tiny)
  images = np.zeros((2, 28, 28, 1), np.uint8)
  images[0, 4:8, 20:24] = 255
  images[1, 16:20, 8:12] = 255
  found = occlusion.occlusion(net, images, 3, 4, 2, baseline='black')
  assert found.shape == (2, 28, 28)
  assert found.dtype == np.float32
  is_patch = images[..., 0] > 0
  for one, inside in zip(found, is_patch, strict=True):
    assert one[inside].min() > 0
    assert one[inside].mean() > 10 * np.abs(one[~inside]).mean()
    place = np.unravel_index(one.argmax(), one.shape)
    assert inside[place]
    # No window that covers a pixel of the patch reaches further than this.
    reach = np.zeros((28, 28), bool)
    rows, columns = np.nonzero(inside)
    reach[
      rows.min() - 3 : rows.max() + 4, columns.min() - 3 : columns.max() + 4
    ] = True
    np.testing.assert_allclose(one[~reach], 0, atol=1e-5)


def test_occlusion_by_its_definition(tiny):
  images = pixels(2)
  found = occlusion.occlusion(tiny, images, 2, 9, 6, baseline='mean')
  total, count = np.zeros((2, 28, 28)), np.zeros((28, 28))
  fill = 255 * tiny.config.data.mean[0]
  places = (0, 6, 12, 18, 19)
  whole = engine.logits(tiny, images)[:, 2]
  for top in places:
    for left in places:
      covered = images.astype(np.float32)
      window = slice(top, top + 9), slice(left, left + 9)
      covered[:, *window] = fill
      drop = whole - engine.logits(tiny, covered)[:, 2]
      total[:, *window] += drop[:, None, None]
      count[window] += 1
  np.testing.assert_allclose(found, total / count, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  ('sizes', 'words'),
  [
    ((29, 0), 'window=29 .*1 to 28'),
    ((-1, 0), 'window=-1'),
    ((4, 5), 'stride=5 .*1 to 4'),
  ],
)
def test_windows_that_do_not_fit(tiny, sizes, words):
  with pytest.raises(UserError, match=words):
    occlusion.occlusion(tiny, pixels(1), None, *sizes)


# ---- Positions, branches and channels.


@pytest.mark.parametrize(
  'net', ['tiny', pytest.param('best', marks=pytest.mark.slow)]
)
def test_grad_cam_of_the_last_map_is_the_class_activation_map(
  net, request, photos
):
  images = photos if net == 'best' else pixels(2)
  net = request.getfixturevalue(net)
  exact = insight.class_activation_maps(net, images)
  # The class that the first image is least like: its map has both signs.
  label = int(exact.logits[0].argmin())
  expected = exact.maps[:, label]
  found = cam.grad_cam(net, images, label)
  assert (expected < 0).any()
  np.testing.assert_allclose(
    found, np.maximum(expected, 0), rtol=1e-3, atol=1e-4
  )
  np.testing.assert_allclose(
    cam.grad_cam(net, images, label, keep_negative=True),
    expected,
    rtol=1e-3,
    atol=1e-4,
  )
  np.testing.assert_allclose(
    cam.class_activation_map(net, images, label), expected, rtol=1e-5, atol=1e-5
  )


def test_grad_cam_of_an_earlier_map_by_its_definition(tiny):
  images = pixels(2)
  x = insight.seen(tiny, images)

  def logit(change):
    outputs, _ = tiny.network.apply(
      tiny.params,
      tiny.network_state,
      None,
      x,
      is_training=False,
      edit={'conv_1': lambda y: y + change},
    )
    return outputs.logits[:, 4].sum()

  _, found = insight.maps(tiny, images, ('conv_1',))
  values = found['conv_1']
  slope = np.asarray(jax.jit(jax.grad(logit))(jnp.zeros(values.shape)))
  expected = (values * slope.sum((1, 2), keepdims=True)).sum(-1)
  np.testing.assert_allclose(
    cam.grad_cam(tiny, images, 4, 'conv_1'),
    np.maximum(expected, 0),
    rtol=1e-3,
    atol=1e-5,
  )


def test_channels_of_the_last_map_and_the_bias_add_up_to_the_logit(tiny):
  images = pixels(3)
  logits, bias = (
    engine.logits(tiny, images),
    np.asarray(tiny.params['logits']['b']),
  )
  found = parts.channels_by_gradient(tiny, images, 5)
  assert found.shape == (3, 28)
  np.testing.assert_allclose(
    found.sum(-1), logits[:, 5] - bias[5], rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(
    parts.channels_by_ablation(tiny, images, 5), found, rtol=1e-3, atol=1e-4
  )


def test_branches_are_sums_of_channels_and_ablations(tiny):
  images = pixels(2)
  by_gradient = parts.branches_by_gradient(tiny, images, 5, 'inception_2a')
  by_ablation = parts.branches_by_ablation(tiny, images, 5, 'inception_2a')
  exact = insight.branch_contributions(tiny, images, 'inception_2a')
  names = [f'inception_2a/{name}' for name in exact]
  assert list(by_gradient) == list(by_ablation) == names
  for name, added in zip(names, exact.values(), strict=True):
    np.testing.assert_allclose(by_ablation[name], added[:, 5], atol=1e-5)
    # Nothing but a mean and a linear layer follow the last block.
    np.testing.assert_allclose(by_gradient[name], added[:, 5], atol=1e-4)


@pytest.mark.slow
def test_an_earlier_channel_is_ablated_in_the_network(best, photos):
  """Against a convolution whose scale and offset of one channel are zero."""
  found = parts.channels_by_ablation(best, photos, 8, 'conv_1')
  module = next(m for m in best.params if m.startswith('conv_1/'))
  for channel in (0, 5):
    leaves = {k: np.array(v) for k, v in best.params[module].items()}
    for name in ('scale', 'offset'):
      leaves[name][channel] = 0
    without = best._replace(params=replicated({**best.params, module: leaves}))
    drop = engine.logits(best, photos) - engine.logits(without, photos)
    np.testing.assert_allclose(found[:, channel], drop[:, 8], atol=1e-4)
  assert np.abs(found).max() > 0.01


def test_a_point_inside_a_block_and_the_name_of_lucid(tiny):
  images = pixels(2)
  found = parts.channels_by_gradient(tiny, images, 5, 'inception_2a/conv_3x3')
  branch = insight.branch_channels(tiny.network, 'inception_2a')['conv_3x3']
  np.testing.assert_allclose(
    found, parts.channels_by_gradient(tiny, images, 5)[:, branch], atol=1e-5
  )
  assert cam.find_layer(tiny.network, 'mixed2a_3x3_pre_relu') == (
    'inception_2a/conv_3x3:pre'
  )
  assert cam.find_layer(tiny.network, '') == 'inception_2a'


@pytest.mark.parametrize(
  ('layer', 'words'),
  [
    ('conv_2', "layer: 'conv_2' is no point.*'conv_1'"),
    ('inception_2a:pre', 'layer: .*can only be read'),
    ('logits', r'layer=logits: it must be a map \[h, w, C\]'),
  ],
)
def test_a_map_that_cannot_be_taken(tiny, layer, words):
  with pytest.raises(UserError, match=words):
    cam.grad_cam(tiny, pixels(1), layer=layer)


# ---- What holds for all.

METHODS = {
  'gradient': gradients.gradient,
  'input_x_gradient': gradients.input_x_gradient,
  'smoothgrad': lambda *a: gradients.smoothgrad(*a, samples=4),
  'integrated_gradients': lambda *a: (
    gradients.integrated_gradients(*a, steps=8, tolerance=np.inf).maps
  ),
  'grad_cam': lambda *a: cam.grad_cam(*a, keep_negative=True),
  'class_activation_map': cam.class_activation_map,
  'occlusion': lambda *a: occlusion.occlusion(*a, window=9, stride=9),
  'channels_by_gradient': parts.channels_by_gradient,
  'channels_by_ablation': parts.channels_by_ablation,
}


# Of these, tests above compare the maps of several images with gradients.
OF_GRADIENTS = ('smoothgrad', 'integrated_gradients')


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow) if name in OF_GRADIENTS else name
    for name in METHODS
  ],
)
def test_a_contrast_is_a_difference_and_an_image_is_explained_alone(tiny, name):
  explain, images = METHODS[name], pixels(5)
  one, other, both = (explain(tiny, images, k) for k in (2, 6, (2, 6)))
  size = np.abs(one).max()
  assert size > 0
  np.testing.assert_allclose(both, one - other, atol=1e-4 * size)
  np.testing.assert_allclose(
    explain(tiny, images[3:4], 2)[0], one[3], atol=1e-4 * size
  )
  predicted = engine.logits(tiny, images).argmax(-1)
  alone = explain(tiny, images[:1], int(predicted[0]))
  np.testing.assert_allclose(
    explain(tiny, images, None)[0], alone[0], atol=1e-4 * size
  )


# ---- Randomized parameters.


def test_rank_correlation():
  rng = np.random.default_rng(0)
  a = rng.normal(size=(3, 6, 5, 2))
  np.testing.assert_allclose(sanity.rank_correlation(a, a), 1)
  np.testing.assert_allclose(sanity.rank_correlation(a, np.exp(a)), 1)
  np.testing.assert_allclose(sanity.rank_correlation(a, -a), -1)
  np.testing.assert_allclose(sanity.rank_correlation(a, -a, magnitude=True), 1)
  np.testing.assert_allclose(sanity.rank_correlation(a, 0 * a), 0)
  assert abs(sanity.rank_correlation(a, rng.normal(size=a.shape))).max() < 0.5
  # Equal values share a rank: Pearson's correlation of 1 2.5 2.5 4 and 1 2 3 4.
  tied = sanity.rank_correlation(
    np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, 3]])
  )
  np.testing.assert_allclose(
    tied, np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1]
  )


def test_layers_are_randomized_from_the_top(tiny):
  assert sanity.layers(tiny.network) == ('logits', 'inception_2a', 'conv_1')
  made = sanity.randomized(tiny, 'inception_2a', seed=4)
  same = {
    module: all(
      np.array_equal(a, b)
      for a, b in zip(
        jax.tree.leaves(leaves),
        jax.tree.leaves(made.params[module]),
        strict=True,
      )
    )
    for module, leaves in tiny.params.items()
  }
  assert {m for m, is_same in same.items() if is_same} == {'conv_1/conv_7x7'}
  again = sanity.randomized(tiny, 'conv_1', seed=4)
  np.testing.assert_array_equal(
    made.params['logits']['w'], again.params['logits']['w']
  )
  with pytest.raises(UserError, match="upto=conv_2.*'conv_1'.*logits, incep"):
    sanity.randomized(tiny, 'conv_2')


def test_custom_operations_are_randomized_too():
  own.register('linear', lambda x, is_training: hk.Linear(x.shape[-1])(x))
  config = small_config().unlock()
  stage = TINY.stages[0]
  stage = stage._replace(rows=(*stage.rows, rows.Own('mixing', 'linear')))
  rest = TINY.stages[1:]
  config.model.variant = 'own'
  config.model.architecture = to_text(TINY._replace(stages=(stage, *rest)))
  net = make_trained(config)
  assert sanity.layers(net.network) == (
    *('logits', 'inception_2a', 'mixing', 'conv_1'),
  )
  made = sanity.randomized(net, 'mixing')
  name = 'mixing/linear'
  assert not np.array_equal(made.params[name]['w'], net.params[name]['w'])


def test_statistics_of_batch_norm_are_randomized_too(best):
  made = sanity.randomized(best, 'inception_5b')
  for module, leaves in made.network_state.items():
    is_new = module.startswith('inception_5b')
    for name, start in (('mean', 0), ('variance', 1)):
      assert (np.ptp(leaves[name]) == 0 and leaves[name][0] == start) == is_new


@pytest.mark.parametrize(
  'net', ['tiny', pytest.param('best', marks=pytest.mark.slow)]
)
def test_maps_of_a_randomized_network_are_others(net, request):
  images = pixels(4) if net == 'tiny' else request.getfixturevalue('photos')
  net = request.getfixturevalue(net)

  def explain(net):
    return gradients.input_x_gradient(net, images, 8)

  own = sanity.rank_correlation(explain(net), explain(net))
  np.testing.assert_allclose(own, 1)
  found = sanity.cascade(net, explain)
  assert list(found) == list(sanity.layers(net.network))
  assert abs(found['conv_1'].mean()) < 0.3
