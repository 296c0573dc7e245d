"""--mode=visualize: sheets, arrays, animations and folders; mistakes."""

import numpy as np
import pytest
from conftest import last_of_each, small_config, start
from PIL import Image
from run_files import files_under, problems
from saved_run import save_run

import googlenet
import launch
from googlenet.tools.visualize import files, objectives, render, sheet


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """Two runs and a photo, in the current folder."""
  monkeypatch.chdir(tmp_path)
  save_run(tmp_path / 'runs/one', config)
  config.model.normalization = 'batch'
  save_run(tmp_path / 'runs/two', config, seed=1)
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
  Image.fromarray(pixels).save('photo.png')
  return tmp_path


def visualize(*flags: str, code: int = 0) -> None:
  argv = ['launch.py', '--mode=visualize', '--workdir=runs/one', '--steps=3']
  argv = last_of_each([*argv, '--config.train.compilation_cache=', *flags])
  assert launch.main(argv) == code


def test_a_sheet_has_the_images_of_the_function(run, capfd):
  visualize(
    '--channels=inception_2a:3,logits:0-1,inception_2a:1', '--output=a.png'
  )
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  assert 'sheet    a.png: 4 images of 28x28 pixels (shown 4 times' in shown.out
  net = googlenet.load('runs/one')
  made = render.render(
    net,
    [
      objectives.channel('inception_2a', [3, 1]),
      objectives.class_logit([0, 1]),
    ],
    steps=3,
  )
  found = np.asarray(Image.open('a.png'))
  for place, index in enumerate((0, 2, 3, 1)):
    at = sheet.place(place, (28, 28), 2, 3)
    expected = made.images[index].repeat(4, 0).repeat(4, 1).repeat(3, 2)
    np.testing.assert_array_equal(found[at], expected)


def test_runs_stand_side_by_side(run, capfd):
  """The second run by the name of its own point, in a folder."""
  visualize(
    '--workdir=runs/one,runs/two',
    '--channels=stage_1:2=conv_1:5,stage_1:0=conv_1:1',
    '--output=both',
    '--frames=2',
  )
  assert problems(capfd.readouterr().err) == ''
  assert files_under(run / 'both') == [
    'arrays.npz',
    'curves.png',
    'frames',
    'frames/001.png',
    'frames/002.png',
    'sheet.png',
  ]
  with np.load('both/arrays.npz', allow_pickle=False) as found:
    found = dict(found)
  assert list(found['runs']) == ['runs/one', 'runs/two']
  assert list(found['0/names']) == ['stage_1:2', 'stage_1:0']
  assert list(found['1/names']) == ['conv_1:5', 'conv_1:1']
  made = render.render(
    googlenet.load('runs/two'),
    objectives.channel('conv_1', [5, 1]),
    steps=3,
    num_frames=2,
  )
  for name, value in made._asdict().items():
    np.testing.assert_array_equal(found[f'1/{name}'], value)
  picture = np.asarray(Image.open('both/sheet.png'))
  for k in range(2):
    at = sheet.place(2 + k, (28, 28), 3, 2)
    pixels = found[f'{k}/images'][1, ..., 0]
    np.testing.assert_array_equal(picture[at][::4, ::4, 1], pixels)


def test_names_of_runs_are_as_short_as_they_differ():
  short = files.short_names
  assert short(['runs/a/x', 'runs/b/x']) == ['a/x', 'b/x']
  assert short(['runs/a', 'runs']) == ['runs/a', 'runs']
  assert short(['runs/a', 'runs/a']) == ['runs/a', 'runs/a']


def test_a_dream_of_a_photo(run, capfd):
  visualize(
    '--image=photo.png',
    '--channels=conv_1:3,conv_1:2',
    '--size=80',
    '--frames=3',
    '--output=a.npz',
  )
  assert 'arrays   a.npz: 2 images of 30x40 pixels' in capfd.readouterr().out
  with np.load('a.npz') as found:
    assert list(found['names']) == ['conv_1:3', 'conv_1:2']
    assert found['frames'].shape == (3, 2, 30, 40, 1)
    assert found['curves'].shape == (2, 3)  # smaller sizes than 28 are left out
    photo = np.asarray(Image.open('photo.png').convert('L'), int)
    change = np.abs(found['images'][..., 0].astype(int) - photo)
    assert 1 < change.mean() < 10


def test_an_animation(run):
  visualize('--channels=conv_1:0-1', '--frames=3', '--output=a.gif')
  with Image.open('a.gif') as found:
    assert found.n_frames == 3


def test_a_caricature(run):
  visualize(
    '--objective=caricature',
    '--image=photo.png',
    '--channels=stage_1',
    '--output=a.npz',
  )
  net = googlenet.load('runs/one')
  photo = net.read(['photo.png'])
  with np.load('a.npz') as found:
    assert found['names'] == ['stage_1 (caricature)']
    maps = [
      net.features(images, ['stage_1'])['stage_1'].ravel()
      for images in (photo, found['images'])
    ]
    one, other = (y / np.linalg.norm(y) for y in maps)
    expected = np.linalg.norm(maps[1]) * max(one @ other, 0.1) ** 2
    np.testing.assert_allclose(found['values'], [expected], rtol=1e-4)


