"""Colour operations on an image, with Pillow's results, and colour jitter.

dm-pix has operations of these names that compute otherwise, as TensorFlow does:
its brightness is added and its contrast is around the mean of each channel.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections

from googlenet.errors import UserError
from googlenet.input.preprocess import LUMA

# An image is float32 [H, W, C] with values in 0..255. Results may lie outside.


def blend(
  image: jax.Array, degenerate: jax.Array, factor: jax.Array
) -> jax.Array:
  """Moves an image towards a degenerate one (factor < 1) or away from it."""
  return degenerate + factor * (image - degenerate)


def grey(image: jax.Array) -> jax.Array:
  """Returns an image [H, W, C] in grey, in whole numbers: [H, W, 1].

  What does not have three channels is returned as it is.
  """
  if image.shape[-1] != len(LUMA):
    return image
  luma = jnp.sum(image * jnp.asarray(LUMA), -1, keepdims=True)
  return jnp.round(luma)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Blends with black: ImageEnhance.Brightness."""
  return blend(image, jnp.zeros_like(image), factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Blends with the mean grey of the image: ImageEnhance.Contrast."""
  mean = jnp.floor(grey(image).mean() + 0.5)
  return blend(image, jnp.full_like(image, mean), factor)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Blends with the image in grey: ImageEnhance.Color."""
  return blend(image, jnp.broadcast_to(grey(image), image.shape), factor)


def hue(image: jax.Array, shift: jax.Array) -> jax.Array:
  """Turns the hue of each pixel, as torchvision's adjust_hue.

  Args:
    image: float32 [H, W, 3].
    shift: float32 [], in turns, -0.5 to 0.5.
  """
  red, green, blue = jnp.moveaxis(image, -1, 0)
  value, chroma = image.max(-1), jnp.ptp(image, -1)
  part = jnp.where(chroma > 0, chroma, 1.0)
  sixths = jnp.where(
    value == red,
    (green - blue) / part,
    jnp.where(
      value == green, 2 + (blue - red) / part, 4 + (red - green) / part
    ),
  )
  sixths += 6 * shift
  channels = []
  for place in (5, 3, 1):
    k = (place + sixths) % 6
    channels.append(value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
  return jnp.stack(channels, -1)


_OPERATIONS: tuple[Callable[[jax.Array, jax.Array], jax.Array], ...] = (
  *(brightness, contrast, saturation, hue),
)


def jitter(
  image: jax.Array, key: jax.Array, strengths: Sequence[float]
) -> jax.Array:
  """Changes brightness, contrast, saturation and hue at random.

  As torchvision's ColorJitter: the factors are uniform in 1 - strength (or 0)
  to 1 + strength, the shift of the hue in -strength to strength turns, and the
  order of the operations is random.

  Args:
    image: uint8 [H, W, C]; C = 3 for saturation and hue.
    key: random key.
    strengths: of brightness, contrast, saturation and hue; 0: left out.

  Returns:
    uint8 [H, W, C].
  """
  order_key, *keys = jax.random.split(key, 1 + len(_OPERATIONS))
  branches = []
  for apply, its_key, strength in zip(
    _OPERATIONS, keys, strengths, strict=True
  ):
    if not strength:
      continue
    low, high = max(0.0, 1.0 - strength), 1.0 + strength
    if apply is hue:
      low, high = -strength, strength
    amount = jax.random.uniform(its_key, (), minval=low, maxval=high)
    branches.append(
      lambda x, apply=apply, amount=amount: jnp.clip(apply(x, amount), 0, 255)
    )
  order = jax.random.permutation(order_key, len(branches))

  def step(x: jax.Array, op: jax.Array) -> tuple[jax.Array, None]:
    return jax.lax.switch(op, branches, x), None

  x, _ = jax.lax.scan(step, image.astype(jnp.float32), order)
  return jnp.round(x).astype(jnp.uint8)


def check(
  augment_config: ml_collections.ConfigDict, name: str, channels: int
) -> None:
  """Checks that images have the colours that are to be changed.

  Args:
    augment_config: the `augment` section.
    name: of the data set.
    channels: of its images.

  Raises:
    UserError: saturation or hue of images that are not red, green and blue.
  """
  strengths = tuple(augment_config.colour_jitter)
  if channels != len(LUMA) and any(strengths[2:]):
    raise UserError(
      f'config.augment.colour_jitter={strengths}: the images of {name} have '
      f'{channels} channel(s), and saturation and hue are those of red, green '
      f'and blue: give 0 for both, ({strengths[0]:g}, {strengths[1]:g}, 0, 0)',
      'augment.colour_jitter',
    )
