"""Images that are made to excite channels, to set beside real ones."""

from collections.abc import Sequence

import numpy as np

from googlenet.errors import UserError
from googlenet.tools.inference.channels import Channel
from googlenet.tools.inference.trained import Trained
from googlenet.tools.visualize import objectives
from googlenet.tools.visualize.render import render


def images(
  net: Trained, channels: Sequence[Channel], steps: int, seed: int = 0
) -> np.ndarray:
  """Returns an image for each channel that excites it everywhere.

  Olah et al., 2017, "Feature Visualization", Distill.

  Args:
    net: a run.
    channels: one or more; they may be of several points.
    steps: of gradient ascent.
    seed: fixes noise and movements.

  Returns:
    uint8 [n, H, W, C], of the size of the network's input.

  Raises:
    UserError: steps or seed are not allowed, or the images are not finite.
  """
  places: dict[str, list[int]] = {}
  for i, channel in enumerate(channels):
    places.setdefault(channel.point, []).append(i)
  made = render(
    net,
    [
      objectives.channel(point, [channels[i].index for i in of_point])
      for point, of_point in places.items()
    ],
    steps=steps,
    seed=seed,
  )
  if not np.isfinite(made.values).all():
    raise UserError(f'{net.path}: the maps of these parameters are not finite')
  order = [i for of_point in places.values() for i in of_point]
  return made.images[np.argsort(order)]
