"""Data sources: the bundled files, splits, and TFDS without TensorFlow."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from photos import prepare
from PIL import Image

import googlenet.data
from googlenet.data import bundled
from googlenet.data.classes import check_labels
from googlenet.data.idx import idx_header, read_idx
from googlenet.data.sources import (
  Dataset,
  load_dataset,
  read_all,
)
from googlenet.data.splits import resolve_split
from googlenet.errors import UserError

FOLDER = pathlib.Path(googlenet.data.__file__).parent / 'fashion_mnist'
FILES = {  # SHA-256 of the unpacked contents
  'train-images-idx3-ubyte.gz': (
    'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888'
  ),
  'train-labels-idx1-ubyte.gz': (
    'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9'
  ),
  't10k-images-idx3-ubyte.gz': (
    '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b'
  ),
  't10k-labels-idx1-ubyte.gz': (
    '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34'
  ),
}
TEST_IMAGES, TEST_LABELS = list(FILES)[2:]
NUM_TRAIN, NUM_TEST = 300, 40  # of the TFDS copy
CLASS_NAMES = tuple('abcdefghij')


def _config(
  source: str = 'bundled',
  name: str = 'fashion_mnist',
  data_dir: pathlib.Path | str = '',
  image_size: int = 96,
) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    {
      'source': source,
      'name': name,
      'data_dir': str(data_dir),
      'image_size': image_size,
    }
  )


def _error(call: Callable[[], object]) -> str:
  """Returns the one line with which `call` refuses."""
  with pytest.raises(UserError) as caught:
    call()
  text = str(caught.value)
  assert '\n' not in text
  return text


# The bundled files.


@pytest.mark.parametrize(('name', 'sha256'), FILES.items())
def test_bundled_files_are_the_published_ones(name: str, sha256: str) -> None:
  contents = gzip.decompress((FOLDER / name).read_bytes())
  assert hashlib.sha256(contents).hexdigest() == sha256
  array = read_idx(FOLDER / name)
  assert idx_header(array.shape) + array.tobytes() == contents


@pytest.mark.parametrize(('split', 'size'), [('train', 60000), ('test', 10000)])
def test_bundled_split(split: str, size: int) -> None:
  dataset = load_dataset(_config(), split)
  assert dataset.name == 'fashion_mnist'
  assert dataset.split == split
  assert dataset.num_examples == size
  assert dataset.image_shape == (28, 28, 1)
  assert dataset.num_classes == len(dataset.class_names) == 10
  images, labels = read_all(dataset)
  assert images.shape == (size, 28, 28, 1)
  assert images.dtype == np.uint8
  assert labels.shape == (size,)
  assert labels.dtype == np.int32
  assert np.bincount(labels).tolist() == [size // 10] * 10
  if split == 'train':
    assert labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert dataset.class_names[labels[0]] == 'Ankle boot'
  picked = np.array([7, 0, 7, size - 1])
  some_images, some_labels = dataset.read(picked)
  np.testing.assert_array_equal(some_images, images[picked])
  np.testing.assert_array_equal(some_labels, labels[picked])


def test_slice_hides_its_neighbours() -> None:
  whole_images, whole_labels = read_all(load_dataset(_config(), 'test'))
  dataset = load_dataset(_config(), 'test[10%:15%]')
  images, labels = read_all(dataset)
  np.testing.assert_array_equal(images, whole_images[1000:1500])
  np.testing.assert_array_equal(labels, whole_labels[1000:1500])
  for index in (-1, 500):
    with pytest.raises(IndexError):
      dataset.read(np.array([index]))
  assert dataset.read(np.array([], int))[0].shape == (0, 28, 28, 1)


def _damaged(name: str, data: bytes) -> bytes:
  """Damages the bytes of a file in the way that `name` says."""
  if name == 'truncated':
    return data[: len(data) // 2]
  if name == 'flipped bit':
    return data[:2000] + bytes([data[2000] ^ 4]) + data[2001:]
  if name == 'not gzip':
    return gzip.decompress(data)
  contents = bytearray(gzip.decompress(data))
  if name == 'wrong magic':
    contents[2] = 0x0D
  elif name == 'other pixel':
    contents[5000] ^= 1
  elif name == 'trailing bytes':
    contents += b'\0'
  elif name == 'huge header':
    contents[4:16] = b'\xff' * 12
  elif name == 'other dimensions':
    contents[:16] = idx_header((10000, 14, 56))
  elif name == 'fewer images':
    contents = bytearray(idx_header((9999, 28, 28))) + contents[16:-784]
  return gzip.compress(contents, compresslevel=1)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    ('truncated', 'cannot be unpacked (Compressed file ended'),
    ('flipped bit', 'cannot be unpacked'),
    ('not gzip', 'cannot be unpacked (Not a gzipped file'),
    ('wrong magic', 'starts with 00 00 0d 03, expected 00 00 08'),
    ('other pixel', 'its unpacked contents have the SHA-256'),
    ('trailing bytes', 'goes on after its last value'),
    ('huge header', 'its header claims the shape (4294967295,'),
    ('other dimensions', 'shape (10000, 14, 56), expected (10000, 28, 28)'),
    ('fewer images', 'shape (9999, 28, 28), expected (10000, 28, 28)'),
  ],
)
def test_damaged_copy(
  tmp_path: pathlib.Path, damage: str, message: str
) -> None:
  data = (FOLDER / TEST_IMAGES).read_bytes()
  (tmp_path / TEST_IMAGES).write_bytes(_damaged(damage, data))
  shutil.copy(FOLDER / TEST_LABELS, tmp_path)
  text = _error(lambda: load_dataset(_config(data_dir=tmp_path), 'test'))
  assert text.startswith(f'{tmp_path / TEST_IMAGES}: ')
  assert message in text
  assert 'copy it again from its source' in text
  assert 'git' not in text  # which does not have this folder


def test_a_folder_that_is_not_there(tmp_path: pathlib.Path) -> None:
  for source in ('bundled', 'idx'):
    config = _config(source, data_dir=tmp_path / 'gone')
    text = _error(lambda config=config: load_dataset(config, 'test'))
    assert text.startswith(
      f"config.data.data_dir='{tmp_path}/gone': no such folder: give the one "
      'with train-images-idx3-ubyte.gz'
    )


def test_a_damaged_bundled_file_can_be_restored(monkeypatch) -> None:
  file = bundled._FASHION_MNIST['test'].labels._replace(shape=(9,))
  with pytest.raises(UserError, match=rf'git checkout -- \S*/{TEST_LABELS}`$'):
    bundled._read_packaged(file)


def test_missing_and_swapped_files(tmp_path: pathlib.Path) -> None:
  config = _config(data_dir=tmp_path)
  assert 'no such file' in _error(lambda: load_dataset(config, 'test'))
  shutil.copy(FOLDER / TEST_LABELS, tmp_path / TEST_IMAGES)
  text = _error(lambda: load_dataset(config, 'test'))
  assert 'holds the shape (10000,), expected (10000, 28, 28)' in text
  shutil.copy(FOLDER / TEST_IMAGES, tmp_path)
  text = _error(lambda: load_dataset(config, 'test'))
  assert f'{tmp_path / TEST_LABELS}: no such file' in text
  shutil.copy(FOLDER / TEST_LABELS, tmp_path)
  assert load_dataset(config, 'test').num_examples == 10000  # train not needed


def test_unknown_name() -> None:
  text = _error(lambda: load_dataset(_config(name='cifar10'), 'train'))
  assert "config.data.name='cifar10'; allowed is fashion_mnist" in text
  assert '--config.data.source=tfds' in text


# Folders of IDX files.


def _idx_folder(
  folder: pathlib.Path, sizes: dict[str, int], packed: bool = True
) -> pathlib.Path:
  """Writes images of 5x4 pixels whose first pixel is their number."""
  folder.mkdir()
  for prefix, size in sizes.items():
    images = np.zeros((size, 5, 4), np.uint8)
    images[:, 0, 0] = np.arange(size)
    labels = (np.arange(size) % 10).astype(np.uint8)
    for name, array in (('images-idx3', images), ('labels-idx1', labels)):
      data = idx_header(array.shape) + array.tobytes()
      path = folder / f'{prefix}-{name}-ubyte{".gz" * packed}'
      path.write_bytes(gzip.compress(data) if packed else data)
  return folder


@pytest.mark.parametrize('packed', [True, False])
@pytest.mark.parametrize(
  ('name', 'classes'),
  [
    ('mnist', tuple('0123456789')),
    ('kmnist', ('o', 'ki', 'su', 'tsu', 'na', 'ha', 'ma', 'ya', 're', 'wo')),
    ('fashion_mnist', load_dataset(_config(), 'test').class_names),
    ('my_own', tuple('0123456789')),
  ],
)
def test_idx_folders(
  tmp_path: pathlib.Path, name: str, classes: tuple[str, ...], packed: bool
) -> None:
  folder = _idx_folder(tmp_path / 'idx', {'train': 30, 't10k': 20}, packed)
  config = _config('idx', name, folder)
  dataset = load_dataset(config, 'train[:10%]+train[20%:]')
  assert dataset.class_names == classes
  assert dataset.num_examples == 27
  assert dataset.image_shape == (5, 4, 1)
  images, labels = read_all(dataset)
  kept = [0, 1, 2, *range(6, 30)]
  assert images[:, 0, 0, 0].tolist() == kept
  assert labels.tolist() == [i % 10 for i in kept]
  images, labels = dataset.read(np.array([26, 0, 3, 2, 3]))
  assert images[:, 0, 0, 0].tolist() == [29, 0, 6, 2, 6]
  assert labels.tolist() == [9, 0, 6, 2, 6]
  assert dataset.read(np.array([], int))[0].shape == (0, 5, 4, 1)
  for index in (-1, 27):
    with pytest.raises(IndexError):
      dataset.read(np.array([index]))
  both = load_dataset(config, 'test[:2]+train[-1:]')
  assert read_all(both)[0][:, 0, 0, 0].tolist() == [0, 1, 29]


def test_an_idx_folder_tells_labels_without_training_images(
  tmp_path: pathlib.Path,
) -> None:
  folder = _idx_folder(tmp_path / 'idx', {'train': 8, 't10k': 20})
  for name, notes in (
    ('my_own', ('no training image has label 8, 9',)),
    ('mnist', ()),
  ):
    assert load_dataset(_config('idx', name, folder), 'train').notes == notes


def test_idx_folders_of_one_split(tmp_path: pathlib.Path) -> None:
  folder = _idx_folder(tmp_path / 'idx', {'t10k': 20})
  config = _config('idx', 'mnist', folder)
  assert load_dataset(config, 'test').num_examples == 20
  assert 'allowed is one of test (20 images)' in _error(
    lambda: load_dataset(config, 'train')
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ('empty', 'holds no train-images-idx3-ubyte and no t10k-images-idx3-ubyte'),
    ('no labels', 'lacks t10k-labels-idx1-ubyte, packed (.gz) or not: images'),
    ('count', 'holds 19 labels, expected 20, a label for each image'),
    ('swapped', 'holds the shape (20,), expected 3 dimensions of images'),
    ('class', 'holds the label 11, expected labels below 10, because config'),
    ('size', 'images of different sizes (train: 5x4, test: 4x4 pixels)'),
    ('truncated', 'ends after 100 bytes of values, expected 400 for the shape'),
    ('no folder given', "config.data.data_dir='': no folder is given"),
  ],
)
def test_idx_folders_that_do_not_fit(
  tmp_path: pathlib.Path, change: str, message: str
) -> None:
  folder = _idx_folder(tmp_path / 'idx', {'train': 30, 't10k': 20}, False)
  images, labels = (
    folder / f't10k-{kind}-ubyte' for kind in ('images-idx3', 'labels-idx1')
  )
  if change == 'empty':
    shutil.rmtree(folder)
    folder.mkdir()
  elif change == 'no labels':
    labels.unlink()
  elif change == 'count':
    labels.write_bytes(idx_header((19,)) + bytes(19))
  elif change == 'swapped':
    images.write_bytes(labels.read_bytes())
  elif change == 'class':
    labels.write_bytes(idx_header((20,)) + bytes(19) + b'\x0b')
  elif change == 'size':
    images.write_bytes(idx_header((20, 4, 4)) + bytes(320))
  elif change == 'truncated':
    images.write_bytes(images.read_bytes()[: 16 + 100])
  given = '' if change == 'no folder given' else folder
  text = _error(lambda: load_dataset(_config('idx', 'mnist', given), 'test'))
  assert message in text
  assert str(given) in text


# Splits.

SPLITS = [
  'train',
  'test',
  'train[:100]',
  'train[100:]',
  'train[-30:]',
  'train[:-30]',
  'train[-30:-10]',
  'train[10%:90%]',
  'train[:33%]',
  'train[-7%:]',
  'train[0.5%:12.5%]',
  'test[:3.75%]',
  'test[3.75%:]',
  'train[:10%]+train[20%:]',
  'train[:0%]+train[10%:]',
  'train[:90%]+train[100%:]',
  'test[-3:] + train[5:7]+test',
  'train[20:25]+train[10:20]+train[15:22]',
]


@pytest.mark.parametrize('spec', SPLITS)
@pytest.mark.parametrize('sizes', [(300, 40), (60000, 10000), (397, 101)])
def test_splits_mean_what_tfds_means(spec: str, sizes: tuple[int, int]) -> None:
  infos = {
    name: tfds.core.SplitInfo(
      name=name, shard_lengths=[size], num_bytes=0, filename_template=None
    )
    for name, size in zip(('train', 'test'), sizes, strict=True)
  }
  expected = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
  found = resolve_split(spec, dict(zip(infos, sizes, strict=True)))
  parts = []
  for part in expected:
    size = infos[part.splitname].num_examples
    stop = size if part.to is None else part.to
    parts.append((part.splitname, part.from_ or 0, stop))
  assert list(found) == [part for part in parts if part[1] < part[2]]


@pytest.mark.parametrize(
  ('split', 'message'),
  [
    ('tset', "there is no split 'tset', did you mean 'test'?"),
    ('validation[:5]', "there is no split 'validation'; allowed is one of"),
    ('', 'malformed'),
    ('train[', 'malformed'),
    ('train[]', 'malformed'),
    ('train[5]', 'malformed'),
    ('train[1:2:3]', 'malformed'),
    ('train[1.5:]', 'malformed'),
    ('train [:5]', 'malformed'),
    ('train+', 'malformed'),
    ('+train', 'malformed'),
    ('train++test', 'malformed'),
    ('train+tset', "there is no split 'tset'"),
    ('train[:5]+train[:301]', 'bound 301 is out of range'),
    ('train+train[50%:10%]', 'is empty'),
    ('train[:0]+test[:0%]', 'is empty'),
    ('train[:5]\n', 'malformed'),
    ('train[:' + '9' * 5000 + ']', 'malformed'),
    ('train[5:5]', 'is empty'),
    ('train[:0]', 'is empty'),
    ('train[50%:10%]', 'is empty'),
    ('test[:0.1%]', 'is empty'),
    ('train[:301]', 'bound 301 is out of range; allowed is from -300 to 300'),
    ('train[-301:]', 'bound -301 is out of range'),
    ('train[:101%]', 'bound 101% is out of range; allowed is from -100%'),
    ('train[10:90%]', 'mixes a number and a percentage'),
  ],
)
def test_bad_splits(split: str, message: str) -> None:
  text = _error(lambda: resolve_split(split, {'train': 300, 'test': 40}))
  assert text.startswith(f'split={split!r}')
  assert message in text
  if 'malformed' in message:
    assert 'train (300 images), test (40 images)' in text


# TFDS. Each builder gives its images as PNG streams: arrays need TensorFlow.


def _png(array: np.ndarray) -> io.BytesIO:
  stream = io.BytesIO()
  Image.fromarray(array).save(stream, 'png')
  stream.seek(0)
  return stream


class FashionSubset(tfds.core.GeneratorBasedBuilder):
  """The first images of Fashion-MNIST, as a TFDS data set."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(28, 28, 1)),
          'label': tfds.features.ClassLabel(names=CLASS_NAMES),
        }
      ),
    )

  def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
    return {
      'train': self._generate_examples('train', NUM_TRAIN),
      'test': self._generate_examples('test', NUM_TEST),
    }

  def _generate_examples(self, split: str, size: int) -> Iterator:
    images, labels = load_dataset(_config(), split).read(np.arange(size))
    for i in range(size):
      yield i, {'image': _png(images[i, ..., 0]), 'label': int(labels[i])}


