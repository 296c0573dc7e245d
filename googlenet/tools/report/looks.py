"""The section of the report about what channels of the network look for."""

import collections

import numpy as np

from googlenet.data.sources import Dataset
from googlenet.tools.examples import gallery, made, sheet
from googlenet.tools.examples.gallery import Entry
from googlenet.tools.examples.ranking import top_images
from googlenet.tools.inference import insight
from googlenet.tools.inference.channels import Channel
from googlenet.tools.inference.trained import Trained
from googlenet.tools.report import pictures
from googlenet.tools.report.page import Section, fill
from googlenet.tools.report.pictures import Picture

MAX_IMAGES = 10_000  # of the split that are looked through
_NUM_CHANNELS, _NUM_IMAGES = 4, 6  # of each stage, of each channel
_SIDE = 80  # of an image, in pixels
# Images are made for the first stages only, in few steps: seconds, since the
# rest of the network is not computed.
_NUM_STAGES, _STEPS = 2, 48


def section(trained: Trained, dataset: Dataset, place: int) -> Section:
  """Returns the section with what excites some channels of each stage.

  Those are the channels with the largest mean for one image, and what excites
  them are the images with their largest values.

  Args:
    trained: the run.
    dataset: the split, of which at most `MAX_IMAGES` are looked through.
    place: index of that image.
  """
  image, _ = dataset.read(np.array([place]))
  channels = strongest(trained, image)
  searched = dataset._replace(
    num_examples=min(dataset.num_examples, MAX_IMAGES),
    class_names=trained.class_names,
  )
  excited = top_images(trained, searched, channels, _NUM_IMAGES, least=0)
  first = [c for c in channels if c.point in _first_points(channels)]
  images = dict(zip(first, made.images(trained, first, _STEPS), strict=True))
  stages = {}
  for entry in gallery.entries(trained, searched, channels, excited):
    stages.setdefault(entry.channel.point, []).append(entry)
  size = trained.image_shape[0]
  body = fill(
    'looks.html',
    place=place,
    count=searched.num_examples,
    is_all=searched.num_examples == dataset.num_examples,
    size=size,
    stages=[
      (
        point,
        entries[0].field.size,
        entries[0].channel in images,
        [picture(e, size, images.get(e.channel)) for e in entries],
      )
      for point, entries in stages.items()
    ],
  )
  return Section('looks', 'What the network looks for', body)


def strongest(trained: Trained, image: np.ndarray) -> list[Channel]:
  """Returns the channels of each stage with the largest mean for an image.

  Args:
    trained: the run.
    image: uint8 [1, H, W, C].
  """
  by_stage = insight.stages(trained.network)
  _, found = insight.maps(trained, image, tuple(by_stage.values()))
  return [
    Channel(name, int(k))
    for name in by_stage.values()
    for k in np.argsort(-found[name].mean((0, 1, 2)), kind='stable')[
      :_NUM_CHANNELS
    ]
  ]


def _first_points(channels: list[Channel]) -> tuple[str, ...]:
  """Returns the maps of the first stages."""
  return tuple(dict.fromkeys(c.point for c in channels))[:_NUM_STAGES]


def picture(
  entry: Entry, image_size: int, first: np.ndarray | None = None
) -> Picture:
  """Returns the images of a channel side by side, and what they show.

  Args:
    entry: a channel and its images.
    image_size: side of the network's input, in pixels.
    first: uint8 [H, W, C], an image that is made for it; None: there is none.
  """
  tiles = [sheet.with_box(one, image_size, _SIDE) for one in entry.most]
  if first is not None:
    tiles.insert(0, sheet.thumbnail(first, _SIDE))
  labels = collections.Counter(one.label for one in entry.most)
  names = ', '.join(
    f'{name} ({count})' if count > 1 else name
    for name, count in labels.most_common()
  )
  values = [sheet.number(one.value) for one in (entry.most[0], entry.most[-1])]
  name = f'{entry.channel.point}:{entry.channel.index}'
  return Picture(
    pictures.data_uri(pictures.mosaic(tiles, len(tiles), _SIDE).convert('RGB')),
    f'The images that excite {name} most: {names}',
    f'{name}: {names}; {values[0]} to {values[1]}.',
  )
