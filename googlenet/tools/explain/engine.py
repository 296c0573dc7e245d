"""Runs programs on batches of images, on all local devices, in bounded memory.

Every method here is a program on a few rows at once: a row is an image, or an
image and one step, sample, window or channel. So its memory is that of `ROWS`
rows on each device, whatever the number of images and steps.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet.errors import UserError
from googlenet.input.preprocess import num_channels
from googlenet.model.network import Network, Outputs
from googlenet.runtime.parallel import parallelize
from googlenet.runtime.terminal import warn
from googlenet.tools.inference.apply import make_function
from googlenet.tools.inference.predict import padded_size
from googlenet.tools.inference.trained import Trained

ROWS = 32  # images that a device computes at once

# `apply.make_function`: (params, network_state, images, end_points=(),
# edit=None) -> Outputs.
Forward = Callable[..., Outputs]
# (forward, *static) -> program; the program maps (params, network_state,
# shared, is_real, arrays) to a tree of arrays [B, ...], for a tuple of arrays
# [B, ...]. `is_real`, bool [B], is false for images that fill up a batch.
Make = Callable[..., Callable[..., Any]]


def run(
  net: Trained,
  make: Make,
  static: tuple[Any, ...],
  arrays: tuple[np.ndarray, ...],
  shared: Any = (),
  count: int = 0,
) -> Any:
  """Runs a program on images, in batches over all local devices.

  Args:
    net: a trained network.
    make: makes the program; together with `static` it is compiled once for
      each shape of image.
    static: hashable arguments of `make`.
    arrays: [N, ...] each; the first are float32 images in 0..255.
    shared: tree of arrays that are the same for all images.
    count: number of images that decides the size of the batches; 0: N. With
      that of an earlier call nothing is compiled again for fewer images.

  Returns:
    What the program returns, as NumPy arrays [N, ...].
  """
  program = _program(
    net.network, net.config.data, net.config.train.parallel, make, static
  )
  devices = jax.local_device_count()
  size = padded_size(count or len(arrays[0]), ROWS * devices, devices)
  parts = []
  for start in range(0, len(arrays[0]), size):
    batch = [array[start : start + size] for array in arrays]
    length = len(batch[0])
    is_real = np.arange(size) < length
    whole = (
      np.concatenate([x, np.repeat(x[-1:], size - length, 0)]) for x in batch
    )
    is_real, *batch = (
      x.reshape(devices, -1, *x.shape[1:]) for x in (is_real, *whole)
    )
    out = program(net.params, net.network_state, shared, is_real, tuple(batch))
    parts.append(
      jax.tree.map(
        lambda y, n=length: np.asarray(y).reshape(-1, *y.shape[2:])[:n], out
      )
    )
  return jax.tree.map(lambda *ys: np.concatenate(ys), *parts)


@functools.lru_cache(maxsize=64)
def _program(
  network: Network,
  data_config: ml_collections.FrozenConfigDict,
  how: str,
  make: Make,
  static: tuple[Any, ...],
) -> Callable[..., Any]:
  return parallelize(
    make(make_function(network, data_config, 'float32'), *static),
    in_axes=(None, None, None, 0, 0),
    options=network.kernels.compiler_options,
    what=make.__name__.strip('_').replace('_', ' '),
    how=how,
    is_local=True,
  )


def sum_over_pairs(
  is_real: jax.Array,
  num_places: int | jax.Array,
  rows: Callable[[jax.Array, jax.Array], Any],
  size: int = ROWS,
) -> Any:
  """Sums rows of all pairs (image, place) for each image.

  Args:
    is_real: bool [n], see `Make`; the first images are real.
    num_places: number of places m of each image; it may be traced, so that
      another number is not compiled again.
    rows: (image [size], place [size]), both int32 -> tree of arrays
      [size, ...].
    size: how many pairs are computed at once.

  Returns:
    The tree, of arrays [n, ...]; zeros for images that are not real.
  """
  num_images, total = len(is_real), jnp.sum(is_real) * num_places
  places = jax.ShapeDtypeStruct((size,), jnp.int32)
  start = jax.tree.map(
    lambda row: jnp.zeros((num_images, *row.shape[1:]), row.dtype),
    jax.eval_shape(rows, places, places),
  )

  def add(i: jax.Array, sums: Any) -> Any:
    pair = i * size + jnp.arange(size, dtype=jnp.int32)
    # What lies behind the last pair is dropped.
    image = jnp.where(pair < total, pair // num_places, num_images)
    found = rows(jnp.minimum(image, num_images - 1), pair % num_places)
    return jax.tree.map(
      lambda x, row: x.at[image].add(row, mode='drop'), sums, found
    )

  return jax.lax.fori_loop(0, (total + size - 1) // size, add, start)


def as_float(net: Trained, images: np.ndarray) -> np.ndarray:
  """Checks images and returns them as float32 [N, H, W, C] in 0..255.

  Warns of floats that look like 0 to 1, as other libraries have them.

  Raises:
    UserError: they have another shape or dtype than the network takes, or a
      pixel is NaN or infinite.
  """
  found = _checked(net, images)
  if np.asarray(images).dtype.kind == 'f' and 0 < found.max() <= 1:
    warn(
      'float images are 0 to 255, and the largest of these pixels is '
      f'{found.max():.3g}: multiply by 255 what is 0 to 1'
    )
  return found


def _checked(net: Trained, images: np.ndarray) -> np.ndarray:
  """As `as_float`, without the warning: for images that it has returned."""
  images = np.asarray(images)
  is_number = images.dtype == np.uint8 or images.dtype.kind == 'f'
  seen = net.image_shape[-1]
  if (
    images.ndim != 4
    or not is_number
    or not images.size
    or num_channels(net.config.data, images.shape[-1]) != seen
  ):
    raise UserError(
      f'images are {images.dtype} {images.shape}; allowed is uint8 or float '
      f'[N, H, W, C] in 0..255, 1 or more of {seen} channel(s)'
    )
  images = np.asarray(images, np.float32)
  # ReLUs stop the gradient at NaN: the map would be zeros, as if of nothing.
  if not np.isfinite(images).all():
    raise UserError(
      'images hold pixels that are no finite numbers (NaN or infinite): give '
      'floats in 0..255'
    )
  return images


def _logits(forward: Forward):
  def program(params, network_state, shared, is_real, arrays):
    del shared, is_real
    return forward(params, network_state, arrays[0]).logits

  return program


def logits(net: Trained, images: np.ndarray) -> np.ndarray:
  """Returns the logits of images in float32 and one view, [N, K]."""
  return run(net, _logits, (), (_checked(net, images),))
