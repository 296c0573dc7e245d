"""Temperature scaling: the fit, its refusals, and who uses a temperature."""

import csv
import json
import shutil

import numpy as np
import pytest
import scipy.optimize
from PIL import Image
from run_files import problems

import launch
from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.tools.inference import trained
from googlenet.tools.inference.predict import with_temperature
from googlenet.tools.scoring import calibration


def softmax(logits):
  odds = np.exp(logits - logits.max(-1, keepdims=True))
  return odds / odds.sum(-1, keepdims=True)


def predictions(factor=1.0, count=5000, num_classes=6):
  """Labels drawn from probabilities, whose logits are then multiplied."""
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (count, num_classes))
  gumbel = rng.gumbel(size=logits.shape)
  labels = (logits + gumbel).argmax(-1).astype(np.int32)
  return softmax(factor * logits).astype(np.float32), labels


def nll(temperature, probabilities, labels):
  logits = np.log(probabilities.astype(np.float64)) / temperature
  true = logits[np.arange(len(labels)), labels]
  return np.mean(np.log(np.exp(logits).sum(-1)) - true)


@pytest.mark.parametrize('factor', [3.0, 1.0, 0.25])
def test_the_factor_of_logits_is_found(factor, monkeypatch):
  monkeypatch.setattr(calibration, '_CHUNK', 999)
  plain = calibration.fit_temperature(*predictions())
  assert plain == pytest.approx(1, abs=0.05)
  probabilities, labels = predictions(factor)
  found = calibration.fit_temperature(probabilities, labels)
  assert found == pytest.approx(factor * plain, rel=1e-4)
  best = scipy.optimize.minimize_scalar(
    nll, (0.1, 10), args=(probabilities, labels), tol=1e-9
  )
  assert found == pytest.approx(best.x, rel=1e-5)


def test_far_temperatures_are_found():
  """Where Newton's method alone would leave the interval."""
  plain = calibration.fit_temperature(*predictions())
  for factor in (1 / 30, 10):
    found = calibration.fit_temperature(*predictions(factor))
    assert found == pytest.approx(factor * plain, rel=1e-3)


def test_a_temperature_changes_no_order():
  probabilities, _ = predictions(2.0, count=50)
  assert with_temperature(probabilities, 1) is probabilities
  for temperature in (0.3, 4.0):
    done = with_temperature(probabilities, temperature)
    expected = probabilities.astype(np.float64) ** (1 / temperature)
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(done, expected, rtol=1e-6)
    np.testing.assert_array_equal(done.argsort(-1), probabilities.argsort(-1))
  sure = with_temperature(np.array([[1.0, 0.0, 0.0]], np.float32), 2.0)
  assert np.isfinite(sure).all()
  assert sure[0, 0] == pytest.approx(1)


def test_no_temperature_fits():
  probabilities, labels = predictions(count=40)
  with pytest.raises(UserError, match='classified correctly'):
    calibration.fit_temperature(probabilities, probabilities.argmax(-1))
  with pytest.raises(UserError, match='no better than chance'):
    calibration.fit_temperature(probabilities, probabilities.argmin(-1))


# ---- The mode.

FIT, SCORED = 'test[:200]', 'test[200:300]'


@pytest.fixture(scope='module')
def run(trained_run, tmp_path_factory):
  """The run with an output layer fitted to 500 images: better than chance."""
  folder = tmp_path_factory.mktemp('fitted') / 'run'
  shutil.copytree(trained_run, folder)
  net = trained.load_run(folder)
  dataset = pipeline.load_split(net.config, 'train_split')
  images, labels = dataset.read(np.arange(500))
  x = net.features(images, ['stage_2'])['stage_2']
  x = np.concatenate([x, np.ones((500, 1))], 1)
  y = 8 * np.eye(10)[labels]
  weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ y)
  with np.load(net.path) as file:
    arrays = dict(file)
  for name, value in (('w', weights[:-1]), ('b', weights[-1])):
    name = f'params/logits/{name}'
    arrays[name] = value.reshape(arrays[name].shape).astype(np.float32)
  np.savez(net.path, **arrays)
  return folder


def evaluate(run, *flags):
  return launch.main(
    [
      *('', '--mode=evaluate', f'--workdir={run}', *flags),
      *(f'--config.data.eval_split={SCORED}', '--config.eval.batch_size=100'),
    ]
  )


