"""What excites a channel: rankings against plain sorts, and --mode=examples."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, environment, last_of_each
from PIL import Image
from run_files import problems
from saved_run import save_run

import googlenet
import launch
from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.tools.examples import gallery, made, sheet
from googlenet.tools.examples.ranking import top_images
from googlenet.tools.examples.receptive import receptive_field
from googlenet.tools.inference.channels import Channel
from googlenet.tools.visualize.rendered import Rendered

CHANNELS = (
  Channel('stage_1', 3),
  Channel('inception_2a', 0),
  Channel('stage_1', 1),
  Channel('logits', 9),
  Channel('inception_2a', 20),
)


def make_net(folder, config, count=500, batch_size=64):
  config.data.eval_split = f'test[:{count}]'
  config.eval.batch_size = batch_size
  save_run(folder / 'run', config)
  net = googlenet.load(folder / 'run')
  return net, pipeline.load_split(net.config, 'eval_split')


def plain(net, dataset, channel):
  """Returns the largest value and its place, by image: [N] and [N, 2]."""
  images, _ = dataset.read(np.arange(dataset.num_examples))
  y = net.features(images, [channel.point])[channel.point][..., channel.index]
  if y.ndim == 1:
    return y, np.zeros((len(y), 2), int)
  values = y.max((1, 2))
  places = [np.argwhere(a == v)[0] for a, v in zip(y, values, strict=True)]
  return values, np.array(places)


@pytest.mark.parametrize('on_device_mb', [0, 100])
def test_rankings_are_those_of_a_sort(tmp_path, config, on_device_mb):
  """500 images in batches of 64, kept on the device or streamed."""
  config.data.on_device_mb = on_device_mb
  net, dataset = make_net(tmp_path, config)
  found = top_images(net, dataset, CHANNELS, k=9, least=5)
  for i, channel in enumerate(CHANNELS):
    values, places = plain(net, dataset, channel)
    order = np.lexsort((np.arange(500), -values))
    for ranking, expected in [
      (found.most, order[:9]),
      (found.least, np.lexsort((np.arange(500), values))[:5]),
    ]:
      np.testing.assert_array_equal(ranking.indices[i], expected)
      np.testing.assert_allclose(
        ranking.values[i], values[expected], rtol=1e-5, atol=1e-6
      )
      np.testing.assert_array_equal(ranking.positions[i], places[expected])


def dataset_of(dataset, images):
  """The data set with other images, all of class 0."""

  def read(indices, epoch=0):
    indices = np.asarray(indices)
    return images[indices], np.zeros(len(indices), np.int32)

  return dataset._replace(read=read, num_examples=len(images))


def test_equal_images_come_in_order_and_padding_never(tmp_path, config):
  """11 images in batches of 4: two kinds, and a black one at the end."""
  net, dataset = make_net(tmp_path, config, batch_size=4)
  rng = np.random.default_rng(0)
  kinds = rng.integers(0, 256, (2, 28, 28, 1), np.uint8)
  images = np.concatenate(
    [kinds[[0, 1, 0, 1, 1, 0, 0, 1, 0, 1]], 0 * kinds[:1]]
  )
  found = top_images(net, dataset_of(dataset, images), CHANNELS, k=40)
  for i, channel in enumerate(CHANNELS):
    y = net.features(images, [channel.point])[channel.point][..., channel.index]
    values = y.reshape(11, -1).max(1).round(4)
    for ranking, sign in [(found.most, -1), (found.least, 1)]:
      # All images, since there are fewer than 40, and each once.
      expected = np.lexsort((np.arange(11), sign * values))
      np.testing.assert_array_equal(ranking.indices[i], expected)


def test_the_position_is_where_the_pattern_is(tmp_path, config):
  """A filter that is one pixel finds the only bright one, in a known place."""
  net, dataset = make_net(tmp_path, config)
  params = jax.tree.map(lambda x: np.array(x), net.params)
  weights = params['conv_1/conv_7x7']['w']  # stride 2, two pixels before
  weights[..., 2] = 0
  weights[2, 2, :, 2] = 1
  net = net._replace(params=jax.tree.map(jax.numpy.asarray, params))
  images = np.zeros((40, 28, 28, 1), np.uint8)
  rng = np.random.default_rng(1)
  places = rng.integers(0, 14, (40, 2))
  bright = rng.permutation(np.arange(100, 140))
  for image, (row, column), value in zip(images, places, bright, strict=True):
    image[2 * row, 2 * column] = value
  channel = Channel('conv_1', 2)
  found = top_images(net, dataset_of(dataset, images), [channel], k=40)
  order = np.argsort(-bright)
  np.testing.assert_array_equal(found.most.indices[0], order)
  np.testing.assert_array_equal(found.most.positions[0], places[order])
  np.testing.assert_array_equal(found.least.indices[0], order[::-1])


def test_infinite_activations_are_refused(tmp_path, config):
  net, dataset = make_net(tmp_path, config, count=20)
  params = jax.tree.map(lambda x: x * np.float32('nan'), net.params)
  with pytest.raises(UserError, match='infinite or NaN'):
    top_images(net._replace(params=params), dataset, CHANNELS, k=2)


def test_channels_may_be_pairs_that_the_network_has(tmp_path, config):
  net, dataset = make_net(tmp_path, config, count=20)
  found = top_images(net, dataset, [('stage_1', 3)], k=2)
  expected = top_images(net, dataset, [Channel('stage_1', 3)], k=2)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  for channel, words in {
    ('stage_1', 8): '^channels=8: stage_1 has channels 0 to 7$',
    ('stage_1', -1): '^channels=-1 is no channel: allowed are whole numbers',
    ('stage_9', 1): "^'stage_9' is no point of the network, did you mean",
    'stage_1:3': "^channels: 'stage_1:3' is no channel; allowed are pairs",
  }.items():
    with pytest.raises(UserError, match=words):
      top_images(net, dataset, [channel], k=2)


PROGRAM = """
import json, sys
import googlenet
from googlenet.data import pipeline
from googlenet.tools.examples.ranking import top_images
from googlenet.tools.inference.channels import Channel

