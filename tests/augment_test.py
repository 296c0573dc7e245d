"""Augmentation by key: what it touches, and what it leaves alone."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from conftest import ROOT, load_config
from PIL import Image, ImageEnhance, ImageOps

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.input import colour, rand_augment
from googlenet.input.augment import alternating_flips, augment
from googlenet.train import setup


def augment_config(**changes):
  config = load_config(ROOT / 'configs/fmnist96.py').augment
  return ml_collections.ConfigDict({**config.to_dict(), **changes})


def random_images(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape, dtype=np.uint8)


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def augmented(images, seed=0, mean=(0.0,), flips=None, **changes):
  config = augment_config(**changes)
  # As in the step, which is much sooner compiled than one operation at a time.
  run = jax.jit(lambda *args: augment(*args[:2], config, mean, args[2]))
  return np.asarray(run(images, keys(len(images), seed), flips))


def test_off_changes_nothing():
  images = random_images(4, 8, 8, 1)
  assert augment(images, keys(4), augment_config()) is images


def test_flip_mirrors_half_of_the_images():
  images = random_images(400, 6, 6, 1)
  flipped = augmented(images, flip='random')
  assert flipped.dtype == np.uint8
  same = (flipped == images).all((1, 2, 3))
  mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
  assert (same ^ mirrored).all()
  assert 0.4 < mirrored.mean() < 0.6


def test_crop_is_a_window_of_the_padded_image():
  images = random_images(200, 6, 6, 2) // 2 + 100  # nothing is 0 but padding
  cropped = augmented(images, crop_padding=2)
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


ALL = {
  'flip': 'random',
  'crop_padding': 3,
  'rand_augment_ops': 2,
  'erase_probability': 0.5,
  'cutout_size': 3,
}


def test_an_image_depends_on_its_key_only():
  images = random_images(8, 9, 9, 1)
  config = augment_config(**ALL)
  run = jax.jit(lambda images, keys: augment(images, keys, config))
  whole = run(images, keys(8))
  part = run(images[6:], keys(8)[6:])
  np.testing.assert_array_equal(whole[6:], part)
  assert not np.array_equal(whole, run(images, keys(8, seed=1)))


def test_a_part_that_is_off_moves_no_other():
  """Erasing finds the same box whether or not images are cropped before."""
  images = np.full((50, 12, 12, 1), 200, np.uint8)
  erased = augmented(images, erase_probability=0.5, fill='black')
  both = augmented(images, erase_probability=0.5, fill='black', flip='random')
  np.testing.assert_array_equal(erased, both)
  assert (erased == 0).any()


def test_alternating_flips():
  """Random in epoch 0, from then on the other way round each time."""
  indices = np.arange(400, dtype=np.int32)
  epochs = [np.full(400, epoch, np.int32) for epoch in range(4)]
  flips = [
    np.asarray(alternating_flips(np.uint32(3), indices, e)) for e in epochs
  ]
  assert 0.4 < flips[0].mean() < 0.6
  np.testing.assert_array_equal(flips[1], ~flips[0])
  np.testing.assert_array_equal(flips[2], flips[0])
  np.testing.assert_array_equal(flips[3], ~flips[0])
  # An example's own, wherever it stands in the batch.
  order = np.random.default_rng(0).permutation(400).astype(np.int32)
  moved = alternating_flips(np.uint32(3), order, epochs[0])
  np.testing.assert_array_equal(moved, flips[0][order])
  other = np.asarray(alternating_flips(np.uint32(4), indices, epochs[0]))
  assert 0.3 < np.mean(other != flips[0]) < 0.7

  images = random_images(400, 4, 4, 1)
  made = augmented(images, flips=flips[0], flip='alternating')
  expected = np.where(flips[0][:, None, None, None], images[:, :, ::-1], images)
  np.testing.assert_array_equal(made, expected)


def changed_box(before, after):
  """Returns (top, left, bottom, right) of what changed, or None."""
  rows, columns, _ = np.nonzero(before != after)
  if not len(rows):
    return None
  return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_erasing_fills_one_rectangle_and_nothing_else():
  images = np.full((600, 20, 30, 1), 255, np.uint8)
  area, aspect = (0.1, 0.3), (0.5, 2.0)
  erased = augmented(
    images,
    erase_probability=0.75,
    erase_area=area,
    erase_aspect=aspect,
    fill='black',
  )
  boxes = [changed_box(*pair) for pair in zip(images, erased, strict=True)]
  found = [box for box in boxes if box is not None]
  assert 0.68 < len(found) / 600 < 0.82
  areas, aspects = [], []
  for image, box in zip(erased, boxes, strict=True):
    if box is None:
      continue
    top, left, bottom, right = box
    assert (image[top:bottom, left:right] == 0).all()  # the whole rectangle
    height, width = bottom - top, right - left
    # Sides are rounded to pixels.
    assert (height - 0.5) * (width - 0.5) <= area[1] * 600
    assert (height + 0.5) * (width + 0.5) >= area[0] * 600
    assert (height - 0.5) / (width + 0.5) <= aspect[1]
    assert (height + 0.5) / (width - 0.5) >= aspect[0]
    areas.append(height * width / 600)
    aspects.append(np.log(height / width))
  assert np.mean(areas) == pytest.approx(0.2, abs=0.015)
  assert np.mean(aspects) == pytest.approx(0, abs=0.08)
  # Every side of the image is reached.
  tops, lefts, bottoms, rights = zip(*found, strict=True)
  assert (min(tops), min(lefts), max(bottoms), max(rights)) == (0, 0, 20, 30)


def test_the_aspect_of_what_is_erased_is_height_by_width():
  images = np.full((50, 40, 40, 1), 255, np.uint8)
  erased = augmented(
    images,
    erase_probability=1.0,
    erase_area=(0.1, 0.2),
    erase_aspect=(2.0, 3.0),
    fill='black',
  )
  for pair in zip(images, erased, strict=True):
    top, left, bottom, right = changed_box(*pair)
    assert bottom - top > 1.5 * (right - left)


def test_a_rectangle_that_never_fits_erases_nothing():
  images = random_images(20, 8, 8, 1)
  made = augmented(
    images, erase_probability=1.0, erase_area=(0.99, 0.99), erase_aspect=(9, 9)
  )
  np.testing.assert_array_equal(made, images)


def test_cutout_is_a_square_that_the_border_cuts():
  images = np.full((500, 12, 12, 1), 255, np.uint8)
  made = augmented(images, cutout_size=4, fill='black')
  sides = set()
  for before, after in zip(images, made, strict=True):
    top, left, bottom, right = changed_box(before, after)
    assert (after[top:bottom, left:right] == 0).all()
    height, width = bottom - top, right - left
    for side, low, high in ((height, top, bottom), (width, left, right)):
      assert side == 4 or (side < 4 and (low == 0 or high == 12))
    sides.add((height, width))
  assert (4, 4) in sides
  assert min(sides) == (2, 2)  # centred on a corner


@pytest.mark.parametrize('mean', [(0.2, 0.4), (0.3,), (0.1, 0.2, 0.6)])
def test_fills(mean):
  """The mean is a channel's where there are as many, else that of all."""
  images = np.full((40, 10, 10, 2), 255, np.uint8)
  made = augmented(images, mean=mean, cutout_size=6, fill='mean')
  wanted = mean if len(mean) == 2 else [np.mean(mean)] * 2
  wanted = np.round(255 * np.array(wanted))
  filled = made[(made != 255).all(-1)]
  assert len(filled)
  np.testing.assert_array_equal(filled, np.tile(wanted, (len(filled), 1)))
  noise = augmented(images, cutout_size=6, fill='random')
  noise = noise[(noise != 255).any(-1)]
  assert noise.mean() == pytest.approx(127.5, abs=8)
  assert np.std(noise) == pytest.approx(73.9, abs=6)
  assert np.abs(np.corrcoef(noise.T)[0, 1]) < 0.15


