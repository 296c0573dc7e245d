"""Networks of equal cost: the width at which multiply-adds are equal.

An ablation makes a network cheaper or dearer, so what it does to accuracy is
seen only where the cost is equal again. `--mode=summary --equal_to` prints it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import ml_collections

from googlenet.errors import UserError
from googlenet.model import graph, variants

_MOST = 64.0  # times wider or narrower
_DIGITS = 4  # significant ones of a factor


class Equal(NamedTuple):
  """A width, and the multiply-adds that it makes for one image."""

  width_multiplier: float
  multiply_adds: int


def multiply_adds(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> int:
  """Returns the multiply-adds of a network for one image, without heads.

  Args:
    model_config: the `model` section.
    image_shape: (H, W, C).
  """
  architecture = variants.resolve(model_config)._replace(aux_heads=())
  layers = graph.graph(architecture, image_shape)
  return sum(layer.multiply_adds for layer in layers)


def with_values(
  model_config: ml_collections.ConfigDict, **values: object
) -> ml_collections.ConfigDict:
  """Returns a copy of a `model` section with other values."""
  copy = ml_collections.ConfigDict(model_config.to_dict())
  copy.update(values)
  return copy


def equal_width(
  model_config: ml_collections.ConfigDict,
  image_shape: tuple[int, int, int],
  wanted: int,
) -> Equal:
  """Finds the width at which a network makes so many multiply-adds.

  Widths are whole numbers, so the result is the nearest, not always equal.

  Args:
    model_config: the `model` section, whose width is where the search starts.
    image_shape: (H, W, C).
    wanted: multiply-adds for one image, without auxiliary heads.

  Raises:
    UserError: no width is within a tenth of them.
  """

  def cost(width: float) -> int:
    wider = with_values(model_config, width_multiplier=width)
    return multiply_adds(wider, image_shape)

  start = float(model_config.width_multiplier)
  if cost(start) == wanted:
    return Equal(start, wanted)
  low, high = start / _MOST, min(start * _MOST, 100.0)
  for _ in range(24):  # bisection: the cost rises with the width
    middle = (low * high) ** 0.5
    low, high = (middle, high) if cost(middle) < wanted else (low, middle)
  # The bounds lie so close together that both would be rounded to one side.
  widths = {_rounded(low, math.floor), _rounded(high, math.ceil)}
  found = {width: cost(width) for width in widths}
  best = min(found, key=lambda width: abs(found[width] - wanted))
  if abs(found[best] / wanted - 1) > 0.1:
    raise UserError(
      f'no config.model.width_multiplier gives the network about {wanted:,} '
      f'multiply-adds: {best:g} gives {found[best]:,}'
    )
  return Equal(best, found[best])


def _rounded(width: float, toward: Callable[[float], int]) -> float:
  """Rounds a width to `_DIGITS` significant digits, down or up."""
  unit = math.floor(math.log10(width)) + 1 - _DIGITS
  return float(f'{toward(width / 10.0**unit)}e{unit}')
