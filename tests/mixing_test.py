"""mixup and CutMix: pixels and labels, against NumPy, in pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_test import augment_config, keys

from googlenet.input import mixing
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.train import loss as loss_lib

N, SIZE = 400, 12


def compiled(config):
  """As in the step, which is sooner compiled than one operation at a time."""
  return jax.jit(lambda *args: mixing.mix(*args, config))


def mix(seed=0, **changes):
  """Mixes images whose every pixel is the number of the image."""
  images = np.arange(N, dtype=np.float32)[:, None, None, None]
  images = np.broadcast_to(images, (N, SIZE, SIZE, 1))
  labels = np.arange(N, dtype=np.int32)
  config = augment_config(**changes)
  return mixing.mix(jnp.asarray(images), labels, keys(N, seed), config)


def test_partners_are_neighbours():
  mixed = mix(mixup_alpha=1.0)
  np.testing.assert_array_equal(mixed.labels, np.arange(N))
  np.testing.assert_array_equal(mixed.partners, np.arange(N) ^ 1)


@pytest.mark.parametrize('alpha', [0.2, 1.0, 4.0])
def test_mixup_adds_two_images_in_the_parts_of_their_labels(alpha):
  mixed = mix(mixup_alpha=alpha)
  weights = np.asarray(mixed.weights)
  expected = weights * np.arange(N) + (1 - weights) * (np.arange(N) ^ 1)
  for place in (np.s_[:, 0, 0, 0], np.s_[:, 7, 3, 0]):
    np.testing.assert_allclose(mixed.images[place], expected, atol=1e-3)
  # Beta(alpha, alpha).
  assert weights.mean() == pytest.approx(0.5, abs=0.07)
  assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)


def test_cutmix_pastes_one_box_and_counts_its_pixels():
  mixed = mix(cutmix_alpha=1.0)
  images = np.asarray(mixed.images)[..., 0]
  own = images == np.arange(N)[:, None, None]
  assert (own | (images == (np.arange(N) ^ 1)[:, None, None])).all()
  np.testing.assert_allclose(mixed.weights, own.mean((1, 2)), atol=1e-6)
  for pasted in ~own:
    rows, columns = np.nonzero(pasted.any(1))[0], np.nonzero(pasted.any(0))[0]
    assert pasted.sum() == len(rows) * len(columns)  # a rectangle
    assert np.ptp(rows) + 1 == len(rows) if len(rows) else True
    assert np.ptp(columns) + 1 == len(columns) if len(columns) else True
  assert 0.4 < np.asarray(mixed.weights).mean() < 0.85
  assert (~own).any(0).all()  # every pixel is pasted somewhere


@pytest.mark.parametrize('weight', [0.36, 0.75, 0.91])
def test_the_box_is_as_large_as_its_part(weight):
  """Where the border does not cut it: 1 - weight of the area."""
  boxes = np.stack(
    [mixing.box(key, jnp.float32(weight), 400, 200) for key in keys(30)]
  )
  whole = boxes[
    ~boxes[:, [0, -1]].any((1, 2)) & ~boxes[..., [0, -1]].any((1, 2))
  ]
  assert len(whole)
  np.testing.assert_allclose(whole.mean((1, 2)), 1 - weight, rtol=0.1)


def test_weights_of_cutmix_are_uniform_for_alpha_1():
  """The parts that are left of images are spread as by many random boxes."""
  rng = np.random.default_rng(0)
  half = np.sqrt(rng.uniform(size=10**6)) / 2
  sides = []
  for _ in range(2):
    centre = rng.uniform(size=10**6)
    sides.append(np.minimum(centre + half, 1) - np.maximum(centre - half, 0))
  parts = [0.1, 0.25, 0.5, 0.75, 0.9]
  expected = np.quantile(1 - sides[0] * sides[1], parts)
  images = jnp.zeros((4000, 64, 64, 1))
  mix = compiled(augment_config(cutmix_alpha=1.0))
  mixed = mix(images, jnp.zeros(4000, int), keys(4000))
  found = np.quantile(mixed.weights, parts)
  np.testing.assert_allclose(found, expected, atol=0.03)


def test_both_kinds_and_images_that_are_spared():
  mixed = mix(mixup_alpha=1.0, cutmix_alpha=1.0, mix_probability=0.5)
  images, weights = np.asarray(mixed.images)[..., 0], np.asarray(mixed.weights)
  is_whole = (images == np.arange(N)[:, None, None]).all((1, 2))
  is_flat = np.ptp(images, axis=(1, 2)) == 0
  assert (weights[is_whole] == 1).all()
  assert 0.4 < is_whole.mean() < 0.62
  assert 0.18 < (is_flat & ~is_whole).mean() < 0.32  # mixup
  assert 0.15 < (~is_flat).mean() < 0.32  # CutMix
  none = mix(mixup_alpha=1.0, mix_probability=0.0)
  np.testing.assert_array_equal(none.images[:, 0, 0, 0], np.arange(N))


def test_a_pair_depends_on_its_keys_only():
  """Whether a device sees four images or two of them."""
  images = np.random.default_rng(0).normal(size=(4, 6, 6, 1))
  images, labels = jnp.asarray(images, jnp.float32), jnp.arange(4)
  mix = compiled(augment_config(mixup_alpha=1.0, cutmix_alpha=1.0))
  whole = mix(images, labels, keys(4))
  part = mix(images[2:], labels[2:], keys(4)[2:])
  for one, other in zip(whole, part, strict=True):
    np.testing.assert_array_equal(one[2:], other)


def test_the_loss_is_that_of_mixed_labels(config):
  """Against soft targets that add up to one."""
  config.augment.mixup_alpha = 1.0
  config.train.label_smoothing = 0.1
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (8, 28, 28, 1), dtype=np.uint8),
    'label': rng.integers(0, 10, 8).astype(np.int32),
  }
  network = network_lib.make_network(config.model)
  params, state = init_from_numpy(network, (28, 28, 1), 0)
  loss_fn = loss_lib.make_loss_fn(network, config)
  loss, (_, metrics) = loss_fn(params, state, batch, (keys(8), keys(8, 1)))

  x = (batch['image'] / 255 - 0.2860) / 0.3530
  mixed = mixing.mix(
    jnp.asarray(x, jnp.float32), batch['label'], keys(8), config.augment
  )
  logits = np.asarray(
    network.apply(params, state, None, mixed.images, True)[0].logits, np.float64
  )
  weights, one_hot = np.asarray(mixed.weights)[:, None], np.eye(10)
  targets = weights * one_hot[batch['label']]
  targets += (1 - weights) * one_hot[np.asarray(mixed.partners)]
  np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
  best = targets[np.arange(8), logits.argmax(-1)]
  targets = 0.9 * targets + 0.1 / 10
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = -(targets * log_p).sum(-1).mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy'], best.mean(), rtol=1e-6)

  # Class weights: each label's own loss counts by the weight of its class.
  config.train.class_weights = tuple(float(k) for k in range(10))
  weighted, _ = loss_lib.make_loss_fn(network, config)(
    params, state, batch, (keys(8), keys(8, 1))
  )
  losses = [
    -((0.9 * one_hot[y] + 0.1 / 10) * log_p).sum(-1) * y
    for y in (batch['label'], np.asarray(mixed.partners))
  ]
  expected = weights[:, 0] * losses[0] + (1 - weights[:, 0]) * losses[1]
  np.testing.assert_allclose(weighted, expected.mean(), rtol=1e-5)


@pytest.mark.parametrize('alpha', ['mixup_alpha', 'cutmix_alpha'])
def test_off_draws_nothing(config, alpha):
  assert not mixing.is_on(config.augment)
  config.augment[alpha] = 0.5
  assert mixing.is_on(config.augment)
  config.augment.mix_probability = 0.0
  assert not mixing.is_on(config.augment)
