"""Linear CKA: against its definition, and the mode against NumPy."""

import itertools
import os

import numpy as np
import pytest
from conftest import last_of_each
from run_files import problems
from saved_run import save_run

import googlenet
import launch
from googlenet.data.sources import load_dataset
from googlenet.tools.circuits import cka, stream


def draw(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape)


def gram(x):
  return np.asarray(x, np.float64) @ np.asarray(x, np.float64).T


def similar(*batches, is_real=None):
  """CKA of x and y from batches of (x, y), as the mode computes it."""
  sums = cka.no_sums(1, 1)
  for x, y in batches:
    real = np.ones(len(x), bool) if is_real is None else is_real
    sums = cka.add(sums, [gram(x)], [gram(y)], real)
  return cka.similarity(sums)[0, 0]


def test_hsic_is_the_mean_over_all_choices_of_four_images():
  """Its definition as a U-statistic: Song et al., 2012."""
  k, other = gram(draw(7, 3)), gram(draw(7, 2, seed=1))
  terms = [
    k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
    for i, j, q, r in itertools.permutations(range(7), 4)
  ]
  found = cka.hsic(k[None], other[None])
  np.testing.assert_allclose(found, [[np.mean(terms)]])


def test_several_points_at_once_are_those_of_one_by_one():
  ks = np.stack([gram(draw(9, 3, seed=i)) for i in range(3)])
  whole = cka.hsic(ks, ks[1:])
  for i, j in np.ndindex(whole.shape):
    one = cka.hsic(ks[i : i + 1], ks[j + 1 : j + 2])
    np.testing.assert_allclose(whole[i, j], one[0, 0], rtol=1e-12)


def test_many_images_give_the_formula_of_the_paper():
  """Kornblith et al., equation 15: ||Y^T X||^2 / (||X^T X|| ||Y^T Y||)."""
  x = draw(2000, 5)
  y = x @ draw(5, 4, seed=1) + draw(2000, 4, seed=2)
  cx, cy = x - x.mean(0), y - y.mean(0)
  norm = np.linalg.norm
  expected = norm(cy.T @ cx) ** 2 / (norm(cx.T @ cx) * norm(cy.T @ cy))
  assert 0.3 < expected < 0.9
  assert similar((x, y)) == pytest.approx(expected, abs=2e-3)


def test_rotation_scale_and_offset_change_nothing():
  x, y = draw(40, 6), draw(40, 8, seed=1) + 1
  y[:, :3] += x[:, :3]
  rotation, _ = np.linalg.qr(draw(6, 6, seed=2))
  before = similar((x, y))
  assert 0.05 < before < 0.9
  assert similar((3 * x @ rotation + 2, -y)) == pytest.approx(before)
  stretched = x * np.array([9, 1, 1, 1, 1, 1])
  assert abs(similar((stretched, y)) - before) > 0.01


def test_a_layer_is_similar_to_itself_and_to_no_noise():
  x = draw(64, 200)
  assert similar((x, x)) == pytest.approx(1)
  noise = [
    similar((draw(64, 200, seed=i), draw(64, 200, seed=100 + i)))
    for i in range(20)
  ]
  # Without the correction for few images it would be 200 / (200 + 64) = 0.76.
  assert abs(np.mean(noise)) < 0.02


def test_batches_are_averaged_and_padding_does_not_count():
  x, y = draw(12, 5), draw(12, 3, seed=1)
  y[:, :2] += x[:, :2]
  halves = [(x[:8], y[:8]), (x[8:], y[8:])]
  terms = np.zeros(3)
  for a, b in halves:
    pairs = (a, b), (a, a), (b, b)
    terms += [
      len(a) * cka.hsic(gram(p)[None], gram(q)[None])[0, 0] for p, q in pairs
    ]
  expected = terms[0] / np.sqrt(terms[1] * terms[2])
  assert similar(*halves) == pytest.approx(expected)
  # Too few images for an estimate.
  assert similar(*halves, (x[:3], y[:3])) == pytest.approx(expected)
  padded = [np.concatenate([z, 99 + z]) for z in (x, y)]
  is_real = np.arange(24) < 12
  assert similar(padded, is_real=is_real) == pytest.approx(similar((x, y)))


