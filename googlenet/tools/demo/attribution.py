"""Attribution on the page: the methods to choose from, and their maps."""

from typing import Any

import numpy as np

from googlenet.tools.demo.answer import overlay, png
from googlenet.tools.explain import methods, pictures
from googlenet.tools.explain.gradients import integrated_gradients
from googlenet.tools.explain.target import Target
from googlenet.tools.inference import insight
from googlenet.tools.inference.trained import Trained

CLASS_MAP = 'class_activation_map'  # it is part of each answer
# Fewer gradients than by default: the page is to answer in seconds.
_STEPS = 32


def names(trained: Trained) -> tuple[str, ...]:
  """Returns the methods that the network allows, the default one first."""
  allowed = [name for name in methods.METHODS if name != CLASS_MAP]
  first = 'grad_cam'
  if insight.has_class_maps(trained.network):
    first, allowed = CLASS_MAP, [CLASS_MAP, *allowed]
  return tuple(sorted(allowed, key=lambda name: name != first))


def describe(trained: Trained) -> list[dict[str, str]]:
  """Returns `name` and `title` of each method, for JSON."""
  return [
    {'name': name, 'title': methods.METHODS[name].title}
    for name in names(trained)
  ]


def attribute(
  trained: Trained, image: np.ndarray, method: str, label: int
) -> dict[str, Any]:
  """Returns the map of a method, for JSON.

  Args:
    trained: a run.
    image: uint8 [H, W, C], like the images of the training set.
    method: one of `names`.
    label: number of the class that is explained.

  Returns:
    `map`: colours to draw over the image; `scale`: the value of the strongest
    colour; `text`: what a value is; `signed`: whether there are values against
    the class.
  """
  chosen, images = methods.METHODS[method], image[None]
  if method == 'integrated_gradients':  # however good the sum is then
    found = integrated_gradients(
      trained, images, Target(label), steps=_STEPS, max_steps=_STEPS
    ).maps
  else:
    options = methods.Options(steps=_STEPS)
    found = chosen.explain(trained, images, Target(label), options)
  values = pictures.flat(found[0], chosen.shows)
  scale = pictures.scale_of(values, chosen.shows)
  none = 0.0 if scale.has_sign else scale.low
  share = (values - none) / max(scale.high - none, 1e-12)
  return {
    'map': png(overlay(np.clip(share, -1, 1))),
    'scale': scale.high,
    'text': chosen.text,
    'signed': scale.has_sign,
  }