# ---- RandAugment.


def apply(image, name, strength):
  op = rand_augment.OPERATIONS.index(name)
  return np.asarray(
    rand_augment.apply(image, jnp.int32(op), jnp.float32(strength))
  )


def pillow(image, name, strength):
  """What Pillow makes of an image."""
  shape = image.shape
  image = Image.fromarray(image[..., 0] if shape[-1] == 1 else image)
  factor = 1 + 0.9 * strength
  made = {
    'identity': lambda: image,
    'autocontrast': lambda: ImageOps.autocontrast(image),
    'equalize': lambda: ImageOps.equalize(image),
    'brightness': lambda: ImageEnhance.Brightness(image).enhance(factor),
    'contrast': lambda: ImageEnhance.Contrast(image).enhance(factor),
    'sharpness': lambda: ImageEnhance.Sharpness(image).enhance(factor),
    'posterize': lambda: ImageOps.posterize(
      image, 8 - round(4 * abs(strength))
    ),
    'solarize': lambda: ImageOps.solarize(image, 256 * (1 - abs(strength))),
    'color': lambda: ImageEnhance.Color(image).enhance(factor),
  }[name]()
  return np.asarray(made).reshape(shape)


@pytest.mark.parametrize('strength', [-1.0, -0.5, 0.25, 1.0])
@pytest.mark.parametrize('name', rand_augment.INTENSITY)
@pytest.mark.parametrize('channels', [1, 3])
def test_intensity_is_that_of_pillow(channels, name, strength):
  image = random_images(40, 60, channels, seed=1) // 2 + 40
  image[..., 0] //= 2  # another mean in each colour
  made = apply(image, name, strength).astype(int)
  # Of whole numbers there is nothing to round; else Pillow cuts off.
  is_exact = name in ('identity', 'equalize', 'posterize', 'solarize')
  np.testing.assert_allclose(
    made, pillow(image, name, strength), atol=0 if is_exact else 2
  )


