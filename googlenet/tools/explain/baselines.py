"""Images that stand for 'nothing to see', to compare an image with."""

from collections.abc import Callable

import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.tools.inference.trained import Trained

_BLUR = 1 / 8  # standard deviation of the blur, as a part of the longer side


def black(net: Trained, images: np.ndarray) -> np.ndarray:
  """Returns zeros, as in the paper of integrated gradients."""
  del net
  return np.zeros_like(images)


def mean(net: Trained, images: np.ndarray) -> np.ndarray:
  """Returns the mean colour of the training images (`data.mean`)."""
  colour = 255 * np.asarray(net.config.data.mean, np.float32)
  if len(colour) not in (1, images.shape[-1]):
    colour = colour.mean(keepdims=True)  # the network converts colours
  return np.broadcast_to(colour, images.shape).astype(np.float32)


def blurred(net: Trained, images: np.ndarray) -> np.ndarray:
  """Returns the images without details (Fong and Vedaldi, 2017, 1704.03296).

  A Gaussian blur whose deviation is an eighth of the longer side; beyond the
  border, the nearest pixel counts.
  """
  del net
  deviation = _BLUR * max(images.shape[1:3])
  reach = int(np.ceil(3 * deviation))
  kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
  kernel = (kernel / kernel.sum()).astype(np.float32)
  for axis in (1, 2):
    length = images.shape[axis]
    # One matrix for each axis: row i holds the weights of pixel i.
    matrix = np.zeros((length, length), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
      at = np.clip(np.arange(length) + offset, 0, length - 1)
      np.add.at(matrix, (np.arange(length), at), weight)
    images = np.moveaxis(np.tensordot(matrix, images, (1, axis)), 0, axis)
  return np.ascontiguousarray(images, np.float32)


BASELINES: dict[str, Callable[[Trained, np.ndarray], np.ndarray]] = {
  'black': black,
  'mean': mean,
  'blurred': blurred,
}


def make(
  net: Trained, images: np.ndarray, baseline: str | np.ndarray
) -> np.ndarray:
  """Returns the baseline of each image, float32 [N, H, W, C].

  Args:
    net: a trained network.
    images: float32 [N, H, W, C] in 0..255.
    baseline: a key of `BASELINES`, or pixels in 0..255 that can be broadcast to
      the images.

  Raises:
    UserError: the name is unknown, or the shape or a pixel is not allowed.
  """
  if isinstance(baseline, str):
    check(baseline, 'baseline')
    return BASELINES[baseline](net, images)
  try:
    baseline = np.asarray(baseline, np.float32)
  except (TypeError, ValueError):
    baseline = np.float32(np.nan)
  if not np.isfinite(baseline).all():
    raise UserError(
      'baseline holds values that are no finite numbers: give pixels in 0..255 '
      f'or one of {", ".join(BASELINES)}'
    )
  try:
    return np.array(np.broadcast_to(baseline, images.shape))
  except ValueError:
    raise UserError(
      f'baseline has shape {baseline.shape}, which does not fit images of '
      f'{images.shape}: give an image [H, W, C], or one for each image'
    ) from None


def check(name: str, flag: str = '--baseline') -> None:
  """Raises UserError if there is no baseline of that name."""
  if name not in BASELINES:
    raise UserError(
      f'{flag}={name} is no baseline{did_you_mean(name, BASELINES)}; allowed '
      f'is one of {", ".join(BASELINES)}'
    )
