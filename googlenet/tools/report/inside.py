"""The sections of the report about filters and maps of the network."""

from typing import Any

import numpy as np

from googlenet.tools.inference import insight
from googlenet.tools.inference.trained import Trained
from googlenet.tools.report import pictures
from googlenet.tools.report.page import Section, fill, note
from googlenet.tools.report.pictures import Picture

_NUM_CLASSES = 3


def choose_block(trained: Trained, block: str) -> str:
  """Returns the name of the block whose branches are shown, or ''.

  Args:
    trained: the run.
    block: chosen by the user; '': the first block with branches, if any.

  Raises:
    UserError: the network has no such block.
  """
  if block:
    insight.branch_channels(trained.network, block)
    return block
  return next(iter(insight.block_names(trained.network)), '')


def filters(trained: Trained) -> Section:
  """Returns the section with the filters of the first convolution."""
  weights = insight.first_filters(trained)
  height, width, channels, count = weights.shape
  text = f'{min(count, 128)} of {count} filters of {height}x{width}x{channels}'
  picture = Picture(
    pictures.data_uri(pictures.filters(weights)),
    f'First layer: {text}',
    f'{text}, each scaled separately: middle grey is zero.',
  )
  body = fill('figure.html', picture=picture)
  return Section('filters', 'First layer', body)


def maps(
  trained: Trained, pixels: np.ndarray, place: int, label: str, block: str
) -> Section:
  """Returns the section with feature maps of all stages, for one image.

  Args:
    trained: the run.
    pixels: uint8 [H, W, C], the image.
    place: its index in the split.
    label: its true class.
    block: whose branches are shown too, or ''.
  """
  by_stage = insight.stages(trained.network)
  wanted = {*by_stage.values(), *([block] if block else [])}
  logits, found = insight.maps(trained, pixels[None], tuple(sorted(wanted)))
  predicted = trained.class_names[int(logits[0].argmax())]
  original = Picture(
    pictures.data_uri(pictures.photograph(pixels)),
    f'Image {place}, a {label}',
    f'Image {place}: {label}, predicted as {predicted}.',
  )
  stages = [_mosaic(stage, found[name][0]) for stage, name in by_stage.items()]
  branches = {}
  if block:
    branches = _branches(trained, pixels, block, found[block], logits[0])
  body = fill(
    'maps.html', original=original, stages=stages, block=block, **branches
  )
  return Section('maps', 'Feature maps', body)


def class_maps(
  trained: Trained,
  pixels: np.ndarray,
  captions: list[str],
) -> Section:
  """Returns the section with class activation maps.

  It shows the maps of the three most probable classes for the first image, and
  of the most probable class for each other image.

  Args:
    trained: the run.
    pixels: uint8 [n, H, W, C].
    captions: one for each image.
  """
  title = 'Class activation maps'
  if not insight.has_class_maps(trained.network):
    text = (
      'There are no class activation maps: the network has no global mean '
      'before its logits.'
    )
    return Section('cam', title, note(text))
  found = insight.class_activation_maps(trained, pixels)
  first = np.argsort(-found.logits[0], kind='stable')[:_NUM_CLASSES]
  shown = [(0, int(k)) for k in first]
  shown += [(i, int(found.logits[i].argmax())) for i in range(1, len(pixels))]
  cards, maps = [], insight.contrast(found.maps)
  for i, k in shown:
    values = maps[i, k]
    scale = values if i else maps[0][first]
    low, high = float(scale.min()), float(scale.max())
    name = trained.class_names[k]
    cards.append(
      {
        'uri': pictures.data_uri(
          pictures.overlay(pixels[i], values, low, high)
        ),
        'alt': f'Class activation map of {name} for image {i + 1}',
        'name': name,
        'logit': found.logits[i, k],
        'caption': captions[i],
      }
    )
  height, width = found.maps.shape[2:]
  body = fill('class_maps.html', maps=cards, size=f'{height}x{width}')
  return Section('cam', title, body)


def _mosaic(title: str, one: np.ndarray) -> Picture:
  height, width, channels = one.shape
  text = f'{title}: {height}x{width}, {channels} channels'
  uri = pictures.data_uri(pictures.feature_maps(one))
  return Picture(uri, f'Maps of {text}', text)


def _branches(
  trained: Trained,
  pixels: np.ndarray,
  block: str,
  output: np.ndarray,
  logits: np.ndarray,
) -> dict[str, Any]:
  """Returns the maps of each branch, and a table of their contributions."""
  channels = insight.branch_channels(trained.network, block)
  added = insight.branch_contributions(trained, pixels[None], block)
  top = np.argsort(-logits, kind='stable')[:_NUM_CLASSES]
  rows = [
    (
      name,
      str(part.stop - part.start),
      f'{output[..., part].mean():.4f}',
      *(f'{added[name][0, k]:+.3f}' for k in top),
    )
    for name, part in channels.items()
  ]
  return {
    'branches': [
      _mosaic(name, output[0, ..., part]) for name, part in channels.items()
    ],
    'head': (
      'branch',
      'channels',
      'mean',
      *(trained.class_names[k] for k in top),
    ),
    'rows': rows,
  }
