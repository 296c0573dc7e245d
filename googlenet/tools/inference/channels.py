"""Channels of points as text: `inception_4c:447,stage_3:0-15,logits:Bag`."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.model import graph, points, rows
from googlenet.tools.inference.numbers import whole

_NUM_NAMED = 20  # classes that an error lists


class Channel(NamedTuple):
  """One channel of a point.

  Attributes:
    point: its name, not an alias.
    index: of the channel, from 0.
  """

  point: str
  index: int


def parse(
  text: str,
  architecture: rows.Architecture,
  class_names: Sequence[str] = (),
  flag: str = '--channels',
) -> tuple[Channel, ...]:
  """Returns the channels that a text names, in its order.

  Args:
    text: points with a channel or a range of channels, separated by commas:
      `inception_4c:447`, `stage_3:0-15`, `conv_1/conv_7x7:pre:3`. A point alone
      stands for all of its channels. A channel of `logits` may be the name of a
      class.
    architecture: of the network.
    class_names: in the order of the logits.
    flag: for error messages.

  Raises:
    UserError: the text names no channel, or an unknown point, channel or class.
  """
  found = []
  for item in filter(None, (part.strip() for part in text.split(','))):
    found += _of_item(item, architecture, class_names, flag)
  if not found:
    raise UserError(
      f'{flag}={text}: name channels, such as inception_4c:447 or stage_3:0-15'
    )
  return tuple(dict.fromkeys(found))


def indices(given: Iterable[int], flag: str) -> list[int]:
  """Returns indices of channels as integers.

  Raises:
    UserError: they are no list, or one is no whole number, or negative.
  """
  if not isinstance(given, Iterable):
    raise UserError(
      f'{flag}={given} is no list of channels: give one, such as [{given}]'
    )
  found = []
  for index in given:
    number = whole(index)
    if number is None or number < 0:
      raise UserError(
        f'{flag}={index} is no channel: allowed are whole numbers from 0'
      )
    found.append(number)
  return found


def of_point(
  point: str, index: int | Sequence[int]
) -> tuple[tuple[Channel, ...], np.ndarray]:
  """Returns channels of a point, and their indices, int32 [N].

  Raises:
    UserError: there is none, or an index is no whole number, or negative.
  """
  given = np.atleast_1d(np.asarray(index))
  if given.dtype.kind == 'U':
    raise UserError(
      f'index={index!r} is a name: give the number of the channel; that of a '
      'class is net.class_names.index(name)'
    )
  if not given.size:
    raise UserError(f'index={index!r} holds no channel: name one or more')
  found = indices(given.ravel(), 'index')
  return tuple(Channel(point, i) for i in found), np.array(found, np.int32)


def check_length(given: int, expected: int) -> None:
  """Raises UserError if a vector has not one number for each activation."""
  if given != expected:
    raise UserError(
      f'a vector of {given} number(s) does not fit an activation of {expected}'
    )


def place_of(place: Sequence[int] | np.ndarray) -> tuple[int, int]:
  """Returns (row, column) of a place as integers.

  Raises:
    UserError: it is no pair of whole numbers.
  """
  is_pair = isinstance(place, Sequence | np.ndarray) and len(place) == 2
  pair = tuple(map(whole, place)) if is_pair else (None,)
  if None in pair:
    raise UserError(
      f'place={place} is not allowed: it takes (row, column), whole numbers'
    )
  return pair


def check_place(place: tuple[int, int], height: int, width: int) -> None:
  """Raises UserError if (row, column) is not in a map; JAX would clip it."""
  if not (-height <= place[0] < height and -width <= place[1] < width):
    raise UserError(
      f'place={place} is not in the map: it has {height} rows and {width} '
      'columns'
    )


def check_indices(
  given: Iterable[int], count: int, point: str, flag: str
) -> None:
  """Raises UserError if an index is not one of a point's `count` channels.

  Without any index, too.
  """
  found = indices(given, flag)
  if not found:
    raise UserError(f'{flag}: no channel of {point} is named: name one or more')
  for index in found:
    if index >= count:
      raise UserError(f'{flag}={index}: {point} has channels 0 to {count - 1}')


def check(
  given: Iterable[Channel | tuple[str, int]],
  architecture: rows.Architecture,
  image_shape: graph.Shape | None = None,
) -> tuple[Channel, ...]:
  """Returns channels, given as such or as pairs (point, index).

  Args:
    given: names of points may be aliases.
    architecture: of the network.
    image_shape: (H, W, C) of the images; None: see `graph.graph`.

  Raises:
    UserError: one is no pair, or there is no such point or channel.
  """
  shapes, found = points.shapes(architecture, image_shape), []
  for item in given:
    if not isinstance(item, tuple | list) or len(item) != 2:
      raise UserError(
        f'channels: {item!r} is no channel; allowed are pairs (point, index), '
        "such as ('inception_4c', 447)"
      )
    name, index = item
    count = shapes[points.resolve(name, architecture)][-1]
    check_indices([index], count, name, 'channels')
    found.append(Channel(name, index))
  return tuple(found)


def _of_item(
  item: str,
  architecture: rows.Architecture,
  class_names: Sequence[str],
  flag: str,
) -> list[Channel]:
  name, _, last = item.rpartition(':')
  numbers = re.fullmatch(r'(\d+)(?:-(\d+))?', last) if name else None
  if name == 'logits' and last in class_names:
    return [Channel(name, list(class_names).index(last))]
  if name == 'logits' and not numbers:
    more = ', ...' if len(class_names) > _NUM_NAMED else ''
    raise UserError(
      f'{flag}={item}: {last!r} is no class{did_you_mean(last, class_names)}; '
      f'allowed is a number or one of {", ".join(class_names[:_NUM_NAMED])}'
      f'{more}'
    )
  try:
    point = points.resolve(name if numbers else item, architecture)
  except UserError as error:
    raise UserError(f'{flag}: {error}') from error
  count = points.shapes(architecture)[point][-1]
  low, high = (0, count - 1) if not numbers else numbers.groups()
  low, high = int(low), int(low if high is None else high)
  if low > high:
    raise UserError(
      f'{flag}={item}: the range is reversed: give {point}:{high}-{low}'
    )
  if high >= count:
    raise UserError(f'{flag}={item}: {point} has channels 0 to {count - 1}')
  return [Channel(point, index) for index in range(low, high + 1)]
