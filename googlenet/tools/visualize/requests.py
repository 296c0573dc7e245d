"""What --channels and --objective ask for, for one or several runs."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.model import graph, points
from googlenet.tools.inference import channels as channels_lib
from googlenet.tools.inference.trained import Trained
from googlenet.tools.visualize import objectives
from googlenet.tools.visualize.objectives import Objective
from googlenet.tools.visualize.rendered import Rendered

# What --objective takes; the last two are of a whole layer.
KINDS = ('channel', 'neuron', 'layer', 'caricature')
_OF_LAYERS = ('layer', 'caricature')
_MAX_IMAGES = 4096


class Request(NamedTuple):
  """One image of a run.

  Attributes:
    point: name of a point.
    index: of a channel; None: the whole layer.
    label: for the sheet.
  """

  point: str
  index: int | None
  label: str


def check_kind(objective: str, image: str) -> None:
  """Checks --objective, and that what it needs is given.

  Raises:
    UserError: it is unknown, or 'caricature' has no --image.
  """
  if objective and objective not in KINDS:
    raise UserError(
      f'--objective={objective} is not allowed{did_you_mean(objective, KINDS)}'
      f': it takes one of {", ".join(KINDS)}'
    )
  if objective == 'caricature' and not image:
    raise UserError(
      '--objective=caricature exaggerates what a layer sees in an image: give '
      '--image'
    )


def parse(
  text: str,
  nets: Sequence[Trained],
  folders: Sequence[str],
  objective: str,
  has_image: bool,
) -> list[list[Request]]:
  """Returns the images of each run; the k-th ones of all runs belong together.

  Args:
    text: as `channels.parse` takes it. If the points of several runs have
      different names, `a:3=b:5` names that of each run, in their order.
    nets: the runs.
    folders: their names, for error messages.
    objective: one of `KINDS`, or ''. Whole layers are points without a channel.
    has_image: whether the ascent begins with a photo: then '' means 'layer' for
      a point without a channel, else all of its channels.

  Raises:
    UserError: a run has no such point, channel or class; or they have not the
      same number of channels.
  """
  found: list[list[Request]] = [[] for _ in nets]
  for item in filter(None, (part.strip() for part in text.split(','))):
    parts = item.split('=')
    if len(parts) not in (1, len(nets)):
      raise UserError(
        f'--channels={item} names {len(parts)} points, and --workdir '
        f'{len(nets)} runs: give one point for all, or one for each run'
      )
    own = parts if len(parts) > 1 else parts * len(nets)
    asked = [
      _of_item(part, net, folder if len(nets) > 1 else '', objective, has_image)
      for part, net, folder in zip(own, nets, folders, strict=True)
    ]
    for requests, other, folder in zip(asked, nets, folders, strict=True):
      del other
      if len(requests) != len(asked[0]):
        raise UserError(
          f'--channels={item}: {folders[0]} has {len(asked[0])} channels there '
          f'and {folder} {len(requests)}: name channels that both have, like '
          f'{item}:0-{min(len(requests), len(asked[0])) - 1}'
        )
    for requests, more in zip(found, asked, strict=True):
      requests += more
  if not found[0]:
    raise UserError(
      '--channels is missing: name channels, such as inception_4c:447 or '
      'stage_3:0-15'
    )
  if len(found[0]) > _MAX_IMAGES:
    raise UserError(
      f'--channels={text} are {len(found[0]):,} images, more than '
      f'{_MAX_IMAGES:,}: name fewer'
    )
  return found


def _of_item(
  item: str, net: Trained, folder: str, objective: str, has_image: bool
) -> list[Request]:
  """Returns the images of one point or range of channels.

  Args:
    item: without commas and '='.
    net: a run.
    folder: its name if there are several, else ''.
    objective: see `parse`.
    has_image: see `parse`.
  """
  architecture = net.network.architecture
  is_point = item in points.shapes(architecture) or points.of_lucid(item) in (
    points.shapes(architecture)
  )
  whole = objective in _OF_LAYERS or (not objective and has_image)
  try:
    if is_point and whole:
      name = points.resolve(item, architecture)
      what = 'caricature' if objective == 'caricature' else 'layer'
      return [Request(name, None, f'{name} ({what})')]
    found = channels_lib.parse(item, architecture, net.class_names)
  except UserError as error:
    if not folder:
      raise
    layers = graph.graph(architecture)
    raise UserError(
      f'--workdir={folder}: {error}; it has, among others, '
      f'{", ".join(graph.end_points(layers))}; of runs with different points '
      "name one each, joined by '=', like stage_3:0=stage_2:0"
    ) from error
  if objective in _OF_LAYERS:
    raise UserError(
      f'--channels={item}: --objective={objective} takes points without a '
      f'channel, like {found[0].point}'
    )
  names = net.class_names
  return [
    Request(
      point,
      index,
      f'{point}:{names[index]}' if point == 'logits' else f'{point}:{index}',
    )
    for point, index in found
  ]


def objectives_of(
  requests: Sequence[Request],
  objective: str,
  targets: dict[str, np.ndarray] | None = None,
) -> tuple[list[Objective], list[int]]:
  """Returns objectives with the channels of a point together.

  Args:
    requests: images of a run.
    objective: one of `KINDS`, or ''.
    targets: for 'caricature', the map of the photo at each point, [1, ...].

  Returns:
    The objectives, and for each of their images its place in `requests`.
  """
  places: dict[tuple[str, bool], list[int]] = {}
  for i, request in enumerate(requests):
    places.setdefault((request.point, request.index is None), []).append(i)
  found, order = [], []
  for (point, is_whole), own in places.items():
    indices = [requests[i].index for i in own]
    if objective == 'caricature':
      made = objectives.caricature(point, targets[point]).repeat(len(own))
    elif is_whole:
      made = objectives.layer(point).repeat(len(own))
    elif objective == 'neuron':
      made = objectives.neuron(point, indices)
    else:
      made = objectives.channel(point, indices)
    labels = tuple(requests[i].label for i in own)
    found.append(dataclasses.replace(made, names=labels))
    order += own
  return found, order


def in_order(made: Rendered, order: Sequence[int]) -> Rendered:
  """Returns images in the order of the requests, see `objectives_of`."""
  back = np.argsort(order)
  return Rendered(
    made.images[back],
    made.values[back],
    made.curves[back],
    made.frames[:, back],
    tuple(made.names[i] for i in back),
  )
