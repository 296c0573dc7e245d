"""The parts of the page that look into the network."""

import numpy as np

from googlenet.tools.inference import insight
from googlenet.tools.inference.trained import Trained
from googlenet.tools.report import pictures
from googlenet.tools.report.markup import (
  Html,
  element,
  figure,
  image,
  join,
  table,
)
from googlenet.tools.report.sections import Section, note

_NUM_CLASSES = 3


def choose_block(trained: Trained, block: str) -> str:
  """Returns the block whose branches are shown; '' where there is none.

  Raises:
    UserError: one was asked for that the network has not.
  """
  if block:
    insight.branch_channels(trained.network, block)
    return block
  return next(iter(insight.block_names(trained.network)), '')


def filters(trained: Trained) -> Section:
  """The first convolution."""
  weights = insight.first_filters(trained)
  height, width, channels, count = weights.shape
  picture = pictures.filters(weights)
  text = f'{min(count, 128)} of {count} filters of {height}x{width}x{channels}'
  body = figure(
    image(pictures.data_uri(picture), f'First layer: {text}', class_='pixels'),
    f'{text}, each scaled by itself: middle grey is zero.',
  )
  return Section('filters', 'First layer', body)


def maps(
  trained: Trained, pixels: np.ndarray, place: int, label: str, block: str
) -> Section:
  """Feature maps of one image, through the stages and the branches of a block.

  Args:
    trained: the run.
    pixels: uint8 [H, W, C].
    place: of the image in the split.
    label: its true class.
    block: with branches, or '' for none.
  """
  by_stage = insight.stages(trained.network)
  wanted = {*by_stage.values(), *([block] if block else [])}
  logits, found = insight.maps(trained, pixels[None], tuple(sorted(wanted)))
  predicted = trained.class_names[int(logits[0].argmax())]
  original = image(
    pictures.data_uri(pictures.photograph(pixels)),
    f'Image {place}, a {label}',
    class_='pixels',
  )
  parts = [
    element(
      'div',
      figure(original, f'Image {place}: {label}, taken for {predicted}.'),
      class_='cells',
    ),
    element(
      'p',
      'Of each map the 16 channels of the largest mean; dark is zero or '
      'below, each scaled by itself.',
    ),
    element('h3', 'Stages'),
    element(
      'div',
      *(_mosaic(stage, found[name][0]) for stage, name in by_stage.items()),
      class_='grid',
    ),
  ]
  if block:
    parts += [
      element('h3', f'Branches of {block}'),
      _branches(trained, pixels, block, found[block], logits[0]),
    ]
  else:
    parts.append(note('The network has no blocks with branches side by side.'))
  return Section('maps', 'Feature maps', join(parts))


def class_maps(
  trained: Trained,
  pixels: np.ndarray,
  captions: list[str],
) -> Section:
  """Class activation maps of the first image for its likeliest classes, of the
  others for the likeliest one.

  Args:
    trained: the run.
    pixels: uint8 [n, H, W, C].
    captions: a line about each.
  """
  title = 'Class activation maps'
  if not insight.has_class_maps(trained.network):
    return Section(
      'cam',
      title,
      note('The network has no global mean before its logits: it has none.'),
    )
  found = insight.class_activation_maps(trained, pixels)
  first = np.argsort(-found.logits[0], kind='stable')[:_NUM_CLASSES]
  shown = [(0, int(k)) for k in first]
  shown += [(i, int(found.logits[i].argmax())) for i in range(1, len(pixels))]
  cards = []
  for i, k in shown:
    values = found.maps[i, k]
    scale = values if i else found.maps[0][first]
    low, high = float(scale.min()), float(scale.max())
    picture = pictures.overlay(pixels[i], values, low, high)
    name, logit = trained.class_names[k], found.logits[i, k]
    alt = f'Where image {i + 1} of this section looks like {name}'
    caption = element(
      'figcaption', element('b', name), f' logit {logit:.2f}. {captions[i]}'
    )
    cards.append(
      element('figure', image(pictures.data_uri(picture), alt), caption)
    )
  text = (
    'How much each place adds to the logit of a class (dark: least, bright: '
    'most): the mean of a map plus a bias is the logit, exactly, as the '
    'network ends in a global mean (Zhou et al., 2016). '
    f'Maps are {values.shape[0]}x{values.shape[1]}, drawn smoothly; those of '
    'the first image share their scale.'
  )
  return Section(
    'cam',
    title,
    join([element('p', text), element('div', *cards, class_='cells')]),
  )


def _mosaic(title: str, one: np.ndarray) -> Html:
  height, width, channels = one.shape
  text = f'{title}: {height}x{width}, {channels} channels'
  picture = pictures.feature_maps(one)
  return figure(
    image(pictures.data_uri(picture), f'Maps of {text}', class_='pixels'), text
  )


def _branches(
  trained: Trained,
  pixels: np.ndarray,
  block: str,
  output: np.ndarray,
  logits: np.ndarray,
) -> Html:
  channels = insight.branch_channels(trained.network, block)
  added = insight.branch_contributions(trained, pixels[None], block)
  top = np.argsort(-logits, kind='stable')[:_NUM_CLASSES]
  names = [trained.class_names[k] for k in top]
  rows = [
    (
      name,
      str(part.stop - part.start),
      f'{output[..., part].mean():.4f}',
      *(f'{added[name][0, k]:+.3f}' for k in top),
    )
    for name, part in channels.items()
  ]
  head = ('branch', 'channels', 'mean', *names)
  caption = 'What the logits of the likeliest classes lose without a branch'
  return join(
    [
      element(
        'div',
        *(
          _mosaic(name, output[0, ..., part]) for name, part in channels.items()
        ),
        class_='grid',
      ),
      table(head, rows, caption, class_='numbers'),
    ]
  )