def test_dead_units_have_no_similarity():
  assert np.isnan(similar((np.ones((8, 3)), draw(8, 3))))


def test_every_image_comes_once_in_an_order_of_the_seed():
  orders = []
  for seed in (0, 0, 1):
    parts = stream.index_batches(10, 4, 2, seed)
    flat = np.concatenate([part.indices for part in parts])
    assert len(flat) == 12
    assert sorted(flat) == [-1, -1, *range(10)]
    orders.append(flat.tolist())
  assert orders[0] == orders[1] != orders[2]


@pytest.fixture
def runs(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config.eval.batch_size = 16
  config.data.eval_split = 'test[:40]'
  save_run(tmp_path / 'a', config)
  config.data.image_size = 32
  save_run(tmp_path / 'b', config, seed=1)
  return tmp_path


def run(*flags, code=0):
  argv = ['launch.py', '--mode=similarity', *flags]
  argv = last_of_each([*argv, '--config.train.compilation_cache='])
  assert launch.main(argv) == code


def features(config, folder, point):
  images, _ = load_dataset(config.data, 'test').read(np.arange(40))
  found = googlenet.load(folder).features(images, [point])[point]
  return found.reshape(40, -1).astype(np.float64)


def test_the_mode_of_two_runs(runs, config, capfd):
  flags = ['--workdir=a,b', '--end_points=stage_2,conv_1']
  run(*flags, '--output=cka.npz')
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  with np.load('cka.npz', allow_pickle=False) as found:
    assert found['rows'].tolist() == ['stage_2', 'conv_1']
    assert found['images'] == 40
    values = found['cka']
  parts = stream.index_batches(40, 16, 1, 0)
  for (i, first), (j, second) in itertools.product(
    enumerate(['stage_2', 'conv_1']), repeat=2
  ):
    x, y = features(config, 'a', first), features(config, 'b', second)
    sums = np.zeros(3)
    for part in parts:
      index = part.indices[part.indices >= 0]
      k, other = gram(x[index])[None], gram(y[index])[None]
      for place, pair in enumerate([(k, other), (k, k), (other, other)]):
        sums[place] += len(index) * cka.hsic(*pair)[0, 0]
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    assert values[i, j] == pytest.approx(expected, abs=1e-3)
  assert f'stage_2  {values[0, 0]:5.2f} {values[0, 1]:5.2f}\n' in shown.out
  assert 'images   40 of fashion_mnist test[:40]' in shown.out
  run(*flags, '--output=again.npz')
  assert (runs / 'cka.npz').read_bytes() == (runs / 'again.npz').read_bytes()


def test_the_mode_of_one_run_as_a_picture(runs, capfd):
  run('--workdir=a', '--output=cka.png')
  out = capfd.readouterr().out
  lines = out.splitlines()
  assert lines[1].split() == ['conv_1', '1.00', *lines[1].split()[2:]]
  assert 'columns: 1 conv_1, 2 inception_2a, 3 logits' in out
  assert (runs / 'cka.png').read_bytes().startswith(b'\x89PNG')


BAD_INPUT = {
  'an unknown point': (
    ['--end_points=inception_2b', '--output=c.png'],
    ['--end_points: ', "did you mean 'inception_2a'"],
  ),
  'three runs': (['--workdir=a,b,a'], ['--workdir names 3 runs', 'two']),
  'few images': (['--config.data.eval_split=test[:3]'], ['3 images', '4 or']),
  'a negative seed': (['--seed=-1'], ['--seed=-1', 'from 0']),
  'an unknown format': (['--output=c.txt'], ['--output=c.txt', '.png']),
  'a file that is there': (['--output=a', '--format=png'], ['exists already']),
  'a run that is not there': (['--workdir=a,c'], ['--workdir=c']),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(runs, capfd, case):
  flags, words = BAD_INPUT[case]
  before = sorted(os.listdir())
  run('--workdir=a,b', *flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  assert shown.err.startswith('error: ')
  assert shown.err.count('\n') == 1
  for word in words:
    assert word in shown.err
  assert sorted(os.listdir()) == before
