"""Activation atlas: places, plane and cells against NumPy, and the mode."""

import os
import sys
import types

import numpy as np
import pytest
from conftest import last_of_each
from PIL import Image
from run_files import problems
from saved_run import save_run

import googlenet
import launch
from googlenet.data.sources import load_dataset
from googlenet.errors import UserError
from googlenet.tools.circuits import atlas, icons, pictures
from googlenet.tools.circuits.icons import seen_part

RNG = np.random.default_rng


def test_principal_components_are_those_of_the_svd():
  x = RNG(0).normal(size=(50, 6)) * [5, 1, 3, 1, 1, 1] + 2
  found = atlas.principal(x.astype(np.float32))
  u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
  expected = (u * s)[:, :2]
  for k in range(2):
    sign = np.sign(expected[np.abs(expected[:, k]).argmax(), k])
    np.testing.assert_allclose(found[:, k], sign * expected[:, k], atol=1e-4)
  assert found.dtype == np.float32
  one = atlas.principal(x[:, :1])
  assert one.shape == (50, 2)
  assert not one[:, 1].any()


def test_the_plane_is_of_directions():
  x = np.abs(RNG(0).normal(size=(30, 4))).astype(np.float32)
  plane = atlas.project(x, 'pca', 0)
  scaled = x * RNG(1).uniform(0.1, 9, (30, 1)).astype(np.float32)
  np.testing.assert_allclose(
    atlas.project(scaled, 'pca', 0), plane, rtol=1e-3, atol=1e-5
  )
  assert np.isfinite(atlas.project(np.zeros((5, 3)), 'pca', 0)).all()


def test_cells_hold_their_examples():
  """A grid of 4 over the square from 0 to 1, and two far away."""
  plane = RNG(0).uniform(size=(600, 2))
  plane[:4] = [[0, 0], [1, 1], [0, 1], [1, 0]]
  plane[4:6] = [[50, 0.5], [0.5, -50]]
  assigned = atlas.assign(plane, 4)
  for (x, y), cell in zip(plane, assigned, strict=True):
    column = min(max(int(x * 4), 0), 3)
    row = 3 - min(max(int(y * 4), 0), 3)
    is_near_edge = np.abs(np.array([x, y]) * 4 % 1 - 0.5).max() > 0.45
    assert is_near_edge or tuple(cell) == (row, column)
  assert assigned.min() == 0
  assert assigned.max() == 3
  assert tuple(assigned[4]) == (2, 3) or tuple(assigned[4]) == (1, 3)
  assert assigned[5][0] == 3
  np.testing.assert_array_equal(
    atlas.assign(np.ones((3, 2)), 4), 0 * plane[:3] + [3, 0]
  )


def test_means_members_and_empty_cells():
  activations = RNG(0).normal(size=(7, 3)).astype(np.float32)
  places = [(0, 1), (2, 2), (0, 1), (2, 2), (0, 1), (1, 0), (2, 2)]
  cells = atlas.make_cells(activations, np.array(places), min_examples=2)
  assert cells.places.tolist() == [[0, 1], [2, 2]]  # (1, 0) has one example
  for members, wanted, mean in zip(
    cells.members, ([0, 2, 4], [1, 3, 6]), cells.means, strict=True
  ):
    assert sorted(members) == wanted
    np.testing.assert_allclose(mean, activations[wanted].mean(0), rtol=1e-5)
    far = [np.linalg.norm(activations[k] - mean) for k in members]
    assert far == sorted(far)
  none = atlas.make_cells(activations, np.array(places), min_examples=9)
  assert none.means.shape == (0, 3)


def test_places_are_all_used_and_fixed_by_the_seed():
  places = atlas.draw_places(500, 3, 4, seed=0)
  assert {tuple(p) for p in places} == set(np.ndindex(3, 4))
  np.testing.assert_array_equal(atlas.draw_places(500, 3, 4, seed=0), places)
  assert (atlas.draw_places(500, 3, 4, seed=1) != places).any()


