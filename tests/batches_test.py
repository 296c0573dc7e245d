"""Order, shares and padding of batches, from the device and streamed."""

import jax
import numpy as np
import pytest

from googlenet import config as config_lib
from googlenet.data import batches, stream
from googlenet.data.sources import Dataset
from googlenet.errors import Stopped, UserError
from googlenet.train import hooks, loop


def dataset(num_examples=10, num_classes=10) -> Dataset:
  """Image i is filled with i and has the label i % 10."""

  def read(indices, epoch=0):
    images = np.broadcast_to(
      np.asarray(indices, np.uint8)[:, None, None, None],
      (len(indices), 4, 4, 1),
    )
    return images.copy(), np.asarray(indices, np.int32) % num_classes

  names = tuple('abcdefghij')
  return Dataset('ten', 'train', num_examples, (4, 4, 1), 10, names, read)


def feed(data, on_device, num_classes=10):
  return batches.make_pipeline(data, num_classes, 1 if on_device else 0, 0)


def index_batches(*lists, epoch=0):
  return [batches.IndexBatch(np.array(indices), epoch) for indices in lists]


def test_an_epoch_is_a_permutation_of_its_own():
  orders = [batches.epoch_order(0, epoch, 1000) for epoch in range(3)]
  for order in orders:
    assert sorted(order) == list(range(1000))
  assert not np.array_equal(orders[0], orders[1])
  np.testing.assert_array_equal(orders[1], batches.epoch_order(0, 1, 1000))
  assert not np.array_equal(orders[0], batches.epoch_order(1, 0, 1000))


def test_a_run_continues_from_its_step_number():
  whole = list(batches.TrainIndices(5, 103, 10, 0, 35))
  rest = list(batches.TrainIndices(5, 103, 10, 17, 35))
  assert len(whole) == 35
  assert [batch.epoch for batch in whole] == [i // 10 for i in range(35)]
  for expected, actual in zip(whole[17:], rest, strict=True):
    np.testing.assert_array_equal(expected.indices, actual.indices)
    assert expected.epoch == actual.epoch
  first_epoch = np.concatenate([batch.indices for batch in whole[:10]])
  assert len(set(first_epoch)) == 100


@pytest.mark.parametrize('on_device', [True, False])
def test_batches_hold_the_examples_asked_for(on_device):
  made = feed(dataset(), on_device)
  assert made.on_device == on_device
  wanted = index_batches([3, 1, 4, 9], [2, 6, 5, 0])
  for (indices, _), batch in zip(wanted, made.batches(wanted), strict=True):
    assert batch['image'].shape == (1, 4, 4, 4, 1)
    assert batch['image'].dtype == np.uint8
    assert batch['label'].dtype == np.int32
    np.testing.assert_array_equal(batch['image'][0, :, 0, 0, 0], indices)
    np.testing.assert_array_equal(batch['label'][0], indices)


@pytest.mark.parametrize('on_device', [True, False])
@pytest.mark.parametrize('batch_size', [1, 3, 7, 10, 16])
def test_evaluation_sees_every_example_once(on_device, batch_size):
  seen = []
  for batch in batches.eval_batches(feed(dataset(), on_device), batch_size):
    shape = (1, min(batch_size, 10))  # none is larger than the data
    assert batch['mask'].shape == batch['label'].shape == shape
    seen += np.asarray(batch['label'])[batch['mask'] > 0].tolist()
  assert sorted(seen) == list(range(10))


def test_evaluation_rounds_up_to_the_devices():
  made = batches.eval_indices(10, 3, num_devices=4)
  assert [len(batch.indices) for batch in made] == [4, 4, 4]
  np.testing.assert_array_equal(made[2].indices, [8, 9, -1, -1])


def test_share_of_a_process(monkeypatch):
  """Two processes of two devices: no example twice, none left out."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 2)
  shares = []
  for index in range(2):
    monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
    shares.append(batches.device_share(np.arange(12)))
  assert shares[0].shape == (2, 3)
  np.testing.assert_array_equal(np.concatenate(shares).ravel(), np.arange(12))


@pytest.mark.parametrize('on_device', [True, False])
def test_labels_outside_the_classes_are_refused(on_device):
  wanted = index_batches(range(10))

  def read():
    return list(feed(dataset(), on_device, num_classes=4).batches(wanted))

  with pytest.raises(UserError, match=r'config\.model\.num_classes=4'):
    read()


def test_a_run_that_is_ended_closes_its_stream(config, tmp_path, monkeypatch):
  """At the end of Python, workers of Grain may be closed by two at once."""
  closed = []

  def watched(*arguments):
    try:
      yield from stream.stream(*arguments)
    finally:
      closed.append(True)

  def end(*_):
    raise Stopped('now')

  monkeypatch.setattr(batches, 'stream', watched)
  monkeypatch.setattr(hooks.Save, '__call__', end)
  config.data.train_split, config.data.eval_split = 'train[:400]', 'test[:9]'
  config.data.on_device_mb, config.train.max_steps = 0, 5
  with pytest.raises(Stopped) as ended:
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path)
  assert closed == [True]
  assert ended.tb  # whose frames would keep the stream open