def test_translation_moves_pixels():
  image = random_images(331, 331, 1)
  moved = apply(image, 'translate_x', 0.1)  # 15 pixels
  np.testing.assert_array_equal(moved[:, :-15], image[:, 15:])
  assert not moved[:, -15:].any()
  moved = apply(image, 'translate_y', -0.1)
  np.testing.assert_array_equal(moved[15:], image[:-15])
  assert not moved[:15].any()


@pytest.mark.parametrize('strength', [-1.0, 0.6])
@pytest.mark.parametrize('name', ['shear_x', 'shear_y', 'rotate'])
def test_shear_and_rotation_are_those_of_pillow(name, strength):
  """On a smooth image: bilinear both."""
  y, x = np.mgrid[:40, :40]
  image = (128 + 60 * np.sin(x / 7) + 60 * np.cos(y / 9)).astype(np.uint8)
  amount, centre = 0.3 * strength, 20.0  # Pillow counts from a corner
  angle = np.radians(30) * strength
  cos, sin = np.cos(angle), np.sin(angle)
  a, b, d, e = {  # x of the source is a x + b y, y is d x + e y
    'shear_x': (1, amount, 0, 1),
    'shear_y': (1, 0, amount, 1),
    'rotate': (cos, sin, -sin, cos),
  }[name]
  c = centre - a * centre - b * centre
  f = centre - d * centre - e * centre
  expected = Image.fromarray(image).transform(
    (40, 40),
    Image.Transform.AFFINE,
    (a, b, c, d, e, f),
    Image.Resampling.BILINEAR,
  )
  made = apply(image[..., None], name, strength)[..., 0].astype(int)
  inner = np.s_[9:-9, 9:-9]  # at the border Pillow has no blend with black
  np.testing.assert_allclose(made[inner], np.asarray(expected)[inner], atol=2)
  assert np.abs(made[inner] - image[inner].astype(int)).max() > 10


def test_every_operation_is_drawn():
  """One operation an image: the pictures are those of the table, no other."""
  image = random_images(24, 24, 1, seed=2) // 2 + 30
  images = np.repeat(image[None], 300, 0)
  made = augmented(images, rand_augment_ops=1, rand_augment_magnitude=7.0)
  drawn = rand_augment.OPERATIONS[: rand_augment.num_operations(1)]
  known = {
    apply(image, name, sign * 0.7).tobytes(): name
    for name in drawn
    for sign in (-1, 1)
  }
  assert {known[one.tobytes()] for one in made} == set(drawn)
  again = augmented(images, rand_augment_ops=2, rand_augment_magnitude=7.0)
  assert len({one.tobytes() for one in again}) > len(known)
  still = augmented(images, rand_augment_ops=1, rand_augment_magnitude=0.0)
  unmoved = {
    apply(image, name, 0).tobytes()
    for name in ('identity', 'autocontrast', 'equalize')
  }
  assert {one.tobytes() for one in still} == unmoved


@pytest.mark.parametrize('channels', [1, 3])
def test_colours_are_drawn_for_colour_images(channels, monkeypatch):
  monkeypatch.setattr(
    rand_augment, 'apply', lambda image, op, _: jnp.full_like(image, op)
  )
  made = augmented(random_images(400, 2, 2, channels), rand_augment_ops=1)
  names = {rand_augment.OPERATIONS[op] for op in made[:, 0, 0, 0]}
  left_out = {'color'} if channels == 1 else set()
  assert names == {*rand_augment.OPERATIONS} - left_out


# ---- Colour jitter.


def colourful(size=48):
  """Every hue at several saturations and brightnesses."""
  rng = np.random.default_rng(4)
  image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
  image[0, :3] = 0, 128, 255  # no hue at all
  return image


def pillow_hue(image, shift):
  """As torchvision's adjust_hue for images of Pillow: hue in 256 parts."""
  h, s, v = Image.fromarray(image).convert('HSV').split()
  turned = (np.asarray(h).astype(int) + round(256 * shift)) % 256
  h = Image.fromarray(turned.astype(np.uint8))
  return np.asarray(Image.merge('HSV', (h, s, v)).convert('RGB'))