def test_tiles_are_where_their_cells_are():
  white = np.full((5, 5, 1), 255, np.uint8)
  red = np.zeros((4, 9, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
  tiles = [pictures.Tile(0, 2, 0 * white), pictures.Tile(2, 1, red, colour=0)]
  found = np.asarray(pictures.atlas(tiles, 3, 20, names=('a', 'b')))
  assert found.shape[1] == 3 * 22 + 2
  assert found.shape[0] > 3 * 22 + 2  # the legend
  np.testing.assert_array_equal(found[2:22, 46:66], 0)
  np.testing.assert_array_equal(found[46, 24], [31, 119, 180])  # the frame
  np.testing.assert_array_equal(found[56, 34], [255, 0, 0])
  assert (found[:44, :44] == 255).all()


@pytest.fixture
def run_folder(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config.eval.batch_size = 16
  config.data.eval_split = 'test[:120]'
  save_run(tmp_path / 'run', config)
  return tmp_path


def run(*flags, code=0):
  argv = ['launch.py', '--mode=atlas', '--workdir=run', *flags]
  argv = last_of_each([*argv, '--config.train.compilation_cache='])
  assert launch.main(argv) == code


def test_arrays_are_those_of_the_network(run_folder, config, capfd):
  flags = ['--end_points=inception_2a', '--grid=4']
  run(*flags, '--output=a.npz')
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  images, labels = load_dataset(config.data, 'test').read(np.arange(120))
  maps = googlenet.load('run').features(images, ['inception_2a'])
  with np.load('a.npz', allow_pickle=False) as file:
    found = {name: file[name] for name in file.files}
  np.testing.assert_array_equal(found['labels'], labels)
  rows, columns = found['places'].T
  expected = maps['inception_2a'][np.arange(120), rows, columns]
  np.testing.assert_allclose(found['activations'], expected, atol=1e-5)
  for cell, mean, nearest in zip(
    *(found['cells'], found['means'], found['nearest']), strict=True
  ):
    inside = (found['assigned'] == cell).all(1)
    assert inside.sum() >= 2
    np.testing.assert_allclose(
      mean, expected[inside].mean(0), rtol=1e-3, atol=1e-4
    )
    far = np.linalg.norm(expected - mean, axis=1)
    assert inside[nearest]
    assert far[nearest] == pytest.approx(far[inside].min(), rel=1e-3)
  assert f'inception_2a, {len(found["nearest"])} cells with ' in shown.out
  assert 'of the variance of their directions' in shown.out
  # Neither the size of batches nor the order of the images matters.
  run(*flags, '--output=b.npz', '--config.eval.batch_size=50')
  with np.load('b.npz') as other:
    np.testing.assert_array_equal(other['places'], found['places'])
    np.testing.assert_allclose(
      other['activations'], found['activations'], atol=1e-5
    )
  run(*flags, '--output=c.npz', '--seed=1')
  with np.load('c.npz') as other:
    assert (other['places'] != found['places']).any()


def test_a_picture_and_a_vector(run_folder, capfd):
  run('--output=a.png', '--grid=5')
  assert 'a.png: stage_1, ' in capfd.readouterr().out
  with Image.open('a.png') as image:
    assert image.width == 5 * 64 + 2
  run('--output=b.png', '--grid=5', '--end_points=logits')


def test_made_images_excite_their_directions(run_folder):
  """Each its own direction more than it excites those of the others."""
  net = googlenet.load('run')
  vectors = np.eye(28, dtype=np.float32)[[2, 9, 21]]
  images = icons.of_directions(net, 'inception_2a', vectors, steps=40, seed=0)
  assert images.shape == (3, 28, 28, 1)
  centre = net.features(images, ['inception_2a'])['inception_2a'][:, 3, 3]
  centre /= np.linalg.norm(centre, axis=1, keepdims=True)
  cosines = centre @ vectors.T
  assert cosines.argmax(1).tolist() == [0, 1, 2]
  again = icons.of_directions(net, 'inception_2a', vectors, steps=40, seed=0)
  np.testing.assert_array_equal(again, images)


@pytest.mark.slow
def test_a_picture_of_made_images(run_folder):
  run('--output=a.png', '--grid=3', '--render', '--steps=2')
  with Image.open('a.png') as image:
    assert image.width == 3 * 64 + 2


def test_the_part_of_an_image_that_a_place_sees(run_folder):
  net = googlenet.load('run')
  # 7x7 windows with stride 2 and two pixels of padding.
  assert seen_part(net, 'conv_1', (0, 3), (28, 28, 1)) == (
    *(slice(0, 5), slice(4, 11)),
  )
  assert seen_part(net, 'conv_1', (0, 3), (56, 28, 1))[0] == slice(0, 10)
  assert seen_part(net, 'logits', (0, 0), (28, 28, 1))[0] == slice(0, 28)
  assert seen_part(net, 'images', (0, 9), (28, 28, 1))[1] == slice(9, 10)


class Reducer:
  def __init__(self, **settings):
    self.seed = settings['random_state']

  def fit_transform(self, x):
    return RNG(self.seed).normal(size=(len(x), 2))


def test_umap_where_it_is_installed(monkeypatch):
  module = types.ModuleType('umap')
  module.UMAP, module.__spec__ = Reducer, object()
  monkeypatch.setitem(sys.modules, 'umap', module)
  atlas.check_projection('umap')
  x = np.ones((6, 3))
  found = atlas.project(x, 'umap', 5)
  np.testing.assert_array_equal(
    found, Reducer(random_state=5).fit_transform(x).astype(np.float32)
  )


def test_umap_where_it_is_missing(monkeypatch):
  monkeypatch.setitem(sys.modules, 'umap', None)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match='pip install umap-learn.*=pca'):
    atlas.check_projection('umap')


BAD_INPUT = {
  'an unknown point': (['--end_points=stage_9'], ['stage_9', 'did you mean']),
  'two points': (['--end_points=stage_1,stage_2'], ['of one point']),
  'an unknown projection': (['--projection=tsne'], ['tsne', 'pca, umap']),
  'no output': (['--output='], ['--output=', '.png, .npz']),
  'a file that is there': (
    ['--output=run', '--format=png'],
    ['exists already'],
  ),
  'a negative seed': (['--seed=-1'], ['--seed=-1', 'from 0']),
  'a seed that is too large': (
    ['--seed=4294967296', '--render'],
    ['--seed=4294967296', '0 to 4294967295'],
  ),
  'arrays of made images': (['--render', '--output=a.npz'], ['.png']),
  'steps of nothing': (['--steps=9'], ['--steps=9', '--render']),
  'too few images': (
    ['--config.data.eval_split=test[:3]', '--grid=9'],
    ["eval_split='test[:3]'", 'a smaller grid'],
  ),
  'a grid of one cell': (['--grid=1'], ['grid', '2']),
  'a grid that fits no memory': (['--grid=5000'], ['grid', '128']),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(run_folder, capfd, case):
  flags, words = BAD_INPUT[case]
  before = sorted(os.listdir())
  run('--output=a.png', *flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  told = problems(shown.err)  # without what is compiled
  assert told.startswith('error: ')
  assert told.count('\n') <= 1
  for word in words:
    assert word in told
  assert sorted(os.listdir()) == before
