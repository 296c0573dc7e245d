"""What a channel of a stage likes: the test images that excite it most."""

from typing import Any

import ml_collections
import numpy as np

from googlenet.data.sources import Dataset
from googlenet.model import points
from googlenet.tools.demo.answer import png
from googlenet.tools.examples import gallery, sheet
from googlenet.tools.examples.ranking import Excited, top_images
from googlenet.tools.inference import insight
from googlenet.tools.inference.channels import Channel
from googlenet.tools.inference.trained import Trained

MAX_IMAGES = 2000  # that are looked through: the first of the split
NUM_EXAMPLES = 6
_SIDE = 96  # of a picture, in pixels
_BATCH_SIZE = 64  # little memory, beside that of the answers


class Likes:
  """Finds what the channels of a stage like, once for each stage.

  Attributes:
    channels: number of channels by stage.
    count: number of images that are looked through.
  """

  def __init__(self, trained: Trained, dataset: Dataset):
    """Looks for images in a split, with the labels of the network."""
    config = ml_collections.ConfigDict(trained.config.to_dict())
    config.eval.batch_size = min(config.eval.batch_size, _BATCH_SIZE)
    config.data.on_device_mb = 0  # read while the network computes
    self._trained = trained._replace(
      config=ml_collections.FrozenConfigDict(config)
    )
    self.count = min(dataset.num_examples, MAX_IMAGES)
    self._dataset = dataset._replace(
      num_examples=self.count, class_names=trained.class_names
    )
    self._points = insight.stages(trained.network)
    shapes = points.shapes(trained.network.architecture)
    self.channels = {
      stage: shapes[point][-1] for stage, point in self._points.items()
    }
    self._found: dict[str, Excited] = {}

  def __call__(self, stage: str, channel: int) -> dict[str, Any]:
    """Returns what the page shows of a channel, for JSON.

    Args:
      stage: a key of `channels`.
      channel: its number, from 0.

    Returns:
      `field`: height and width of what a position of the map sees, in pixels;
      `size`: side of the network's input; `count`: of images looked through;
      `examples`: the best one first, each with its `image`, `label`, `value`.
    """
    point, trained = self._points[stage], self._trained
    if stage not in self._found:
      every = [Channel(point, k) for k in range(self.channels[stage])]
      self._found[stage] = top_images(
        trained, self._dataset, every, NUM_EXAMPLES, least=0
      )
    one = Excited(
      *(
        type(ranking)(*(array[channel : channel + 1] for array in ranking))
        for ranking in self._found[stage]
      )
    )
    (entry,) = gallery.entries(
      trained, self._dataset, [Channel(point, channel)], one
    )
    size = trained.image_shape[0]
    return {
      'field': list(entry.field.size),
      'size': size,
      'count': self.count,
      'examples': [
        {
          'image': png(np.asarray(sheet.with_box(example, size, _SIDE))),
          'label': example.label,
          'value': example.value,
        }
        for example in entry.most
      ],
    }
