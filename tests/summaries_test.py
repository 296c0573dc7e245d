"""Images of inputs and histograms of layers, read back from the event file."""

import io
import time

import jax
import numpy as np
import pytest
from PIL import Image
from run_files import all_events
from tensorboardX.proto import summary_pb2

from googlenet import config as config_lib
from googlenet.io import checkpoint, events
from googlenet.train import loop, loss, summaries
from googlenet.train.state import TrainState


def pixels(image):
  return np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))


def test_grid_by_hand():
  images = np.zeros((3, 2, 1, 1), np.float32)
  images[0] = 0.5
  images[1, 1] = 7.0  # clipped
  page = summaries.grid(images)
  assert page.dtype == np.uint8
  assert page.shape == (10, 8, 1)  # two rows, two columns; lines of 2 pixels
  expected = np.full((10, 8), 255)
  expected[2:4, 2] = 128
  expected[2, 5] = 0
  expected[6:8, 2] = 0
  np.testing.assert_array_equal(page[..., 0], expected)


@pytest.fixture
def two_epochs(config):
  config.data.train_split = 'train[:130]'  # a step of 64 is left out
  config.data.eval_split = 'test[:50]'
  config.train.max_steps = 5
  config.logging.every_steps = 1
  config.logging.images = 5
  config.logging.histograms = 2
  return config


def test_images_are_those_that_the_network_sees(
  two_epochs, tmp_path, monkeypatch
):
  """Flipped, cropped, mixed, and in two channels more than they have."""
  two_epochs.augment.flip = 'random'
  two_epochs.augment.crop_padding = 3
  two_epochs.augment.mixup_alpha = 1.0
  two_epochs.data.channels = 3
  two_epochs.data.mean = (0.1, 0.3, 0.5)
  two_epochs.data.std = (0.2, 0.5, 0.9)
  seen = []
  make_inputs = loss.make_inputs

  def watch(*args):
    images, mixed = make_inputs(*args)
    jax.debug.callback(lambda x: seen.append(np.array(x)), images)
    return images, mixed

  monkeypatch.setattr(loss, 'make_inputs', watch)
  loop.train_and_evaluate(config_lib.resolve(two_epochs), tmp_path / 'run')
  jax.effects_barrier()
  batches = [images for images in seen if len(images) == 64]
  assert len(batches) == 5
  shown = {
    step: value
    for step, name, value in all_events(tmp_path / 'run')
    if name == 'inputs'
  }
  assert list(shown) == [0, 2, 4]  # at the start of each of three epochs
  for step, image in shown.items():
    assert (image.height, image.width) == (62, 92)
    page = pixels(image)
    for place in range(5):
      row, column = divmod(place, 3)
      tile = page[2 + 30 * row :, 2 + 30 * column :][:28, :28]
      expected = 255 * (
        batches[step][place] * two_epochs.data.std + two_epochs.data.mean
      )
      np.testing.assert_allclose(tile, expected, atol=0.51)
  # In the file each follows the records up to its step.
  steps = [step for step, _, _ in all_events(tmp_path / 'run')]
  assert steps == sorted(steps)


def test_histograms_of_parameters_and_momentum(two_epochs, tmp_path):
  two_epochs.checkpoint.keep = 9
  loop.train_and_evaluate(config_lib.resolve(two_epochs), tmp_path / 'run')
  found = {
    (step, name): value
    for step, name, value in all_events(tmp_path / 'run')
    if isinstance(value, summary_pb2.HistogramProto)
  }
  # Each second epoch, and the last.
  assert {step for step, _ in found} == {4, 5}
  for step in (4, 5):
    with np.load(checkpoint.path_of(tmp_path / 'run', step)) as stored:
      for kind, prefix in (('parameters', 'params/'), ('momentum', None)):
        names = [n for s, n in found if s == step and n.startswith(kind)]
        assert len(names) == 16  # eight layers with w and b
        for name in names:
          path = name.removeprefix(f'{kind}/')
          (key,) = (
            key
            for key in stored.files
            if key == f'params/{path}'
            or (prefix is None and key.endswith(f'trace/{path}'))
            if key.startswith('params/') == (prefix is not None)
          )
          histogram, array = found[step, name], stored[key].astype(np.float64)
          assert histogram.num == sum(histogram.bucket) == array.size
          assert (histogram.min, histogram.max) == (array.min(), array.max())
          np.testing.assert_allclose(histogram.sum, array.sum(), atol=1e-6)
          below = np.cumsum(histogram.bucket)[len(histogram.bucket) // 2]
          limit = histogram.bucket_limit[len(histogram.bucket) // 2]
          assert below == (array < limit).sum() or limit >= array.max()


def test_histograms_leave_out_what_is_not_finite(config):
  params = {'a': {'w': np.array([1.0, np.inf]), 'b': np.array([np.nan])}}
  state = TrainState(0, params, {}, (), None, {}, {})
  (value,) = summaries.histograms(state).value
  assert (value.tag, value.histo.num) == ('parameters/a/w', 1)


def test_nothing_without_tensorboard(two_epochs, tmp_path, monkeypatch):
  two_epochs.logging.tensorboard = False
  monkeypatch.setattr(summaries, 'image', None)
  monkeypatch.setattr(summaries, 'histograms', None)
  loop.train_and_evaluate(config_lib.resolve(two_epochs), tmp_path / 'run')
  assert not (tmp_path / 'run/tensorboard').exists()


@pytest.mark.parametrize('passed', [100.0, 0.0, -100.0])
def test_a_continued_run_drops_what_is_made_again(
  tmp_path, monkeypatch, passed
):
  """Also where the clock was set back meanwhile: file names sort by time."""
  folder = tmp_path / 'tensorboard'
  monkeypatch.setattr(time, 'time', lambda: 1.7e9)
  file = events.EventFile(folder)
  for step in (2, 4, 6):
    file.write(step, {'train/loss': float(step)})
    image = summaries.image('inputs', np.full((1, 1, 1), step, np.uint8))
    file.write_summary(step, image)
  file.close()
  monkeypatch.setattr(time, 'time', lambda: 1.7e9 + passed)
  again = events.EventFile(folder, first_step=5)
  again.write(6, {'train/loss': 7.0})
  again.close()
  assert len(list(folder.iterdir())) == 2
  found = all_events(tmp_path)
  assert [(step, name) for step, name, _ in found] == [
    (2, 'train/loss'),
    (2, 'inputs'),
    (4, 'train/loss'),
    (4, 'inputs'),
    (6, 'train/loss'),
  ]
  assert found[-1][2] == 7.0