class MixedSizes(tfds.core.GeneratorBasedBuilder):
  """Colour images of differing sizes, one stored as a grey one."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(),
          'label': tfds.features.ClassLabel(num_classes=4),
        }
      ),
    )

  def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
    return {'train': self._generate_examples()}

  def _generate_examples(self) -> Iterator:
    for label, shape in enumerate([(20, 30, 3), (8, 8, 3), (5, 50, 3), (9, 7)]):
      image = np.full(shape, 40 * label, np.uint8)
      yield label, {'image': _png(image), 'label': label}


class NoImages(tfds.core.GeneratorBasedBuilder):
  """A data set that is not for image classification."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict({'text': tfds.features.Text()}),
    )

  def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
    return {'train': self._generate_examples()}

  def _generate_examples(self) -> Iterator:
    yield 0, {'text': 'a coat'}


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('tfds')
  for builder_cls in (FashionSubset, MixedSizes, NoImages):
    prepare(builder_cls, folder)
  return folder


def _multiset(dataset: Dataset) -> list[tuple[bytes, int]]:
  images, labels = read_all(dataset)
  assert images.dtype == np.uint8
  assert images.shape == (dataset.num_examples, *dataset.image_shape)
  assert labels.dtype == np.int32
  return sorted(
    (image.tobytes(), int(label))
    for image, label in zip(images, labels, strict=True)
  )


