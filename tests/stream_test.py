"""Streams: the same bits from any number of processes, and none left over."""

import gc
import multiprocessing
import os
import pickle
import signal

import ml_collections
import numpy as np
import photos
import pytest

from googlenet.data import batches, images, stream
from googlenet.data.sources import load_dataset
from googlenet.errors import UserError

CROP = images.RandomResizedCrop(24, (0.08, 1.0), (0.75, 1.3333), 3)


def load(folder, name='photos', split='train', transform=CROP):
  config = ml_collections.ConfigDict(
    {
      'source': 'tfds',
      'name': name,
      'data_dir': str(folder),
      'image_size': 24,
    }
  )
  return load_dataset(config, split, transform)


def train(start, stop, batch_size=80):
  return batches.TrainIndices(7, photos.NUM_TRAIN, batch_size, start, stop)


def read(dataset, index_batches, num_workers=0, share=(0, 1)):
  return list(stream.stream(dataset, index_batches, share, num_workers))


def assert_same(actual, expected):
  assert len(actual) == len(expected)
  for ours, theirs in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_images_of_all_kinds_become_rgb_with_their_labels(photos_dir):
  """The class shows in the colour: no channel is swapped or inverted."""
  dataset = load(photos_dir, transform=images.CenterCrop(24, 28))
  assert dataset.image_shape == (24, 24, 3)
  ((pixels, labels),) = read(
    dataset, [batches.IndexBatch(np.arange(photos.NUM_TRAIN))]
  )
  assert np.bincount(labels).tolist() == [50, 50, 50, 50]
  means = pixels.mean((1, 2))
  for label, mean in zip(labels, means, strict=True):
    if label < 3:
      assert np.argmax(mean) == label
    else:
      assert np.ptp(mean) < 1


@pytest.mark.parametrize('num_workers', [1, 2])
def test_processes_change_no_bit(photos_dir, num_workers):
  dataset = load(photos_dir)
  expected = read(dataset, train(0, 5))  # into the third epoch
  assert_same(read(dataset, train(0, 5), num_workers), expected)
  assert not multiprocessing.active_children()


def test_a_stream_continues_from_its_step_number(photos_dir):
  dataset = load(photos_dir)
  whole = pickle.loads(pickle.dumps(train(0, 6)))
  assert_same(read(dataset, train(3, 6)), read(dataset, whole)[3:])


def test_epochs_differ_in_crops_not_in_images(photos_dir):
  indices = np.arange(40)
  for transform, same in ((CROP, False), (images.CenterCrop(24, 28), True)):
    (a, labels), (b, again), (c, _) = read(
      load(photos_dir, transform=transform),
      [batches.IndexBatch(indices, epoch) for epoch in (0, 1, 0)],
    )
    np.testing.assert_array_equal(labels, again)
    np.testing.assert_array_equal(a, c)
    equal = (a == b).all((1, 2, 3))
    assert equal.all() if same else equal.mean() < 0.1


def test_shares_of_processes_are_disjoint_and_complete(photos_dir):
  dataset = load(photos_dir)
  whole = read(dataset, train(0, 3))
  shares = [read(dataset, train(0, 3), share=(i, 2)) for i in range(2)]
  for (pixels, labels), *parts in zip(whole, *shares, strict=True):
    assert [len(part[1]) for part in parts] == [40, 40]
    np.testing.assert_array_equal(
      pixels, np.concatenate([part[0] for part in parts])
    )
    np.testing.assert_array_equal(
      labels, np.concatenate([part[1] for part in parts])
    )


@pytest.mark.parametrize('num_workers', [0, 2])
def test_evaluation_sees_every_example_once(photos_dir, num_workers):
  dataset = load(photos_dir, split='validation', transform=images.Whole(24))
  made = batches.eval_indices(dataset.num_examples, 16, 1)
  labels = [labels for _, labels in read(dataset, made, num_workers)]
  assert [len(part) for part in labels] == [16, 16, 16]
  seen = np.concatenate(labels)[: photos.NUM_VALIDATION]
  _, expected = dataset.read(np.arange(photos.NUM_VALIDATION))
  np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_damaged_image_is_named(photos_dir, num_workers):
  dataset = load(photos_dir, 'damaged_photos')
  with pytest.raises(UserError) as caught:
    read(dataset, train(0, 2), num_workers)
  text = str(caught.value)
  assert "config.data.name='damaged_photos': image " in text
  assert f'(photo_{photos.DamagedPhotos.DAMAGED}.jpg)' in text
  assert "of the split 'train'" in text
  assert 'truncated' in text
  assert '\n' not in text
  assert not multiprocessing.active_children()


@pytest.fixture(autouse=True)
def _no_semaphores_left_to_the_collector():
  """Grain leaves some in cycles, and Python's tracker of them warns if it is
  entered again by a collection that happens while it works."""
  gc.collect()


def test_a_stream_left_early_leaves_no_process(photos_dir):
  given = stream.stream(load(photos_dir), train(0, 100), (0, 1), 2)
  next(given)
  assert len(multiprocessing.active_children()) == 2
  given.close()
  assert not multiprocessing.active_children()


def test_a_killed_worker_is_told(photos_dir):
  given = stream.stream(load(photos_dir), train(0, 1000), (0, 1), 2)
  next(given)
  os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
  with pytest.raises(UserError, match=r'config\.data\.workers.*-9'):
    list(given)
  assert not multiprocessing.active_children()


def test_too_little_shared_memory_is_told(photos_dir, monkeypatch):
  usage = stream.shutil.disk_usage('/')
  monkeypatch.setattr(
    stream.shutil, 'disk_usage', lambda _: usage._replace(free=100_000)
  )
  with pytest.raises(UserError, match=r'config\.data\.workers=2 .*--shm-size'):
    read(load(photos_dir), train(0, 2), 2)


def test_nothing_to_read(photos_dir):
  assert read(load(photos_dir), train(5, 5)) == []