def test_scores_without_and_with_the_temperature(run, tmp_path, capfd):
  path, again = tmp_path / 'a.json', tmp_path / 'b.json'
  assert evaluate(run, f'--calibrate={FIT}', f'--output={path}') == 0, (
    capfd.readouterr().err
  )
  out, err = capfd.readouterr()
  assert problems(err) == ''
  told = json.loads(path.read_text())
  found = told['calibration']
  assert (found['split'], found['count']) == (FIT, 200)
  temperature = found['temperature']
  assert f'temperature {temperature:.4f}, fitted on {FIT} (200 images)' in out
  assert told['temperature'] == 1  # the other scores are as they were
  for name in ('loss', 'brier', 'calibration_error'):
    assert found['before'][name] == told[name]
  shown = [f'{found["after"][name]:.4f}' for name in found['after']]
  assert [f'{temperature:.4f}', *shown] == out.splitlines()[-2].split()
  # An evaluation with that temperature has those scores.
  flags = f'--temperature={temperature}', f'--output={again}'
  assert evaluate(run, *flags) == 0
  out, _ = capfd.readouterr()
  assert f', temperature {temperature:g}\n' in out
  told = json.loads(again.read_text())
  assert told['temperature'] == temperature
  assert told['accuracy'] == json.loads(path.read_text())['accuracy']
  for name, value in found['after'].items():
    assert told[name] == pytest.approx(value, rel=1e-6)
    assert value != found['before'][name]


def test_images_of_training_are_told(run, capfd):
  assert evaluate(run, '--calibrate=train[200:300]') == 0
  err = problems(capfd.readouterr().err)
  assert 'warning: --calibrate=train[200:300] has 100 images of' in err
  assert err.count('\n') == 1


REFUSED = {
  'the same': (SCORED, ['100 images', 'config.data.eval_split']),
  'a part': ('train[:50]+test[:201]', ['has 1 images', "--calibrate='test[:"]),
  'an unknown split': ('tset', ['--calibrate', "did you mean 'test'"]),
  'a malformed split': ('test[', ["--calibrate='test['", 'malformed']),
  'an empty split': ('test[5:5]', ['--calibrate', 'empty']),
}


@pytest.mark.parametrize('case', REFUSED)
def test_splits_that_are_refused(case, run, capfd):
  split, words = REFUSED[case]
  assert evaluate(run, f'--calibrate={split}') == 2
  out, err = capfd.readouterr()
  assert (out, err.count('\n')) == ('', 1), err
  assert all(word in err for word in words), err


@pytest.mark.parametrize('mode', ['evaluate', 'predict'])
@pytest.mark.parametrize('value', ['0', '-1', 'nan', 'inf', 'warm'])
def test_numbers_that_are_refused(mode, value, run, capfd):
  flags = f'--workdir={run}', f'--temperature={value}'
  assert launch.main(['', f'--mode={mode}', *flags]) == 2
  out, err = capfd.readouterr()
  assert (out, err.count('\n')) == ('', 1), err
  assert f'--temperature={value}' in err


def test_one_temperature_is_given(run, capfd):
  assert evaluate(run, '--temperature=2', f'--calibrate={FIT}') == 2
  err = capfd.readouterr().err
  assert 'leave out one' in err
  assert err.count('\n') == 1


def test_predictions_have_a_temperature_if_it_is_given(run, tmp_path, capfd):
  pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  rows = []
  for name, flags in (('1', ()), ('2', ('--temperature=0.5',))):
    path = tmp_path / f'{name}.csv'
    code = launch.main(
      [
        *('', '--mode=predict', f'--workdir={run}', '--top_k=10'),
        *(f'--images={tmp_path}/a.png', f'--output={path}', *flags),
      ]
    )
    assert code == 0, capfd.readouterr().err
    with path.open() as file:
      rows.append(list(csv.reader(file))[1][1:])
  (names, plain), (other_names, cold) = (
    (row[::2], np.array(row[1::2], float)) for row in rows
  )
  assert names == other_names
  np.testing.assert_allclose(cold, plain**2 / (plain**2).sum(), rtol=1e-4)
  assert cold[0] > plain[0]
