"""The description of a network that is stored in an exported file."""

from typing import Any

import jax
import ml_collections

from googlenet import config as config_lib
from googlenet.tools.inference.predict import Views
from googlenet.tools.inference.trained import Trained

_COLOURS = {1: 'grey', 3: 'RGB', 4: 'RGBA'}


def data_name(data_config: ml_collections.ConfigDict) -> str:
  """Returns the name of the data set that a network was trained on.

  Of images of the user's own it is 'own images', unless `data.name`, which only
  other sources read, was set all the same, as for weights of ImageNet.

  Args:
    data_config: the `data` section.
  """
  default = config_lib.default_config().data.name
  has_name = data_config.source in ('bundled', 'idx', 'tfds')
  if has_name or data_config.name != default:
    return data_config.name
  return 'own images'


def images_in_words(net: Trained) -> str:
  """Describes in words the images that the exported program takes."""
  height, width, channels = net.stored_shape
  data = net.config.data
  if data.resize:
    sides = 'both sides' if data.squeeze else 'short side'
    what = (
      f'{sides} resized to {data.resize} pixels ({data.interpolation}), then '
      f'the {height}x{width} square in the centre'
    )
  else:
    what = f'resized to {height}x{width}'
  colours = _COLOURS.get(channels, f'{channels} channels')
  return f'uint8 [batch, {height}, {width}, {channels}], {colours}, {what}'


def about(net: Trained, views: Views | None = None) -> dict[str, Any]:
  """Describes images, outputs, classes, config and step, for JSON.

  Args:
    net: the network.
    views: over which the exported program averages; None if the file holds
      only parameters.
  """
  return {
    'format': 1,
    'images': images_in_words(net),
    'image_shape': list(net.stored_shape),
    'outputs': {
      'logits': f'float32 [batch, {net.network.num_classes}]',
      'probabilities': f'float32 [batch, {net.network.num_classes}]',
    },
    'views': {
      'computed': None if views is None else views.count,
      'evaluated_with': net.views.count,
      'fields': net.views.fields,
    },
    'class_names': list(net.class_names),
    'step': net.step,
    'jax': jax.__version__,
    'config': net.config.to_dict(),
  }
