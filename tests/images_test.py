"""What the host makes of images of any size and mode."""

import io

import ml_collections
import numpy as np
import photos
import pytest
from PIL import Image

from googlenet.data import images


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
  """A smooth image: what a resampling does in detail hardly shows."""
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
  return Image.fromarray(blocks).resize((width, height), Image.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
  stream = io.BytesIO()
  image.save(stream, 'jpeg', quality=95)
  return stream.getvalue()


def apply(transform, image, epoch=0, index=0, num_channels=3):
  return transform(image, num_channels, epoch, index)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK', 'RGBA', 'P', '1', 'LA'])
@pytest.mark.parametrize('num_channels', [1, 3])
def test_every_mode_becomes_the_one_asked_for(mode, num_channels):
  stored = picture(40, 30).convert(mode)
  stream = io.BytesIO()
  if mode in ('RGB', 'L', 'CMYK'):
    stored.save(stream, 'jpeg', quality=95, subsampling=0)
  else:
    stored.save(stream, 'png')
  expected = np.asarray(stored.convert(images.MODES[num_channels]), int)
  with images.open_image(stream.getvalue()) as image:
    assert image.mode == mode
    whole = images.pixels(image, num_channels, [(0, 0, 40, 30)], (30, 40))
  assert whole.shape == (1, 30, 40, num_channels)
  assert whole.dtype == np.uint8
  difference = np.abs(whole.reshape(expected.shape) - expected)
  assert difference.mean() < 4


@pytest.mark.parametrize('size', [(64, 48), (48, 64), (48, 48), (16, 12)])
def test_center_crop_is_a_resize_and_a_cut(size):
  """Whole numbers throughout: the long way gives the same pixels."""
  image = picture(*size)
  transform = images.CenterCrop(16, resize=24)
  scale = 24 / min(size)
  width, height = (round(scale * side) for side in size)
  resized = image.resize((width, height), Image.Resampling.BILINEAR)
  left, top = (width - 16) // 2, (height - 16) // 2
  expected = np.asarray(resized.crop((left, top, left + 16, top + 16)), int)
  actual = apply(transform, image)
  assert actual.shape == (*transform.sides, 3) == (16, 16, 3)
  assert np.abs(actual - expected).max() <= 1


@pytest.mark.parametrize('size', [(64, 48), (48, 64), (48, 48)])
def test_squares_lie_along_the_longer_side(size):
  width, height = size
  image = picture(width, height)
  squares = apply(images.Squares(24, 3), image)
  assert squares.shape == (3, 24, 24, 3)
  for square, corner in zip(squares, [0, 8, 16], strict=True):
    corner = corner if width != height else 0
    left, top = (corner, 0) if width > height else (0, corner)
    cut = image.crop((left, top, left + 48, top + 48))
    expected = cut.resize((24, 24), Image.Resampling.BILINEAR)
    # The filter reads beyond the edge of a square where the image goes on.
    inner = np.s_[1:-1, 1:-1]
    np.testing.assert_array_equal(square[inner], np.asarray(expected)[inner])
  (one,) = apply(images.Squares(24, 1), image)
  np.testing.assert_array_equal(one, squares[1])


def test_whole_is_squeezed():
  expected = picture(60, 20).resize((16, 16), Image.Resampling.BILINEAR)
  actual = apply(images.Whole(16), picture(60, 20))
  np.testing.assert_array_equal(actual, np.asarray(expected))


@pytest.mark.parametrize('side', [10, 20, 40, 79])
def test_a_large_jpeg_is_decoded_small(side):
  """The shortcut of the decoder shows in a few grey levels only."""
  contents = jpeg(picture(401, 323))
  with images.open_image(contents) as image:
    fast = apply(images.CenterCrop(side, side), image)
  with images.open_image(contents) as image:
    image.load()  # no shortcut after this
    assert image.size == (401, 323)
    slow = apply(images.CenterCrop(side, side), image)
  difference = np.abs(fast.astype(int) - slow)
  assert difference.mean() < 1
  assert difference.max() < 12


AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


def test_random_windows_have_the_areas_and_aspects_asked_for():
  width, height = 500, 375
  # Up to a half every shape fits, and none is drawn again.
  smallest, largest = 0.1, 0.5
  boxes = np.array(
    [
      images.random_box(
        np.random.default_rng(i), (width, height), (smallest, largest), ASPECT
      )
      for i in range(3000)
    ]
  )
  left, top, right, bottom = boxes.T
  assert (left >= 0).all()
  assert (top >= 0).all()
  assert (right <= width).all()
  assert (bottom <= height).all()
  w, h = right - left, bottom - top
  area, aspect = w * h / (width * height), w / h
  assert smallest * 0.98 < area.min() < area.max() < largest * 1.02
  assert aspect.min() > ASPECT[0] * 0.98
  assert aspect.max() < ASPECT[1] * 1.02
  # Uniform in area, and in the logarithm of aspect.
  assert abs((area < 0.2).mean() - 0.25) < 0.03
  assert abs((aspect < 1).mean() - 0.5) < 0.03
  # All over the image.
  assert left.min() == top.min() == 0
  assert right.max() == width
  assert bottom.max() == height


def test_of_a_long_image_it_is_the_centre():
  box = images.random_box(np.random.default_rng(0), (1000, 10), AREA, ASPECT)
  np.testing.assert_allclose(box, (500 - 20 / 3, 0, 500 + 20 / 3, 10))
  box = images.random_box(np.random.default_rng(0), (10, 1000), AREA, ASPECT)
  np.testing.assert_allclose(box, (0, 500 - 20 / 3, 10, 500 + 20 / 3))


def test_a_random_crop_follows_seed_epoch_and_index():
  def crop(seed=0, epoch=0, index=0):
    transform = images.RandomResizedCrop(24, AREA, ASPECT, seed)
    return apply(transform, picture(90, 70), epoch, index).tobytes()

  assert crop(1, 2, 3) == crop(1, 2, 3)
  drawn = {crop(*numbers) for numbers in np.ndindex(3, 3, 3)}
  assert len(drawn) == 27


def test_a_random_crop_is_a_window_of_the_image():
  """A window as large as the result is not resampled: its pixels are there."""
  image = picture(12, 9)
  part = 36 / (12 * 9)
  transform = images.RandomResizedCrop(6, (part, part), (1.0, 1.0), 0)
  pixels, places = np.asarray(image), set()
  for index in range(300):
    crop = apply(transform, image, 0, index)
    found = [
      (top, left)
      for top in range(4)
      for left in range(7)
      if np.array_equal(pixels[top : top + 6, left : left + 6], crop)
    ]
    places.update(found)
    assert found
  assert len(places) == 28


@pytest.mark.parametrize(
  ('fields', 'training', 'evaluation'),
  [
    ((False, 0), None, None),
    ((False, 28), images.CenterCrop(24, 28), images.CenterCrop(24, 28)),
    ((True, 28), images.RandomResizedCrop, images.CenterCrop(24, 28)),
    ((True, 0), images.RandomResizedCrop, images.Whole(24)),
  ],
)
def test_what_the_config_asks_for(fields, training, evaluation):
  augment = ml_collections.ConfigDict(
    {
      'random_resized_crop': fields[0],
      'crop_area': AREA,
      'crop_aspect': ASPECT,
    }
  )
  data = ml_collections.ConfigDict({'image_size': 24, 'resize': fields[1]})
  made = images.make_transform(data, augment, 5, is_training=True)
  if training is images.RandomResizedCrop:
    training = images.RandomResizedCrop(24, AREA, ASPECT, 5)
    assert made.is_random
  assert made == training
  assert type(made) is type(training)
  made = images.make_transform(data, augment, 5, is_training=False)
  assert made == evaluation
  assert type(made) is type(evaluation)


def test_the_photos_of_other_tests_are_as_various_as_imagenet():
  seen = {photos.photo(i).mode for i in range(photos.NUM_TRAIN)}
  assert seen == {'RGB', 'L', 'CMYK', 'RGBA'}
  sizes = {photos.photo(i).size for i in range(photos.NUM_TRAIN)}
  assert sizes == set(photos.SIZES)
