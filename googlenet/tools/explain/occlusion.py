"""Attribution to pixels by covering them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError
from googlenet.tools.explain import baselines, engine
from googlenet.tools.explain.engine import Forward
from googlenet.tools.explain.gradients import logit_weights
from googlenet.tools.explain.target import PREDICTED, Given
from googlenet.tools.inference.numbers import check_numbers
from googlenet.tools.inference.trained import Trained


class Windows(NamedTuple):
  """Squares that slide over an image, in pixels.

  Attributes:
    side: of a square.
    stride: from one square to the next.
  """

  side: int
  stride: int


def windows(
  side: int, stride: int, image_shape: tuple[int, ...], dashes: str = ''
) -> Windows:
  """Returns windows for images of a shape (H, W, ...).

  Args:
    side: in pixels; 0: an eighth of the shorter side of the image.
    stride: in pixels; 0: half of `side`.
    image_shape: (H, W, ...).
    dashes: '--' if messages are about flags.

  Raises:
    UserError: one is no whole number, the window is larger than the image, or
      the stride larger than the window.
  """
  check_numbers(
    **{f'{dashes}window': (side, 0), f'{dashes}stride': (stride, 0)}
  )
  shortest = min(image_shape[:2])
  side = side or max(shortest // 8, 1)
  if not 1 <= side <= shortest:
    raise UserError(
      f'{dashes}window={side} does not fit images of {image_shape[0]}x'
      f'{image_shape[1]} pixels: allowed is 1 to {shortest}; 0 takes an eighth'
    )
  stride = stride or max(side // 2, 1)
  if not 1 <= stride <= side:
    raise UserError(
      f'{dashes}stride={stride} leaves pixels out between windows of {side}: '
      f'allowed is 1 to {side}; 0 takes half of it'
    )
  return Windows(side, stride)


def starts(length: int, sizes: Windows) -> np.ndarray:
  """Returns where windows begin along a side; the last one ends with it."""
  last = length - sizes.side
  return np.array([*range(0, last, sizes.stride), last], np.int32)


def _occlusion(forward: Forward):
  def program(params, network_state, shared, is_real, arrays):
    places, side = shared  # [m, 2] of row and column, and a number
    images, fillings, weights = arrays
    height, width = images.shape[1:3]

    def scores(x: jax.Array, weights: jax.Array) -> jax.Array:
      logits = forward(params, network_state, x).logits
      return jnp.sum(weights * logits, -1)

    whole = scores(images, weights)

    def rows(image: jax.Array, place: jax.Array) -> jax.Array:
      top, left = (places[place, i, None, None] for i in (0, 1))
      row, column = jnp.arange(height)[:, None], jnp.arange(width)
      is_covered = (
        (row >= top)
        & (row < top + side)
        & (column >= left)
        & (column < left + side)
      )  # [size, H, W]
      x = jnp.where(is_covered[..., None], fillings[image], images[image])
      drop = whole[image] - scores(x, weights[image])
      return drop[:, None, None] * is_covered

    return engine.sum_over_pairs(is_real, len(places), rows)

  return program


def occlusion(
  net: Trained,
  images: np.ndarray,
  target: Given = PREDICTED,
  window: int = 0,
  stride: int = 0,
  baseline: str | np.ndarray = 'mean',
) -> np.ndarray:
  """Returns by how much the score drops where an image is covered.

  Zeiler and Fergus, 2013 (arXiv 1311.2901), who cover squares in grey. A pixel
  has the mean over all squares that cover it.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    window: side of the square in pixels; 0: an eighth of the image.
    stride: pixels from one square to the next; 0: half a window. The last one
      in a row or column ends at the border.
    baseline: what covers the image, see `baselines.make`.

  Returns:
    float32 [N, H, W], in logits.

  Raises:
    UserError: images, target, window, stride or baseline are not allowed.
  """
  images = engine.as_float(net, images)
  height, width = images.shape[1:3]
  sizes = windows(window, stride, (height, width))
  fillings = baselines.make(net, images, baseline)
  weights = logit_weights(net, images, target)
  tops, lefts = (starts(length, sizes) for length in (height, width))
  places = np.stack(np.meshgrid(tops, lefts, indexing='ij'), -1).reshape(-1, 2)
  total = engine.run(
    net,
    _occlusion,
    (),
    (images, fillings, weights),
    (places, np.int32(sizes.side)),
  )
  # How many windows cover each row and each column.
  rows, columns = (
    ((first <= i[:, None]) & (i[:, None] < first + sizes.side)).sum(-1)
    for first, i in ((tops, np.arange(height)), (lefts, np.arange(width)))
  )
  return (total / np.outer(rows, columns)).astype(np.float32)
