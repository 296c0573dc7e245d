"""Own images: folders, CSV, Parquet and arrays are read as what they show."""

import gc
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
import types

import ml_collections
import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, SMALL
from PIL import Image
from pyarrow import parquet

from googlenet import config as config_lib
from googlenet.data import (
  auto,
  classes,
  pipeline,
  sources,
  splits,
  stream,
  tables,
)
from googlenet.data.find import find
from googlenet.data.folder import read_class_map
from googlenet.data.images import CenterCrop, RandomResizedCrop
from googlenet.errors import UserError
from googlenet.io.workdir import read_classes
from googlenet.tools.scoring import predictions
from googlenet.train import same_run, setup

CLASSES = {
  'cat': (220, 20, 20),
  'dog 2': (20, 220, 20),
  'dog 10': (20, 20, 220),
}
PER_CLASS = {'train': 8, 'test': 4}
# How image i of a class is stored: (suffix, mode, size, EXIF orientation).
FORMS = [
  ('.jpg', 'RGB', (40, 30), 6),
  ('.PNG', 'RGBA', (30, 40), 1),
  ('.jpeg', 'CMYK', (64, 64), 1),
  ('.gif', 'P', (25, 50), 1),
  ('.webp', 'RGB', (31, 33), 1),
  ('.bmp', 'RGB', (20, 20), 1),
  ('.tif', 'RGB', (50, 20), 1),
  ('.png', 'P', (28, 28), 1),
]
CROP = RandomResizedCrop(24, (0.3, 1.0), (0.75, 1.3333), 3)


