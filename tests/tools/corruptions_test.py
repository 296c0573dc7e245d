"""Corruptions of images against NumPy and SciPy; the table of their scores."""

import colorsys
import functools
import json
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import scipy.ndimage
from run_files import problems

import launch
from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.tools.inference import trained
from googlenet.tools.scoring import corruptions, robustness, scores
from googlenet.tools.scoring.corruptions import KINDS

SHAPES = {'small': (28, 28, 3), 'large': (70, 66, 1)}


def images_of(shape=SHAPES['small'], count=4):
  """Smooth random images: white and black pixels, grey ones in between."""
  noise = np.random.default_rng(0).random((count, *shape))
  smooth = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0))
  low, high = smooth.min(), smooth.max()
  return np.uint8((smooth - low) / (high - low) * 290).clip(0, 255)


@functools.cache
def program(name):
  return jax.jit(corruptions.function_of(name))


def corrupt(name, images, strength, seed=0, indices=None):
  if indices is None:
    indices = np.arange(len(images), dtype=np.int32)
  done = program(name)(images, indices, np.float32(strength), np.int32(seed))
  assert done.dtype == jnp.uint8
  return np.asarray(done)


def brighter(pixel, added):
  hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
  return colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))


# Images float64 [H, W, C] in 0..1 and a strength, to what a corruption makes.
REFERENCES = {
  'gaussian_blur': lambda x, sigma: scipy.ndimage.gaussian_filter(
    x, (sigma, sigma, 0), mode='nearest', truncate=4
  ),
  'contrast': lambda x, factor: np.stack(
    [(c - c.mean()) * factor + c.mean() for c in np.moveaxis(x, -1, 0)], -1
  ),
  'brightness': lambda x, added: np.array(
    [
      [
        brighter(pixel, added) if len(pixel) == 3 else pixel + added
        for pixel in row
      ]
      for row in x
    ]
  ),
}


@pytest.mark.parametrize('name', REFERENCES)
def test_a_corruption_is_its_definition(name):
  for size, shape in SHAPES.items():
    images = images_of(shape)
    strengths = KINDS[name].strengths(images.shape[1:])
    assert strengths == getattr(KINDS[name], size)
    for strength in (strengths[0], strengths[-1]):
      expected = [REFERENCES[name](x / 255, strength) for x in images]
      expected = np.clip(expected, 0, 1) * 255
      # The nearest integers, but for the error of float32.
      difference = np.abs(corrupt(name, images, strength) - expected)
      assert difference.max() < 0.501, strength


def test_rotations_go_both_ways():
  images, signs = images_of(), []
  for first in (0, 4, 8):
    indices = np.arange(first, first + 4, dtype=np.int32)
    done = corrupt('rotation', images, 0.6, indices=indices)
    errors = [
      np.abs(
        scipy.ndimage.rotate(
          images.astype(float),
          sign * np.degrees(0.6),
          (2, 1),
          reshape=False,
          order=1,
          mode='grid-constant',  # black is outside
        )
        - done
      ).max((1, 2, 3))
      for sign in (1, -1)
    ]
    assert np.minimum(*errors).max() < 0.51
    assert np.maximum(*errors).min() > 20
    signs += list(errors[0] < errors[1])
  assert 2 < sum(signs) < 10


def test_noise_has_its_deviation_and_is_independent():
  images = np.full((4, 28, 28, 3), 128, np.uint8)
  done = corrupt('gaussian_noise', images, 0.1).astype(float) - 128
  assert abs(done.mean()) < 1
  assert done.std() == pytest.approx(25.5, rel=0.03)
  flat = done.reshape(4, -1)
  assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.1
  strong = corrupt('gaussian_noise', images, 0.2).astype(float) - 128
  assert np.corrcoef(strong.ravel(), done.ravel())[0, 1] > 0.99
  other = corrupt('gaussian_noise', images, 0.1, seed=1).astype(float) - 128
  assert abs(np.corrcoef(other.ravel(), done.ravel())[0, 1]) < 0.05
  dark = corrupt('gaussian_noise', np.zeros_like(images), 0.1)
  assert (dark == 0).mean() == pytest.approx(0.5, abs=0.03)


IDENTITY = {'contrast': 1.0}


@pytest.mark.parametrize('name', KINDS)
def test_the_strength_that_changes_nothing(name):
  images = images_of()
  done = corrupt(name, images, IDENTITY.get(name, 0.0))
  np.testing.assert_array_equal(done, images)


@pytest.mark.parametrize('name', KINDS)
def test_severities_are_ordered(name):
  images, kind = images_of(), KINDS[name]
  for strengths in (kind.small, kind.large):
    assert len(strengths) == len(corruptions.SEVERITIES)
    changes = [
      np.abs(corrupt(name, images, strength) - images.astype(float)).mean()
      for strength in strengths
    ]
    assert np.all(np.diff(changes) > 0)
    assert changes[0] > 0.2


@pytest.mark.parametrize('name', ['gaussian_noise', 'rotation'])
def test_an_image_depends_on_its_index_and_not_on_its_place(name):
  images, indices = images_of(), np.array([7, 2, 9, 4], np.int32)
  done = corrupt(name, images, 0.3, indices=indices)
  turned = corrupt(name, images[::-1], 0.3, indices=indices[::-1])
  np.testing.assert_array_equal(turned[::-1], done)
  one = corrupt(name, images[:1].repeat(4, 0), 0.3, indices=indices)
  np.testing.assert_array_equal(one[0], done[0])
  assert len(np.unique(one, axis=0)) == (4 if name == 'gaussian_noise' else 2)


