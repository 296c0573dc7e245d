"""DeepDream: a photo, changed over several sizes (Mordvintsev et al., 2015).

The smallest size makes large patterns, each larger one adds details. Steps,
sizes and rate are those of the notebook that made it known
(google/deepdream, `dream.ipynb`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from googlenet.data import files
from googlenet.data import images as images_lib
from googlenet.errors import UserError
from googlenet.runtime.progress import Progress
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers
from googlenet.tools.inference.trained import Trained, refuse
from googlenet.tools.visualize import ascent
from googlenet.tools.visualize.objectives import Objective
from googlenet.tools.visualize.rendered import (
  Rendered,
  kept_steps,
)

OCTAVES, RATIO = 4, 1.4
STEPS = 10  # per octave
RATE = 1.5  # mean change of a pixel in a step, of 255
# Largest movement before each step, as a part of the network's image size:
# 32 pixels of 224.
_JITTER = 1 / 7
_EPSILON = 1e-12  # a gradient of 0 changes nothing


def octave_sizes(
  height: int, width: int, smallest: int, octaves: int, ratio: float
) -> list[tuple[int, int]]:
  """Returns the sizes of an image (height, width), from the smallest.

  Args:
    height: of the image, in pixels.
    width: of the image, in pixels.
    smallest: sizes with a shorter side than this are left out, but never the
      image's own.
    octaves: largest number of sizes.
    ratio: between two sizes.
  """
  sizes = [
    (round(height / ratio**k), round(width / ratio**k)) for k in range(octaves)
  ]
  return sizes[:1] + [s for s in sizes[1:] if min(s) >= smallest]


class Inside(NamedTuple):
  """Transform that fits an image into a size, with its aspect ratio.

  Attributes:
    shortest: the short side is at least as long, in pixels.
    longest: the long side is at most as long, unless `shortest` needs more.
  """

  shortest: int
  longest: int

  is_random = False
  sides = (0, 0)  # those of the image decide

  def __call__(
    self, image: Image.Image, num_channels: int, epoch: int, index: int
  ) -> np.ndarray:
    factor = min(1.0, self.longest / max(image.size))
    factor = max(factor, self.shortest / min(image.size))
    width, height = (max(1, round(factor * side)) for side in image.size)
    return images_lib.pixels(
      image, num_channels, (0, 0, *image.size), (height, width)
    )


def read_photo(net: Trained, path: str, longest: int) -> np.ndarray:
  """Reads an image of any size for a network: uint8 [H, W, C].

  Args:
    net: whose number of channels the image gets.
    path: of the file.
    longest: the long side is at most as many pixels.

  Raises:
    UserError: the file cannot be read.
  """
  size, _, channels = net.image_shape
  files.check_channels(channels)
  reader = files.Reader(Inside(size, longest), channels, tells=True)
  (item,) = files.read_ahead([path], reader, 1)
  return item.image if item.image is not None else refuse(item)


def dream(
  net: Trained,
  image: np.ndarray,
  objective: Objective,
  *,
  octaves: int = OCTAVES,
  ratio: float = RATIO,
  steps: int = STEPS,
  rate: float = RATE,
  seed: int = 0,
  num_frames: int = 0,
  batch_size: int = 8,
) -> Rendered:
  """Changes an image so that an objective grows, size after size.

  Args:
    net: a trained network.
    image: uint8 [H, W, C] of any size, as `read_photo` returns it; it is the
      start for all images of the objective.
    objective: what to maximize, like `objectives.layer('inception_4c')`.
    octaves: largest number of sizes; those smaller than the images of the
      network are left out.
    ratio: between two sizes.
    steps: per size.
    rate: mean change of a pixel in a step, in grey levels.
    seed: fixes the movements.
    num_frames: how many images to keep on the way, at the full size.
    batch_size: largest number of images at once on a device.

  Returns:
    Images uint8 [N, H, W, C]; see `Rendered`.

  Raises:
    UserError: the image has another shape or dtype, the objective is none, or a
      number is out of range.
  """
  image = np.asarray(image)
  if image.dtype != np.uint8 or image.shape[2:] != net.image_shape[2:]:
    raise UserError(
      f'the image is {image.dtype} {list(image.shape)}; allowed is uint8 '
      f'[H, W, {net.image_shape[-1]}], as dream.read_photo returns it'
    )
  ascent.checked([objective])
  if not 1 <= ratio < math.inf:
    raise UserError(f'ratio={ratio} is not allowed: it takes a number from 1')
  check_numbers(
    octaves=(octaves, 1),
    seed=(seed, 0, MAX_SEED),
    steps=(steps, 1),
    batch_size=(batch_size, 1),
    num_frames=(num_frames, 0),
  )
  sizes = octave_sizes(*image.shape[:2], net.image_shape[0], octaves, ratio)[
    ::-1
  ]
  total = steps * len(sizes)
  kept = kept_steps(total, num_frames)
  programs = _make_programs(net, objective, rate, sizes)
  with Progress('dream', objective.count * total, 'steps') as bar:
    parts = [
      _dream_batch(
        programs, objective, rows, image, sizes, steps, seed, kept, bar
      )
      for rows in ascent.batches(objective, batch_size)
    ]
  return Rendered.join(parts, objective.names)


class _Programs(NamedTuple):
  """What one objective computes at any size; arrays as in `ascent`.

  Attributes:
    step: (images float32, parameters, members, seed, number) -> (images,
      values).
    value: (images uint8, parameters) -> values, without movement.
  """

  step: Callable[..., tuple[jax.Array, jax.Array]]
  value: Callable[..., jax.Array]


def _make_programs(
  net: Trained,
  objective: Objective,
  rate: float,
  sizes: list[tuple[int, int]],
) -> _Programs:
  values_of, net = ascent.make_values(net, objective, sizes)
  jitter = max(1, round(_JITTER * net.image_shape[0]))

  def move(key: jax.Array, image: jax.Array) -> jax.Array:
    shift = jax.random.randint(key, (2,), -jitter, jitter + 1)
    return jnp.roll(image, shift, axis=(0, 1))

  def step(params, network_state, x, parameters, members, seed, number):
    keys = ascent.step_keys(seed, members, number)

    def total(x: jax.Array) -> tuple[jax.Array, jax.Array]:
      seen = jax.vmap(move)(keys, x)
      values = values_of(params, network_state, x, seen, parameters, None)
      return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(x)
    mean = jnp.abs(gradient).mean((1, 2, 3), keepdims=True)
    return jnp.clip(x + rate * gradient / (mean + _EPSILON), 0, 255), values

  def value(params, network_state, images, parameters):
    x = images.astype(jnp.float32)
    return values_of(params, network_state, x, x, parameters, None)

  own = net.params, net.network_state
  run = functools.partial(ascent.on_devices, net)
  program = run(
    step,
    in_axes=(None, None, 0, 0, 0, None, None),
    out_axes=(0, 0),
    what='gradient ascent',
  )
  return _Programs(
    functools.partial(program, *own),
    functools.partial(run(value, in_axes=(None, None, 0, 0)), *own),
  )


def _resize(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """[D, b, h, w, C] -> [D, b, *size, C], bilinearly."""
  shape = (*x.shape[:2], *size, x.shape[-1])
  return jax.image.resize(x, shape, 'bilinear')


def _dream_batch(
  programs: _Programs,
  objective: Objective,
  rows: np.ndarray,
  image: np.ndarray,
  sizes: list[tuple[int, int]],
  steps: int,
  seed: int,
  kept: frozenset[int],
  bar: Progress,
) -> Rendered:
  """Changes the images of a batch, from the smallest size to the largest."""
  parameters, members = ascent.inputs_of(objective, rows)
  host = functools.partial(ascent.unpadded, rows)
  whole = jnp.asarray(image, jnp.float32)
  whole = jnp.broadcast_to(whole, (*rows.shape, *whole.shape))
  curve, frames, numbers = [], [], itertools.count()
  detail = _resize(whole, sizes[0]) * 0
  for size in sizes:
    start = _resize(whole, size)
    x = jnp.clip(start + _resize(detail, size), 0, 255)
    for _ in range(steps):
      number = next(numbers)
      x, values = programs.step(
        x, parameters, members, np.uint32(seed), np.int32(number)
      )
      curve.append(values)
      if number + 1 in kept:
        frames.append(host(_to_uint8(_resize(x, sizes[-1]))))
      bar.update(len(np.unique(rows)))
    detail = x - start
  images = _to_uint8(x)
  return Rendered.of_batch(
    host(images),
    host(programs.value(images, parameters)),
    [host(values) for values in curve],
    frames,
  )


def _to_uint8(x: jax.Array) -> jax.Array:
  return jnp.round(jnp.clip(x, 0, 255)).astype(jnp.uint8)
