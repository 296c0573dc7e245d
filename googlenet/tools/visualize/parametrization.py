"""What makes an image: variables without range, whose image is in 0..255.

Gradient ascent on pixels gives noise of high frequency, since pixels of natural
images are correlated and those of the ascent are not. On decorrelated
coefficients every frequency and colour moves at its natural speed (Olah et al.,
2017, "Preconditioning and Parameterization"; lucid, `param/spatial.py` and
`param/color.py`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, int, int]  # (H, W, C)

_DEVIATION = 0.01  # of the first coefficients: a nearly grey image
_DAMPING = 4.0  # lucid: keeps the first steps in the middle of the sigmoid
_PRECISE = jax.lax.Precision.HIGHEST
# Pixels of 0 and 255 have no finite logit.
_MARGIN = 0.5 / 255

# Square root of the covariance of the colours of ImageNet, as in lucid.
_COLOUR_ROOT = np.array(
  [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]
)
# Columns: brightness, blue to red, green to magenta; the longest has length 1.
COLOURS = _COLOUR_ROOT / np.linalg.norm(_COLOUR_ROOT, axis=0).max()


class Parametrization(NamedTuple):
  """A way to make images from variables.

  Attributes:
    init: (key, (H, W, C)) -> variables of one image, nearly grey.
    image: (variables [B, ...], (H, W, C)) -> float32 [B, H, W, C] in 0..255.
    variables: the inverse: float32 [B, H, W, C] in 0..255 -> variables. Black
      and white come back half a grey level inside the range.
  """

  init: Callable[[jax.Array, Shape], jax.Array]
  image: Callable[[jax.Array, Shape], jax.Array]
  variables: Callable[[jax.Array], jax.Array]


def correlate(x: jax.Array, inverse: bool = False) -> jax.Array:
  """Turns independent colours [..., 3] into correlated ones.

  Images of another number of channels are unchanged.

  Args:
    x: [..., C].
    inverse: whether to go back.
  """
  if x.shape[-1] != len(COLOURS):
    return x
  matrix = np.linalg.inv(COLOURS) if inverse else COLOURS
  matrix = jnp.asarray(matrix, x.dtype)
  return jnp.einsum('...c,dc->...d', x, matrix, precision=_PRECISE)


def to_range(x: jax.Array) -> jax.Array:
  """Maps independent colours without range to 0..255."""
  return 255 * jax.nn.sigmoid(correlate(x))


def from_range(images: jax.Array) -> jax.Array:
  """The inverse of `to_range`, but for black and white."""
  y = jnp.clip(images / 255, _MARGIN, 1 - _MARGIN)
  return correlate(jnp.log(y) - jnp.log1p(-y), inverse=True)


def frequencies(height: int, width: int) -> np.ndarray:
  """Returns the frequency of each coefficient of `rfft2`.

  Returns:
    float64 [height, width // 2 + 1], in cycles per pixel.
  """
  return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))


def scales(height: int, width: int, decay: float = 1.0) -> np.ndarray:
  """Returns the scale of each coefficient: 1 / frequency ** decay, [H, W'].

  The amplitudes of natural images fall like that. The mean of the image counts
  as its lowest frequency.
  """
  lowest = 1 / max(height, width)
  return 1 / np.maximum(frequencies(height, width), lowest) ** decay


def spatial(coefficients: jax.Array, shape: Shape) -> jax.Array:
  """Returns images before colours and range.

  Args:
    coefficients: float32 [B, H, W // 2 + 1, C, 2], real and imaginary parts.
    shape: (H, W, C).
  """
  height, width, _ = shape
  spectrum = jax.lax.complex(coefficients[..., 0], coefficients[..., 1])
  scale = jnp.asarray(scales(height, width), jnp.float32)[..., None]
  return (
    jnp.fft.irfft2(
      spectrum * scale, s=(height, width), axes=(1, 2), norm='ortho'
    )
    / _DAMPING
  )


def coefficients(x: jax.Array) -> jax.Array:
  """The inverse of `spatial`: [B, H, W, C] -> [B, H, W // 2 + 1, C, 2]."""
  scale = jnp.asarray(scales(*x.shape[1:3]), jnp.float32)[..., None]
  spectrum = jnp.fft.rfft2(x * _DAMPING, axes=(1, 2), norm='ortho') / scale
  return jnp.stack([spectrum.real, spectrum.imag], -1)


def _fourier_init(key: jax.Array, shape: Shape) -> jax.Array:
  height, width, channels = shape
  size = (height, width // 2 + 1, channels, 2)
  return _DEVIATION * jax.random.normal(key, size)


def _pixels_init(key: jax.Array, shape: Shape) -> jax.Array:
  return _DEVIATION * jax.random.normal(key, shape)


PARAMETRIZATIONS = {
  'fourier': Parametrization(
    _fourier_init,
    lambda variables, shape: to_range(spatial(variables, shape)),
    lambda images: coefficients(from_range(images)),
  ),
  'pixels': Parametrization(
    _pixels_init,
    lambda variables, shape: to_range(variables),
    from_range,
  ),
}
