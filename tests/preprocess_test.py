"""What the network sees, against NumPy, and augmentation by key."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from PIL import Image

from googlenet.preprocess import augment, preprocess


def data_config(size, mean=(0.25,), std=(0.5,), channels=0):
  return ml_collections.ConfigDict(
    {'image_size': size, 'mean': mean, 'std': std, 'channels': channels}
  )


def random_images(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape, dtype=np.uint8)


def numpy_bilinear(image, size):
  """Enlarges [H, W, C]; pixel centres at (i + 0.5), edges repeated."""
  height, width, _ = image.shape
  out = np.empty((size, size, image.shape[-1]))
  for i in range(size):
    for j in range(size):
      y = np.clip((i + 0.5) * height / size - 0.5, 0, height - 1)
      x = np.clip((j + 0.5) * width / size - 0.5, 0, width - 1)
      top, left = int(y), int(x)
      bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
      a, b = y - top, x - left
      out[i, j] = (1 - a) * ((1 - b) * image[top, left] + b * image[top, right])
      out[i, j] += a * (
        (1 - b) * image[bottom, left] + b * image[bottom, right]
      )
  return out


def test_scale_normalise_and_resize_against_numpy():
  images = random_images(2, 7, 7, 3)
  mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)
  actual = preprocess(images, data_config(24, mean, std))
  scaled = (images / 255 - np.array(mean)) / np.array(std)
  expected = np.stack([numpy_bilinear(image, 24) for image in scaled])
  assert actual.dtype == jnp.float32
  assert actual.shape == (2, 24, 24, 3)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_native_size_is_left_alone():
  images = random_images(2, 28, 28, 1)
  expected = (images / 255 - 0.25) / 0.5
  np.testing.assert_allclose(
    preprocess(images, data_config(28)), expected, rtol=1e-5, atol=1e-6
  )


def test_eager_equals_jit():
  images = random_images(3, 28, 28, 1)
  config = data_config(96)
  np.testing.assert_allclose(
    jax.jit(lambda x: preprocess(x, config))(images),
    preprocess(images, config),
    rtol=1e-5,
    atol=1e-6,
  )


def test_images_must_be_uint8():
  with pytest.raises(AssertionError):
    preprocess(jnp.zeros((1, 4, 4, 1)), data_config(4))


def augment_config(flip=False, crop_padding=0):
  return ml_collections.ConfigDict({'flip': flip, 'crop_padding': crop_padding})


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def test_off_changes_nothing():
  images = random_images(4, 8, 8, 1)
  assert augment(images, keys(4), augment_config()) is images


def test_flip_mirrors_half_of_the_images():
  images = random_images(400, 6, 6, 1)
  flipped = np.asarray(augment(images, keys(400), augment_config(flip=True)))
  assert flipped.dtype == np.uint8
  same = (flipped == images).all((1, 2, 3))
  mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
  assert (same ^ mirrored).all()
  assert 0.4 < mirrored.mean() < 0.6


def test_crop_is_a_window_of_the_padded_image():
  images = random_images(200, 6, 6, 2) // 2 + 100  # nothing is 0 but padding
  cropped = np.asarray(augment(images, keys(200), augment_config(False, 2)))
  assert cropped.shape == images.shape
  offsets = set()
  for image, crop in zip(images, cropped, strict=True):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    (found,) = [
      (i, j)
      for i in range(5)
      for j in range(5)
      if np.array_equal(padded[i : i + 6, j : j + 6], crop)
    ]
    offsets.add(found)
  assert len(offsets) == 25


def test_an_image_depends_on_its_key_only():
  images = random_images(8, 6, 6, 1)
  config = augment_config(True, 3)
  whole = augment(images, keys(8), config)
  parts = [
    augment(images[i : i + 2], keys(8)[i : i + 2], config) for i in (0, 6)
  ]
  np.testing.assert_array_equal(whole[:2], parts[0])
  np.testing.assert_array_equal(whole[6:], parts[1])
  assert not np.array_equal(whole, augment(images, keys(8, seed=1), config))


def test_grey_becomes_colour_and_colour_grey():
  """Grey by the weights of ITU-R 601-2, as Pillow's convert('L')."""
  grey = random_images(2, 5, 5, 1)
  config = data_config(5, (0.1, 0.2, 0.3), (1.0, 1.0, 2.0), channels=3)
  expected = (grey / 255 - [0.1, 0.2, 0.3]) / [1, 1, 2]
  np.testing.assert_allclose(preprocess(grey, config), expected, rtol=1e-5)

  colour = random_images(2, 5, 5, 3)
  actual = preprocess(colour, data_config(5, (0.0,), (1.0,), channels=1))
  pillows = [
    np.asarray(Image.fromarray(image).convert('L'))[..., None]
    for image in colour
  ]
  # Pillow rounds to whole grey levels.
  np.testing.assert_allclose(actual * 255, np.stack(pillows), rtol=0, atol=0.51)