def test_tfds_equals_bundled(tfds_dir: pathlib.Path) -> None:
  for split, size in {'train': NUM_TRAIN, 'test': NUM_TEST}.items():
    dataset = load_dataset(_config('tfds', 'fashion_subset', tfds_dir), split)
    assert dataset.num_examples == size
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.num_classes == 10
    assert dataset.class_names == CLASS_NAMES
    bundled = load_dataset(_config(), f'{split}[:{size}]')
    assert _multiset(dataset) == _multiset(bundled)
  assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize('split', SPLITS)
def test_tfds_slices(tfds_dir: pathlib.Path, split: str) -> None:
  """A slice is the one TFDS itself gives, in the same order."""
  config = _config('tfds', 'fashion_subset:1.0.0', tfds_dir)
  images, labels = read_all(load_dataset(config, split))
  builder = tfds.builder('fashion_subset', data_dir=tfds_dir)
  expected = builder.as_data_source(split)
  assert labels.tolist() == [example['label'] for example in expected]
  np.testing.assert_array_equal(
    images[-1], expected[len(expected) - 1]['image']
  )


def test_tfds_slice_hides_its_neighbours(tfds_dir: pathlib.Path) -> None:
  config = _config('tfds', 'fashion_subset', tfds_dir)
  dataset = load_dataset(config, 'train[10:20]')
  for index in (-1, 10):
    with pytest.raises(IndexError):
      dataset.read(np.array([index]))
  assert dataset.read(np.array([], int))[0].shape == (0, 28, 28, 1)


