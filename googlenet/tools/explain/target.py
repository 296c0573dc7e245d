"""What is explained: the logit of a class, or the difference of two."""

from typing import NamedTuple

import numpy as np

from googlenet.errors import UserError, did_you_mean


class Target(NamedTuple):
  """A score: the logit of a class, minus that of another if there is one.

  Attributes:
    label: index of the class; None: the predicted class of each image, or, if
      that is `against`, the most probable other class.
    against: index of the class whose logit is subtracted; None: none.
  """

  label: int | None = None
  against: int | None = None


# The class, or the class and the one against it; by index, name or None.
Given = Target | int | str | None | tuple[int | str | None, int | str | None]
PREDICTED = Target()


def resolve(
  given: Given,
  class_names: tuple[str, ...],
  flags: tuple[str, str] = ('class', 'against'),
) -> Target:
  """Returns a target.

  Args:
    given: a class by index or name, None for the predicted class of each image,
      a pair (class, against), or a `Target`.
    class_names: of all classes.
    flags: how messages call the class and the one against it.

  Raises:
    UserError: there is no such class, or both are the same.
  """
  pair = given if isinstance(given, tuple) else (given, None)
  label, against = (
    _label(one, class_names, flag)
    for one, flag in zip(pair, flags, strict=True)
  )
  if label is not None and label == against:
    raise UserError(
      f'{flags[1]}={pair[1]} is the class that is explained: give another one, '
      'or leave it out'
    )
  return Target(label, against)


def _label(
  given: int | str | None, class_names: tuple[str, ...], flag: str
) -> int | None:
  """Returns the index of a class; a name goes before a number."""
  if given is None or given == '':
    return None
  if isinstance(given, str) and class_names.count(given) == 1:
    return class_names.index(given)
  count = len(class_names)
  try:
    label = int(given)
  except ValueError:
    label = -1
  if 0 <= label < count:
    return label
  known = ', '.join(class_names[:20]) + (', ...' if count > 20 else '')
  raise UserError(
    f'{flag}={given} is no class of the network'
    f'{did_you_mean(str(given), class_names)}; allowed are 0 to {count - 1} or '
    f'one of {known}'
  )


def labels(target: Target, logits: np.ndarray) -> np.ndarray:
  """Returns the class that is explained for each image, int64 [N].

  Args:
    target: resolved.
    logits: float32 [N, K].
  """
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
