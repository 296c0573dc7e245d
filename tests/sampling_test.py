"""Balanced sampling: classes take turns, as a function of seed and step."""

import collections
import io
import pickle

import jax
import numpy as np
import pytest
from PIL import Image

from googlenet import config as config_lib
from googlenet.data import auto, batches, pipeline, sampling, stream
from googlenet.data.images import RandomResizedCrop
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.train import messages, setup, summaries

# Class 1 has no examples, as in a slice of a sorted set.
COUNTS = {0: 41, 2: 3, 3: 10}
LABELS = np.random.default_rng(0).permutation(
  np.repeat(list(COUNTS), list(COUNTS.values()))
)
BATCH = 8
STEPS = len(LABELS) // BATCH  # of an epoch; 6 of 54 examples are left over


def indices(start=0, epochs=20, seed=5, labels=LABELS, batch_size=BATCH):
  stop = epochs * (len(labels) // batch_size)
  return sampling.BalancedIndices(seed, labels, batch_size, start, stop)


def test_classes_come_equally_often():
  """In any epochs from the first on, and nearly so in each batch."""
  counts = collections.Counter()
  for step, batch in enumerate(indices(), start=1):
    assert batch.indices.dtype == batch.epoch.dtype == np.int32
    assert batch.indices.shape == batch.epoch.shape == (BATCH,)
    labels = LABELS[batch.indices].tolist()
    shares = [labels.count(k) for k in COUNTS]
    assert max(shares) - min(shares) <= 2
    counts.update(labels)
    if step % STEPS == 0:
      assert counts.keys() == COUNTS.keys()
      assert max(counts.values()) - min(counts.values()) <= 1
  assert counts.total() == 20 * STEPS * BATCH


def test_a_batch_of_whole_rounds_is_exactly_balanced():
  for batch in indices(batch_size=9):
    assert np.bincount(LABELS[batch.indices]).tolist() == [3, 0, 3, 3]


def test_all_images_of_a_class_come_before_any_comes_again():
  taken, orders = collections.Counter(), collections.defaultdict(list)
  for batch in indices(batch_size=6):  # in one epoch, by their turns
    for index, number in zip(batch.indices, batch.epoch, strict=True):
      assert number == taken[index]  # how often it has come before
      taken[index] += 1
  for k in COUNTS:
    times = [taken[i] for i in np.flatnonzero(np.equal(LABELS, k))]
    assert max(times) - min(times) <= 1
  for epoch in range(4):  # class 2 in two orders
    order = indices().order(epoch)
    for number in np.unique(order.epoch[LABELS[order.indices] == 2]):
      chosen = (LABELS[order.indices] == 2) & (order.epoch == number)
      orders[number].extend(order.indices[chosen])
  assert len({tuple(order) for order in orders.values()}) > 1


def test_batches_follow_from_the_seed_and_the_step():
  whole = list(indices())
  rest = pickle.loads(pickle.dumps(indices(start=17)))
  assert len(rest) == len(whole) - 17
  for place in (5, 0, len(rest) - 1):  # in any order, as workers ask
    expected, found = whole[17 + place], rest[place]
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.epoch, expected.epoch)
  other = indices(seed=6)[0].indices
  assert not np.array_equal(np.sort(other), np.sort(whole[0].indices))


def test_a_large_set_costs_little():
  """A million images of 1,000 classes of which the largest has half."""
  rng = np.random.default_rng(0)
  labels = np.r_[np.zeros(500_000, int), rng.integers(0, 1000, 500_000)]
  order = indices(labels=labels, batch_size=1000).order(3)
  counts = np.bincount(labels[order.indices], minlength=1000)
  assert counts.tolist() == [1000] * 1000


class _Seen:
  """Reads what it is asked for: index and epoch as pixels."""

  def __call__(self, indices, epoch=0):
    images = np.empty((len(indices), 1, 1, 3), np.uint8)
    images[..., 0] = indices[:, None, None]
    images[..., 1] = epoch
    return images, LABELS[indices].astype(np.int32)


