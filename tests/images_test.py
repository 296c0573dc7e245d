"""What the host makes of images of any size and mode."""

import io
import struct

import ml_collections
import numpy as np
import photos
import pytest
from PIL import Image, ImageCms

from googlenet.data import files, images


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
    whole = images.pixels(image, num_channels, (0, 0, 40, 30), (30, 40))
  assert whole.shape == (30, 40, num_channels)
  assert whole.dtype == np.uint8
  difference = np.abs(whole.reshape(expected.shape) - expected)
  assert difference.mean() < 4


@pytest.mark.parametrize('num_channels', [1, 3, 4])
def test_cie_lab_becomes_the_mode_asked_for(tmp_path, num_channels):
  """To within the rounding of its 8 bits; Pillow has no way to grey."""
  stored = Image.new('RGB', (4, 3), (200, 90, 40))
  profiles = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')
  made = ImageCms.profileToProfile(stored, *profiles, outputMode='LAB')
  made.save(tmp_path / 'a.tif')
  reader = files.Reader(images.Whole(2), num_channels)
  expected = np.asarray(stored.convert(images.MODES[num_channels]))[:2, :2]
  difference = reader(tmp_path / 'a.tif').squeeze() - expected.astype(int)
  assert np.abs(difference).max() <= 3


@pytest.mark.parametrize(
  ('highest', 'value'), [(65535, 255), (256, 1), (0, 0), (255, None)]
)
def test_of_32_bits_16_are_known(tmp_path, highest, value):
  """Values of 8 bits would all become black."""
  path = tmp_path / 'a.tif'
  Image.fromarray(np.full((4, 4), highest, np.int32)).save(path)
  reader = files.Reader(images.Whole(2), 1)
  if value is None:
    with pytest.raises(files.UnreadableError, match='255: save it with'):
      reader(path)
  else:
    np.testing.assert_array_equal(reader(path), value)


def grey_tiff(samples: list[int], bits: int, photometric: int) -> bytes:
  """A grey TIFF of one row, with an even number of samples."""
  data = b''.join(
    bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    for a, b in zip(samples[::2], samples[1::2], strict=True)
  )
  if bits == 16:
    data = np.array(samples, '<u2').tobytes()
  tags = {256: len(samples), 257: 1, 258: bits, 259: 1, 262: photometric}
  tags |= {273: 8 + 2 + 12 * 8 + 4, 277: 1, 279: len(data)}
  rows = b''.join(struct.pack('<HHII', tag, 4, 1, x) for tag, x in tags.items())
  return struct.pack('<2sHIH', b'II', 42, 8, 8) + rows + bytes(4) + data


def test_twelve_bits_fill_the_range():
  """Of 16 bits they would be the lowest: nearly black."""
  stream = io.BytesIO(grey_tiff([0, 2048, 4080, 4095], 12, 1))
  read = files.Reader(files.Squeezed((1, 4)), 1)(stream)
  np.testing.assert_array_equal(read.ravel(), [0, 128, 255, 255])


def test_white_as_0_is_refused_where_pillow_does_not_invert():
  stream = io.BytesIO(grey_tiff([0, 65535], 16, 0))
  with pytest.raises(files.UnreadableError, match='save it with 0 as black'):
    files.Reader(images.Whole(2), 1)(stream)


def noise(width: int, height: int) -> Image.Image:
  """Pixels of which each is unlike its neighbours: a shift shows."""
  rng = np.random.default_rng(width + height)
  return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
  ('size', 'resized', 'corner'),
  [
    # (58.5, 16): torchvision rounds a half to the even number.
    ((341, 256), (341, 256), (58, 16)),
    ((256, 343), (256, 343), (16, 60)),
    ((600, 451), (340, 256), (58, 16)),  # 340.57 is cut off, not rounded
    ((451, 600), (256, 340), (16, 58)),
    ((100, 100), (256, 256), (16, 16)),
  ],
)
def test_center_crop_lies_where_torchvision_has_it(size, resized, corner):
  image, (left, top) = noise(*size), corner
  assert images.resized_sides(size, 256) == resized
  expected = image.resize(resized, Image.Resampling.BILINEAR)
  expected = np.asarray(expected)[top : top + 224, left : left + 224]
  crop = apply(images.CenterCrop(224, 256), image)
  np.testing.assert_array_equal(crop, expected)
  if resized == size:  # untouched, not resampled
    pixels = np.asarray(image)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(crop, pixels)