def test_tfds_images_of_differing_sizes(tfds_dir: pathlib.Path) -> None:
  config = _config('tfds', 'mixed_sizes', tfds_dir, image_size=16)
  dataset = load_dataset(config, 'train')
  assert dataset.image_shape == (16, 16, 3)
  assert dataset.num_classes == 4
  images, labels = read_all(dataset)
  for image, label in zip(images, labels, strict=True):
    np.testing.assert_array_equal(image, np.full((16, 16, 3), 40 * label))


def test_tfds_not_prepared(tmp_path: pathlib.Path) -> None:
  text = _error(
    lambda: load_dataset(_config('tfds', 'cifar10', tmp_path), 'train')
  )
  assert f"config.data.name='cifar10' is not prepared in {tmp_path}" in text
  command = (
    f"tfds.builder('cifar10', data_dir='{tmp_path}', "
    "file_format='array_record').download_and_prepare()"
  )
  assert command in text
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('cifarr10', "did you mean 'cifar10'?"),
    ('no_such_set_at_all', 'neither a data set that TFDS knows nor'),
    ('mnist:9.9.9', '9.9.9, only: '),
    ('mnist/bogus', 'BuilderConfig bogus not found'),
    ('huggingface:mnist', 'allowed is name, name/config, name:1.0.0'),
    ('../mnist', 'allowed is name, name/config, name:1.0.0'),
    ('mnist\n', 'allowed is name, name/config, name:1.0.0'),
  ],
)
def test_tfds_unknown_names(
  tmp_path: pathlib.Path, name: str, message: str
) -> None:
  text = _error(lambda: load_dataset(_config('tfds', name, tmp_path), 'train'))
  assert text.startswith(f'config.data.name={name!r}')
  assert message in text