@pytest.mark.parametrize('is_random', [False, True])
def test_each_example_is_read_as_often_as_it_has_come(is_random):
  """Kept on the device, and streamed, where crops depend on that number."""
  data = Dataset(
    *('seen', 'train', len(LABELS), (1, 1, 3), 4, tuple('abcd'), _Seen()),
    is_random=is_random,
  )
  feed = batches.make_pipeline(data, 4, 1, 0)
  wanted = [indices()[i] for i in (0, STEPS, 90)]
  for expected, batch in zip(wanted, feed.batches(wanted), strict=True):
    assert batch['image'].shape == (1, BATCH, 1, 1, 3)
    assert batch['epoch'].dtype == batch['index'].dtype == np.int32
    np.testing.assert_array_equal(batch['index'][0], expected.indices)
    np.testing.assert_array_equal(batch['epoch'][0], expected.epoch)
    np.testing.assert_array_equal(batch['label'][0], LABELS[expected.indices])
    red, green, _ = np.moveaxis(np.asarray(batch['image'])[0, :, 0, 0], -1, 0)
    np.testing.assert_array_equal(red, expected.indices)
    if is_random:
      np.testing.assert_array_equal(green, expected.epoch)


def test_processes_and_devices_share_a_batch(monkeypatch):
  """Two processes of two devices get what one device gets, in its order."""
  batch = indices()[40]
  data = Dataset(
    *('seen', 'train', len(LABELS), (1, 1, 3), 4, tuple('abcd'), _Seen()),
  )
  shares = []
  for index in range(2):
    (found,) = stream.stream(data, [batch], (index, 2), 0)
    shares.append(found)
  images, labels = (
    np.concatenate(parts) for parts in zip(*shares, strict=True)
  )
  np.testing.assert_array_equal(images[:, 0, 0, 0], batch.indices)
  np.testing.assert_array_equal(images[:, 0, 0, 1], batch.epoch)
  np.testing.assert_array_equal(labels, LABELS[batch.indices])
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 2)
  for name, array in (('index', batch.indices), ('epoch', batch.epoch)):
    parts = []
    for index in range(2):
      monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
      parts.append(batches._numbers(batch)[name])
    np.testing.assert_array_equal(np.concatenate(parts).ravel(), array)


@pytest.fixture
def folder(tmp_path):
  """Twelve, two and four pictures of three greys."""
  for split in ('train', 'test'):
    for label, count in enumerate((12, 2, 4)):
      (tmp_path / split / f'{label}').mkdir(parents=True)
      for i in range(count):
        image = Image.new('L', (8, 8), 60 * label + i)
        image.save(tmp_path / split / f'{label}/{i}.png')
  return tmp_path


@pytest.fixture
def own(config, folder):
  config.data.source, config.data.data_dir = 'folder', str(folder)
  config.data.eval_split, config.train.batch_size = 'test', 6
  config.train.epochs, config.train.max_steps = 2, 0
  config.train.sampling = 'balanced'
  config.model.num_classes = 0
  return config


def test_images_that_are_trained_and_evaluated_are_told(own):
  own.data.train_split, own.data.eval_split = 'train', 'train[12:]'
  run = setup.build(auto.complete(config_lib.resolve(own)))
  (line,) = [
    line for line in messages.describe(run, 'here') if 'warning' in line
  ]
  assert line.startswith(
    "warning  config.data.eval_split='train[12:]' has 6 images of "
    "config.data.train_split='train': where a network was trained"
  )


def test_a_run_takes_what_its_config_says(own):
  config = auto.complete(config_lib.resolve(own))
  run = setup.build(config)
  labels = [np.asarray(batch['label'])[0] for _, batch in run.batches(0)]
  assert len(labels) == 6
  for batch in labels:
    assert np.bincount(batch).tolist() == [2, 2, 2]
  lines = messages.describe(run, 'here')
  assert 'classes  0 12 + 12, 1 2 + 2, 2 4 + 4' in lines
  assert any('of 6 images, classes in turn; sgd' in line for line in lines)
  own.train.sampling = 'natural'
  run = setup.build(auto.complete(config_lib.resolve(own)))
  seen = [np.asarray(batch['index'])[0] for _, batch in run.batches(0)][:3]
  assert sorted(np.concatenate(seen)) == list(range(18))


