"""Probes: neighbours by brute force, optima by their gradient in float64."""

import csv
import json
import os

import numpy as np
import pytest
from conftest import last_of_each, start
from run_files import problems
from saved_run import save_run
from scipy import optimize

import googlenet
import launch
from googlenet.data.sources import load_dataset
from googlenet.model import variants
from googlenet.tools.modes import probe
from googlenet.tools.probe import knn, linear


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal(shape).astype(np.float32)


def neighbours(train, labels, test, k):
  """The answers of Wu et al. (2018), section 3.4, one image after another."""
  found = []
  for x in test.astype(np.float64):
    near = []
    for y, label in zip(train.astype(np.float64), labels, strict=True):
      lengths = np.sqrt((x @ x) * (y @ y))
      near.append((x @ y / lengths if lengths else 0.0, label))
    near.sort(key=lambda pair: -pair[0])
    votes = np.zeros(labels.max() + 1)
    for similarity, label in near[:k]:
      votes[label] += np.exp(similarity / 0.07)
    found.append(votes.argmax())
  return np.array(found)


@pytest.mark.parametrize('k', [1, 7])
def test_neighbours_are_those_of_brute_force(monkeypatch, k):
  monkeypatch.setattr(knn, '_MAX_SIMILARITIES', 40 * 9)  # nine at once
  labels = np.random.default_rng(0).integers(0, 3, 40)
  # Lengths differ: only directions count. Small ones have no squares.
  train, test = draw(40, 5), draw(23, 5, seed=1)
  train *= np.geomspace(1e-25, 100, 40, dtype=np.float32)[:, None]
  train[3] = test[4] = 0
  expected = neighbours(train, labels, test, k)
  assert len(set(expected)) == 3
  np.testing.assert_array_equal(
    knn.predict(train, labels, test, 3, k), expected
  )


def test_near_neighbours_count_more():
  """Two far ones of class 0 against a near one of class 1."""
  train = np.array([[1, 1], [1, -1], [1, 0.1]], np.float32)
  labels, test = np.array([0, 0, 1]), np.array([[1, 0]], np.float32)
  assert knn.predict(train, labels, test, 2, 3) == [1]


def planted(count, seed=0):
  """Features of scales that differ, of which classes explain a part."""
  labels = np.random.default_rng(seed).integers(0, 4, count)
  x = draw(count, 12, seed=seed) + 1.5 * draw(4, 12, seed=9)[labels]
  return x * np.geomspace(0.01, 100, 12).astype(np.float32) + 5, labels


def objective(found, x, labels, strength):
  """Value and gradient in float64, of weights [C + 1, K] of which one is b."""
  found = found.reshape(x.shape[1] + 1, -1)
  logits = x @ found[:-1] + found[-1]
  logits -= logits.max(1, keepdims=True)
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  value = -np.log(p[np.arange(len(x)), labels]).mean()
  p[np.arange(len(x)), labels] -= 1
  gradient = np.concatenate([x.T @ p, p.sum(0)[None]]) / len(x)
  gradient[:-1] += strength * found[:-1]
  value += strength / 2 * (found[:-1] ** 2).sum()
  return value, gradient.ravel()


def standardized(x):
  x = x.astype(np.float64)
  deviation = x.std(0)
  return (x - x.mean(0)) / np.where(deviation > 0, deviation, np.inf)


def optimum(features, labels, strength):
  start = np.zeros((features.shape[1] + 1) * 4)
  given = standardized(features), labels, strength
  options = {'gtol': 1e-9}
  return optimize.minimize(
    objective, start, given, jac=True, method='BFGS', options=options
  ).x


@pytest.mark.parametrize('strength', [0.5, 1e-2])
def test_the_linear_probe_is_the_optimum(strength):
  """On an odd number of images: each counts once, padding does not."""
  features, labels = planted(301)
  fitted = linear.fit(features, labels, 4, strengths=(strength,))
  found = np.concatenate([fitted.weights, fitted.bias[None]])
  x = standardized(features)
  _, gradient = objective(found, x, labels, strength)
  assert np.abs(gradient).max() < 2e-4
  assert fitted.has_converged
  expected = optimum(features, labels, strength).reshape(13, 4)
  np.testing.assert_allclose(fitted.weights, expected[:-1], atol=1e-2)
  test, _ = planted(200, seed=1)
  scaled = (test - fitted.mean) / fitted.deviation
  answers = (scaled @ fitted.weights + fitted.bias).argmax(1)
  np.testing.assert_array_equal(fitted.predict(test), answers)


