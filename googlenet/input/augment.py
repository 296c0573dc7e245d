"""Augmentation of stored pixels: pure jnp, on the device, image by image.

The result depends only on the image and its key, not on the number of devices.
Each augmentation has a key of its own, so turning one off does not change
another.

It comes before `preprocess`. What is to change prepared images goes after it,
in `train.loss.make_inputs`, where mixing.py makes mixtures of them.
image_sizes.py says how large they are in a step; views.py are the flips and
shifts of evaluation.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import ml_collections

from googlenet.input import colour, rand_augment

FLIPS = ('none', 'random', 'alternating')
FILLS = ('black', 'mean', 'random')

# Numbers that are folded into an image's key, one per augmentation. Crop and
# flip split the key instead: the flip's key is the one that RandAugment folds
# its own numbers into, so they draw differently too.
_RAND_AUGMENT, _ERASING, _CUTOUT, _COLOUR_JITTER = 1, 2, 3, 4
_ALTERNATING_FLIP = 0x666C6970
# Rectangles that random erasing draws until one fits, as in torchvision.
_ERASING_TRIES = 10


def alternating_flips(
  seed: jax.Array, indices: jax.Array, epochs: jax.Array
) -> jax.Array:
  """Returns which images are mirrored when flips alternate: bool [B].

  In epoch 0 each image is mirrored at random; in odd epochs the choice is
  inverted. So two epochs show each image both ways (Jordan, 2024, arXiv
  2404.00498, section 3.6).

  Args:
    seed: uint32 [], the seed of the run.
    indices: int32 [B], indices of the examples in the data set.
    epochs: int32 [B], the epoch of each example, counted from 0.
  """
  key = jax.random.fold_in(jax.random.key(seed), _ALTERNATING_FLIP)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
  return jax.vmap(jax.random.bernoulli)(keys) ^ (epochs % 2 == 1)


def crop(image: jax.Array, key: jax.Array, padding: int) -> jax.Array:
  """Adds a black border and returns a random window of the original size.

  Args:
    image: uint8 [H, W, C].
    key: random key.
    padding: width of the border in pixels, on each side.

  Returns:
    uint8 [H, W, C].
  """
  padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
  row, column = jax.random.randint(key, (2,), 0, 2 * padding + 1)
  return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def _filled(
  image: jax.Array,
  key: jax.Array,
  box: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
  fill: str,
  mean: tuple[float, ...],
) -> jax.Array:
  """Fills a box (top, left, bottom, right; the last two exclusive)."""
  height, width, channels = image.shape
  top, left, bottom, right = box
  rows, columns = jnp.arange(height), jnp.arange(width)
  inside = ((rows >= top) & (rows < bottom))[:, None, None] & (
    (columns >= left) & (columns < right)
  )[None, :, None]
  if fill == 'random':
    value = jax.random.randint(key, image.shape, 0, 256).astype(jnp.uint8)
  elif fill == 'mean':
    # `mean` has the channels that the network sees; the stored image may have
    # another number of them.
    if len(mean) != channels:
      mean = (sum(mean) / len(mean),)
    value = jnp.round(jnp.asarray(mean) * 255).astype(jnp.uint8)
  else:
    value = jnp.uint8(0)
  return jnp.where(inside, value, image)


def erase(
  image: jax.Array,
  key: jax.Array,
  augment_config: ml_collections.ConfigDict,
  mean: tuple[float, ...],
) -> jax.Array:
  """Fills a random rectangle (random erasing: arXiv 1708.04896).

  This happens with probability `erase_probability`. The rectangle's fraction of
  the area is uniform in `erase_area`, its height / width log-uniform in
  `erase_aspect`. If none of ten rectangles fits, the image is not changed.

  Args:
    image: uint8 [H, W, C].
    key: random key.
    augment_config: the `augment` section.
    mean: mean pixel in 0..1, to fill with if `fill` is 'mean'.

  Returns:
    uint8 [H, W, C].
  """
  height, width, _ = image.shape
  use_key, area_key, aspect_key, place_key, fill_key = jax.random.split(key, 5)
  tries = (_ERASING_TRIES,)
  low, high = augment_config.erase_area
  area = height * width
  area *= jax.random.uniform(area_key, tries, minval=low, maxval=high)
  low, high = jnp.log(jnp.asarray(augment_config.erase_aspect))
  aspect = jnp.exp(
    jax.random.uniform(aspect_key, tries, minval=low, maxval=high)
  )
  heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
  widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
  fits = (heights < height) & (widths < width)
  first = jnp.argmax(fits)
  h, w = heights[first], widths[first]
  is_used = fits[first] & jax.random.bernoulli(
    use_key, augment_config.erase_probability
  )
  limits = jnp.maximum(jnp.stack([height - h, width - w]), 0) + 1
  top, left = jax.random.randint(place_key, (2,), 0, limits)
  box = (top, left, top + h, left + w)
  erased = _filled(image, fill_key, box, augment_config.fill, mean)
  return jnp.where(is_used, erased, image)


def cut_out(
  image: jax.Array,
  key: jax.Array,
  augment_config: ml_collections.ConfigDict,
  mean: tuple[float, ...],
) -> jax.Array:
  """Fills a square around a random pixel (cutout: arXiv 1708.04552).

  The square has sides of `cutout_size` pixels and may cross the border, which
  removes less of the image.

  Args:
    image: uint8 [H, W, C].
    key: random key.
    augment_config: the `augment` section.
    mean: mean pixel in 0..1, to fill with if `fill` is 'mean'.

  Returns:
    uint8 [H, W, C].
  """
  size = augment_config.cutout_size
  place_key, fill_key = jax.random.split(key)
  centre = jax.random.randint(place_key, (2,), 0, jnp.asarray(image.shape[:2]))
  top, left = centre - size // 2
  box = (top, left, top + size, left + size)
  return _filled(image, fill_key, box, augment_config.fill, mean)


def _parts(
  augment_config: ml_collections.ConfigDict, mean: tuple[float, ...]
) -> list[tuple[int, Callable[[jax.Array, jax.Array], jax.Array]]]:
  """Returns what follows crop and flip, in order: key number, function.

  A row of the table is (the field that switches it on, its own key number,
  (image uint8 [H, W, C], key) -> image). A number stays with its part: with
  another one the same seed would draw otherwise.
  """
  jitter = tuple(augment_config.colour_jitter)
  table = [
    (
      any(jitter),
      _COLOUR_JITTER,
      lambda image, key: colour.jitter(image, key, jitter),
    ),
    (
      augment_config.rand_augment_ops,
      _RAND_AUGMENT,
      lambda image, key: rand_augment.rand_augment(image, key, augment_config),
    ),
    (
      augment_config.erase_probability,
      _ERASING,
      lambda image, key: erase(image, key, augment_config, mean),
    ),
    (
      augment_config.cutout_size,
      _CUTOUT,
      lambda image, key: cut_out(image, key, augment_config, mean),
    ),
  ]
  return [(number, function) for is_on, number, function in table if is_on]


def augment(
  images: jax.Array,
  keys: jax.Array,
  augment_config: ml_collections.ConfigDict,
  mean: tuple[float, ...] = (0.0,),
  flips: jax.Array | None = None,
) -> jax.Array:
  """Augments each image with its own key, as the `augment` section says.

  The order is: random crop, flip, colour jitter, RandAugment, random erasing,
  cutout.

  Args:
    images: uint8 [B, H, W, C].
    keys: random keys [B].
    augment_config: the `augment` section.
    mean: mean pixel in 0..1, one number or one per channel, to fill with.
    flips: bool [B], from `alternating_flips`; needed for `flip` 'alternating'.

  Returns:
    uint8 [B, H, W, C].
  """
  chex.assert_equal_shape_prefix([images, keys], 1)
  padding, flip = augment_config.crop_padding, augment_config.flip
  parts = _parts(augment_config, tuple(mean))
  if not padding and flip == 'none' and not parts:
    return images
  if flip == 'alternating':
    chex.assert_shape(flips, keys.shape)
  else:
    flips = jnp.zeros(keys.shape, bool)

  def one(image: jax.Array, key: jax.Array, is_flipped: jax.Array) -> jax.Array:
    crop_key, flip_key = jax.random.split(key)
    if padding:
      image = crop(image, crop_key, padding)
    if flip == 'random':
      is_flipped = jax.random.bernoulli(flip_key)
    if flip != 'none':
      image = jnp.where(is_flipped, image[:, ::-1], image)
    for number, function in parts:
      image = function(image, jax.random.fold_in(key, number))
    return image

  return jax.vmap(one)(images, keys, flips)
