"""What is explained: the logit of a class, or the difference of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.tools.inference.numbers import whole


class Target(NamedTuple):
  """A score: the logit of a class, minus that of another if there is one.

  Attributes:
    label: index of the class, or one for each image; None: the predicted class
      of each image, or, if that is `against`, the most probable other class.
    against: index of the class whose logit is subtracted; None: none.
  """

  label: int | tuple[int, ...] | None = None
  against: int | None = None

  def of(self, images: slice) -> Target:
    """Returns the target of some of the images."""
    label = self.label
    is_each = isinstance(label, tuple)
    return Target(label[images] if is_each else label, self.against)


# A class by index or name; None: the predicted one.
_Class = int | str | None
_Classes = _Class | Sequence[int | str] | np.ndarray
# The class or classes, or these and the class against them.
Given = Target | _Classes | tuple[_Classes, _Class]
PREDICTED = Target()


def resolve(
  given: Given,
  class_names: tuple[str, ...],
  flags: tuple[str, str] = ('class', 'against'),
) -> Target:
  """Returns a target.

  Args:
    given: a class by index or name, None for the predicted class of each image,
      a list or an array of one class for each image, a pair (class, against)
      as a tuple, or a `Target`.
    class_names: of all classes.
    flags: how messages call the class and the one against it.

  Raises:
    UserError: there is no such class, or both are the same.
  """
  pair = given if isinstance(given, tuple) else (given, None)
  if len(pair) != 2:
    raise UserError(
      f'{flags[0]}: a tuple of {len(pair)} is not allowed: it takes a pair '
      '(class, against), or a list of one class for each image'
    )
  label = _labels(pair[0], class_names, flags[0])
  against = _label(pair[1], class_names, flags[1])
  chosen = label if isinstance(label, tuple) else (label,)
  if against is not None and against in chosen:
    raise UserError(
      f'{flags[1]}={pair[1]} is the class that is explained: give another one, '
      'or leave it out'
    )
  return Target(label, against)


def _labels(
  given: _Classes, class_names: tuple[str, ...], flag: str
) -> int | tuple[int, ...] | None:
  """Returns the index of a class, or those of one class for each image."""
  if not isinstance(given, list | tuple) and not getattr(given, 'ndim', 0):
    return _label(given, class_names, flag)
  found = tuple(_label(one, class_names, flag) for one in given)
  if None in found:
    raise UserError(
      f'{flag}: a class of the list is missing: give one for each image, or '
      'None alone for the predicted classes'
    )
  return found


def _label(given: Any, class_names: tuple[str, ...], flag: str) -> int | None:
  """Returns the index of a class; a name goes before a number."""
  if given is None or (isinstance(given, str) and not given):
    return None
  if isinstance(given, str) and class_names.count(given) == 1:
    return class_names.index(given)
  count = len(class_names)
  is_number = isinstance(given, str) and given.isdecimal()
  label = whole(int(given) if is_number else given)
  if label is not None and 0 <= label < count:
    return label
  known = ', '.join(class_names[:20]) + (', ...' if count > 20 else '')
  text = ' '.join(str(given).split())[:80]  # arrays have several lines
  raise UserError(
    f'{flag}={text} is no class of the network'
    f'{did_you_mean(text, class_names)}; allowed are 0 to {count - 1} or '
    f'one of {known}'
  )


def check_count(target: Target, num_images: int) -> None:
  """Raises UserError if there is another number of classes than of images."""
  label = target.label
  if isinstance(label, tuple) and len(label) != num_images:
    raise UserError(
      f'class: {len(label)} classes for {num_images} images: give one for each '
      'image, or one class for all'
    )


def labels(target: Target, logits: np.ndarray) -> np.ndarray:
  """Returns the class that is explained for each image, int64 [N].

  Args:
    target: resolved.
    logits: float32 [N, K].

  Raises:
    UserError: there is another number of classes than of images.
  """
  check_count(target, len(logits))
  if isinstance(target.label, tuple):
    return np.array(target.label)
  if target.label is not None:
    return np.full(len(logits), target.label)
  logits = np.array(logits)
  if target.against is not None:
    logits[:, target.against] = -np.inf
  return logits.argmax(-1)


def weights(target: Target, logits: np.ndarray) -> np.ndarray:
  """Returns w of the score `(w * logits).sum(-1)`, float32 [N, K].

  Since a score is linear in the logits, so is everything that is linear in
  their gradient: a contrast is the difference of two explanations.
  """
  made = np.zeros(logits.shape, np.float32)
  made[np.arange(len(logits)), labels(target, logits)] = 1
  if target.against is not None:
    made[:, target.against] -= 1
  return made