def test_separable_classes_are_told_apart_whatever_their_scale():
  labels = np.arange(301) % 4
  features = 0.1 * draw(301, 12)
  features[np.arange(301), labels] += 1
  features *= np.geomspace(1e-4, 1e5, 12, dtype=np.float32)
  fitted = linear.fit(features, labels, 4)
  assert (fitted.predict(features) == labels).all()


def test_a_constant_feature_says_nothing():
  features, labels = planted(301)
  features[:, 7] = 0.1
  fitted = linear.fit(features, labels, 4, strengths=(0.1,))
  assert fitted.weights[:7].all()
  assert not fitted.weights[7].any()
  # Not where it is another number, either.
  other = features + 9 * (np.arange(12) == 7).astype(np.float32)
  np.testing.assert_array_equal(fitted.predict(other), fitted.predict(features))


def test_a_fifth_of_each_class_is_held_out():
  labels = np.repeat([0, 1, 2], [50, 10, 15])
  chosen = linear.held_out(labels, 0)
  assert np.bincount(labels[chosen]).tolist() == [10, 2, 3]
  np.testing.assert_array_equal(chosen, linear.held_out(labels, 0))
  assert (chosen != linear.held_out(labels, 1)).any()


@pytest.mark.slow
def test_the_strength_is_that_of_the_best_held_out_accuracy():
  """Judged by an optimum in float64 of the images that are not held out."""
  labels = np.random.default_rng(0).integers(0, 4, 120)
  features = draw(120, 60) + 0.4 * draw(4, 60, seed=9)[labels]
  is_held = linear.held_out(labels, 0)
  x, right = standardized(features), []
  start = np.zeros(61 * 4)
  strengths = (100.0, 1.0, 1e-1, 1e-2)
  for strength in strengths:
    start = optimize.minimize(
      objective,
      start,
      (x[~is_held], labels[~is_held], strength),
      jac=True,
      method='L-BFGS-B',
    ).x
    found = start.reshape(61, 4)
    answers = (x[is_held] @ found[:-1] + found[-1]).argmax(1)
    right.append((answers == labels[is_held]).mean())
  best = int(np.argmax(right))  # the first, so the strongest, of equals
  assert 0 < best < 3, right
  assert (
    linear.fit(features, labels, 4, strengths=strengths).strength
    == (strengths[best])
  )