net = googlenet.load(sys.argv[1])
dataset = pipeline.load_split(net.config, 'eval_split')
channels = [Channel(*item) for item in json.loads(sys.argv[2])]
found = top_images(net, dataset, channels, k=9)
print(json.dumps([x.tolist() for part in found for x in part]))
"""


def test_several_devices_find_the_same(tmp_path, config):
  net, dataset = make_net(tmp_path, config, count=101, batch_size=30)
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, str(net.path.parent.parent)]
    + [json.dumps(CHANNELS)],
    cwd=ROOT,
    env={**os.environ, **environment(4)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  others = json.loads(done.stdout.splitlines()[-1])
  found = top_images(net, dataset, CHANNELS, k=9)
  for ours, theirs in zip(
    [x for part in found for x in part], others, strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# ---- The mode.


def examples(*flags, code=0):
  argv = ['launch.py', '--mode=examples', '--workdir=runs/trial', *flags]
  argv = last_of_each([*argv, '--config.train.compilation_cache='])
  assert launch.main(argv) == code


@pytest.fixture
def run(tmp_path, config, monkeypatch):
  """A run in the current folder."""
  monkeypatch.chdir(tmp_path)
  config.eval.batch_size = 32
  config.data.eval_split = 'test[:50]'
  save_run(tmp_path / 'runs/trial', config)
  return tmp_path


def test_arrays_of_the_mode(run, capfd):
  examples(
    '--channels=stage_1:3,logits:0-1',
    '--top_k=4',
    '--least=2',
    '--output=a.npz',
  )
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  assert 'examples a.npz: 3 channels of 50 images, ' in shown.out
  net = googlenet.load('runs/trial')
  dataset = pipeline.load_split(net.config, 'eval_split')
  channels = [Channel('stage_1', 3), Channel('logits', 0), Channel('logits', 1)]
  expected = top_images(net, dataset, channels, 4, 2)
  field = receptive_field(net.network, 'stage_1', (28, 28, 1))
  with np.load('a.npz', allow_pickle=False) as found:
    assert found['channels'].tolist() == ['stage_1:3', 'logits:0', 'logits:1']
    for prefix, ranking in (('', expected.most), ('least_', expected.least)):
      for name, array in ranking._asdict().items():
        np.testing.assert_array_equal(found[prefix + name], array)
      labels = [dataset.read(row)[1] for row in ranking.indices]
      np.testing.assert_array_equal(found[prefix + 'labels'], labels)
      boxes = found[prefix + 'boxes']
      assert boxes.shape == (*ranking.indices.shape, 4)
      for box, place in zip(boxes[0], ranking.positions[0], strict=True):
        assert tuple(box) == field.box(*place)
      assert (boxes[1:] == [0, 0, 28, 28]).all()
    assert found['class_names'].tolist() == list(dataset.class_names)


def test_a_picture_of_the_mode(run, capfd):
  """Pixels of the best image, below the name, with its box drawn."""
  examples('--channels=stage_1:3,stage_2:1', '--top_k=3', '--output=a.png')
  assert problems(capfd.readouterr().err) == ''
  picture = np.asarray(Image.open('a.png'))
  net = googlenet.load('runs/trial')
  dataset = pipeline.load_split(net.config, 'eval_split')
  found = top_images(net, dataset, [Channel('stage_1', 3)], 3, 0)
  (entry,) = gallery.entries(net, dataset, [Channel('stage_1', 3)], found)
  assert len(entry.most) == 3
  assert entry.least == []
  row, column = found.most.positions[0, 0]
  assert entry.most[0].box == entry.field.box(row, column)
  tile = np.asarray(sheet.with_box(entry.most[0], 28, 112))
  left = picture[:, sheet._GAP :][:, :112]  # the first image of each row
  places = [(left[y:][:112] == tile).all() for y in range(len(left) - 112)]
  assert places.count(True) == 1
  # Outside of the box are the pixels of the image, on its edge is the box.
  top, left, bottom, right = (4 * x for x in entry.most[0].box)
  plain = entry.most[0].image.repeat(4, 0).repeat(4, 1)
  outside = np.ones((112, 112), bool)
  outside[top:bottom, left:right] = False
  y, x = (4 * place for place in entry.most[0].centre)
  assert top <= y <= bottom
  assert left <= x <= right
  np.testing.assert_array_equal(
    tile[outside], np.broadcast_to(plain, tile.shape)[outside]
  )
  for line in (tile[top, left:right], tile[top:bottom, right - 1]):
    np.testing.assert_array_equal(line, [(255, 140, 0)] * len(line))


def test_a_folder_of_other_classes(run, capfd):
  """Twelve classes, of which the network knows ten, read while it computes."""
  rng = np.random.default_rng(0)
  for split in ('train', 'test'):
    for k in range(12):
      os.makedirs(f'photos/{split}/class {k}')
      pixels = rng.integers(0, 256, (30, 40 + k), np.uint8)
      Image.fromarray(pixels).save(f'photos/{split}/class {k}/a.png')
  flags = [
    f'--config.data.{field}'
    for field in (
      *('source=folder', 'data_dir=photos', 'train_split=train'),
      *('eval_split=test', 'on_device_mb=0'),
    )
  ]
  examples(*flags, '--channels=stage_1:0', '--top_k=20', '--output=a.npz')
  assert 'examples a.npz: 1 channel of 12 images' in capfd.readouterr().out
  with np.load('a.npz', allow_pickle=False) as found:
    assert sorted(found['labels'][0]) == list(range(12))
    assert found['class_names'][11] == 'class 11'
    net = googlenet.load('runs/trial')
    names = found['class_names'][found['labels'][0]]
    images = net.read([f'photos/test/{name}/a.png' for name in names])
    y = net.features(images, ['stage_1'])['stage_1'][..., 0].max((1, 2))
    np.testing.assert_allclose(found['values'][0], y, rtol=1e-5)
    assert (np.diff(y) <= 0).all()


@pytest.fixture
def drawn(monkeypatch):
  """In place of gradient ascent: grey images, by the names of channels."""
  known = {'stage_1:3': 30, 'logits:0': 90, 'stage_1:1': 150}

  def render(net, parts, steps, seed):
    assert (steps, seed) == (3, 2)
    names = [name for part in parts for name in part.names]
    images = np.stack([np.full((28, 28, 1), known[n], np.uint8) for n in names])
    return Rendered(images, np.zeros(len(names)), None, None, tuple(names))

  monkeypatch.setattr(made, 'render', render)
  return known


def test_made_images_come_first(run, capfd, drawn):
  """Each beside its channel, whatever the order of points."""
  flags = '--visualize', '--steps=3', '--seed=2', '--top_k=2'
  names = f'--channels={",".join(drawn)}'
  examples(names, *flags, '--output=a.npz')
  examples(names, *flags, '--output=a.png')
  assert problems(capfd.readouterr().err) == ''
  with np.load('a.npz', allow_pickle=False) as found:
    images = found['made']
  assert images.shape == (3, 28, 28, 1)
  assert [image.max() for image in images] == list(drawn.values())
  left = np.asarray(Image.open('a.png'))[:, sheet._GAP :][:, :112]
  rows = [y for y in range(len(left)) if len(np.unique(left[y])) == 1]
  greys = [left[y, 0, 0] for y in rows if left[y, 0, 0] < 255]
  assert greys == [g for g in drawn.values() for _ in range(112)]
  examples('--channels=stage_1:3', '--steps=3', '--output=b.png', code=2)
  assert 'add --visualize' in capfd.readouterr().err


@pytest.mark.slow
def test_a_made_image_excites_its_channel(run):
  net = googlenet.load('runs/trial')
  channels = [Channel('stage_1', 3), Channel('inception_2a', 1)]
  images = made.images(net, channels, steps=64)
  for i, channel in enumerate(channels):
    means = net.features(images, [channel.point])[channel.point].mean((1, 2))
    assert means[:, channel.index].argmax() == i


BAD_INPUT = {
  'no channels': (['--output=a.png'], ['--channels=']),
  'an unknown point': (
    ['--output=a.png', '--channels=inception_9a'],
    ['--channels', 'inception_9a'],
  ),
  'a channel too many': (
    ['--output=a.png', '--channels=stage_1:8'],
    ['--channels=stage_1:8', '0 to 7'],
  ),
  'no image': (
    ['--output=a.png', '--channels=stage_1', '--top_k=0'],
    ['--top_k=0', 'from 1'],
  ),
  'fewer than none': (
    ['--output=a.png', '--channels=stage_1', '--least=-1'],
    ['--least=-1', 'from 0'],
  ),
  'too wide a picture': (
    ['--output=a.png', '--channels=stage_1', '--top_k=60', '--least=41'],
    ['--top_k=60 and --least=41 are 101 images', 'at most 100'],
  ),
  'no output': (
    ['--channels=stage_1'],
    ['--output= has no known ending', '.png, .npz'],
  ),
  'an output that is there': (
    ['--output=runs', '--format=npz', '--channels=stage_1'],
    ['--output=runs exists already'],
  ),
  'no run': (
    ['--output=a.png', '--channels=stage_1', '--workdir=nowhere'],
    ['nowhere'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(run, capfd, case):
  flags, words = BAD_INPUT[case]
  before = sorted(run.rglob('*'))
  examples(*flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  assert shown.err.startswith('error: ')
  assert shown.err.count('\n') == 1
  for word in words:
    assert word in shown.err
  assert sorted(run.rglob('*')) == before


def test_a_picture_has_a_limit(run, capfd, monkeypatch):
  monkeypatch.setattr(sheet, 'MAX_ROWS', 7)
  examples('--channels=stage_1', '--output=a.png', code=2)
  assert 'are 8 channels, and a picture has at most 7' in capfd.readouterr().err


def test_long_names_are_cut():
  font = sheet.font(13)
  short = sheet._shortened(
    'a name that is much longer than its image', font, 80
  )
  assert short.endswith('…')
  assert 60 < font.getlength(short) <= 80
  assert sheet._shortened('Bag', font, 80) == 'Bag'
