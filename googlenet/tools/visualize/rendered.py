"""What a gradient ascent returns, and when its frames are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from googlenet.errors import UserError

MAX_SIDE = 4096  # pixels: larger images fit into the memory of no device


class Rendered(NamedTuple):
  """Images that were made, and how well they excite what they are for.

  Attributes:
    images: uint8 [N, H, W, C].
    values: float32 [N], the objective of these images, not moved.
    curves: float32 [N, steps], the objective at each step, with the random
      movements of the step.
    frames: uint8 [F, N, H, W, C], the images on the way; F may be 0.
    names: of the objective of each image.
  """

  images: np.ndarray
  values: np.ndarray
  curves: np.ndarray
  frames: np.ndarray
  names: tuple[str, ...] = ()

  @classmethod
  def of_batch(
    cls,
    images: np.ndarray,
    values: np.ndarray,
    curve: Sequence[np.ndarray],
    frames: Sequence[np.ndarray],
  ) -> Rendered:
    """Joins the values of all steps, [n] each, and frames, [n, H, W, C]."""
    stacked = np.zeros((0, *images.shape), np.uint8)
    if frames:
      stacked = np.stack(frames)
    return cls(images, values, np.stack(curve, axis=-1), stacked)

  @classmethod
  def join(cls, parts: Sequence[Rendered], names: Sequence[str]) -> Rendered:
    """Joins batches of images of one size."""
    axes = {'images': 0, 'values': 0, 'curves': 0, 'frames': 1}
    arrays = {
      name: np.concatenate([getattr(part, name) for part in parts], axis)
      for name, axis in axes.items()
    }
    return cls(**arrays, names=tuple(names))


def kept_steps(steps: int, num_frames: int) -> frozenset[int]:
  """Returns after how many steps frames are kept: evenly, the last included.

  Raises:
    UserError: there are more frames than steps.
  """
  if num_frames > steps:
    raise UserError(
      f'num_frames={num_frames} is not allowed: {steps} steps make at most '
      f'{steps} frames'
    )
  return frozenset(
    round(steps * (i + 1) / num_frames) for i in range(num_frames)
  )
