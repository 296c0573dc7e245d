"""Data that are not there, not whole, or not those of the config: one line."""

import gzip
import pathlib
import shutil

import photos
import pytest

from googlenet.data import bundled

DATA = pathlib.Path(bundled.__file__).parent / 'fashion_mnist'


def damaged(tmp_path: pathlib.Path, kind: str) -> str:
  folder = tmp_path / 'damaged'
  shutil.copytree(DATA, folder)
  path = folder / 't10k-images-idx3-ubyte.gz'
  if kind == 'missing':
    path.unlink()
  elif kind == 'truncated':
    path.write_bytes(path.read_bytes()[:100_000])
  elif kind == 'changed':
    pixels = bytearray(gzip.decompress(path.read_bytes()))
    pixels[5000] ^= 1
    path.write_bytes(gzip.compress(bytes(pixels), 1))
  return f'--config.data.data_dir={folder}'


# Flags (or a function of tmp_path that makes them), what the line must say.
BAD_INPUT = {
  'two channels': (
    ['--config.data.channels=2'],
    ['config.data.channels=2', 'one of 0, 1, 3'],
  ),
  'mean for other channels': (
    ['--config.data.mean=(0.1,0.2)'],
    ['config.data.mean', '1 channel'],
  ),
  'border of an image': (
    ['--config.augment.crop_padding=28'],
    ['config.augment.crop_padding=28', '28x28', 'at most 27'],
  ),
  'square larger than an image': (
    ['--config.augment.cutout_size=56'],
    ['config.augment.cutout_size=56', 'at most 55'],
  ),
  'shift out of an image': (
    ['--config.eval.shift=28'],
    ['config.eval.shift=28', 'at most 27'],
  ),
  'unknown split': (
    ['--config.data.train_split=trian'],
    ["config.data.train_split='trian'", "'train'"],
  ),
  'malformed slice': (
    ['--config.data.eval_split=test[5'],
    ["config.data.eval_split='test[5'", 'malformed'],
  ),
  'unknown source': (
    ['--config.data.source=web'],
    ['config.data.source', "'web'", 'bundled, idx, folder'],
  ),
  'set that is not bundled': (
    ['--config.data.name=cifar10'],
    ['config.data.name', 'cifar10', '--config.data.source=tfds'],
  ),
  'set that is not prepared': (
    lambda tmp_path: [
      '--config.data.source=tfds',
      '--config.data.name=cifar10',
      f'--config.data.data_dir={tmp_path}',
    ],
    ['cifar10', 'not prepared', 'download_and_prepare'],
  ),
  'labels outside num_classes': (
    ['--config.model.num_classes=9'],
    ['config.model.num_classes=9', '10 classes', 'at least 10'],
  ),
  'batch larger than the data': (
    ['--config.data.train_split=train[:50]'],
    ['config.train.batch_size=64', '50 images'],
  ),
  'missing data file': (
    lambda tmp_path: [damaged(tmp_path, 'missing')],
    ['t10k-images-idx3-ubyte.gz', 'no such file'],
  ),
  'truncated data file': (
    lambda tmp_path: [damaged(tmp_path, 'truncated')],
    ['t10k-images-idx3-ubyte.gz', 'cannot be unpacked'],
  ),
  'changed data file': (
    lambda tmp_path: [damaged(tmp_path, 'changed')],
    ['t10k-images-idx3-ubyte.gz', 'SHA-256'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_data_are_one_line(case, tmp_path, assert_refused):
  flags, words = BAD_INPUT[case]
  assert_refused(flags(tmp_path) if callable(flags) else flags, words)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--config.augment.random_resized_crop=false'], []),
    (['--config.data.workers=1'], ['truncated', 'delete that folder']),
  ],
  ids=['read at once', 'read by a worker'],
)
def test_a_damaged_image_is_one_line(flags, words, photos_dir, assert_refused):
  words = ["config.data.name='damaged_photos': image ", '(photo_5.jpg)', *words]
  assert_refused([*photos.flags(photos_dir, 'damaged_photos'), *flags], words)
