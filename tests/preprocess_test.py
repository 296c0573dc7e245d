"""What the network sees, against NumPy."""

import warnings

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from PIL import Image

from googlenet.errors import UserError
from googlenet.input.preprocess import preprocess


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


def test_images_are_bytes_or_floats_in_the_same_range():
  """Floats keep their precision and differentiate: to the slope 1/255/std."""
  pixels = jnp.asarray(random_images(2, 4, 4, 1))
  config = data_config(4, (0.1,), (0.5,))
  expected = preprocess(pixels, config)
  floats = jnp.asarray(pixels, jnp.float32)
  np.testing.assert_array_equal(preprocess(floats, config), expected)
  slope = jax.grad(lambda x: preprocess(x, config).sum())(floats)
  np.testing.assert_allclose(slope, 1 / 255 / 0.5, rtol=1e-5)
  with jax.enable_x64(True):
    wide = preprocess(jnp.asarray(pixels, jnp.float64), config)
    assert wide.dtype == jnp.float64
    exact = (np.asarray(pixels, np.float64) / 255 - 0.1) / 0.5
    np.testing.assert_allclose(wide, exact, rtol=1e-14)


@pytest.mark.parametrize(
  'images',
  [
    np.zeros((1, 4, 4, 1), int),
    np.zeros((1, 4, 4, 1), bool),
    np.zeros((4, 4, 1), np.uint8),
    np.zeros((1, 0, 4, 1), np.uint8),
    3.0,
  ],
)
def test_what_are_no_images(images):
  with pytest.raises(UserError, match='images are .*; allowed is uint8 or flo'):
    preprocess(images, data_config(4, (0.1,), (0.5,)))


def test_float64_of_numpy_is_float32_without_a_warning():
  """JAX has no float64 unless somebody asks for it."""
  pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1))
  config = data_config(4, (0.1,), (0.5,))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    x = preprocess(pixels, config)
  assert x.dtype == jnp.float32
  np.testing.assert_allclose(x, (pixels / 255 - 0.1) / 0.5, rtol=1e-5)
  assert preprocess(list(pixels), config).shape == (2, 4, 4, 1)


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
