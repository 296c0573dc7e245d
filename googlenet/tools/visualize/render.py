"""Makes images that maximize objectives: feature visualization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optax

from googlenet.errors import UserError
from googlenet.runtime.progress import Progress
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers, whole
from googlenet.tools.inference.trained import Trained
from googlenet.tools.visualize import transforms as transforms_lib
from googlenet.tools.visualize.ascent import (
  batches,
  checked,
  climb,
  make_ascent,
)
from googlenet.tools.visualize.objectives import Objective
from googlenet.tools.visualize.parametrization import PARAMETRIZATIONS
from googlenet.tools.visualize.rendered import (
  MAX_SIDE,
  Rendered,
  kept_steps,
)

# Olah et al. (2017) show images of 512 steps; most change little after half.
STEPS = 256
LEARNING_RATE = 0.05
# Steps in which gradients pass ReLUs that are off, as in lucid.
REDIRECTED_STEPS = 16
# Pixels at once on a device: 64 images of 224x224, fewer larger ones.
_BATCH_SIZE, _BATCH_PIXELS = 64, 64 * 224**2


def render(
  net: Trained,
  objectives: Objective | Sequence[Objective],
  *,
  steps: int = STEPS,
  size: int | tuple[int, int] | None = None,
  seed: int = 0,
  parametrization: str = 'fourier',
  transforms: Sequence[transforms_lib.Transform] | None = None,
  optimizer: optax.GradientTransformation | None = None,
  redirected_steps: int = REDIRECTED_STEPS,
  num_frames: int = 0,
  batch_size: int | None = None,
) -> Rendered:
  """Makes images that maximize objectives, by gradient ascent.

  Every image of one seed begins with the same noise and makes the same
  movements, so it does not depend on which others are made beside it. Images of
  one group (`diversity`) begin differently.

  Args:
    net: a trained network.
    objectives: what to maximize, `objective.count` images each. Several
      objectives are compiled and computed one after another.
    steps: of the ascent.
    size: of the images in pixels, S or (H, W); None: the network's.
    seed: fixes noise and movements, from 0 to 2**32 - 1.
    parametrization: a key of `PARAMETRIZATIONS`.
    transforms: random movements before each step; None: `transforms.standard`;
      (): none.
    optimizer: of optax, applied to each image alone; None: Adam with rate 0.05.
    redirected_steps: steps in which gradients pass ReLUs that are off.
    num_frames: number of images to keep on the way, the last one included.
    batch_size: largest number of images at once on a device; None: 64, fewer
      if they are larger than 224x224 pixels.

  Raises:
    UserError: a number is out of range, what is given are no objectives, the
      parametrization is unknown, or the network has no such point or channel,
      or cannot compute images of this size.
  """
  objectives = checked(objectives)
  check_numbers(
    steps=(steps, 1),
    seed=(seed, 0, MAX_SEED),
    num_frames=(num_frames, 0),
    redirected_steps=(redirected_steps, 0),
    batch_size=(_BATCH_SIZE if batch_size is None else batch_size, 1),
  )
  kept = kept_steps(steps, num_frames)
  if parametrization not in PARAMETRIZATIONS:
    raise UserError(
      f'parametrization={parametrization!r} is unknown: it takes one of '
      f'{", ".join(PARAMETRIZATIONS)}'
    )
  height, width = _sides(net, size)
  if batch_size is None:
    batch_size = default_batch_size(height, width)
  if transforms is None:
    transforms = transforms_lib.standard(min(height, width))
  total = sum(objective.count for objective in objectives)
  # All of them before the first is computed: a mistake is told at once.
  ascents = [
    make_ascent(
      net,
      objective,
      (height, width, net.image_shape[-1]),
      PARAMETRIZATIONS[parametrization],
      transforms_lib.compose(transforms),
      optimizer or optax.adam(LEARNING_RATE),
      redirected_steps,
    )
    for objective in objectives
  ]
  with Progress('visualize', total * steps, 'steps') as bar:
    parts = [
      climb(ascent, objective, rows, steps, seed, kept, bar)
      for ascent, objective in zip(ascents, objectives, strict=True)
      for rows in batches(objective, batch_size)
    ]
  return Rendered.join(parts, [name for o in objectives for name in o.names])


def default_batch_size(height: int, width: int) -> int:
  """Returns how many images of a size a device makes at once."""
  return max(1, min(_BATCH_SIZE, _BATCH_PIXELS // (height * width)))


def _sides(net: Trained, size: int | tuple[int, int] | None) -> tuple[int, int]:
  """Returns (height, width) of the images.

  Raises:
    UserError: `size` is no size.
  """
  sides = net.image_shape[:2] if size is None else size
  is_pair = isinstance(sides, Sequence | np.ndarray) and len(sides) == 2
  sides = tuple(map(whole, sides if is_pair else (sides, sides)))
  if None in sides or min(sides) < 1 or max(sides) > MAX_SIDE:
    raise UserError(
      f'size={size} is not allowed: it takes a number of pixels from 1 to '
      f'{MAX_SIDE}, or (height, width)'
    )
  return sides