def test_tfds_remote_folder_is_refused() -> None:
  config = _config('tfds', 'mnist', 'gs://tfds-data/datasets')
  text = _error(lambda: load_dataset(config, 'train'))
  assert 'allowed is a folder of this machine' in text


def test_tfds_bad_split_and_features(tfds_dir: pathlib.Path) -> None:
  config = _config('tfds', 'fashion_subset', tfds_dir)
  text = _error(lambda: load_dataset(config, 'validation'))
  assert re.search(r'test \(40 images\).*train|train.*test \(40 images\)', text)
  text = _error(
    lambda: load_dataset(_config('tfds', 'no_images', tfds_dir), 'train')
  )
  assert "it needs the features 'image'" in text
  assert "but has 'text'" in text


def test_tfds_without_random_access(tmp_path: pathlib.Path) -> None:
  """A set in TFDS's default format, tfrecord (only its description, faked)."""
  folder = prepare(FashionSubset, tmp_path)
  info = json.loads((folder / 'dataset_info.json').read_text())
  info['fileFormat'] = 'tfrecord'
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  config = _config('tfds', 'fashion_subset', tmp_path)
  text = _error(lambda: load_dataset(config, 'train'))
  assert f'is stored in {folder} as tfrecord, which has no random' in text
  assert "file_format='array_record'" in text


