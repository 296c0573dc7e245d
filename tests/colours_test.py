"""What does not fit together is told: colours, and mean and deviation."""

import contextlib
import threading
from concurrent import futures

import ml_collections
import numpy as np
import pytest
from PIL import Image

from googlenet import config as config_lib
from googlenet.data import colours, constants, encoded, files
from googlenet.data.sources import Dataset, SliceReader
from googlenet.train import setup

FASHION_MNIST = ((0.2860,), (0.3530,))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def data_config(mean, std):
  return ml_collections.ConfigDict({'mean': mean, 'std': std})


@pytest.mark.parametrize(
  ('numbers', 'name', 'channels', 'words'),
  [
    (FASHION_MNIST, 'fashion_mnist', 1, ''),
    (FASHION_MNIST, 'fashion_mnist:3.0.1', 1, ''),
    (FASHION_MNIST, 'cifar10', 3, 'those of Fashion-MNIST, not of cifar10'),
    (FASHION_MNIST, 'mnist', 1, 'those of Fashion-MNIST, not of mnist'),
    (IMAGENET, 'cifar10', 3, ''),
    (((0.5,), (0.5,)), 'mnist', 1, ''),
    (((0.5,), (0.5,)), 'cifar10', 3, 'give all 3 channels of cifar10 the same'),
    # Caffe: a mean colour, no division.
    (((0.48, 0.46, 0.4), (1 / 255,)), 'cifar10', 3, ''),
    (((123.7, 116.3, 103.5), (1.0,)), 'cifar10', 3, 'for pixels in 0..255'),
    (((0.5,), (58.4,)), 'mnist', 1, 'for pixels in 0..255'),
  ],
)
def test_mean_and_deviation_of_other_images(numbers, name, channels, words):
  found = constants.problem(data_config(*numbers), name, channels)
  assert words in found
  assert bool(words) == bool(found)


def test_the_right_mean_and_deviation_are_told(capfd):
  images = np.zeros((4, 2, 2, 3), np.uint8)
  images[::2] = 255
  images[..., 2] //= 5
  read = SliceReader(lambda indices, epoch: (images[indices], None), 0, 4)
  dataset = Dataset('reds', 'train', 4, (2, 2, 3), 2, ('a', 'b'), read)
  constants.check(data_config(*FASHION_MNIST), dataset, 3)
  assert capfd.readouterr().err == (
    'warning: config.data.mean=(0.286,) and std=(0.353,) are those of '
    'Fashion-MNIST, not of reds; its first 4 images have '
    "--config.data.mean='(0.5,0.5,0.1)' --config.data.std='(0.5,0.5,0.1)'; "
    'auto for both measures them\n'
  )
  grey, _ = constants.estimate(images, 1)
  np.testing.assert_allclose(grey, [0.5 * (0.299 + 0.587) + 0.1 * 0.114])
  constants.check(data_config(*IMAGENET), dataset, 3)
  assert capfd.readouterr().err == ''


def test_training_warns_of_a_mean_for_other_images(config, capfd):
  config.data.mean, config.data.std = (72.9,), (90.0,)
  setup.build(config_lib.resolve(config))
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith('warning: config.data.mean=(72.9,) and std=(90,) are ')
  # Of the first 100 images: the whole set has 0.286 and 0.353.
  assert "--config.data.mean='(0.2" in line
  # A run that goes on keeps its numbers.
  setup.build(config_lib.resolve(config), is_resumed=True)
  assert capfd.readouterr().err == ''


def write(path, mode):
  values = np.arange(0, 240, 2, np.uint8).reshape(8, 5, 3)
  Image.fromarray(values).convert(mode).save(path)
  return path


@pytest.mark.parametrize(
  ('mode', 'num_channels', 'words'),
  [
    ('RGB', 1, ''),  # its channels differ by less than 8 levels
    ('L', 1, ''),
    ('L', 3, 'in grey are converted to colour'),
    ('LA', 3, 'in grey are converted to colour'),
    ('RGB', 3, ''),
  ],
)
def test_grey_files_for_a_network(mode, num_channels, words, tmp_path, capfd):
  colours._warn.cache_clear()
  path = write(tmp_path / 'a.png', mode)
  files.make_reader(None, (8, 5, num_channels))(path)
  shown = capfd.readouterr().err
  assert words in shown
  assert bool(words) == bool(shown)


@pytest.mark.parametrize('mode', colours.GREY)
def test_grey_modes_have_one_list(mode, tmp_path):
  image = Image.new(mode, (4, 4))
  assert not colours.has_colours(image)
  stored = {'La': 'LA', 'I;16L': 'I;16'}.get(mode, mode)
  Image.new(stored, (4, 4)).save(tmp_path / 'a.tiff')
  assert files.header(tmp_path / 'a.tiff', False).is_grey


def test_mixed_images_of_training_are_not_told(tmp_path, capfd):
  """They are what the network is trained in."""
  colours._warn.cache_clear()
  paths = [str(write(tmp_path / f'{mode}.png', mode)) for mode in ('L', 'RGB')]
  split = encoded.Labelled(paths, np.zeros(2, np.int32))
  images, _ = encoded.EncodedReader(split, None, (8, 5), 3)(np.arange(2), 0)
  assert images.shape == (2, 8, 5, 3)
  assert capfd.readouterr().err == ''


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'CMYK'])
def test_colour_files_for_a_grey_network_are_told_once(mode, tmp_path, capfd):
  colours._warn.cache_clear()
  image = Image.new('RGB', (9, 9), (200, 30, 30)).convert(mode)
  image.save(tmp_path / 'a.tiff')
  read = files.make_reader(None, (8, 5, 1))
  for _ in range(2):
    read(tmp_path / 'a.tiff')
  assert capfd.readouterr().err == (
    'warning: images in colour are converted to grey, in which the network was '
    'trained\n'
  )


def test_threads_tell_it_once(monkeypatch):
  colours._warn.cache_clear()
  told, both = [], threading.Barrier(2)

  def write(text, file):
    told.append(text)
    with contextlib.suppress(threading.BrokenBarrierError):
      both.wait(0.3)  # for a thread that should not come

  monkeypatch.setattr('tqdm.tqdm.write', write)
  image = Image.new('L', (4, 4))
  with futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(colours.tell_conversion, [image] * 8, [3] * 8))
  assert len(told) == 1
