"""Kinds of values that config fields take, and how messages describe them."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from googlenet.errors import did_you_mean
from googlenet.model import groups
from googlenet.runtime import places


class Field(NamedTuple):
  """The allowed values of a config field.

  Attributes:
    is_valid: value -> whether it is allowed.
    allowed: description of the allowed values, for error messages and help.
    choices: the allowed names, if the field takes one of a few.
    current: value -> the name of today, if an older config has another one.
  """

  is_valid: Callable[[Any], bool]
  allowed: str
  choices: tuple[str, ...] = ()
  current: Callable[[Any], Any] = lambda value: value

  def suggest(self, value: Any) -> str:
    """Returns ', did you mean ...?' for a wrong value, or ''."""
    if not isinstance(value, str):
      return ''
    names = [n for n in SYNONYMS.get(value.lower(), ()) if n in self.choices]
    if names:
      return f', did you mean {" or ".join(map(repr, names))}?'
    return did_you_mean(value, self.choices, 0.7)


# What others call our choices and fields, where the spelling would suggest a
# wrong one.
_GOOGLENET = ('plain', 'paper', 'torchvision')
SYNONYMS = {
  'googlenet': _GOOGLENET,
  'inception': _GOOGLENET,
  'inception_v1': _GOOGLENET,
  'inceptionv1': _GOOGLENET,
  'batch_norm': ('batch', 'bn'),
  'bn': ('batch',),
  'momentum': ('sgd',),
  'nesterov': ('sgd',),
  'swish': ('silu',),
  'linear': ('poly',),
  'polynomial': ('poly',),
  'onecycle': ('one_cycle',),
  'multistep': ('step',),
  'trapezoidal': ('wsd',),
  'cuda': ('gpu',),
  'bf16': ('bfloat16',),
  'fp16': ('float16',),
  'fp32': ('float32',),
  'mkl': ('onednn',),
  'dnnl': ('onednn',),
  'lr': ('optimizer.learning_rate',),
  'wd': ('optimizer.weight_decay',),
  'num_epochs': ('train.epochs',),
  'patience': ('train.early_stopping',),
}


# Larger numbers would be infinite in float32.
_FLOAT32_MAX = 3.4e38


def is_number(value: Any) -> bool:
  """Whether a value is a number that float32 holds; no boolean, no NaN."""
  return type(value) in (int, float) and abs(value) <= _FLOAT32_MAX


def integer(low: int, high: int = 2**31 - 1) -> Field:
  """A whole number; both bounds are allowed."""
  return Field(
    lambda v: type(v) is int and low <= v <= high,
    f'a whole number from {low} to {high}',
  )


def number(low: float, high: float = math.inf) -> Field:
  """A number; both bounds are allowed."""
  words = f'from {low:g} to {high:g}' if high < math.inf else f'>= {low:g}'
  return Field(lambda v: is_number(v) and low <= v <= high, f'a number {words}')


def positive(high: float = math.inf) -> Field:
  """A number above 0, up to `high`."""
  words = f'a number > 0 and <= {high:g}' if high < math.inf else 'a number > 0'
  return Field(lambda v: is_number(v) and 0 < v <= high, words)


def fraction() -> Field:
  """A number from 0 to below 1."""
  return Field(
    lambda v: is_number(v) and 0 <= v < 1, 'a number from 0 to below 1'
  )


def choice(*names: str) -> Field:
  """One of some names."""
  return Field(
    lambda v: isinstance(v, str) and v in names,
    'one of ' + ', '.join(names),
    names,
  )


def optional(field: Field) -> Field:
  """What `field` takes, or None."""
  return Field(
    lambda v: v is None or field.is_valid(v), f'{field.allowed}, or None'
  )


def or_auto(field: Field) -> Field:
  """What `field` takes, or ('auto',)."""
  return Field(
    lambda v: v in (('auto',), ['auto']) or field.is_valid(v),
    f'{field.allowed}, or auto',
  )


def boolean() -> Field:
  """True or False."""
  return Field(lambda v: isinstance(v, bool), 'true or false')


def text(empty: bool = False) -> Field:
  """A text; `empty`: whether it may be empty."""
  return Field(
    lambda v: isinstance(v, str) and (empty or v != ''),
    'a text' + ('' if empty else ' that is not empty'),
  )


def path(empty: bool = False) -> Field:
  """A text that can be a path; `empty`: whether it may be empty."""
  inner = text(empty)
  return Field(
    lambda v: inner.is_valid(v) and not places.unusable(v),
    f'{inner.allowed}, a path without NUL or broken characters, with names '
    'of at most 255 bytes',
  )


def one_of(*numbers: int) -> Field:
  """One of some whole numbers."""
  return Field(
    lambda v: type(v) is int and v in numbers,
    'one of ' + ', '.join(map(str, numbers)),
  )


def tuple_of(
  element: Field,
  words: str,
  example: str = '(0.5,)',
  may_be_empty: bool = False,
) -> Field:
  """A tuple or list, each element as `element` takes it."""
  return Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and (may_be_empty or len(v) > 0)
      and all(element.is_valid(x) for x in v)
    ),
    f'a tuple of {words}, like {example}' + (', or ()' if may_be_empty else ''),
  )


def span(element: Field, words: str, example: str) -> Field:
  """A pair (smallest, largest), each as `element` takes it."""
  return Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and len(v) == 2
      and all(element.is_valid(x) for x in v)
      and v[0] <= v[1]
    ),
    f'the smallest and the largest of {words}, like {example}',
  )


def parts() -> Field:
  """A tuple or list of different parts of the network."""
  return Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and all(isinstance(part, str) and part for part in v)
      and len(set(v)) == len(v)
    ),
    "a tuple of different parts of the network, like ('conv_1', "
    "'inception_3a'), or ()",
  )


def parsed(parse: Callable[[Any], Any], allowed: str) -> Field:
  """Returns a field for a tuple of texts that `parse` accepts."""

  def is_valid(value: Any) -> bool:
    try:
      parse(value)
    except (ValueError, TypeError, AttributeError):
      return False
    return isinstance(value, (tuple, list))

  return Field(is_valid, allowed)


def factors(example: str, may_be_zero: bool = False) -> Field:
  """A tuple or list of group=factor, see `groups.parse_factors`."""
  low = '>= 0' if may_be_zero else '> 0'
  return parsed(
    functools.partial(groups.parse_factors, may_be_zero=may_be_zero),
    f'a tuple of group=factor, each factor {low}, no group twice, like '
    f'{example}, or ()',
  )


def matching(pattern: str, words: str, example: str) -> Field:
  """Returns a field for a tuple of texts, no two with the same name."""

  def is_valid(value: Any) -> bool:
    return (
      isinstance(value, (tuple, list))
      and all(isinstance(x, str) and re.fullmatch(pattern, x) for x in value)
      and len({x.partition('=')[0] for x in value}) == len(value)
    )

  return Field(is_valid, f'a tuple of {words}, like {example}, or ()')