BAD_INPUT = {
  'no channels': (['--output=a.png'], ['--channels is missing']),
  'no output': (['--channels=stage_1:0'], ['--output is missing']),
  'an unknown ending': (
    ['--channels=stage_1:0', '--output=a.jpg'],
    ['--output=a.jpg', '.png, .npz, .gif'],
  ),
  'an output that is there': (
    ['--channels=stage_1:0', '--output=photo.png'],
    ['--output=photo.png exists already'],
  ),
  'an unknown point': (
    ['--channels=stage_7:0', '--output=a.png'],
    ["'stage_7' is no point", "did you mean 'stage_"],
  ),
  'an unknown channel': (
    ['--channels=stage_1:99999', '--output=a.png'],
    ['--channels=stage_1:99999', 'has channels 0 to'],
  ),
  'an unknown class': (
    ['--channels=logits:Bga', '--output=a.png'],
    ["'Bga' is no class"],
  ),
  'an unknown objective': (
    ['--channels=stage_1:0', '--output=a.png', '--objective=chanel'],
    ['--objective=chanel', "did you mean 'channel'"],
  ),
  'a layer with a channel': (
    ['--channels=stage_1:0', '--output=a.png', '--objective=layer'],
    ['--channels=stage_1:0', 'points without a channel, like stage_1'],
  ),
  'a caricature of nothing': (
    ['--channels=stage_1', '--output=a.png', '--objective=caricature'],
    ['--objective=caricature', '--image'],
  ),
  'no photo': (
    ['--channels=stage_1', '--output=a.png', '--image=b.jpg'],
    ['b.jpg cannot be read'],
  ),
  'steps below zero': (
    ['--channels=stage_1:0', '--output=a.png', '--steps=-1'],
    ['--steps=-1'],
  ),
  'a seed that is too large': (
    ['--channels=stage_1:0', '--output=a.png', '--seed=4294967296'],
    ['--seed=4294967296', '0 to 4294967295'],
  ),
  'a size that fits no memory': (
    ['--channels=stage_1:0', '--output=a.png', '--size=30000'],
    ['--size=30000', '4096'],
  ),
  'more frames than steps': (
    ['--channels=stage_1:0', '--output=a.npz', '--frames=4'],
    ['--frames=4', '3 steps'],
  ),
  'frames in a sheet': (
    ['--channels=stage_1:0', '--output=a.png', '--frames=2'],
    ['--frames=2', '.gif'],
  ),
  'a size that is too small': (
    [
      '--workdir=runs/other',
      '--channels=stage_1:0',
      '--output=a.png',
      '--size=20',
    ],
    ['images of 20x20 are too small', 'smallest side is 63'],
  ),
  'a point that one run lacks': (
    [
      '--workdir=runs/one,runs/other',
      '--channels=inception_2a:0',
      '--output=a.png',
    ],
    [
      '--workdir=runs/other',
      "'inception_2a' is no point",
      'conv_3',
      'stage_3:0=stage_2:0',
    ],
  ),
  'a name too many': (
    ['--channels=stage_1:0=stage_2:0', '--output=a.png'],
    ['--channels=stage_1:0=stage_2:0', '2 points', '1 runs'],
  ),
  'another number of channels': (
    ['--workdir=runs/one,runs/other', '--channels=stage_1', '--output=a.png'],
    ['--channels=stage_1:', 'runs/other', 'channels that both have'],
  ),
}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two runs of different networks and a photo."""
  folder = tmp_path_factory.mktemp('bad')
  config = small_config()
  save_run(folder / 'runs/one', config)
  config.model.variant, config.data.image_size = 'alexnet', 63
  config.model.num_classes = 10
  save_run(folder / 'runs/other', config)
  Image.new('L', (30, 40)).save(folder / 'photo.png')
  return folder


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(runs, monkeypatch, capfd, case):
  monkeypatch.chdir(runs)
  flags, words = BAD_INPUT[case]
  before = sorted(runs.rglob('*'))
  visualize(*flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  lines = shown.err.splitlines()
  assert lines[-1].startswith('error: ')
  for word in words:
    assert word in lines[-1]
  assert sorted(runs.rglob('*')) == before


@pytest.mark.slow
def test_two_devices_make_the_same_images(run):
  """Three channels: one device has a repetition of the last."""
  flags = ['--mode=visualize', '--workdir=runs/one', '--steps=5']
  flags += ['--channels=inception_2a:0-2', '--frames=2']
  for devices in (1, 2):
    done = start(run, *flags, f'--output={devices}.npz', devices=devices)
    assert done.returncode == 0, done.stderr
  with np.load('1.npz') as one, np.load('2.npz') as two:
    for name in ('values', 'curves'):
      np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-5)
    assert one['images'].shape == (3, 28, 28, 1)
    change = np.abs(one['images'].astype(int) - two['images'])
    assert change.max() <= 1