def exact_hue(image, shift):
  made = [
    colorsys.hsv_to_rgb((h + shift) % 1, s, v)
    for h, s, v in (
      colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3) / 255
    )
  ]
  return 255 * np.reshape(made, image.shape)


@pytest.mark.parametrize('shift', [-0.5, -0.25, 0.125])
def test_hue_is_that_of_colorsys_and_pillow(shift):
  image = colourful()
  made = np.asarray(
    jax.jit(colour.hue)(jnp.asarray(image, jnp.float32), jnp.float32(shift))
  )
  np.testing.assert_allclose(made, exact_hue(image, shift), atol=1e-2)
  # Pillow has 256 hues and saturations: a step of each is a few values.
  difference = np.abs(made - pillow_hue(image, shift))
  assert difference.mean() < 1.5
  assert difference.max() < 12


def test_colour_jitter_changes_each_as_far_as_it_may():
  """One operation at a time, by the factor that it was made with."""
  image = colourful(16)
  images = np.repeat(image[None], 150, 0)
  enhancers = (
    *(ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color),
  )
  for place, strength in ((0, 0.5), (1, 0.5), (2, 1.5)):
    strengths = [0.0] * 4
    strengths[place] = strength
    made = augmented(images, colour_jitter=tuple(strengths))
    low, high = max(0, 1 - strength), 1 + strength
    enhance = enhancers[place](Image.fromarray(image)).enhance
    factors = np.linspace(low, high, 201)
    known = np.stack([np.asarray(enhance(f)) for f in factors]).astype(int)
    nearest = []
    for one in made:
      distance = np.abs(known - one).mean((1, 2, 3))
      nearest.append(factors[distance.argmin()])
      assert distance.min() < 1.5  # rounded here, cut off there
    assert np.min(nearest) < low + 0.1 * (high - low)
    assert np.max(nearest) > high - 0.1 * (high - low)
    assert np.mean(nearest) == pytest.approx((low + high) / 2, abs=0.15)


def test_colour_jitter_in_every_order():
  """What two operations make of an image depends on which is the first."""
  image = colourful(8)
  config = augment_config(colour_jitter=(1.0, 0.0, 1.0, 0.3))
  run = jax.jit(
    jax.vmap(lambda key: colour.jitter(image, key, config.colour_jitter))
  )
  made = np.asarray(run(keys(60)))

  def pillow_jitter(key):
    """All six orders, of the numbers that the key draws."""
    _, *each = jax.random.split(key, 5)
    b, s = (float(jax.random.uniform(each[i], (), maxval=2.0)) for i in (0, 2))
    h = float(jax.random.uniform(each[3], (), minval=-0.3, maxval=0.3))
    steps = (
      lambda x: b * x,
      lambda x: (lambda y: y + s * (x - y))(
        np.round(x @ np.array([0.299, 0.587, 0.114]))[..., None]
      ),
      lambda x: exact_hue(x, h),
    )
    for order in itertools.permutations(range(3)):
      x = image.astype(float)
      for i in order:
        x = np.clip(steps[i](x), 0, 255)
      yield x

  firsts = set()
  for key, one in zip(keys(60)[:12], made[:12], strict=True):
    errors = [np.abs(one - x).max() for x in pillow_jitter(key)]
    assert min(errors) < 2
    firsts.add(int(np.argmin(errors)))
  assert len(firsts) >= 4


def test_grey_images_keep_their_grey(config, tmp_path):
  images = random_images(6, 8, 8, 1)
  made = augmented(images, colour_jitter=(0.4, 0.4, 0.0, 0.0))
  assert (made != images).any((1, 2, 3)).all()
  for strengths in ((0.4, 0.0, 0.1, 0.0), (0.0, 0.0, 0.0, 0.1)):
    config.augment.colour_jitter = strengths
    with pytest.raises(UserError) as error:
      setup.build(config_lib.resolve(config))
    assert str(error.value) == (
      f'config.augment.colour_jitter={strengths}: the images of fashion_mnist '
      'have 1 channel(s), and saturation and hue are those of red, green and '
      f'blue: give 0 for both, ({strengths[0]:g}, 0, 0, 0)'
    )


@pytest.mark.parametrize(
  'value', [(0.4,), (0.4, 0.4, 0.4), (-0.1, 0, 0, 0), (0, 0, 0, 0.6), 0.4]
)
def test_strengths_that_are_none(value):
  assert not FIELDS['augment.colour_jitter'].is_valid(value)
