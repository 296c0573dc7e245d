"""Learning rates, weight decays and freezing for groups of parameters.

`googlenet/model/groups.py` defines the groups.
"""

from collections.abc import Callable, Mapping
from typing import Any

import haiku as hk
import jax
import optax

from googlenet.model.context import is_within
from googlenet.model.groups import KINDS, factor_of

# Default factors of `weight_decay` by kind of parameter: only weights decay.
DECAYS = {'*/w': 1.0, '*/b': 0.0, '*/scale': 0.0, '*/offset': 0.0}


def _with_paths(function: Callable[[str, Any], Any], tree: Any) -> Any:
  """Maps a function of path and leaf over a tree shaped like the parameters."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: function(f'{path[0].key}/{path[-1].key}', leaf), tree
  )


def with_rates(
  optimizer: optax.GradientTransformation, rates: Mapping[str, float]
) -> optax.GradientTransformation:
  """Multiplies the learning rates of groups by factors.

  Every optax rule ends with a multiplication by the learning rate, so the
  factor can be applied to the update.

  Args:
    optimizer: complete, so that its updates can be added to the parameters.
    rates: factors by group; empty: the optimizer is returned unchanged.
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
    make: weight decay -> an optimizer that applies it to every parameter. Its
      rule must treat each array independently of the others.
    weight_decay: multiplied by the factors.
    decays: factors by group; factors of kinds override `DECAYS`.
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
  """Excludes frozen parts from updates, weight decay and optimizer state.

  Args:
    optimizer: complete, so that its updates can be added to the parameters.
    frozen: parts; empty: the optimizer is returned unchanged.
    params: parameters of the network.
  """
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
