"""Corrupted images in five severities: pure jnp, on the device.

After Hendrycks & Dietterich, 2019 (arXiv 1903.12261). Stored pixels go in and
come out, rounded and clipped as a file would keep them, so that everything
after them is that of the run. Each image is a function of itself, the seed and
its index in the split: batch size and number of devices do not matter. The
severities of a kind draw the same noise and direction.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from googlenet.input.rand_augment import warp

# Sides up to this many pixels take the strengths of CIFAR-10-C, larger ones
# those of ImageNet-C.
SMALL_SIDE = 64
_TRUNCATE = 4  # standard deviations, where a Gaussian filter ends

# Pixels are float32 [H, W, C] in 0..1; strengths are float32 [].
Corrupt = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Kind(NamedTuple):
  """A kind of corruption.

  Attributes:
    number: folded into the seed's key; it stays with the kind.
    corrupt: (pixels, key, strength) -> pixels, not clipped yet.
    small: strengths of severities 1 to 5 for small images.
    large: the same for large images.
  """

  number: int
  corrupt: Corrupt
  small: tuple[float, ...]
  large: tuple[float, ...]

  def strengths(self, image_shape: tuple[int, ...]) -> tuple[float, ...]:
    """Returns the strengths for stored images of (H, W, C)."""
    return self.small if max(image_shape[:2]) <= SMALL_SIDE else self.large


def _gaussian_noise(x: jax.Array, key: jax.Array, std: jax.Array) -> jax.Array:
  return x + std * jax.random.normal(key, x.shape)


def _gaussian_blur(x: jax.Array, key: jax.Array, std: jax.Array) -> jax.Array:
  """Blurs with a Gaussian that ends at four deviations; borders are repeated.

  `std` is in pixels; 0 does not change the image.
  """
  del key
  reach = int(_TRUNCATE * _LARGEST_BLUR + 0.5)
  offsets = jnp.arange(-reach, reach + 1)
  weights = jnp.exp(-0.5 * (offsets / jnp.maximum(std, 1e-3)) ** 2)
  is_near = jnp.abs(offsets) <= jnp.floor(_TRUNCATE * std + 0.5)
  weights = jnp.where(is_near, weights, 0)
  weights /= weights.sum()

  def filter_of(side: int) -> jax.Array:  # [to, from]
    sources = jnp.clip(jnp.arange(side)[:, None] + offsets, 0, side - 1)
    return jnp.einsum('k,ikj->ij', weights, jax.nn.one_hot(sources, side))

  rows, columns = map(filter_of, x.shape[:2])
  precision = jax.lax.Precision.HIGHEST
  x = jnp.einsum('ij,jwc->iwc', rows, x, precision=precision)
  return jnp.einsum('ij,hjc->hic', columns, x, precision=precision)


def _contrast(x: jax.Array, key: jax.Array, factor: jax.Array) -> jax.Array:
  """Moves each channel towards its mean; 1 does not change the image."""
  del key
  mean = x.mean((0, 1), keepdims=True)
  return mean + factor * (x - mean)


def _brightness(x: jax.Array, key: jax.Array, added: jax.Array) -> jax.Array:
  """Adds to the value of HSV, the largest channel; hue and saturation stay."""
  del key
  value = x.max(-1, keepdims=True)
  brighter = jnp.clip(value + added, 0, 1)
  # A black pixel has no hue: it becomes grey.
  scaled = x * brighter / jnp.where(value > 0, value, 1)
  return jnp.where(value > 0, scaled, brighter)


def _rotation(x: jax.Array, key: jax.Array, angle: jax.Array) -> jax.Array:
  """Rotates to the left or right by `angle` radians, bilinear, black outside.

  As in MNIST-C (Mu & Gilmer, 2019, arXiv 1906.02337).
  """
  angle = jnp.where(jax.random.bernoulli(key), angle, -angle)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  zero = jnp.zeros_like(angle)
  return warp(x, jnp.array([[cos, -sin, zero], [sin, cos, zero]]))


_ANGLES = (0.2, 0.4, 0.6, 0.8, 1.0)  # MNIST-C, of any size
KINDS = {
  'gaussian_noise': Kind(
    0,
    _gaussian_noise,
    (0.04, 0.06, 0.08, 0.09, 0.10),
    (0.08, 0.12, 0.18, 0.26, 0.38),
  ),
  'gaussian_blur': Kind(
    1, _gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)
  ),
  'contrast': Kind(
    2, _contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)
  ),
  'brightness': Kind(
    3, _brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)
  ),
  'rotation': Kind(4, _rotation, _ANGLES, _ANGLES),
}
SEVERITIES = (1, 2, 3, 4, 5)
_LARGEST_BLUR = max(KINDS['gaussian_blur'].large)


def corrupt(
  name: str,
  images: jax.Array,
  indices: jax.Array,
  strength: jax.Array,
  seed: jax.Array,
) -> jax.Array:
  """Corrupts images, each with its own key.

  Args:
    name: of the kind, in `KINDS`.
    images: uint8 [B, H, W, C].
    indices: int32 [B], of the images in their split.
    strength: float32 [], see `Kind.strengths`.
    seed: int32 [].

  Returns:
    uint8 [B, H, W, C].
  """
  kind = KINDS[name]
  key = jax.random.fold_in(jax.random.key(seed), kind.number)

  def one(image: jax.Array, index: jax.Array) -> jax.Array:
    x = image.astype(jnp.float32) / 255
    x = kind.corrupt(x, jax.random.fold_in(key, index), strength)
    return jnp.round(jnp.clip(x, 0, 1) * 255).astype(jnp.uint8)

  return jax.vmap(one)(images, indices)


def function_of(name: str) -> Callable[..., jax.Array]:
  """Returns `corrupt` for one kind."""
  return functools.partial(corrupt, name)
