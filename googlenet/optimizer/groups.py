"""Groups of parameters: rates and weight decay of their own, frozen parts.

A group is a part of the network, named by the beginning of the path of its
parameters (`inception_3a`, `inception_3a/conv_1x1`, `logits/w`), or all
parameters of a kind: `*/w`, `*/b`, `*/scale`, `*/offset`. The factors of the
longest part that a parameter is within and of its kind are multiplied.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import haiku as hk
import jax
import optax

from googlenet.errors import UserError, did_you_mean
from googlenet.model.context import is_within

KINDS = ('*/w', '*/b', '*/scale', '*/offset')
# What weight decay is multiplied by.
DECAYS = {'*/w': 1.0, '*/b': 0.0, '*/scale': 0.0, '*/offset': 0.0}


def parse_factors(
  texts: Iterable[str], may_be_zero: bool = False
) -> dict[str, float]:
  """Turns ('logits=10', ...) into {'logits': 10.0, ...}.

  Raises:
    ValueError: a text is malformed, a group occurs twice or a factor is not
      above 0 (or 0, where it may be), or above 1e6.
  """
  factors = {}
  for text in texts:
    group, equals, factor = text.partition('=')
    if not group or not equals or group in factors:
      raise ValueError(f'{text!r} is no group=factor, or its second')
    if '*' in group and group not in KINDS:
      raise ValueError(f'{group!r} is none of {", ".join(KINDS)}')
    factors[group] = float(factor)
    is_low = factors[group] < 0 or (factors[group] == 0 and not may_be_zero)
    if is_low or not factors[group] <= 1e6:
      raise ValueError(f'the factor of {text!r} is not above 0 and at most 1e6')
  return factors


def factor_of(path: str, factors: Mapping[str, float]) -> float:
  """Returns the factor of a parameter, `inception_3a/conv_1x1/w`."""
  parts = [group for group in factors if is_within(path, (group,))]
  of_part = factors[max(parts, key=len)] if parts else 1.0
  return of_part * factors.get('*/' + path.split('/')[-1], 1.0)


def _with_paths(function: Callable[[str, Any], Any], tree: Any) -> Any:
  """Maps a function of path and leaf over parameters, or what is like them."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: function(f'{path[0].key}/{path[-1].key}', leaf), tree
  )


def check_groups(field: str, groups: Iterable[str], params: hk.Params) -> None:
  """Checks that the network has every group.

  Raises:
    UserError: it has not.
  """
  paths = [f'{module}/{leaf}' for module in params for leaf in params[module]]
  known = {'/'.join(p.split('/')[:n]) for p in paths for n in range(1, 9)}
  known |= {'*/' + path.split('/')[-1] for path in paths}
  for group in groups:
    if group not in known:
      tops = ', '.join(dict.fromkeys(p.split('/')[0] for p in paths))
      kinds = ', '.join(sorted(name for name in known if '*' in name))
      raise UserError(
        f'config.{field}: the network has no {group!r}'
        f'{did_you_mean(group, known)}; it has {kinds}, and {tops} and what is '
        'within them'
      )


def with_rates(
  optimizer: optax.GradientTransformation, rates: Mapping[str, float]
) -> optax.GradientTransformation:
  """Multiplies the learning rates of groups.

  Every rule of optax ends in a product with the rate, so its factor may follow.
  """
  if not rates:
    return optimizer

  def scale(updates, params):
    del params
    return _with_paths(lambda path, u: u * factor_of(path, rates), updates)

  return optax.chain(optimizer, optax.stateless(scale))


def with_decays(
  make: Callable[[float], optax.GradientTransformation],
  weight_decay: float,
  decays: Mapping[str, float],
) -> optax.GradientTransformation:
  """Returns an optimizer whose weight decay differs between groups.

  Args:
    make: the decay of all parameters it is given -> optimizer. Its rule must
      treat one array without regard to the others.
    weight_decay: that factors multiply.
    decays: factors by group; kinds take the place of those in `DECAYS`.
  """
  factors = {**DECAYS, **decays}

  def label(path: str, leaf: Any) -> str:
    del leaf
    return f'{factor_of(path, factors):g}'

  kinds = {factors[kind] for kind in KINDS}
  parts = {factors[group] for group in factors if group not in KINDS} | {1.0}
  labels = {f'{kind * part:g}' for kind in kinds for part in parts}
  return optax.multi_transform(
    {name: make(float(name) * weight_decay) for name in sorted(labels)},
    lambda params: _with_paths(label, params),
  )


def with_frozen(
  optimizer: optax.GradientTransformation,
  frozen: tuple[str, ...],
  params: hk.Params,
) -> optax.GradientTransformation:
  """Keeps the optimizer, its weight decay and its memory off frozen parts."""
  if not frozen:
    return optimizer
  labels = {
    module: {
      leaf: 'frozen' if is_within(module, frozen) else 'trained'
      for leaf in leaves
    }
    for module, leaves in params.items()
  }
  return optax.multi_transform(
    {'trained': optimizer, 'frozen': optax.set_to_zero()}, labels
  )
