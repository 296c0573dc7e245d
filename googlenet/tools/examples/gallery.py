"""The images of a ranking with what is shown of them: pixels, label, box."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from googlenet.data.sources import Dataset
from googlenet.tools.examples.ranking import Excited, Ranking
from googlenet.tools.examples.receptive import Box, Field, receptive_field
from googlenet.tools.inference.channels import Channel
from googlenet.tools.inference.trained import Trained


class Example(NamedTuple):
  """An image that excites a channel.

  Attributes:
    index: of the image in its data set.
    value: the largest of the channel's map.
    position: row and column of that value in the map.
    box: what that position sees, in pixels of the network's input.
    centre: the middle of that, y and x.
    label: the image's class.
    image: uint8 [H, W, C], as the data set stores it.
  """

  index: int
  value: float
  position: tuple[int, int]
  box: Box
  centre: tuple[float, float]
  label: str
  image: np.ndarray


class Entry(NamedTuple):
  """A channel and its images.

  Attributes:
    channel: the channel.
    field: the receptive field of its point.
    most: the images that excite it most, the best one first.
    least: the images that excite it least.
  """

  channel: Channel
  field: Field
  most: list[Example]
  least: list[Example]


def fields(net: Trained, channels: Sequence[Channel]) -> dict[str, Field]:
  """Returns the receptive field of each point of channels, by its name."""
  return {
    point: receptive_field(net.network, point, net.image_shape)
    for point in dict.fromkeys(channel.point for channel in channels)
  }


def boxes(
  ranking: Ranking, channels: Sequence[Channel], by_point: dict[str, Field]
) -> np.ndarray:
  """Returns what each position of a ranking sees, as in `Box`: int32 [n, k, 4].

  In pixels of the network's input, whose side is `data.image_size`.
  """
  found = [
    [by_point[channel.point].box(*place) for place in places]
    for channel, places in zip(channels, ranking.positions, strict=True)
  ]
  return np.array(found, np.int32).reshape(*ranking.indices.shape, 4)


def entries(
  net: Trained,
  dataset: Dataset,
  channels: Sequence[Channel],
  excited: Excited,
) -> Iterator[Entry]:
  """Yields each channel with its images, which are read one channel at a time.

  Args:
    net: the run.
    dataset: the data set of the ranking.
    channels: those of the ranking, in its order.
    excited: as `top_images` returns it.
  """
  by_point = fields(net, channels)

  def examples(ranking: Ranking, i: int) -> list[Example]:
    field = by_point[channels[i].point]
    if not len(ranking.indices[i]):
      return []
    images, labels = dataset.read(ranking.indices[i])
    return [
      Example(
        int(index),
        float(value),
        (int(row), int(column)),
        field.box(row, column),
        field.centre(row, column),
        dataset.class_names[label],
        image,
      )
      for index, value, (row, column), label, image in zip(
        *(array[i] for array in ranking), labels, images, strict=True
      )
    ]

  for i, channel in enumerate(channels):
    yield Entry(
      channel,
      by_point[channel.point],
      examples(excited.most, i),
      examples(excited.least, i),
    )