def picture(colour, i):
  """Upper half in the colour of its class, lower half darker."""
  _, mode, (width, height), orientation = FORMS[i % len(FORMS)]
  pixels = np.empty((height, width, 3), np.uint8)
  pixels[: height // 2] = colour
  pixels[height // 2 :] = np.array(colour) // 2
  if orientation == 6:  # stored lying on its side
    pixels = np.rot90(pixels)
  return Image.fromarray(pixels).convert(mode)


def save(path, colour, i):
  exif = Image.Exif()
  exif[274] = FORMS[i % len(FORMS)][3]
  picture(colour, i).save(path, **({'exif': exif} if exif[274] > 1 else {}))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  root = tmp_path_factory.mktemp('own') / 'photos'
  for split, count in PER_CLASS.items():
    for name, colour in CLASSES.items():
      (root / split / name / 'more').mkdir(parents=True)
      for i in range(count):
        below = 'more/' if i % 2 else ''
        path = root / split / name / f'{below}{i}{FORMS[i % len(FORMS)][0]}'
        save(path, colour, i)
  return root


def data_config(folder, source='folder', **fields):
  config = {
    'source': source,
    'name': '',
    'data_dir': str(folder),
    'train_split': 'train',
    'eval_split': 'test',
    'classes': '',
    'on_bad_image': 'stop',
    'image_size': 24,
  }
  return ml_collections.ConfigDict(config | fields)


def load(folder, split='train', transform=None, **fields):
  config = data_config(folder, **fields)
  return sources.load_dataset(config, split, transform)


def copy(photos, tmp_path):
  """Returns a copy that a test may change."""
  return shutil.copytree(photos, tmp_path / 'photos')


def test_a_folder_has_the_images_and_classes_that_people_see(photos):
  train, test = load(photos), load(photos, 'test')
  assert train.class_names == test.class_names == ('cat', 'dog 2', 'dog 10')
  assert (train.num_examples, test.num_examples) == (24, 12)
  assert train.image_shape == (24, 24, 3)  # sizes differ: squeezed
  for dataset in (train, test):
    pixels, labels = sources.read_all(dataset)
    assert np.bincount(labels).tolist() == [dataset.num_examples // 3] * 3
    for image, label in zip(pixels.astype(int), labels, strict=True):
      upper, lower = image[:10].mean((0, 1)), image[-10:].mean((0, 1))
      assert upper.argmax() == lower.argmax() == label
      assert upper[label] > 1.5 * lower[label]  # upright, by EXIF


def test_the_order_is_shuffled_and_depends_on_names_alone(photos, tmp_path):
  _, labels = sources.read_all(load(photos))
  assert len(set(labels[:8])) == 3
  there = copy(photos, tmp_path)
  os.utime(there / 'train/cat/0.jpg', (1, 1))
  _, again = sources.read_all(load(there))
  np.testing.assert_array_equal(again, labels)


def test_classes_without_splits_are_sliced(photos):
  halves = [
    load(
      photos / 'train',
      split,
      train_split='all[:50%]',
      eval_split='all[50%:]',
    )
    for split in ('all[:50%]', 'all[50%:]')
  ]
  assert [half.num_examples for half in halves] == [12, 12]
  whole, _ = sources.read_all(
    load(photos / 'train', 'all', train_split='all', eval_split='all')
  )
  parts = [sources.read_all(half)[0] for half in halves]
  np.testing.assert_array_equal(np.concatenate(parts), whole)


def as_parquet(photos, folder, with_names):
  folder.mkdir()
  for split in PER_CLASS:
    images, labels = listed(photos, split)
    names = list(CLASSES)
    table = pa.table(
      {
        'image': [
          {'bytes': path.read_bytes(), 'path': path.name} for path in images
        ],
        'label': labels if with_names else [names[label] for label in labels],
      }
    )
    features = {'label': {'names': names, '_type': 'ClassLabel'}}
    if with_names:
      about = json.dumps({'info': {'features': features}})
      table = table.replace_schema_metadata({'huggingface': about})
    half = len(images) // 2
    for part, rows in enumerate((table[:half], table[half:])):
      parquet.write_table(rows, folder / f'{split}-{part:05}-of-00002.parquet')


def listed(photos, split):
  """Returns paths and labels of a split, in the order of the folder."""
  read = load(photos, split).read.read
  images = read._images
  paths = [photos / split / images.name(i) for i in range(len(images))]
  return paths, [
    list(CLASSES).index(p.relative_to(photos / split).parts[0]) for p in paths
  ]


def as_csv(photos, folder):
  folder.mkdir()
  for split in PER_CLASS:
    rows = ['path,label']
    for path, label in zip(*listed(photos, split), strict=True):
      rows.append(f'{os.path.relpath(path, folder)},{list(CLASSES)[label]}')
    (folder / f'{split}.csv').write_text('\n'.join(rows) + '\n')


@pytest.mark.parametrize('kind', ['csv', 'parquet', 'parquet with names'])
@pytest.mark.parametrize('transform', [None, CROP, CenterCrop(24, 28)])
def test_tables_give_the_batches_of_the_folder(
  kind, transform, photos, tmp_path
):
  folder = tmp_path / 'set'
  if kind == 'csv':
    as_csv(photos, folder)
  else:
    as_parquet(photos, folder, 'names' in kind)
  for split in PER_CLASS:
    expected = load(photos, split, transform)
    dataset = load(folder, split, transform, source=kind.split()[0])
    assert dataset[2:6] == expected[2:6]  # number, shape, classes
    indices = np.arange(dataset.num_examples)
    for epoch in (0, 1):
      images, labels = dataset.read(indices, epoch)
      expected_images, expected_labels = expected.read(indices, epoch)
      np.testing.assert_array_equal(images, expected_images)
      np.testing.assert_array_equal(labels, expected_labels)


def test_a_table_in_both_places_counts_once(tmp_path):
  for folder, level in ((tmp_path, 0), (tmp_path / 'data', 255)):
    folder.mkdir(exist_ok=True)
    Image.new('L', (4, 4), level).save(folder / '1.png')
    (folder / 'train.csv').write_text('path,label\n1.png,cat\n')
  images, _ = sources.read_all(load(tmp_path, source='csv', eval_split='train'))
  assert images.mean((1, 2, 3)).tolist() == [0]
  (tmp_path / 'train.csv').unlink()
  images, _ = sources.read_all(load(tmp_path, source='csv', eval_split='train'))
  assert images.mean((1, 2, 3)).tolist() == [255]


@pytest.mark.parametrize('form', ['npz', 'keras', 'npy'])
def test_arrays_give_the_batches_of_the_folder(form, photos, tmp_path):
  arrays = {}
  for split in PER_CLASS:
    images, labels = sources.read_all(load(photos, split))
    if form == 'keras':
      arrays |= {f'x_{split}': images, f'y_{split}': labels[:, None]}
    else:
      arrays |= {f'{split}_images': images, f'{split}_labels': labels}
  arrays['class_names'] = np.array(list(CLASSES))
  path = tmp_path / 'set'
  if form == 'npy':
    path.mkdir()
    for name, array in arrays.items():
      np.save(path / f'{name}.npy', array)
  else:
    path = tmp_path / 'set.npz'
    np.savez(path, **arrays)
  for split in PER_CLASS:
    expected = load(photos, split)
    dataset = load(path, split, source='arrays')
    assert dataset[2:6] == expected[2:6]
    for ours, theirs in zip(
      sources.read_all(dataset), sources.read_all(expected), strict=True
    ):
      np.testing.assert_array_equal(ours, theirs)


def test_grey_images_of_one_size_keep_both(tmp_path):
  for split in PER_CLASS:
    for label in range(2):
      folder = tmp_path / split / str(label)
      folder.mkdir(parents=True)
      for i, mode in enumerate(('L', '1', 'LA', 'I;16')):
        image = Image.fromarray(np.full((5, 7), 255 * label, np.uint8))
        if mode == 'I;16':
          image = Image.fromarray(np.full((5, 7), 65535 * label, np.uint16))
        image.convert(mode).save(folder / f'{i}.png')
  dataset = load(tmp_path)
  assert dataset.image_shape == (5, 7, 1)
  images, labels = sources.read_all(dataset)
  assert (images == 255 * labels.reshape(-1, 1, 1, 1)).all()


def test_worker_processes_read_the_same(photos):
  dataset = pickle.loads(pickle.dumps(load(photos, transform=CROP)))
  batch = stream.IndexBatch(np.arange(24), 1)
  (found,) = stream.stream(dataset, [batch], (0, 1), 1)
  expected = dataset.read(batch.indices, 1)
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('shape', [(40, 30, 30), (40, 30, 30, 3)])
def test_workers_map_arrays_themselves(shape, tmp_path):
  images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
  np.save(tmp_path / 'train_images.npy', images)
  np.save(tmp_path / 'train_labels.npy', np.arange(40) % 3)
  for transform in (None, CROP):
    read = load(
      tmp_path, 'train', transform, source='arrays', eval_split='train'
    ).read
    sent = pickle.dumps(read)
    assert len(sent) < images.nbytes / 10
    expected = read(np.arange(40), 1)
    for ours, theirs in zip(
      pickle.loads(sent)(np.arange(40), 1), expected, strict=True
    ):
      np.testing.assert_array_equal(ours, theirs)


def test_a_class_map_orders_and_names(photos, tmp_path):
  text = '\ufeffdog 10\tbig dog\ncat\ndog 2\tsmall dog\n\n'
  (tmp_path / 'classes.txt').write_text(text, 'utf-8')
  dataset = load(photos, classes=str(tmp_path / 'classes.txt'))
  assert dataset.class_names == ('big dog', 'cat', 'small dog')
  images, labels = sources.read_all(dataset)
  colours = images.mean((1, 2)).argmax(-1)
  np.testing.assert_array_equal(labels, np.array([1, 2, 0])[colours])


def test_classes_of_a_run_are_a_class_map(tmp_path):
  """Also with a line that somebody emptied: no label is another class."""
  text = 'black\n\n white \r\n\n \n'
  (tmp_path / 'classes.txt').write_bytes(text.encode('utf-8-sig'))
  found = read_class_map(str(tmp_path / 'classes.txt'))
  assert found.names == found.folders == ('black', '1', 'white')
  assert read_classes(tmp_path, 3) == found.names


def test_a_class_map_takes_wordnet_ids(tmp_path):
  for name in ('n02084071', 'n01440764'):
    (tmp_path / 'train' / name).mkdir(parents=True)
    Image.new('RGB', (4, 4)).save(tmp_path / 'train' / name / 'x.png')
  (tmp_path / 'list.txt').write_text(
    'n01440764 tench, Tinca tinca\nn02084071 dog\n'
  )
  dataset = load(
    tmp_path, eval_split='train', classes=str(tmp_path / 'list.txt')
  )
  assert dataset.class_names == ('tench, Tinca tinca', 'dog')


def test_classes_of_one_name_get_their_folders_too(tmp_path):
  """ImageNet's list has two cranes, which evaluation took for one class."""
  path = tmp_path / 'list.txt'
  path.write_text('n02012849 crane\nn01440764 tench\nn03126707 crane\n')
  names = 'crane (n02012849)', 'tench', 'crane (n03126707)'
  assert read_class_map(str(path)).names == names
  path.write_text('a\tx\nb\tx\nc\tx (a)\n')
  with pytest.raises(UserError, match='several classes of the name x .a.:'):
    read_class_map(str(path))


def test_hidden_and_foreign_files_are_counted(photos, tmp_path):
  there = copy(photos, tmp_path)
  (there / 'train/cat/.DS_Store').touch()
  (there / 'train/cat/._0.jpg').touch()
  (there / 'train/dog 2/Thumbs.db').touch()
  (there / 'train/__MACOSX').mkdir()
  (there / 'train/.git').mkdir()
  dataset = load(there)
  assert dataset.num_examples == 24
  assert dataset.notes == (
    '3 files passed over: 2 hidden, 1 without the suffix of an image',
  )


def test_links_are_followed_and_loops_end(photos, tmp_path):
  (tmp_path / 'train').mkdir()
  for name in CLASSES:
    (tmp_path / 'train' / name).symlink_to(photos / 'train' / name)
  (tmp_path / 'test').symlink_to(photos / 'test')
  expected = sources.read_all(load(photos))
  for ours, theirs in zip(
    sources.read_all(load(tmp_path)), expected, strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)
  there = copy(photos, tmp_path)
  (there / 'train/cat/more/up').symlink_to(there / 'train/cat')
  (there / 'train/cat/itself').symlink_to('itself')
  assert load(there).num_examples == 24


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
  """Paths along the links of n folders are more than n!."""
  cat = tmp_path / 'train/cat'
  names = [f'part {i}' for i in range(5)]
  for name in names:
    (cat / name).mkdir(parents=True)
    Image.new('L', (4, 4)).save(cat / name / 'a.png')
    for other in names:
      if other != name:
        (cat / name / f'to {other}').symlink_to(cat / other)
  (cat / '0 link').symlink_to(cat / names[3])
  images = load(tmp_path, eval_split='train').read.read._images
  assert sorted(images.name(i) for i in range(len(images))) == [
    str(cat / name / 'a.png') for name in names
  ]
  assert find(str(cat), io.StringIO()) == [
    str(cat / name / 'a.png') for name in names
  ]


def cut(path):
  path.write_bytes(path.read_bytes()[:-30])


def test_a_file_that_cannot_be_read_is_named_or_left_out(photos, tmp_path):
  there = copy(photos, tmp_path)
  for i in range(12):
    (there / f'train/cat/{i:02}.png').write_bytes(b'no image')
  (there / 'train/dog 2/link.jpg').symlink_to('nowhere.jpg')
  with pytest.raises(UserError) as error:
    load(there)
  words = str(error.value)
  assert words.startswith(f'13 of the images in {there} cannot be read: ')
  assert words.count('not an image that Pillow can read') in (9, 10)
  assert 'and 3 more' in words
  assert 'mend or remove them, or give --config.data.on_bad_image=skip' in words
  dataset = load(there, on_bad_image='skip')
  assert dataset.num_examples == 24
  assert dataset.notes[-1].startswith('13 left out that cannot be read: ')


def test_one_file_that_cannot_be_read_is_told_with_its_split(photos, tmp_path):
  there = copy(photos, tmp_path)
  (there / 'test/cat/0.jpg').write_bytes(b'no image')
  with pytest.raises(UserError) as error:
    load(there)
  words = f'1 of the images in {there} cannot be read: {there}/test/cat/0.jpg ('
  assert str(error.value).startswith(words)
  assert '; mend or remove it, or give' in str(error.value)


def test_a_row_that_cannot_be_read_is_told_with_its_file(tmp_path):
  paths = [str(tmp_path / f'train-{i}.parquet') for i in range(2)]
  name = tables.ParquetImages(paths, np.array([7])).name(0)
  assert name == f'row 7 of {tmp_path}/train-0.parquet to train-1.parquet'


def test_damage_behind_the_header_is_found(photos, tmp_path):
  there = copy(photos, tmp_path)
  cut(there / 'train/cat/2.jpeg')
  dataset = load(there)
  with pytest.raises(UserError) as error:
    sources.read_all(dataset)
  assert str(error.value).startswith(f'{there}/train/cat/2.jpeg cannot be read')
  assert 'a run that has begun needs a new --workdir' in str(error.value)
  skipped = load(there, on_bad_image='skip')
  assert skipped.num_examples == 23
  assert np.bincount(sources.read_all(skipped)[1]).tolist() == [7, 8, 8]


def test_only_names_are_kept_in_memory(tmp_path):
  """500 images of 300 kB each when decoded."""
  data = io.BytesIO()
  Image.new('RGB', (316, 316)).save(data, 'png')
  for split in PER_CLASS:
    (tmp_path / split / 'a').mkdir(parents=True)
  for i in range(500):
    (tmp_path / f'train/a/{i}.png').write_bytes(data.getvalue())
  (tmp_path / 'test/a/0.png').write_bytes(data.getvalue())
  gc.collect()
  tracemalloc.start()
  dataset = load(tmp_path)
  kept, _ = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert dataset.num_examples == 500
  assert kept < 500 * 500


def empty(root):
  (root / 'train/empty').mkdir()


def only_in_test(root):
  (root / 'test/wolf').mkdir()
  Image.new('RGB', (4, 4)).save(root / 'test/wolf/0.png')


REFUSED = {
  'no folder': (
    {'data_dir': '/nowhere'},
    None,
    ["config.data.data_dir='/nowhere' is not a folder"],
  ),
  'no data_dir': ({'data_dir': ''}, None, ['config.data.data_dir is missing']),
  'no split': (
    {'eval_split': 'val[:5]'},
    None,
    ["has no folder 'val'", 'it has test, train', 'data.eval_split'],
  ),
  'splits as classes': (
    {'train_split': 'all[:90%]', 'eval_split': 'all[90%:]'},
    None,
    ['they are test, train: give', 'train_split=train', 'eval_split=test'],
  ),
  'no splits': (
    {'below': 'train'},
    None,
    ["has no folder 'train'", "--config.data.train_split='all[:90%]'"],
  ),
  'empty class': ({}, empty, ['train/empty is a class without images']),
  'class of the test images alone': ({}, only_in_test, ['test has', 'wolf']),
  'no class map': (
    {'classes': '/nowhere.txt'},
    None,
    ["config.data.classes='/nowhere.txt' cannot be read: No such file"],
  ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_a_folder_that_does_not_fit_is_refused(case, photos, tmp_path):
  fields, change, words = REFUSED[case]
  there = copy(photos, tmp_path)
  if change:
    change(there)
  fields = {'data_dir': str(there / fields.get('below', '')), **fields}
  fields.pop('below', None)
  config = data_config(there, **fields)
  with pytest.raises(UserError) as error:
    sources.load_dataset(config, 'train')
  for word in words:
    assert word in str(error.value), error.value


ARRAYS = {
  'float images': (
    {'train_images': np.zeros((4, 5, 5, 3))},
    'train_images is float64 (4, 5, 5, 3)',
  ),
  'float images up to 1': (
    {'train_images': np.ones((4, 5, 5))},
    'train_images is float64 (4, 5, 5); images are uint8 [N, H, W] or [N, H, W,'
    ' C] with 1 or 3 channels, 0 to 255: store '
    "(x * 255).round().astype('uint8')",
  ),
  'float images up to 255': (
    {'train_images': np.full((4, 5, 5), 255.0)},
    "0 to 255: store x.round().astype('uint8')",
  ),
  'images of other whole numbers': (
    {'train_images': np.full((4, 5, 5), 255)},
    "0 to 255: store x.astype('uint8')",
  ),
  'channels first': (
    {'train_images': np.zeros((4, 3, 5, 5), np.uint8)},
    'channels, 0 to 255: store x.transpose(0, 2, 3, 1)',
  ),
  'floats, channels first': (
    {'train_images': np.ones((4, 3, 5, 5), 'f')},
    "store (x * 255).round().astype('uint8').transpose(0, 2, 3, 1)",
  ),
  'other channels': (
    {'train_images': np.zeros((4, 5, 5, 4), np.uint8)},
    'train_images is uint8 (4, 5, 5, 4); images are',
  ),
  'one-hot labels': (
    {'train_labels': np.eye(4)},
    'one for each of the 4 images: store x.argmax(1)',
  ),
  'float labels': (
    {'train_labels': np.zeros(4)},
    "one for each of the 4 images: store x.astype('int32')",
  ),
  'labels too few': (
    {'train_labels': np.zeros(3, int)},
    'train_labels is int64 (3,)',
  ),
  'negative labels': ({'train_labels': np.full(4, -1)}, 'numbers from 0'),
  'objects': (
    {'train_labels': np.array([{}] * 4, object)},
    'cannot be read: Object arrays cannot be loaded',
  ),
  'no such split': (
    {'test_images': None, 'test_labels': None},
    'needs test_images and test_labels or x_test and y_test, and has train_im',
  ),
  'names too few': (
    {'class_names': np.array(['a'])},
    'labels up to 1, but 1 names of classes',
  ),
  'names twice': (
    {'class_names': np.array(['a', 'b', 'a'])},
    'class_names has several classes of the name a: give each',
  ),
}


@pytest.mark.parametrize('source', ['folder', 'csv', 'arrays'])
def test_a_set_of_one_split_says_how_to_evaluate_on_it(source, tmp_path):
  if source == 'folder':
    (tmp_path / 'test/cat').mkdir(parents=True)
    Image.new('L', (4, 4)).save(tmp_path / 'test/cat/1.png')
  elif source == 'csv':
    Image.new('L', (4, 4)).save(tmp_path / '1.png')
    (tmp_path / 'test.csv').write_text('path,label\n1.png,cat\n')
  else:
    np.save(tmp_path / 'test_images.npy', np.zeros((1, 4, 4), np.uint8))
    np.save(tmp_path / 'test_labels.npy', np.zeros(1, int))
  words = 'name it in config.data.train_split as well as in config.data.eval'
  with pytest.raises(UserError, match=words):
    load(tmp_path, 'test', source=source)
  assert load(tmp_path, 'test', source=source, train_split='test').num_examples


@pytest.mark.parametrize('case', ARRAYS)
def test_arrays_that_do_not_fit_are_refused(case, tmp_path):
  change, words = ARRAYS[case]
  images, labels = np.zeros((4, 5, 5, 3), np.uint8), np.array([0, 1, 0, 1])
  arrays = {
    f'{split}_{name}': value
    for split in PER_CLASS
    for name, value in (('images', images), ('labels', labels))
  }
  path = tmp_path / 'set.npz'
  arrays |= change
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  with pytest.raises(UserError) as error:
    load(path, source='arrays')
  assert words in str(error.value), error.value


UNTRAINED = {
  'one-based': ((1, 2, 1), (2, 1), (), 'no training image has label 0: labels'),
  'gaps': ((1, 3, 5), (1, 3), (), 'label 0, label 2, label 4: labels start at'),
  'only tested': ((0, 1), (0, 4), (), 'label 4 occurs only in test; add'),
  'names': ((0, 1), (0, 1), ('a', 'b', 'owl'), "no training image has 'owl';"),
}


@pytest.mark.parametrize('case', UNTRAINED)
def test_a_class_without_training_images_is_refused(case, tmp_path, config):
  train, test, names, words = UNTRAINED[case]
  path = tmp_path / 'set.npz'
  np.savez(
    path,
    train_images=np.zeros((len(train), 28, 28), np.uint8),
    train_labels=np.array(train),
    test_images=np.zeros((len(test), 28, 28), np.uint8),
    test_labels=np.array(test),
    **({'class_names': np.array(names)} if names else {}),
  )
  use(config, path)
  config.train.batch_size = 1
  chosen = auto.complete(config_lib.resolve(config))
  with pytest.raises(UserError, match='data.classes, which allows') as error:
    setup.build(chosen)
  assert words in str(error.value), error.value
  # A list of all classes says that this is meant; to evaluate, too.
  (tmp_path / 'classes.txt').write_text('\n'.join(names or '01234567'))
  config.data.classes = str(tmp_path / 'classes.txt')
  setup.build(auto.complete(config_lib.resolve(config)))
  assert load(path, 'test', source='arrays').num_examples == len(test)


def test_a_class_whose_images_are_all_left_out_is_refused(photos, tmp_path):
  there = copy(photos, tmp_path)
  for path in (there / 'train/cat').rglob('*.*'):
    path.write_bytes(b'no image')
  train, test = (load(there, split, on_bad_image='skip') for split in PER_CLASS)
  with pytest.raises(UserError, match="'cat' occurs only in test"):
    classes.check_all_trained('', train, test)


TABLES = {
  'no file': ({}, "has no file for the split 'train'"),
  'columns': ({'train.csv': 'file,class\n'}, 'has the columns file, class'),
  'nothing': ({'train.csv': ''}, 'train.csv is empty; it needs path and label'),
  'semicolons': (
    {'train.csv': 'path;label\na.png;b\n'},
    "train.csv has columns that are separated by ';', and need ','; it needs",
  ),
  'tabs': (
    {'train.csv': 'label\tpath\tsize\nb\ta.png\t3\n'},
    "train.csv has columns that are separated by tabs, and need ','; it needs",
  ),
  'a value': (
    {'train.csv': 'path,label\na.png,\n'},
    'train.csv, line 2: a value is missing',
  ),
  'empty': ({'train.csv': 'path,label\n'}, 'lists no image'),
  'no image': (
    {'train.csv': 'path,label\na.png,b\n'},
    '2 of the images in',
  ),
  'other classes': (
    {'train.csv': 'path,label\na.png,c\n'},
    "labels that the split 'train' lacks: b",
  ),
}


@pytest.mark.parametrize('case', TABLES)
def test_tables_that_do_not_fit_are_refused(case, tmp_path):
  contents, words = TABLES[case]
  for name, text in {'test.csv': 'path,label\na.png,b\n', **contents}.items():
    (tmp_path / name).write_text(text)
  with pytest.raises(UserError) as error:
    load(tmp_path, source='csv')
  assert words in str(error.value), error.value


def test_the_data_set_decides_classes_mean_and_deviation(
  photos, config, tmp_path
):
  config.model.num_classes = 0
  config.data.source, config.data.data_dir = 'folder', str(photos)
  config.data.mean = config.data.std = auto.AUTO
  config.data.eval_split, config.data.image_size = 'test', 24
  completed = auto.complete(config_lib.resolve(config))
  assert completed.model.num_classes == 3
  images, labels = sources.read_all(load(photos))
  pixels = images.reshape(-1, 3) / 255
  np.testing.assert_allclose(completed.data.mean, pixels.mean(0), atol=6e-5)
  np.testing.assert_allclose(completed.data.std, pixels.std(0), atol=6e-5)
  config.data.channels = 1
  grey = auto.complete(config_lib.resolve(config)).data
  luma = pixels @ np.array([0.299, 0.587, 0.114])
  np.testing.assert_allclose(grey.mean, [luma.mean()], atol=6e-5)
  np.testing.assert_allclose(grey.std, [luma.std()], atol=6e-5)
  # Few images of each class: only those that are trained on are seen.
  config.data.channels, config.data.per_class = 0, 1
  few = auto.complete(config_lib.resolve(config)).data
  first = [np.flatnonzero(labels == k)[0] for k in range(3)]
  pixels = images[first].reshape(-1, 3) / 255
  np.testing.assert_allclose(few.mean, pixels.mean(0), atol=6e-5)
  config.data.per_class = 0
  # A run that goes on keeps its own.
  stored = completed.copy_and_resolve_references()
  config.data.data_dir, config.data.channels = '/nowhere', 0
  again = auto.complete(config_lib.resolve(config), stored)
  assert again.data.mean == completed.data.mean
  assert again.model.num_classes == 3
  # From Python as by command: the folder of the run says which.
  (tmp_path / 'config.json').write_text(config_lib.to_json(completed))
  run = auto.complete_run(config_lib.resolve(config), tmp_path)
  assert run.data.mean == completed.data.mean


def uneven(tmp_path):
  """8 black, 2 grey and 4 white images."""
  images, labels = [], []
  for label, count in enumerate((8, 2, 4)):
    images += [np.full((6, 6), 100 * label, np.uint8)] * count
    labels += [label] * count
  order = np.random.default_rng(0).permutation(14)
  images, labels = np.stack(images)[order], np.array(labels)[order]
  names = np.array(['black', 'grey', 'white'])
  for split in PER_CLASS:
    np.savez(
      tmp_path / 'set.npz',
      **{f'{split}_images': images for split in PER_CLASS},
      **{f'{split}_labels': labels for split in PER_CLASS},
      class_names=names,
    )
  return tmp_path / 'set.npz'


def use(config, path):
  config.data.source, config.data.data_dir = 'arrays', str(path)
  config.data.eval_split = 'test'
  config.model.num_classes = 0


def test_balanced_weights_make_classes_count_as_much(tmp_path, config):
  use(config, uneven(tmp_path))
  config.train.class_weights = auto.BALANCED
  weights = auto.complete(config_lib.resolve(config)).train.class_weights
  np.testing.assert_allclose(weights, [14 / 24, 14 / 6, 14 / 12], atol=1e-4)
  config.data.per_class = 2
  even = auto.complete(config_lib.resolve(config)).train.class_weights
  assert even == (1.0, 1.0, 1.0)


def test_a_score_that_is_always_1_chooses_no_checkpoint(tmp_path, config):
  use(config, uneven(tmp_path))
  config.train.batch_size = 2
  config.checkpoint.best_metric = 'eval/top_5'

  def build(is_resumed=False):
    completed = auto.complete(config_lib.resolve(config))
    return setup.build(completed, is_resumed)

  with pytest.raises(UserError, match='is always 1 with .*num_classes=3'):
    build()
  assert build(is_resumed=True).config.model.num_classes == 3  # an older run
  config.model.num_classes = 6
  assert build().config.checkpoint.best_metric == 'eval/top_5'


def test_weights_are_new_for_a_run_that_has_none(tmp_path, config):
  use(config, uneven(tmp_path))
  config.train.class_weights = auto.BALANCED
  config = config_lib.resolve(config)
  for kept, found in ((), 0.5833), ((3.0, 1.0, 1.0), 3.0):
    stored = {'model': {'num_classes': 3}, 'train': {'class_weights': kept}}
    weights = auto.complete(config, stored).train.class_weights
    assert weights[0] == found


def test_weights_are_one_per_class(tmp_path, config):
  use(config, uneven(tmp_path))
  config.train.class_weights = (1.0, 2.0)
  with pytest.raises(UserError, match='class_weights has 2 numbers for 3'):
    auto.complete(config_lib.resolve(config))


def test_the_first_images_of_each_class_are_a_small_set(tmp_path, config):
  use(config, uneven(tmp_path))
  config.data.per_class = 2
  config = auto.complete(config_lib.resolve(config))
  whole = sources.load_dataset(config.data, 'train')
  images, labels = sources.read_all(pipeline.load_split(config, 'train_split'))
  assert labels.tolist() == [
    label
    for i, label in enumerate(whole.labels)
    if (whole.labels[:i] == label).sum() < 2
  ]
  assert (images == 100 * labels.reshape(-1, 1, 1, 1)).all()
  assert pipeline.load_split(config, 'eval_split').num_examples == 14


def test_too_few_images_of_a_class_are_named(tmp_path, config):
  use(config, uneven(tmp_path))
  config.data.per_class = 3
  config = auto.complete(config_lib.resolve(config))
  with pytest.raises(
    UserError, match=r'fewer images of grey \(2\); choose at m'
  ):
    pipeline.load_split(config, 'train_split')


def test_labels_of_another_set_are_matched_by_name(tmp_path):
  dataset = load(uneven(tmp_path), source='arrays')
  names = ('white', 'red', 'grey', 'black')
  matched = classes.with_classes(dataset, names)
  images, labels = sources.read_all(matched)
  levels = {'black': 0, 'grey': 100, 'white': 200}
  assert [levels[names[label]] for label in labels] == images[
    :, 0, 0, 0
  ].tolist()
  assert matched.class_names == names
  with pytest.raises(UserError, match='set has the classes grey, which'):
    classes.with_classes(dataset, ('white', 'black', 'red'))
  with pytest.raises(UserError, match='give config.data.classes again if'):
    classes.with_classes(dataset, ('white', 'black', 'red'))
  numbers = tuple(map(str, range(1000)))
  with pytest.raises(UserError, match=r'it has 0, 1, .* and 990 more'):
    classes.with_classes(dataset, numbers)


def test_a_trained_network_says_which_classes_it_lacks(tmp_path, config):
  """Only a run that begins could have another number of classes."""
  config.model.num_classes = 3
  config = config_lib.resolve(config)
  member = types.SimpleNamespace(
    path=tmp_path / 'none.npz', class_names=('cat', 'dog', 'owl')
  )
  with pytest.raises(UserError, match='which this network does not know: it'):
    predictions.load_split(config, member)
  with pytest.raises(UserError, match='num_classes=3: fashion_mnist has 10'):
    pipeline.load_split(config, 'train_split')


def test_changed_arrays_are_noticed(tmp_path):
  def found():
    return same_run.describe_data(load(path, source='arrays'))

  path = uneven(tmp_path)
  before = found()
  with np.load(path) as file:
    arrays = dict(file)
  for name, change in {
    'train_labels': lambda x: x[::-1].copy(),
    'train_images': lambda x: x + 1,
  }.items():
    np.savez(path, **{**arrays, name: change(arrays[name])})
    told = splits.changed_files(before, found())
    assert 'some have other names, labels or file sizes' in told


def test_changed_files_are_told_by_class(photos, tmp_path):
  there = copy(photos, tmp_path)
  before = same_run.describe_data(load(there))
  assert not splits.changed_files(before, same_run.describe_data(load(photos)))
  (there / 'train/cat/0.jpg').rename(there / 'train/cat/00.jpg')
  renamed = same_run.describe_data(load(there))
  assert 'some have other names' in splits.changed_files(before, renamed)
  shutil.copy(there / 'train/cat/00.jpg', there / 'train/dog 2')
  words = splits.changed_files(before, same_run.describe_data(load(there)))
  assert words == 'dog 2 had 8 images and has 9'


@pytest.mark.slow
def test_a_network_of_a_folder_is_evaluated_on_other_sources(
  photos, launch_here, tmp_path
):
  flags = (
    *SMALL,
    '--config.data.source=folder',
    f'--config.data.data_dir={photos}',
    '--config.data.eval_split=test',
    '--config.data.mean=auto',
    '--config.data.std=auto',
    '--config.train.class_weights=balanced',
    '--config.train.batch_size=12',
    '--config.optimizer.warmup_steps=2',
  )
  done = launch_here(
    *flags, '--config.train.epochs=10', '--config.train.max_steps=0'
  )
  assert done.returncode == 0, done.stderr
  assert 'photos (folder): 24 train and 12 test images' in done.stdout
  assert 'classes  cat 8 + 4, dog 2 8 + 4, dog 10 8 + 4' in done.stdout
  (workdir,) = (tmp_path / 'runs').iterdir()
  names = (workdir / 'classes.txt').read_text().splitlines()
  assert names == ['cat', 'dog 2', 'dog 10']
  stored = json.loads((workdir / 'config.json').read_text())
  assert stored['model']['num_classes'] == 3
  assert stored['train']['class_weights'] == [1.0, 1.0, 1.0]

  # Other images to evaluate on: nothing is trained further.
  there = copy(photos, tmp_path / 'changed')
  (there / 'test/cat/0.jpg').unlink()
  done = launch_here(
    '--config.train.epochs=11',
    '--allow_config_change',
    f'--workdir={workdir}',
    f'--config.data.data_dir={there}',
    config='',
  )
  assert done.returncode == 2
  assert 'other evaluation images: cat had 4 images and has 3' in done.stderr

  # Evaluated on the same images as arrays, whose classes are in another order.
  images, labels = sources.read_all(load(photos, 'test', image_size=28))
  np.savez(
    tmp_path / 'set.npz',
    test_images=images,
    test_labels=2 - labels,
    class_names=np.array(names[::-1]),
  )
  lines = []
  for other in (
    (f'--config.data.data_dir={photos}',),
    (
      '--config.data.source=arrays',
      f'--config.data.data_dir={tmp_path}/set.npz',
      '--config.data.train_split=test',
    ),
  ):
    done = launch_here(
      '--mode=evaluate', f'--workdir={workdir}', *other, config=''
    )
    assert done.returncode == 0, done.stderr
    lines.append(done.stdout.splitlines()[1].partition(': accuracy')[2])
  assert lines[0] == lines[1]
  done = launch_here(
    '--mode=evaluate',
    f'--workdir={workdir}',
    '--config.data.source=bundled',
    '--config.data.name=fashion_mnist',
    '--config.data.data_dir=',
    '--config.data.channels=3',
    config='',
  )
  assert done.returncode == 2
  assert 'which this network does not know' in done.stderr


def cifar_archive(path):
  """An archive in CIFAR-10's binary format, of 2 images a file."""
  rng = np.random.default_rng(0)
  rows = rng.integers(0, 256, (12, 3073), np.uint8)
  rows[:, 0] %= 10
  names = [f'data_batch_{i}.bin' for i in range(1, 6)] + ['test_batch.bin']
  contents = {
    name: rows[2 * i : 2 * i + 2].tobytes() for i, name in enumerate(names)
  }
  contents['batches.meta.txt'] = '\n'.join(f'class{i}' for i in range(10))
  with tarfile.open(path, 'w:gz') as tar:
    for name, data in contents.items():
      data = data.encode() if isinstance(data, str) else data
      member = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return rows


def test_the_line_of_the_documentation_converts_cifar_10(tmp_path):
  rows = cifar_archive(tmp_path / 'cifar-10-binary.tar.gz')
  text = (ROOT / 'docs/images.md').read_text()
  program = re.search('python -c "\n(import tarfile.*?)\n"', text, re.DOTALL)[1]
  subprocess.run(
    [sys.executable, '-c', program], cwd=tmp_path, check=True, timeout=60
  )
  dataset = load(tmp_path / 'cifar10.npz', source='arrays')
  images, labels = sources.read_all(dataset)
  assert dataset.class_names == tuple(f'class{i}' for i in range(10))
  assert labels.tolist() == rows[:10, 0].tolist()
  # The file has the red plane first, row by row.
  red = rows[3, 1:1025].reshape(32, 32)
  np.testing.assert_array_equal(images[3, :, :, 0], red)


def png() -> bytes:
  file = io.BytesIO()
  Image.fromarray(np.zeros((4, 4), np.uint8)).save(file, 'PNG')
  return file.getvalue()


def test_a_file_of_classes_names_labels_that_are_numbers(tmp_path):
  rows = pa.table({'image': [png()] * 3, 'label': [0, 1, 1]})
  parquet.write_table(rows, tmp_path / 'train.parquet')
  (tmp_path / 'classes.txt').write_text('1\n0\n')
  source = tables.open_table(
    'parquet', str(tmp_path), 'train', 'train', str(tmp_path / 'classes.txt')
  )
  assert source.class_names == ('1', '0')
  np.testing.assert_array_equal(source.labels['train'], [1, 0, 0])


BAD_PARQUET = {
  'text for images': ({'image': ['a'], 'label': [0]}, None, 'the type string'),
  'two types': (
    {'image': [b''], 'label': [0]},
    {'image': [b''], 'label': ['a']},
    'columns label differ in type: int64, string',
  ),
}


@pytest.mark.parametrize('case', BAD_PARQUET)
def test_parquet_of_wrong_types_is_refused(case, tmp_path):
  *parts, words = BAD_PARQUET[case]
  for i, part in enumerate(filter(None, parts)):
    parquet.write_table(pa.table(part), tmp_path / f'train-{i}.parquet')
  with pytest.raises(UserError, match=words):
    tables.open_table('parquet', str(tmp_path), 'train', 'train')


def test_parquet_with_one_name_for_two_classes_is_refused(tmp_path):
  about = {'info': {'features': {'label': {'names': ['a', 'b', 'a']}}}}
  rows = pa.table({'image': [png()] * 3, 'label': [0, 1, 2]})
  rows = rows.replace_schema_metadata({'huggingface': json.dumps(about)})
  parquet.write_table(rows, tmp_path / 'train.parquet')
  with pytest.raises(UserError, match='several classes of the name a:'):
    tables.open_table('parquet', str(tmp_path), 'train', 'train')


def test_a_path_with_a_null_character_is_refused(tmp_path):
  (tmp_path / 'train.csv').write_bytes(b'path,label\na\0.png,b\n')
  with pytest.raises(UserError, match='line 2: not a path'):
    tables.open_table('csv', str(tmp_path), 'train', 'train')
