"""Test-time flips and shifts, against a loop over views."""

import jax
import numpy as np
import pytest

from googlenet import config as config_lib
from googlenet.data.batches import eval_batches
from googlenet.errors import UserError
from googlenet.input import views
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference import trained
from googlenet.tools.scoring import scores
from googlenet.tools.scoring.predictions import predict_split
from googlenet.train import setup
from googlenet.train.evaluate import evaluate


def move(images, rows, columns):
  """By a loop over pixels."""
  out = np.zeros_like(images)
  height, width = images.shape[1:3]
  for i in range(height):
    for j in range(width):
      if 0 <= i - rows < height and 0 <= j - columns < width:
        out[:, i, j] = images[:, i - rows, j - columns]
  return out


def reference_views(images, flip, shift):
  made = [images]
  if shift:
    made += [move(images, -shift, -shift), move(images, shift, shift)]
  if flip:
    made += [view[:, :, ::-1] for view in made]
  return np.stack(made)


SETTINGS = [(False, 0), (True, 0), (False, 2), (True, 3)]


@pytest.mark.parametrize(('flip', 'shift'), SETTINGS)
def test_views_are_moved_and_mirrored(config, flip, shift):
  config.eval.flip, config.eval.shift = flip, shift
  rng = np.random.default_rng(0)
  images = rng.integers(1, 256, (2, 6, 8, 3), dtype=np.uint8)
  made = np.asarray(views.make_views(images, config.eval))
  assert made.dtype == np.uint8
  assert len(made) == views.num_views(config.eval)
  np.testing.assert_array_equal(made, reference_views(images, flip, shift))


def test_scores_are_those_of_the_mean_in_both_ways_to_evaluate(config):
  config.data.eval_split = 'test[:50]'
  config.eval.flip, config.eval.shift, config.eval.batch_size = True, 2, 20
  config = config_lib.resolve(config)
  run = setup.build(config)
  params = jax.tree.map(np.asarray, run.state.params)
  losses, hits = [], []
  for batch in eval_batches(run.evaluation, 20):
    images, labels, mask = (
      np.asarray(batch[name])[0] for name in ('image', 'label', 'mask')
    )
    p = 0.0
    for view in reference_views(images, True, 2):
      x = ((view / 255 - 0.2860) / 0.3530).astype(np.float32)
      logits = run.network.apply(params, {}, None, x, False)[0].logits
      exp = np.exp(np.asarray(logits, np.float64))
      p = p + exp / exp.sum(-1, keepdims=True) / 6
    losses += list(-np.log(p[np.arange(len(p)), labels])[mask > 0])
    hits += list((p.argmax(-1) == labels)[mask > 0])
  params = replicated(params)
  first = evaluate(run.eval_step, params, {}, run.evaluation, 20)
  names = run.train.dataset.class_names
  member = trained.Trained(
    '', config, run.network, 0, params, {}, (28, 28, 1), names
  )
  predicted = predict_split(config, [member])
  second = scores.compute(predicted.probabilities, predicted.labels)._asdict()
  for found in (first, second):
    np.testing.assert_allclose(found['loss'], np.mean(losses), rtol=1e-4)
    assert found['accuracy'] == pytest.approx(np.mean(hits), abs=1e-6)
    assert found['count'] == 50


def test_crops_have_views_of_their_own(config):
  config.eval.crops, config.eval.flip = 10, True
  with pytest.raises(UserError, match=r'eval\.crops=10: crops are views'):
    config_lib.resolve(config)
