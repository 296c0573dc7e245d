"""What an atlas shows in its cells: parts of images, or made images."""

import numpy as np

from googlenet.data.sources import Dataset
from googlenet.tools.examples.receptive import receptive_field
from googlenet.tools.inference.trained import Trained
from googlenet.tools.visualize import objectives, render

_COSINE_POWER = 4


def of_images(
  net: Trained,
  dataset: Dataset,
  point: str,
  indices: np.ndarray,
  places: np.ndarray,
) -> list[np.ndarray]:
  """Returns what places of a map see of images, uint8 [h, w, C] each.

  Args:
    net: the network.
    dataset: the split.
    point: of the map, or of a vector, which sees the whole image.
    indices: int [M], of images in the split.
    places: int [M, 2], row and column in the map.
  """
  images, _ = dataset.read(indices)
  return [
    image[seen_part(net, point, tuple(place), image.shape)]
    for image, place in zip(images, places, strict=True)
  ]


def of_directions(
  net: Trained, point: str, vectors: np.ndarray, steps: int, seed: int
) -> np.ndarray:
  """Makes images whose activation in the centre points into directions.

  The objective is the dot product times the cosine to the power of 4: without
  the cosine, images of many directions would show the same strong channels.

  Args:
    net: the network.
    point: of a map or vector of C channels.
    vectors: float32 [M, C].
    steps: of gradient ascent.
    seed: of the noise at the start and of the random movements.

  Returns:
    uint8 [M, H, W, C], of the size of the network's images.
  """
  objective = objectives.neuron_direction(
    point, vectors, cosine_power=_COSINE_POWER
  )
  return render.render(net, objective, steps=steps, seed=seed).images


def seen_part(
  net: Trained,
  point: str,
  place: tuple[int, int],
  stored_shape: tuple[int, ...],
) -> tuple[slice, slice]:
  """Returns the part of a stored image that one place of a map sees.

  Args:
    net: the network.
    point: of the network.
    place: row and column in the map.
    stored_shape: (H, W, C) of the image before it is resized.

  Returns:
    Rows and columns.
  """
  box = receptive_field(net.network, point, net.image_shape).box(*place)
  rows, columns = (
    slice(low * stored // seen, -(-high * stored // seen))
    for low, high, stored, seen in zip(
      box[:2], box[2:], stored_shape[:2], net.image_shape[:2], strict=True
    )
  )
  return rows, columns