@pytest.mark.parametrize('damage', ['missing', 'truncated', 'flipped', 'json'])
def test_tfds_damaged_files(tmp_path: pathlib.Path, damage: str) -> None:
  folder = prepare(FashionSubset, tmp_path)
  (shard,) = folder.glob('*train.array_record*')
  data = bytearray(shard.read_bytes())
  if damage == 'missing':
    shard.unlink()
  elif damage == 'truncated':
    shard.write_bytes(data[: len(data) // 2])
  elif damage == 'flipped':
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
  else:
    (folder / 'dataset_info.json').write_text('{"name": ')
  config = _config('tfds', 'fashion_subset', tmp_path)
  text = _error(lambda: read_all(load_dataset(config, 'train')))
  assert text.startswith("config.data.name='fashion_subset' cannot be read")


def test_tfds_imports_no_module_that_a_set_names(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  (tmp_path / 'planted.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
  monkeypatch.syspath_prepend(tmp_path)
  made = prepare(NoImages, tmp_path)
  folder = tmp_path / 'from_elsewhere' / made.name  # TFDS has no code of it
  shutil.move(made, folder)
  info = (folder / 'dataset_info.json').read_text()
  (folder / 'dataset_info.json').write_text(
    info.replace('no_images', 'from_elsewhere')
  )
  features = (folder / 'features.json').read_text()
  name = 'tensorflow_datasets.core.features.text_feature.Text'
  assert name in features
  (folder / 'features.json').write_text(features.replace(name, 'planted.Text'))
  config = _config('tfds', 'from_elsewhere', tmp_path)
  text = _error(lambda: load_dataset(config, 'train'))
  assert "its features.json names 'planted.Text'" in text
  assert 'planted' not in sys.modules
  assert not (tmp_path / 'ran').exists()


def test_tfds_waits_for_no_pipe(tmp_path: pathlib.Path) -> None:
  folder = prepare(NoImages, tmp_path)
  (folder / 'features.json').unlink()
  os.mkfifo(folder / 'features.json')
  config = _config('tfds', 'no_images', tmp_path)
  text = _error(lambda: load_dataset(config, 'train'))
  assert f'{folder}/features.json is no regular file' in text


# Labels.


def test_check_labels() -> None:
  check_labels(np.array([0, 9]), 10, 'fashion_mnist')
  check_labels(np.array([], np.int32), 1, 'fashion_mnist')
  text = _error(lambda: check_labels(np.array([0, 9]), 5, 'fashion_mnist'))
  assert text.startswith('config.model.num_classes=5: fashion_mnist has ')
  assert 'the label 9 (seen: 0 to 9); allowed is at least 10' in text
  text = _error(lambda: check_labels(np.array([-1]), 5, 'imagenet'))
  assert 'the label -1 (seen: -1 to -1)' in text
