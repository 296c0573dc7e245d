"""What the demo shows about one image: numbers, and small PNGs as data URIs."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from googlenet.tools.inference import insight
from googlenet.tools.inference.predict import ONE_VIEW, Views
from googlenet.tools.inference.trained import Trained

NUM_CLASSES = 10  # shown, at most
NUM_CHANNELS = 12  # of each stage
# Told apart by people of all kinds of colour vision.
_FOR, _AGAINST = (255, 140, 0), (70, 150, 255)
_OPAQUE = 190  # of 255: the picture stays visible


def describe(trained: Trained) -> dict[str, Any]:
  """Returns what the demo tells about a run, for JSON."""
  model = trained.config.model
  return {
    'variant': model.variant,
    'step': trained.step,
    'size': list(trained.image_shape),
    'classes': len(trained.class_names),
    'data': trained.config.data.name,
  }


def answer(
  trained: Trained, image: np.ndarray, views: Views = ONE_VIEW
) -> dict[str, Any]:
  """Returns what a network sees in an image, for JSON.

  Args:
    trained: a run.
    image: uint8 [H, W, C], like the images of its training set.
    views: over which probabilities are averaged; logits, maps and effects are
      of the image as it is.

  Returns:
    `seen`: the image as the network sees it.
    `classes`: the most probable first, each with `name`, `probability`, `logit`
      and, if the network has class activation maps, `bias` and `map`.
    `stages`: each with `name`, `shape` and `channels`, those with the largest
      mean first.
    `blocks`: each with `name` and `branches`; a branch has `name` and
      `effects`, what it contributes to the logit of each of `classes`.
  """
  inside = insight.inside(trained, image)
  (probabilities,) = trained.predict(image[None], views)
  order = np.argsort(-probabilities, kind='stable')[:NUM_CLASSES]
  data = trained.config.data
  pixels = insight.seen(trained, image[None])[0]
  pixels = pixels * np.float32(data.std) + np.float32(data.mean)
  classes = [
    {
      'name': trained.class_names[k],
      'probability': float(probabilities[k]),
      'logit': float(inside.logits[k]),
    }
    for k in order
  ]
  if inside.class_maps:
    maps = inside.class_maps.maps[0, order]
    for entry, k, overlay in zip(classes, order, overlays(maps), strict=True):
      entry['bias'] = float(inside.class_maps.bias[k])
      entry['map'] = png(overlay)
  return {
    'seen': png(_to_bytes(pixels)),
    'classes': classes,
    'stages': [
      {
        'name': name,
        'shape': list(y.shape),
        'channels': [
          {'channel': int(c), 'image': png(_to_bytes(scaled[..., c, None]))}
          for c in strongest(y)
        ],
      }
      for name, y in inside.stages.items()
      for scaled in [(y - y.min()) / max(float(y.max() - y.min()), 1e-12)]
    ],
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


def strongest(y: np.ndarray) -> np.ndarray:
  """Returns the channels of [h, w, C] with the largest mean, in that order."""
  return np.argsort(-y.mean((0, 1)), kind='stable')[:NUM_CHANNELS]


def overlays(maps: np.ndarray) -> np.ndarray:
  """Turns class activation maps into layers to put over the image.

  Args:
    maps: [K, h, w] of one image; they share one scale.

  Returns:
    uint8 [K, h, w, 4], RGBA: orange where a map is positive (evidence for its
    class), blue where it is negative; the stronger, the less transparent.
  """
  largest = max(float(np.abs(maps).max()), 1e-12)
  colours = np.where(maps[..., None] > 0, _FOR, _AGAINST)
  alpha = np.rint(_OPAQUE * np.abs(maps[..., None]) / largest)
  return np.concatenate([colours, alpha], axis=-1).astype(np.uint8)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
  """Returns float pixels in 0..1 as uint8."""
  return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def encode(pixels: np.ndarray) -> bytes:
  """Returns uint8 [H, W, C] as a PNG, C being 1, 3 or 4."""
  file = io.BytesIO()
  grey = pixels.shape[-1] == 1
  Image.fromarray(pixels[..., 0] if grey else pixels).save(file, 'PNG')
  return file.getvalue()


def png(pixels: np.ndarray) -> str:
  """Returns uint8 [H, W, C] as a PNG in a data URI."""
  return 'data:image/png;base64,' + base64.b64encode(encode(pixels)).decode()
