"""Small random movements of the image before the network sees it.

Without them the ascent finds patterns of single pixels that excite a channel
only at one place (Olah et al., 2017, "The Enemy of Feature Visualization").
Each transform is a function of keys [B], one per image, and images [B, H, W, C]
in 0..255.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from googlenet.input.rand_augment import warp

Transform = Callable[[jax.Array, jax.Array], jax.Array]

GREY = 127.5  # outside the image
# lucid's sizes in pixels are for images of this side.
_SIDE = 224


def pad(pixels: int) -> Transform:
  """Surrounds an image with grey: [B, H, W, C] -> [B, H + 2p, W + 2p, C]."""
  sides = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
  return lambda keys, images: jnp.pad(images, sides, constant_values=GREY)


def jitter(pixels: int) -> Transform:
  """Cuts a random window: [B, H, W, C] -> [B, H - p, W - p, C]."""

  def one(key: jax.Array, image: jax.Array) -> jax.Array:
    height, width, channels = image.shape
    row, column = jax.random.randint(key, (2,), 0, pixels + 1)
    return jax.lax.dynamic_slice(
      image, (row, column, 0), (height - pixels, width - pixels, channels)
    )

  return jax.vmap(one)


def turn(
  scale: tuple[float, float] = (1.0, 1.0), degrees: float = 0.0
) -> Transform:
  """Scales and rotates an image around its centre; its size stays.

  Args:
    scale: smallest and largest factor; above 1, the image grows.
    degrees: largest angle, to both sides.
  """

  def one(key: jax.Array, image: jax.Array) -> jax.Array:
    factor, angle = jax.random.uniform(
      key,
      (2,),
      minval=jnp.array([scale[0], -math.radians(degrees)]),
      maxval=jnp.array([scale[1], math.radians(degrees)]),
    )
    cos, sin = jnp.cos(angle) / factor, jnp.sin(angle) / factor
    matrix = jnp.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    return warp(image - GREY, matrix) + GREY

  return jax.vmap(one)


def fit(height: int, width: int) -> Transform:
  """Cuts, or surrounds with grey, to a size around the centre."""

  def function(keys: jax.Array, images: jax.Array) -> jax.Array:
    sides = [(0, 0), (0, 0), (0, 0), (0, 0)]
    cuts = [slice(None)] * 4
    for axis, wanted in ((1, height), (2, width)):
      missing = wanted - images.shape[axis]
      if missing > 0:
        sides[axis] = (missing // 2, missing - missing // 2)
      else:
        cuts[axis] = slice(-missing // 2, -missing // 2 + wanted)
    return jnp.pad(images[tuple(cuts)], sides, constant_values=GREY)

  return function


def standard(side: int) -> tuple[Transform, ...]:
  """Returns lucid's transforms, in proportion to the image.

  At 224 pixels: pad 12, jitter 8, scale 0.9 to 1.1, rotate by up to 10 degrees,
  jitter 4. At 28 pixels: pad 2, jitter 1, the same scale and angle, jitter 1.

  Args:
    side: of the image, in pixels.
  """

  def pixels(count: int) -> int:
    return max(1, round(count * side / _SIDE))

  return (
    pad(pixels(12)),
    jitter(pixels(8)),
    turn((0.9, 1.1), 10.0),
    jitter(pixels(4)),
  )


def compose(transforms: Sequence[Transform]) -> Transform:
  """Applies transforms in order; each draws numbers of its own.

  The result has the size of the image that goes in, see `fit`.
  """
  transforms = tuple(transforms)

  def function(keys: jax.Array, images: jax.Array) -> jax.Array:
    x = images
    for i, transform in enumerate(transforms):
      own = jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys)
      x = transform(own, x)
    return fit(*images.shape[1:3])(keys, x)

  return function
