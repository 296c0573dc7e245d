"""What excites a channel: rankings against plain sorts, and --mode=examples."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, environment
from saved_run import save_run

import googlenet
from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.tools.examples.ranking import top_images
from googlenet.tools.inference.channels import Channel

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
  images = np.concatenate([kinds[[0, 1, 0, 1, 1, 0, 0, 1, 0, 1]], 0 * kinds[:1]])
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
    env=environment_of(4),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  others = json.loads(done.stdout.splitlines()[-1])
  found = top_images(net, dataset, CHANNELS, k=9)
  for ours, theirs in zip([x for part in found for x in part], others, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def environment_of(devices):
  import os

  return {**os.environ, **environment(devices)}
