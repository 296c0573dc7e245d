"""Images that are made to excite channels, to set beside real ones."""

from collections.abc import Sequence

import numpy as np

from googlenet.errors import UserError
from googlenet.tools.inference.channels import Channel
from googlenet.tools.inference.trained import Trained
from googlenet.tools.visualize import requests
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
  asked = [
    requests.Request(point, index, f'{point}:{index}')
    for point, index in channels
  ]
  wanted, order = requests.objectives_of(asked, 'channel')
  made = render(net, wanted, steps=steps, seed=seed)
  if not np.isfinite(made.values).all():
    raise UserError(f'{net.path}: the maps of these parameters are not finite')
  return made.images[np.argsort(order)]
