"""The features that are probed: one vector for each image of a split."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.tools.circuits import stream
from googlenet.tools.inference import predict, trained


class Features(NamedTuple):
  """The features of a split.

  Attributes:
    vectors: float32 [N, C] by name of the point.
    labels: int32 [N], of the data set.
  """

  vectors: dict[str, np.ndarray]
  labels: np.ndarray


def vector(x: jax.Array, flatten: bool = False) -> jax.Array:
  """Returns vectors [B, C] of maps [B, h, w, C]: their means, or all of them.

  Args:
    x: maps, or vectors, which stay as they are.
    flatten: whether positions are kept apart: [B, h * w * C].
  """
  if flatten or x.ndim == 2:
    return x.reshape(len(x), -1)
  return x.mean(range(1, x.ndim - 1))


def collect(
  net: trained.Trained,
  splits: Sequence[Dataset],
  names: tuple[str, ...],
  flatten: bool = False,
) -> list[Features]:
  """Computes points of each image once, in float32, on all devices.

  Args:
    net: the network.
    splits: of a data set, whose classes need not be those of the network.
    names: of the points.
    flatten: see `vector`.

  Raises:
    UserError: a feature is not finite.
  """

  def finish(points):
    return {name: vector(x, flatten) for name, x in points.items()}

  step = stream.make_step(net, names, finish)
  return [_of_split(net, step, split, names) for split in splits]


def _of_split(
  net: trained.Trained,
  step: Callable[..., Any],
  split: Dataset,
  names: tuple[str, ...],
) -> Features:
  labels, parts = [], {name: [] for name in names}
  given = predict.split_batches(net.config, split)
  for label, found in predict.run_batches(step, given):
    labels.append(label)
    for name in names:
      if not np.isfinite(found[name]).all():
        raise UserError(
          f'{net.path}: {name} is not finite for images of {split.name} '
          f'{split.split}'
        )
      parts[name].append(found[name])
  vectors = {name: np.concatenate(parts.pop(name)) for name in names}
  return Features(vectors, np.concatenate(labels))