@pytest.fixture
def trial(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config.eval.batch_size = 16
  config.data.train_split = 'train[:90]'
  config.data.eval_split = 'test[:50]'
  save_run(tmp_path / 'trial', config)
  return tmp_path


def run(*flags, code=0):
  argv = ['launch.py', '--mode=probe', '--workdir=trial', *flags]
  argv = last_of_each([*argv, '--config.train.compilation_cache='])
  assert launch.main(argv) == code


def features(config, split, count, point):
  images, labels = load_dataset(config.data, split).read(np.arange(count))
  found = googlenet.load('trial').features(images, [point])[point]
  return found.reshape(count, -1, found.shape[-1]).mean(1), labels


def test_the_mode(trial, config, capfd):
  last = '--k=5', '--end_points=stage_2'  # a program less to compile
  run(*last, '--output=probe.json')
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  found = json.loads((trial / 'probe.json').read_text())
  assert found['train_images'] == 90
  assert found['eval_images'] == 50
  assert [row['point'] for row in found['points']] == ['stage_2']
  for row in found['points']:
    x, labels = features(config, 'train', 90, row['point'])
    test, answers = features(config, 'test', 50, row['point'])
    assert row['width'] == x.shape[1]
    near = neighbours(x, labels, test, 5)
    assert row['knn'] == pytest.approx((near == answers).mean())
    fitted = linear.fit(x, labels, 10)
    right = (fitted.predict(test) == answers).mean()
    assert row['linear'] == pytest.approx(right)
    assert row['l2'] == fitted.strength
    assert row['linear_low'] < row['linear'] < row['linear_high']
    half = (row['linear_high'] - row['linear_low']) / 2
    assert (
      f'{row["point"]}  {row["width"]:6}  {row["knn"]:.4f} +- ' in shown.out
    )
    assert f'{row["linear"]:.4f} +- {half:.4f}  {row["l2"]:g}\n' in shown.out
  assert 'train    90 of fashion_mnist train[:90]\n' in shown.out
  # Other batches, streamed; and the same bytes again.
  streamed = '--config.eval.batch_size=7', '--config.data.on_device_mb=0'
  run(*last, '--output=a.csv')
  run(*last, '--output=b.csv', *streamed)
  assert (trial / 'a.csv').read_text() == (trial / 'b.csv').read_text()
  (row,) = csv.DictReader((trial / 'a.csv').read_text().splitlines())
  assert row == {k: str(v) for k, v in found['points'][0].items()}


def test_points_by_default():
  found = probe._points(variants.ARCHITECTURES['alexnet'], '')
  assert found == ('stage_1', 'stage_2', 'stage_3', 'fc_6', 'fc_7')
  assert probe._points(variants.ARCHITECTURES['tiny'], 'logits,conv_1') == (
    *('logits', 'conv_1'),
  )


@pytest.mark.slow
def test_another_data_set_of_more_classes(trial, config, capfd):
  """One image of each of 12 classes, whose pixels tell them apart."""
  rng = np.random.default_rng(0)
  arrays, patterns = {}, rng.integers(0, 200, (12, 28, 28))
  for split, each in (('train', 5), ('test', 3)):
    labels = np.repeat(np.arange(12), each)
    images = patterns[labels] + rng.integers(0, 50, (12 * each, 28, 28))
    arrays[f'{split}_images'] = images.astype(np.uint8)
    arrays[f'{split}_labels'] = labels
  np.savez('own.npz', **arrays)
  data = [
    *('--config.data.source=arrays', '--config.data.data_dir=own.npz'),
    *('--config.data.train_split=train', '--config.data.eval_split=test'),
  ]
  few = '--config.data.per_class=1', '--k=1', '--end_points=images'
  run(*data, *few, '--flatten', '--output=own.json')
  found = json.loads((trial / 'own.json').read_text())
  assert found['train_images'] == 12
  (row,) = found['points']
  assert row['width'] == 28 * 28
  assert row['knn'] == row['linear'] == 1
  # Features of it can be written, too.
  flags = [*data, '--end_points=stage_2', '--output=own_features.npz']
  argv = ['launch.py', '--mode=features', '--workdir=trial', *flags]
  assert launch.main([*argv, '--config.train.compilation_cache=']) == 0
  with np.load('own_features.npz') as written:
    np.testing.assert_array_equal(written['label'], arrays['test_labels'])


BAD_INPUT = {
  'an unknown point': (
    ['--end_points=inception_2b'],
    ['--end_points: ', "did you mean 'inception_2a'"],
  ),
  'no neighbour': (['--k=0'], ['--k=0', 'from 1']),
  'more neighbours than images': (
    ['--k=91'],
    ['--k=91', "config.data.train_split='train[:90]'", '90 images'],
  ),
  'one class': (
    ['--config.data.train_split=train[:1]', '--k=1'],
    ["config.data.train_split='train[:1]'", 'of the class Ankle boot alone'],
  ),
  'too few of a class': (
    ['--config.data.per_class=50'],
    ['config.data.per_class=50', 'fewer images of'],
  ),
  'a negative seed': (['--seed=-1'], ['--seed=-1', 'from 0']),
  'an unknown format': (['--output=c.txt'], ['--output=c.txt', '.json, .csv']),
  'a file that is there': (
    ['--output=trial', '--format=csv'],
    ['exists already'],
  ),
  'a run that is not there': (['--workdir=c'], ['--workdir=c']),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(trial, capfd, case):
  flags, words = BAD_INPUT[case]
  before = sorted(os.listdir())
  run(*flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  err = problems(shown.err)
  assert err.startswith('error: ')
  assert err.count('\n') == 1
  for word in words:
    assert word in err
  assert sorted(os.listdir()) == before


@pytest.mark.slow
def test_classes_without_training_images_are_told(trial, config, capfd):
  run('--config.data.train_split=train[:4]', '--k=2', '--output=few.json')
  err = problems(capfd.readouterr().err)
  assert err.count('\n') == 1
  assert "warning: config.data.train_split='train[:4]' has no image of" in err
  found = json.loads((trial / 'few.json').read_text())
  _, labels = features(config, 'train', 4, 'stage_2')
  _, answers = features(config, 'test', 50, 'stage_2')
  most = np.isin(answers, labels).mean()
  assert all(row['knn'] <= most for row in found['points'])


@pytest.mark.slow
def test_four_devices_give_the_same(trial):
  flags = ['--mode=probe', '--workdir=trial', '--k=5']
  for devices in (1, 4):
    done = start(trial, *flags, f'--output={devices}.csv', devices=devices)
    assert done.returncode == 0, done.stderr
  assert (trial / '1.csv').read_text() == (trial / '4.csv').read_text()
