"""The images of a data set that excite channels most and least.

A channel's value for an image is the largest value of its map, and its position
the place in the map where that is. The data set is read once, and never more
maps are in memory than those of one batch.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet.data import batches
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.model.network import Network
from googlenet.runtime import memory
from googlenet.runtime.parallel import parallelize, steps_in_flight
from googlenet.tools.inference import channels as channels_lib
from googlenet.tools.inference.apply import make_function
from googlenet.tools.inference.channels import Channel
from googlenet.tools.inference.numbers import check_numbers
from googlenet.tools.inference.trained import Trained


class Ranking(NamedTuple):
  """Images in an order, for each of n channels.

  Attributes:
    indices: int32 [n, k], of the images in the data set.
    values: float32 [n, k], of the channel: the largest of its map.
    positions: int32 [n, k, 2], row and column of that value in the map; (0, 0)
      where the point has no map.
  """

  indices: np.ndarray
  values: np.ndarray
  positions: np.ndarray


class Excited(NamedTuple):
  """The images that excite channels most and least.

  Attributes:
    most: the largest value first.
    least: the smallest value first.
  """

  most: Ranking
  least: Ranking


def top_images(
  net: Trained,
  dataset: Dataset,
  channels: Sequence[Channel | tuple[str, int]],
  k: int,
  least: int | None = None,
) -> Excited:
  """Returns the images that excite channels most, and those that do least.

  Of images with the same value the one with the lower index comes first.
  Everything is computed in float32, on all devices of this process.

  Args:
    net: a run.
    dataset: a split whose images the network takes, like those of
      `pipeline.load_split`. Its classes may be others.
    channels: one or more, as pairs (point, index); they may be of several
      points.
    k: number of images that excite a channel most. If the data set has fewer,
      all are listed.
    least: the same for those that excite it least; None: `k`.

  Raises:
    UserError: no channel is named, there is no such point or channel, a number
      of images is none, or an activation is infinite or NaN.
  """
  least = k if least is None else least
  check_numbers(k=(k, 0), least=(least, 0))
  channels = channels_lib.check(
    channels, net.network.architecture, net.image_shape
  )
  if not channels:
    raise UserError('channels: none is named: give one or more')
  counts = tuple(min(count, dataset.num_examples) for count in (k, least))
  points = tuple(dict.fromkeys(channel.point for channel in channels))
  wanted = tuple(
    (point, tuple(c.index for c in channels if c.point == point))
    for point in points
  )
  found = Excited(*(_nothing(len(channels)) for _ in counts))
  for part in _parts(net, dataset, wanted, counts):
    found = Excited(
      _merge(found.most, part.most, counts[0]),
      _merge(found.least, part.least, counts[1], sign=-1),
    )
  if not all(np.isfinite(ranking.values).all() for ranking in found):
    raise UserError(
      f'{net.path}: activations of these parameters are infinite or NaN'
    )
  # Back from the order of points to that of the channels.
  places = [
    i for point in points for i, c in enumerate(channels) if c.point == point
  ]
  back = np.argsort(places)
  return jax.tree.map(lambda x: x[back], found)


def _nothing(n: int) -> Ranking:
  return Ranking(
    np.zeros((n, 0), np.int32),
    np.zeros((n, 0), np.float32),
    np.zeros((n, 0, 2), np.int32),
  )


def _merge(a: Ranking, b: Ranking, count: int, sign: int = 1) -> Ranking:
  """Returns the first `count` images of two rankings, without padding."""
  both = jax.tree.map(lambda x, y: np.concatenate([x, y], axis=1), a, b)
  # Padding, of index -1, comes last. NaN ranks first, so that it is found.
  keys = np.where(np.isnan(both.values), np.inf, sign * both.values)
  order = np.lexsort((both.indices, -keys, both.indices < 0))[:, :count]
  real = (both.indices >= 0).sum(1).min()
  return jax.tree.map(
    lambda x: np.take_along_axis(
      x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1
    )[:, :real],
    both,
  )


def _parts(
  net: Trained,
  dataset: Dataset,
  wanted: tuple[tuple[str, tuple[int, ...]], ...],
  counts: tuple[int, int],
) -> Iterator[Excited]:
  """Yields what is best of each batch on each device, D * k images together."""
  config = net.config
  step = _make_step(net.network, config.data, config.train, wanted, counts)
  with memory.explained('data'):
    inputs = batches.make_pipeline(
      dataset,
      dataset.num_classes,
      config.data.on_device_mb,
      config.data.workers,
      config.train.parallel,
    )
  in_flight, waiting, start = steps_in_flight(), [], 0

  def on_host(tree: Any) -> Excited:
    """Joins the devices: [D, n, k, ...] to [n, D * k, ...]."""
    return jax.tree.map(
      lambda x: np.concatenate(list(np.asarray(x)), axis=1), tree
    )

  for batch in batches.eval_batches(inputs, config.eval.batch_size):
    shape = batch['mask'].shape
    count = int(np.prod(shape))
    index = np.arange(start, start + count, dtype=np.int32).reshape(shape)
    index = np.where(np.asarray(batch['mask']) > 0, index, -1)
    start += count
    waiting.append(step(net.params, net.network_state, batch['image'], index))
    if len(waiting) > in_flight:
      yield on_host(waiting.pop(0))
  yield from map(on_host, waiting)


@functools.lru_cache(maxsize=8)
def _make_step(
  network: Network,
  data_config: ml_collections.FrozenConfigDict,
  train_config: ml_collections.FrozenConfigDict,
  wanted: tuple[tuple[str, tuple[int, ...]], ...],
  counts: tuple[int, int],
) -> Callable[..., Excited]:
  """Makes (params, network_state, images, index) -> best of each device.

  `images` are uint8 [D, B, H, W, C], `index` int32 [D, B], -1 for padding; the
  arrays of both rankings are [D, n, min(k, B), ...].
  """
  function = make_function(network, data_config, 'float32')
  points = tuple(point for point, _ in wanted)

  def step(params, network_state, images, index):
    outputs = function(params, network_state, images, points)
    maps = [
      outputs.end_points[point][..., np.array(places)]
      for point, places in wanted
    ]
    parts = [_strongest(y) for y in maps]
    values, positions = (
      jnp.concatenate(x) for x in zip(*parts, strict=True)
    )  # [n, B], [n, B, 2]
    return Excited(
      *(
        _first(values, positions, index, min(count, len(index)), sign)
        for count, sign in zip(counts, (1, -1), strict=True)
      )
    )

  return parallelize(
    step,
    in_axes=(None, None, 0, 0),
    options=network.kernels.compiler_options,
    what='what excites channels',
    how=train_config.parallel,
  )


def _strongest(y: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the largest value of maps [B, h, w, n] or [B, n], and its place.

  Returns:
    float32 [n, B] and int32 [n, B, 2].
  """
  if y.ndim == 2:
    y = y[:, None, None]
  batch, _, width, n = y.shape
  flat = y.reshape(batch, -1, n)
  place = jnp.argmax(flat, 1)  # the first of equal values; NaN if there is one
  values = jnp.take_along_axis(flat, place[:, None], 1)[:, 0]
  rows, columns = jnp.divmod(place.astype(jnp.int32), width)
  return values.T, jnp.stack([rows, columns], -1).swapaxes(0, 1)


def _first(
  values: jax.Array,
  positions: jax.Array,
  index: jax.Array,
  count: int,
  sign: int,
) -> Ranking:
  """Returns the `count` largest values, or smallest, that are no padding."""
  keys = jnp.where(jnp.isnan(values), jnp.inf, sign * values)
  keys = jnp.where(index >= 0, keys, -jnp.inf)
  _, order = jax.lax.top_k(keys, count)  # [n, count]; the first of equal ones
  return Ranking(
    index[order],
    jnp.take_along_axis(values, order, 1),
    jnp.take_along_axis(positions, order[..., None], 1),
  )
