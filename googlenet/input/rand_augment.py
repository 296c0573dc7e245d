"""RandAugment (Cubuk et al., 2019, arXiv 1909.13719).

Geometric operations are a table of matrices, so that one warp serves all of
them. Intensity operations are a table of functions with Pillow's results. The
last one changes colours, and is drawn for images that have some. A magnitude of
10 is the strongest setting of AutoAugment.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet.input import colour
from googlenet.input.preprocess import LUMA

MAX_MAGNITUDE = 10

Matrix = list[list[jax.Array | float]]  # [2, 3]: (row, column, 1) -> (row, ...)

_SHEAR, _TRANSLATE, _ROTATE, _BLEND = 0.3, 150 / 331, 30.0, 0.9
# Weights of a 3x3 neighbourhood, in thirteenths: Pillow's SMOOTH.
_SMOOTH = ((1, 1, 1), (1, 5, 1), (1, 1, 1))


# ---- Geometry: maps a pixel of the result to its source, around the centre.


def _shear_x(strength: jax.Array, side: int) -> Matrix:
  del side
  return [[1.0, 0.0, 0.0], [_SHEAR * strength, 1.0, 0.0]]


def _shear_y(strength: jax.Array, side: int) -> Matrix:
  del side
  return [[1.0, _SHEAR * strength, 0.0], [0.0, 1.0, 0.0]]


def _translate_x(strength: jax.Array, side: int) -> Matrix:
  return [[1.0, 0.0, 0.0], [0.0, 1.0, _TRANSLATE * strength * side]]


def _translate_y(strength: jax.Array, side: int) -> Matrix:
  return [[1.0, 0.0, _TRANSLATE * strength * side], [0.0, 1.0, 0.0]]


def _rotate(strength: jax.Array, side: int) -> Matrix:
  del side
  angle = math.radians(_ROTATE) * strength
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return [[cos, -sin, 0.0], [sin, cos, 0.0]]


# (strength in -1..1, side in pixels) -> matrix.
GEOMETRY: dict[str, Callable[[jax.Array, int], Matrix]] = {
  'shear_x': _shear_x,
  'shear_y': _shear_y,
  'translate_x': _translate_x,
  'translate_y': _translate_y,
  'rotate': _rotate,
}


def warp(image: jax.Array, matrix: jax.Array) -> jax.Array:
  """Transforms an image geometrically, bilinearly, with black outside.

  Args:
    image: float32 [H, W, C].
    matrix: float32 [2, 3]; maps (row, column, 1) of a pixel of the result to
      its source in the image, both counted from the centre.

  Returns:
    float32 [H, W, C].
  """
  height, width, _ = image.shape
  centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
  rows, columns = jnp.meshgrid(
    jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing='ij'
  )
  places = jnp.stack([rows, columns, jnp.ones_like(rows)])
  sources = jnp.einsum(
    'ij,jhw->ihw', matrix, places, precision=jax.lax.Precision.HIGHEST
  )
  sources += centre[:, None, None]
  return jax.vmap(
    lambda plane: jax.scipy.ndimage.map_coordinates(
      plane, list(sources), order=1, mode='constant'
    ),
    in_axes=-1,
    out_axes=-1,
  )(image)


# ---- Intensity: float32 [H, W, C] with integers in 0..255, strength in -1..1.


def _factor(strength: jax.Array) -> jax.Array:
  return 1 + _BLEND * strength


def _identity(image: jax.Array, strength: jax.Array) -> jax.Array:
  del strength
  return image


def _autocontrast(image: jax.Array, strength: jax.Array) -> jax.Array:
  del strength
  low, high = image.min((0, 1)), image.max((0, 1))
  spread = jnp.where(high > low, high - low, 255.0)
  return jnp.where(high > low, (image - low) * (255.0 / spread), image)


def _equalize(image: jax.Array, strength: jax.Array) -> jax.Array:
  del strength

  def one(plane: jax.Array) -> jax.Array:
    x = plane.astype(jnp.int32)
    counts = jnp.zeros(256, jnp.int32).at[x].add(1)
    step = (plane.size - counts[x.max()]) // 255
    below = jnp.cumsum(counts) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table[x], plane)

  return jax.vmap(one, in_axes=-1, out_axes=-1)(image)


def _brightness(image: jax.Array, strength: jax.Array) -> jax.Array:
  return colour.brightness(image, _factor(strength))


def _contrast(image: jax.Array, strength: jax.Array) -> jax.Array:
  return colour.contrast(image, _factor(strength))


def _color(image: jax.Array, strength: jax.Array) -> jax.Array:
  return colour.saturation(image, _factor(strength))


def _sharpness(image: jax.Array, strength: jax.Array) -> jax.Array:
  height, width, _ = image.shape
  if min(height, width) < 3:
    return image
  smooth = sum(
    weight / 13 * image[i : height - 2 + i, j : width - 2 + j]
    for i, row in enumerate(_SMOOTH)
    for j, weight in enumerate(row)
  )
  # Pillow's filter does not change the outermost pixels.
  degenerate = image.at[1:-1, 1:-1].set(jnp.round(smooth))
  return colour.blend(image, degenerate, _factor(strength))


def _posterize(image: jax.Array, strength: jax.Array) -> jax.Array:
  bits = 8 - jnp.round(4 * jnp.abs(strength))
  step = 2.0 ** (8 - bits)
  return jnp.floor(image / step) * step


def _solarize(image: jax.Array, strength: jax.Array) -> jax.Array:
  threshold = 256 * (1 - jnp.abs(strength))
  return jnp.where(image < threshold, image, 255 - image)


INTENSITY: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  'identity': _identity,
  'autocontrast': _autocontrast,
  'equalize': _equalize,
  'brightness': _brightness,
  'contrast': _contrast,
  'sharpness': _sharpness,
  'posterize': _posterize,
  'solarize': _solarize,
  'color': _color,
}
OPERATIONS = (*GEOMETRY, *INTENSITY)


def num_operations(channels: int) -> int:
  """Returns how many of `OPERATIONS` images of so many channels can get."""
  return len(OPERATIONS) - (0 if channels == len(LUMA) else 1)


# The intensity operation of each operation: 'identity' for geometric ones.
_INTENSITY_OF = [0] * len(GEOMETRY) + list(range(len(INTENSITY)))


def apply(image: jax.Array, op: jax.Array, strength: jax.Array) -> jax.Array:
  """Applies one operation to an image.

  Args:
    image: uint8 [H, W, C].
    op: int32 [], an index into `OPERATIONS`.
    strength: float32 [], from -1 to 1; the sign is the direction.

  Returns:
    uint8 [H, W, C].
  """
  x = image.astype(jnp.float32)
  height, width, _ = image.shape
  identity = np.eye(2, 3, dtype=np.float32)
  matrices = [
    jnp.asarray(make(strength, height if name == 'translate_y' else width))
    for name, make in GEOMETRY.items()
  ] + [identity] * len(INTENSITY)
  moved = warp(x, jnp.stack(matrices)[op])
  is_geometric = op < len(GEOMETRY)
  x = jnp.where(is_geometric, moved, x)
  x = jax.lax.switch(
    jnp.asarray(_INTENSITY_OF)[op], list(INTENSITY.values()), x, strength
  )
  return jnp.round(jnp.clip(x, 0, 255)).astype(jnp.uint8)


def rand_augment(
  image: jax.Array,
  key: jax.Array,
  augment_config: ml_collections.ConfigDict,
) -> jax.Array:
  """Applies `rand_augment_ops` random operations, one after another.

  Args:
    image: uint8 [H, W, C].
    key: random key.
    augment_config: the `augment` section; `rand_augment_magnitude` is the
      strength of all operations in tenths, with a random sign each.

  Returns:
    uint8 [H, W, C].
  """
  size = augment_config.rand_augment_magnitude / MAX_MAGNITUDE
  for place in range(augment_config.rand_augment_ops):
    op_key, sign_key = jax.random.split(jax.random.fold_in(key, place))
    op = jax.random.randint(op_key, (), 0, num_operations(image.shape[-1]))
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    image = apply(image, op, sign * size)
  return image