# ---- The table.


FLAGS = ('--config.data.eval_split=test[:100]', '--config.eval.batch_size=50')


def changed(net):
  config = ml_collections.ConfigDict(net.config.to_dict())
  config.data.eval_split, config.eval.batch_size = 'test[:100]', 50
  return config_lib.resolve(config)


def test_the_table_is_printed_and_stored(trained_run, tmp_path, capfd):
  path = tmp_path / 'scores.json'
  code = launch.main(
    [
      *('', '--mode=evaluate', f'--workdir={trained_run}', *FLAGS, '--seed=3'),
      *('--corruptions', f'--output={path}'),
    ]
  )
  out, err = capfd.readouterr()
  assert (code, problems(err)) == (0, '')
  told = json.loads(path.read_text())['corruptions']
  assert told['seed'] == 3
  assert list(told['kinds']) == list(KINDS)
  rows = {
    line.split()[0]: line.split()[1:]
    for line in out[out.index('accuracy on corrupted') :].splitlines()
  }
  every = []
  for name, kind in told['kinds'].items():
    cells = kind['severities']
    assert [cell['severity'] for cell in cells] == [1, 2, 3, 4, 5]
    assert [cell['strength'] for cell in cells] == pytest.approx(
      KINDS[name].small
    )
    accuracies = [cell['accuracy'] for cell in cells]
    assert kind['mean_accuracy'] == pytest.approx(np.mean(accuracies))
    shown = [f'{x:.4f}' for x in [*accuracies, np.mean(accuracies)]]
    assert rows[name] == shown
    every.append(accuracies)
  assert told['mean_accuracy'] == pytest.approx(np.mean(every))
  assert told['mean_error'] == pytest.approx(1 - np.mean(every))
  assert rows['mean'] == [
    f'{x:.4f}' for x in [*np.mean(every, 0), np.mean(every)]
  ]
  assert f'mean corruption error {1 - np.mean(every):.4f}' in out
  # A cell from the definition: the network's predictions for corrupted pixels.
  net = trained.load_run(trained_run)
  net = net._replace(config=changed(net))
  dataset = pipeline.load_split(net.config, 'eval_split')
  images, labels = dataset.read(np.arange(100))
  images = corrupt('gaussian_noise', images, 0.1, seed=3)
  expected = scores.compute(net.predict(images), labels)
  cell = told['kinds']['gaussian_noise']['severities'][4]
  for name in ('accuracy', 'loss', 'brier', 'calibration_error'):
    assert cell[name] == pytest.approx(getattr(expected, name), rel=1e-4), name


def test_some_corruptions_of_several_networks(trained_run):
  net = trained.load_run(trained_run)
  params = jax.tree.map(lambda x: 2 * x, net.params)
  other, config = net._replace(params=params), changed(net)
  names = ('rotation', 'contrast')
  both = robustness.evaluate(config, [net, other], names)
  assert [(c.kind, c.severity) for c in both] == [
    (name, severity) for name in names for severity in range(1, 6)
  ]
  # From the definition, at a temperature too.
  dataset = pipeline.load_split(config, 'eval_split')
  images, labels = dataset.read(np.arange(100))
  images = corrupt('contrast', images, KINDS['contrast'].small[4])
  mean = np.mean(
    [x._replace(config=config).predict(images) for x in (net, other)], 0
  )
  tempered = mean.astype(np.float64) ** (1 / 0.7)
  tempered /= tempered.sum(-1, keepdims=True)
  cold = robustness.evaluate(config, [net, other], names, temperature=0.7)
  for cells, probabilities in ((both, mean), (cold, tempered)):
    expected = scores.compute(probabilities, labels)
    for name in ('accuracy', 'loss', 'brier', 'calibration_error'):
      value = getattr(cells[-1], name)
      assert value == pytest.approx(getattr(expected, name), rel=1e-4), name


REFUSED = {
  'an unknown kind': (['--corruptions=noise'], ["'noise'", 'gaussian_noise']),
  'a misspelt kind': (
    ['--corruptions=contrast,rotatoin'],
    ["did you mean 'rotation'"],
  ),
  'an empty name': (['--corruptions=contrast,'], ["corruption ''"]),
  'a name without =': (['--corruptions', 'rotation'], ["'rotation' is not a"]),
  'crops': (
    ['--corruptions', '--config.eval.crops=10'],
    ['config.eval.crops=10', '--config.eval.crops=1'],
  ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_is_refused(case, trained_run, capfd):
  flags, words = REFUSED[case]
  code = launch.main(
    ['', '--mode=evaluate', f'--workdir={trained_run}', *flags]
  )
  out, err = capfd.readouterr()
  assert (code, out, err.count('\n')) == (2, '', 1), err
  assert all(word in err for word in words), err


@pytest.mark.slow
def test_four_devices_have_the_table_of_one(trained_run, launch_py):
  """The same images, so the same accuracies."""
  tables = []
  for devices in (1, 4):
    done = launch_py(
      *('--mode=evaluate', f'--workdir={trained_run}', *FLAGS, '--corruptions'),
      config='',
      devices=devices,
    )
    assert done.returncode == 0, done.stderr
    tables.append(re.findall(r'^\w+(?: +0\.\d{4}){6}$', done.stdout, re.M))
  assert len(tables[0]) == len(KINDS) + 1
  assert tables[0] == tables[1]
