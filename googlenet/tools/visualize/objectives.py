"""What an image is to maximize: small functions of maps, joined by + and *.

  channel('inception_4c', [3, 7]) - 0.1 * total_variation()

A map is [B, h, w, C], or [B, C] after the global mean. The special point
`PIXELS` is the image itself, [B, H, W, C] in 0..1, before the random movements.
An objective gives one number per image, so a batch optimizes many at once. The
objectives are those of lucid (Olah et al., 2017), as means instead of sums: the
weight of a penalty then means the same at every size of image and map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.tools.inference import channels as channels_lib
from googlenet.tools.inference.channels import Channel
from googlenet.tools.inference.numbers import check_numbers

PIXELS = 'pixels'
Maps = dict[str, jax.Array]

_SMALLEST_COSINE = 0.1  # lucid: below it a power of the cosine has no gradient
_EPSILON = 1e-6
# Precision of sums over channels: that of the values themselves.
_PRECISE = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
  """A number to maximize for each of `count` images.

  Attributes:
    points: the points of the network whose maps it needs.
    function: (maps, parameters) -> float32 [B], for any B of its images;
      `parameters` are the rows of `self.parameters` of these images.
    names: one per image, for labels.
    parameters: tree of arrays [count, ...], what differs between the images.
    group: number of neighbouring images that are optimized together; 1 unless
      the objective compares images with each other.
    channels: those that are picked by their index; a network has to have them.
  """

  points: tuple[str, ...]
  function: Callable[[Maps, Any], jax.Array]
  names: tuple[str, ...]
  parameters: Any = ()
  group: int = 1
  channels: tuple[Channel, ...] = ()
  # Arrays leave `array * objective` to `__rmul__`: they would make an array of
  # one objective for each number.
  __array_ufunc__ = None

  @property
  def count(self) -> int:
    """The number of images."""
    return len(self.names)

  def repeat(self, count: int) -> Objective:
    """Returns the objective of one image, or of one group, for more images.

    Raises:
      ValueError: it is one for several images already, but not for `count`, or
        `count` is no multiple of the group.
    """
    if self.count == count:
      return self
    if self.count != self.group or count % self.group:
      raise ValueError(
        f'an objective of {self.count} images cannot serve {count} images'
      )
    times = count // self.count
    return dataclasses.replace(
      self,
      names=self.names * times,
      parameters=jax.tree.map(
        lambda x: np.concatenate([x] * times), self.parameters
      ),
    )

  def __add__(self, other: Objective) -> Objective:
    """The sum, image by image; an objective of one image or group serves all.

    Raises:
      ValueError: both are for several images, but not for the same number.
    """
    count = max(self.count, other.count)
    one, two = self.repeat(count), other.repeat(count)
    groups = {one.group, two.group} - {1}
    if len(groups) > 1:
      raise ValueError(f'a sum of groups of {sorted(groups)} images')

    def function(maps: Maps, parameters: Any) -> jax.Array:
      return one.function(maps, parameters[0]) + two.function(
        maps, parameters[1]
      )

    return Objective(
      tuple(dict.fromkeys(one.points + two.points)),
      function,
      tuple(f'{a} + {b}' for a, b in zip(one.names, two.names, strict=True)),
      (one.parameters, two.parameters),
      max(one.group, two.group),
      one.channels + two.channels,
    )

  def __mul__(self, weight: float | Sequence[float] | np.ndarray) -> Objective:
    """The objective times a number, or times one number per image."""
    weights = np.atleast_1d(np.asarray(weight, np.float32))
    count = max(self.count, len(weights))
    one = self.repeat(count)
    weights = np.broadcast_to(weights, (count,))

    def function(maps: Maps, parameters: Any) -> jax.Array:
      return parameters[1] * one.function(maps, parameters[0])

    names = tuple(
      f'{w:.3g} ({name})' if ' ' in name else f'{w:.3g} {name}'
      for w, name in zip(weights, one.names, strict=True)
    )
    return Objective(
      one.points,
      function,
      names,
      (one.parameters, weights),
      one.group,
      one.channels,
    )

  __rmul__ = __mul__

  def __neg__(self) -> Objective:
    return self * -1.0

  def __sub__(self, other: Objective) -> Objective:
    return self + -other


def named(objective: Objective, names: Sequence[str]) -> Objective:
  """Returns an objective with other names, one per image."""
  objective = objective.repeat(len(names))
  return dataclasses.replace(objective, names=tuple(names))


def rows_of(objective: Objective, rows: np.ndarray) -> Any:
  """Returns the parameters of some images, by their indices [n]."""
  return jax.tree.map(lambda x: np.asarray(x)[rows], objective.parameters)


# ---- One channel, one place, one direction.


def _at_centre(y: jax.Array, place: tuple[int, int] | None) -> jax.Array:
  """Returns one position of a map: [B, h, w, C] -> [B, C]."""
  if y.ndim == 2:
    return y
  row, column = place or (y.shape[1] // 2, y.shape[2] // 2)
  channels_lib.check_place((row, column), *y.shape[1:3])
  return y[:, row, column]


def _pick(y: jax.Array, indices: jax.Array) -> jax.Array:
  """Returns a channel of each image: [B, ..., C], [B] -> [B, ...]."""
  indices = indices.reshape(-1, *[1] * (y.ndim - 1))
  return jnp.take_along_axis(y, indices, axis=-1)[..., 0]


def _mean(y: jax.Array) -> jax.Array:
  """Returns the mean of each image: [B, ...] -> [B]."""
  return y.reshape(len(y), -1).mean(-1)


def channel(point: str, index: int | Sequence[int]) -> Objective:
  """The mean of a channel over all positions.

  Args:
    point: of a map or of features.
    index: of the channel; several: one image for each.

  Raises:
    UserError: an index is no whole number from 0.
  """
  channels, indices = channels_lib.of_point(point, index)
  return Objective(
    (point,),
    lambda maps, indices: _mean(_pick(maps[point], indices)),
    tuple(f'{point}:{i}' for i in indices),
    indices,
    channels=channels,
  )


def neuron(
  point: str,
  index: int | Sequence[int],
  place: tuple[int, int] | None = None,
) -> Objective:
  """A channel at one position: `place` (row, column), or the centre.

  Raises:
    UserError: an index is no whole number from 0, or `place` no such pair.
  """
  channels, indices = channels_lib.of_point(point, index)
  place = None if place is None else channels_lib.place_of(place)
  return Objective(
    (point,),
    lambda maps, indices: _pick(_at_centre(maps[point], place), indices),
    tuple(f'{point}:{i} at {place or "the centre"}' for i in indices),
    indices,
    channels=channels,
  )


def class_logit(index: int | Sequence[int]) -> Objective:
  """The logit of a class; several classes: one image for each.

  Args:
    index: of the class: `net.class_names.index(name)`.

  Raises:
    UserError: an index is no whole number from 0.
  """
  return channel('logits', index)


def _along(y: jax.Array, vectors: jax.Array, power: float) -> jax.Array:
  """Returns dot product times cosine to a power: [B, ..., C] -> [B, ...].

  Raises:
    UserError: the vectors have another length.
  """
  channels_lib.check_length(vectors.shape[-1], y.shape[-1])
  dot = jnp.sum(y * vectors, -1)
  if not power:
    return dot
  lengths = jnp.sqrt(jnp.sum(y**2, -1) + _EPSILON**2)
  lengths *= jnp.sqrt(jnp.sum(vectors**2, -1) + _EPSILON**2)
  return dot * jnp.maximum(dot / lengths, _SMALLEST_COSINE) ** power


def direction(
  point: str, vectors: np.ndarray, cosine_power: float = 0.0
) -> Objective:
  """The mean over all positions of the dot product with a vector.

  Args:
    point: of a map or of features with C channels.
    vectors: float32 [C], or [N, C] for N images.
    cosine_power: exponent of the cosine by which the product is multiplied: 0
      maximizes what lies along the vector and ignores all else; larger values
      keep the other channels small.
  """
  vectors = np.atleast_2d(np.asarray(vectors, np.float32))

  def function(maps: Maps, vectors: jax.Array) -> jax.Array:
    y = maps[point]
    vectors = vectors.reshape(len(y), *[1] * (y.ndim - 2), -1)
    return _mean(_along(y, vectors, cosine_power))

  names = tuple(f'{point} direction {i}' for i in range(len(vectors)))
  return Objective((point,), function, names, vectors)


def neuron_direction(
  point: str,
  vectors: np.ndarray,
  place: tuple[int, int] | None = None,
  cosine_power: float = 0.0,
) -> Objective:
  """As `direction`, at one position only: `place`, or the centre."""
  place = None if place is None else channels_lib.place_of(place)
  vectors = np.atleast_2d(np.asarray(vectors, np.float32))
  names = tuple(f'{point} direction {i}' for i in range(len(vectors)))
  return Objective(
    (point,),
    lambda maps, vectors: _along(
      _at_centre(maps[point], place), vectors, cosine_power
    ),
    names,
    vectors,
  )


# ---- Whole layers.


def layer(point: str) -> Objective:
  """The mean square of a whole map: DeepDream (Mordvintsev et al., 2015)."""
  return Objective(
    (point,), lambda maps, _: _mean(maps[point] ** 2), (f'{point} (layer)',)
  )


def caricature(
  point: str, target: np.ndarray, cosine_power: float = 1.0
) -> Objective:
  """Exaggerates what a layer saw in an image.

  The length of the map along the map of that image, times a power of the cosine
  between the two (lucid's caricatures).

  Args:
    point: of a map or of features.
    target: its values for the image, float32 [N, ...].
    cosine_power: exponent of the cosine.
  """
  target = np.asarray(target, np.float32)

  def function(maps: Maps, target: jax.Array) -> jax.Array:
    target = target.reshape(len(target), -1)
    length = jnp.sqrt(jnp.sum(target**2, -1, keepdims=True) + _EPSILON**2)
    y = maps[point].reshape(len(target), -1)
    return _along(y, target / length, cosine_power)

  names = tuple(f'{point} (caricature)' for _ in target)
  return Objective((point,), function, names, target)


def gram(y: jax.Array) -> jax.Array:
  """Returns the Gram matrix of each map, of length 1: [B, ..., C] -> [B, C*C].

  It says which channels fire together, wherever that is: the style of an image
  (Gatys et al., 2015).
  """
  y = y.reshape(len(y), -1, y.shape[-1])
  matrix = jnp.einsum('bpc,bpd->bcd', y, y, precision=_PRECISE)
  matrix = matrix.reshape(len(y), -1)
  length = jnp.sqrt(jnp.sum(matrix**2, -1, keepdims=True) + _EPSILON**2)
  return matrix / length


def diversity(point: str, count: int) -> Objective:
  """Makes `count` images differ: minus the mean cosine of their Gram matrices.

  Added to an objective it shows the different things that excite a channel
  (Olah et al., 2017, "Diversity").

  Args:
    point: of a map whose style should differ, like a layer in the middle.
    count: number of images that are optimized together, from 2.

  Raises:
    UserError: it is less.
  """
  check_numbers(count=(count, 2))

  def function(maps: Maps, _: Any) -> jax.Array:
    styles = gram(maps[point])
    styles = styles.reshape(-1, count, styles.shape[-1])
    cosines = jnp.einsum('gns,gms->gnm', styles, styles, precision=_PRECISE)
    others = cosines.sum(-1) - jnp.diagonal(cosines, axis1=1, axis2=2)
    return -others.reshape(-1) / (count - 1)

  return Objective(
    (point,), function, (f'diversity of {point}',) * count, group=count
  )


def interpolation(one: Objective, two: Objective, count: int) -> Objective:
  """Steps from one objective to another: (1 - t) one + t two.

  All images begin with the same noise, so neighbours resemble each other.

  Args:
    one: maximized by the first image (t = 0).
    two: maximized by the last image (t = 1).
    count: number of images, from 2.

  Raises:
    UserError: it is less.
  """
  check_numbers(count=(count, 2))
  t = np.linspace(0, 1, count, dtype=np.float32)
  mixed = one.repeat(count) * (1 - t) + two.repeat(count) * t
  ends = one.names[0], two.names[-1]
  return named(mixed, [f'{ends[0]} to {ends[1]}: {x:.2f}' for x in t])


# ---- Penalties of the image: positive numbers, to be subtracted.


def _of_image(name: str, function: Callable[[jax.Array], jax.Array]):
  return Objective((PIXELS,), lambda maps, _: function(maps[PIXELS]), (name,))


def total_variation() -> Objective:
  """The mean difference of neighbouring pixels, down plus right."""
  return _of_image(
    'total variation',
    lambda x: (
      _mean(jnp.abs(jnp.diff(x, axis=1))) + _mean(jnp.abs(jnp.diff(x, axis=2)))
    ),
  )


def l1(centre: float = 0.5) -> Objective:
  """The mean distance of pixels from a value; 0.5 is grey."""
  return _of_image('L1', lambda x: _mean(jnp.abs(x - centre)))


def l2(centre: float = 0.5) -> Objective:
  """The root mean square distance of pixels from a value; 0.5 is grey."""
  return _of_image(
    'L2', lambda x: jnp.sqrt(_mean((x - centre) ** 2) + _EPSILON**2)
  )