def test_center_crop_is_that_of_torchvision():
  functional = pytest.importorskip(
    'torchvision.transforms.functional',
    reason='pip install torchvision',
    # RuntimeError: it was made for another build of PyTorch.
    exc_type=(ImportError, RuntimeError),
  )
  rng = np.random.default_rng(0)
  for width, height in rng.integers(20, 700, (12, 2)):
    image, (size, short) = noise(width, height), (24, int(rng.integers(24, 40)))
    theirs = functional.resize(image, [short])
    theirs = np.asarray(functional.center_crop(theirs, [size]))
    crop = apply(images.CenterCrop(size, short), image)
    np.testing.assert_array_equal(crop, theirs)
    (square,) = apply(images.Squares(short, 1), image)
    theirs = functional.resize(image, [short])
    theirs = np.asarray(functional.center_crop(theirs, [short]))
    np.testing.assert_array_equal(square, theirs)


@pytest.mark.parametrize('size', [(3000, 3), (3, 3000)])
def test_a_strip_is_not_resized_as_a_whole(size, monkeypatch):
  """In the centre it is the same, up to rounding."""
  image = noise(*size)
  crop = apply(images.CenterCrop(24, 28), image)
  monkeypatch.setattr(images, '_LONGEST', 1000)
  expected = apply(images.CenterCrop(24, 28), image)
  assert np.abs(crop.astype(int) - expected).max() <= 1


@pytest.mark.parametrize('size', [(64, 48), (48, 64), (48, 48)])
def test_squares_lie_along_the_longer_side(size):
  width, height = size
  image = picture(width, height)
  squares = apply(images.Squares(24, 3), image)
  assert squares.shape == (3, 24, 24, 3)
  for square, corner in zip(squares, [0, 8, 16], strict=True):
    corner = corner if width != height else 0
    left, top = (corner, 0) if width > height else (0, corner)
    expected = image.resize((width // 2, height // 2), Image.BILINEAR)
    left, top = left // 2, top // 2
    expected = expected.crop((left, top, left + 24, top + 24))
    np.testing.assert_array_equal(square, np.asarray(expected))
  (one,) = apply(images.Squares(24, 1), image)
  np.testing.assert_array_equal(one, squares[1])


def test_whole_is_squeezed():
  expected = picture(60, 20).resize((16, 16), Image.Resampling.BILINEAR)
  actual = apply(images.Whole(16), picture(60, 20))
  np.testing.assert_array_equal(actual, np.asarray(expected))


CONTENTS = jpeg(picture(401, 323))


@pytest.mark.parametrize(
  'transform',
  [images.CenterCrop(20, 20), images.Whole(20), images.Squares(20, 3)],
)
def test_evaluation_decodes_a_jpeg_in_full(transform):
  with images.open_image(CONTENTS) as image:
    found = apply(transform, image)
    assert image.size == (401, 323)
  with images.open_image(CONTENTS) as image:
    expected = apply(transform, Image.fromarray(np.asarray(image)))
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('side', [10, 20, 40, 79])
def test_training_decodes_a_large_jpeg_small(side):
  """The shortcut of the decoder shows in a few grey levels only."""
  crop = images.RandomResizedCrop(side, (0.9, 1.0), (1.0, 1.25), 0)
  with images.open_image(CONTENTS) as image:
    fast = apply(crop, image)
    assert image.width < 401
  with images.open_image(CONTENTS) as image:
    image.load()  # no shortcut after this
    slow = apply(crop, image)
    assert image.size == (401, 323)
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
  data = ml_collections.ConfigDict(
    {
      'image_size': 24,
      'resize': fields[1],
      'interpolation': 'bilinear',
      'squeeze': False,
    }
  )
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