def test_images_for_tensorboard_are_those_of_the_step(own, tmp_path):
  """Each with the number of times it has come, which crops depend on."""
  own.augment.random_resized_crop = True
  own.logging.tensorboard, own.logging.images = True, 3
  config = auto.complete(config_lib.resolve(own))
  run = setup.build(config)
  (batch,) = run.indices(4, 5)
  assert np.ptp(batch.epoch) > 0
  shown = summaries.make_show_inputs(config, run.train.dataset)(batch, 4, None)
  page = np.asarray(
    Image.open(io.BytesIO(shown.value[0].image.encoded_image_string))
  )
  for i in range(3):
    (image,), _ = run.train.dataset.read(
      batch.indices[i : i + 1], int(batch.epoch[i])
    )
    row, column = divmod(i, 2)
    tile = page[2 + 30 * row :, 2 + 30 * column :][:28, :28]
    np.testing.assert_allclose(
      tile, np.broadcast_to(image, tile.shape), atol=1.01
    )


def test_labels_of_a_run_are_read_once(own, monkeypatch):
  """A source that does not keep them apart would read its images again."""
  load, read = pipeline.load_split, []

  def without_labels(config, field, *args, **options):
    dataset = load(config, field, *args, **options)

    def counted(indices, epoch=0):
      read.append((field, len(indices)))
      return dataset.read(indices, epoch)

    return dataset._replace(labels=None, read=counted)

  monkeypatch.setattr(pipeline, 'load_split', without_labels)
  own.data.on_device_mb = 0
  run = setup.build(auto.complete(config_lib.resolve(own)))
  read.clear()
  for start in (0, 3, 5):
    assert len(run.indices(start, start + 1)) == 1
  assert not read


def test_the_console_counts_the_images_that_are_used(own):
  own.data.per_class, own.data.eval_split = 2, 'test[:50%]'
  config = auto.complete(config_lib.resolve(own))
  run = setup.build(config)
  tested = np.bincount(run.evaluation.dataset.labels, minlength=3)
  line = ', '.join(f'{k} 2 + {count}' for k, count in enumerate(tested))
  assert f'classes  {line}' in messages.describe(run, 'here')
  assert tested.sum() == 9


def test_classes_are_not_balanced_twice(own):
  own.train.class_weights = auto.BALANCED
  with pytest.raises(UserError, match='classes twice: choose one'):
    auto.complete(config_lib.resolve(own))
  own.train.class_weights = (1.0, 2.0, 3.0)  # of one's own
  assert auto.complete(config_lib.resolve(own)).model.num_classes == 3


def test_an_image_has_another_crop_each_time(own):
  own.data.image_size = 28
  own.augment.random_resized_crop = True
  config = auto.complete(config_lib.resolve(own))
  data = pipeline.load_split(config, 'train_split')
  assert isinstance(data.read.read._transform, RandomResizedCrop), (
    'the transform that reads the number'
  )
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (18, 30, 30, 1), np.uint8)
  data = data._replace(read=_Cropped(noise, data.read.read._transform))
  batch = stream.IndexBatch(np.array([3, 3, 3, 5]), np.array([0, 2, 0, 2]))
  ((images, _),) = stream.stream(data, [batch], (0, 1), 0)
  assert not np.array_equal(images[0], images[1])
  np.testing.assert_array_equal(images[0], images[2])
  expected, _ = data.read(np.array([3, 5]), 2)
  np.testing.assert_array_equal(images[[1, 3]], expected)


class _Cropped:
  def __init__(self, images, transform):
    self.images, self.transform = images, transform

  def __call__(self, indices, epoch=0):
    images = [
      self.transform(Image.fromarray(self.images[i, ..., 0]), 1, epoch, int(i))
      for i in indices
    ]
    return np.stack(images), np.zeros(len(indices), np.int32)
