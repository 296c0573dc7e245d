"""The data that the demo shows about an image, with PNGs as data URIs."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from googlenet.tools.examples.receptive import receptive_field
from googlenet.tools.inference import insight
from googlenet.tools.inference.about import data_name
from googlenet.tools.inference.predict import ONE_VIEW, Views
from googlenet.tools.inference.trained import Trained

NUM_CLASSES = 10  # shown at most
NUM_CHANNELS = 12  # shown of each stage
# Orange and blue, which colour-blind people can distinguish.
_FOR, _AGAINST = (255, 140, 0), (70, 150, 255)
_OPAQUE = 190  # largest alpha, of 255: the image stays visible


def describe(trained: Trained) -> dict[str, Any]:
  """Returns the facts about a run that the page shows, for JSON."""
  model = trained.config.model
  return {
    'variant': model.variant,
    'step': trained.step,
    'size': list(trained.image_shape),
    'classes': len(trained.class_names),
    'data': data_name(trained.config.data),
  }


def answer(
  trained: Trained, image: np.ndarray, views: Views = ONE_VIEW
) -> dict[str, Any]:
  """Returns predictions, maps and branch contributions of an image, for JSON.

  Args:
    trained: a run.
    image: uint8 [H, W, C], like the images of the training set.
    views: over which probabilities are averaged; logits, maps and effects are
      computed for the unchanged image.

  Returns:
    `seen`: the network's input as an image.
    `classes`: the most probable first, each with `class` (its number), `name`,
      `probability`, `logit` and, if the network has class activation maps,
      `bias`, `map` and `scale`, the distance from the mean of a map that has
      the strongest colour.
    `stages`: each with `name`, `shape` and `channels`; the channels with the
      largest mean come first. A channel has its number `channel`, its map as
      `image`, the largest `value` of that, and as `box` what the position with
      that value sees: top, left, bottom and right as parts of the image's side.
    `blocks`: each with `name` and `branches`; a branch has `name` and
      `effects`, its contribution to the logit of each of `classes`.
  """
  inside = insight.inside(trained, image)
  (probabilities,) = trained.predict(image[None], views)
  order = np.argsort(-probabilities, kind='stable')[:NUM_CLASSES]
  data = trained.config.data
  pixels = insight.seen(trained, image[None])[0]
  pixels = pixels * np.float32(data.std) + np.float32(data.mean)
  classes = [
    {
      'class': int(k),
      'name': trained.class_names[k],
      'probability': float(probabilities[k]),
      'logit': float(inside.logits[k]),
    }
    for k in order
  ]
  if inside.class_maps:
    maps = inside.class_maps.maps[0, order]
    scales = np.abs(insight.contrast(maps)).max((1, 2))
    for entry, k, overlay, scale in zip(
      classes, order, overlays(maps), scales, strict=True
    ):
      entry['bias'] = float(inside.class_maps.bias[k])
      entry['map'] = png(overlay)
      entry['scale'] = float(scale)
  return {
    'seen': png(_to_bytes(pixels)),
    'classes': classes,
    'stages': [_stage(trained, name, y) for name, y in inside.stages.items()],
    'blocks': [
      {
        'name': block,
        'branches': [
          {'name': name, 'effects': [float(x) for x in effects[order]]}
          for name, effects in branches.items()
        ],
      }
      for block, branches in inside.contributions.items()
    ],
  }


def _stage(trained: Trained, name: str, y: np.ndarray) -> dict[str, Any]:
  """Returns what the page shows of the map of a stage, [h, w, C]."""
  point = insight.stages(trained.network)[name]
  field = receptive_field(trained.network, point, trained.image_shape)
  scaled = (y - y.min()) / max(float(y.max() - y.min()), 1e-12)
  channels = []
  for c in strongest(y):
    row, column = np.unravel_index(y[..., c].argmax(), y.shape[:2])
    box = field.box(row, column)
    channels.append(
      {
        'channel': int(c),
        'image': png(_to_bytes(scaled[..., c, None])),
        'value': float(y[row, column, c]),
        'box': [place / trained.image_shape[0] for place in box],
      }
    )
  return {'name': name, 'shape': list(y.shape), 'channels': channels}


def strongest(y: np.ndarray) -> np.ndarray:
  """Returns the channels of [h, w, C] with the largest mean, largest first."""
  return np.argsort(-y.mean((0, 1)), kind='stable')[:NUM_CHANNELS]


def overlays(maps: np.ndarray) -> np.ndarray:
  """Turns class activation maps into colour layers to draw over the image.

  Args:
    maps: [K, h, w] of one image, each scaled by itself.

  Returns:
    uint8 [K, h, w, 4], RGBA: orange where a map is above its own mean (more
    evidence for its class than elsewhere), blue where it is below; the farther,
    the less transparent.
  """
  maps = insight.contrast(maps)
  largest = np.maximum(np.abs(maps).max((1, 2)), 1e-12)[:, None, None]
  return overlay(maps / largest)


def overlay(values: np.ndarray) -> np.ndarray:
  """Returns values [..., h, w] in -1..1 as colours, uint8 [..., h, w, 4].

  RGBA: orange above zero, blue below; the farther, the less transparent.
  """
  colours = np.where(values[..., None] > 0, _FOR, _AGAINST)
  alpha = np.rint(_OPAQUE * np.abs(values[..., None]))
  return np.concatenate([colours, alpha], axis=-1).astype(np.uint8)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
  """Converts float pixels in 0..1 to uint8."""
  return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def encode(pixels: np.ndarray) -> bytes:
  """Returns uint8 [H, W, C] as a PNG; C is 1, 3 or 4."""
  file = io.BytesIO()
  grey = pixels.shape[-1] == 1
  Image.fromarray(pixels[..., 0] if grey else pixels).save(file, 'PNG')
  return file.getvalue()


def png(pixels: np.ndarray) -> str:
  """Returns uint8 [H, W, C] as a PNG in a data URI."""
  return 'data:image/png;base64,' + base64.b64encode(encode(pixels)).decode()
