"""Groups of parameters, to which the config assigns factors.

A group is a part of the network, named by a prefix of parameter paths
(`inception_3a`, `inception_3a/conv_1x1`, `logits/w`), or all parameters of a
kind: `*/w`, `*/b`, `*/scale`, `*/offset`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from googlenet.errors import UserError, did_you_mean
from googlenet.model.context import is_within

KINDS = ('*/w', '*/b', '*/scale', '*/offset')


def parse_factors(
  texts: Iterable[str], may_be_zero: bool = False
) -> dict[str, float]:
  """Turns ('logits=10', ...) into {'logits': 10.0, ...}.

  Raises:
    ValueError: a text is malformed, a group occurs twice, or a factor is
      negative, above 1e6, or 0 without `may_be_zero`.
  """
  factors = {}
  for text in texts:
    group, equals, factor = text.partition('=')
    if not group or not equals or group in factors:
      raise ValueError(f'{text!r} is not group=factor, or names a group twice')
    if '*' in group and group not in KINDS:
      raise ValueError(f'{group!r} is not one of {", ".join(KINDS)}')
    factors[group] = float(factor)
    is_low = factors[group] < 0 or (factors[group] == 0 and not may_be_zero)
    if is_low or not factors[group] <= 1e6:
      allowed = 'from 0 to' if may_be_zero else 'above 0 and at most'
      raise ValueError(f'the factor of {text!r} is not {allowed} 1e6')
  return factors


def factor_of(path: str, factors: Mapping[str, float]) -> float:
  """Returns the factor of a parameter, given its path.

  This is the factor of the longest matching part times the factor of its kind.

  Args:
    path: like 'inception_3a/conv_1x1/w'.
    factors: by group; missing groups have factor 1.
  """
  parts = [group for group in factors if is_within(path, (group,))]
  of_part = factors[max(parts, key=len)] if parts else 1.0
  return of_part * factors.get('*/' + path.split('/')[-1], 1.0)


def check_groups(
  field: str, groups: Iterable[str], params: Mapping[str, Any]
) -> None:
  """Checks that the network has every group.

  Args:
    field: config field, for the error message.
    groups: names of groups.
    params: {module: {leaf: array}}. With an empty {leaf: array}, a group can
      name only the whole module.

  Raises:
    UserError: a group matches no parameter.
  """
  paths = [f'{module}/{leaf}' for module in params for leaf in params[module]]
  kinds = sorted({'*/' + path.split('/')[-1] for path in paths})
  parts = {
    '/'.join(path.split('/')[:depth])
    for path in (*params, *paths)
    for depth in range(1, path.count('/') + 2)
  }
  for group in groups:
    if group not in parts and group not in kinds:
      tops = ', '.join(dict.fromkeys(module.split('/')[0] for module in params))
      raise UserError(
        f'config.{field}: the network has no {group!r}'
        f'{did_you_mean(group, [*sorted(parts), *kinds])}; it has '
        + (f'{", ".join(kinds)}, and ' if kinds else '')
        + f'{tops} and their parts',
        field,
      )
