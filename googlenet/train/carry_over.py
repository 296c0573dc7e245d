"""Continues the state of a run whose config was changed.

Some fields decide which arrays a state has: a run without `train.ema_decay` has
no averages, one without `optimizer.momentum` no momentum. Where the arrays of a
checkpoint and those of the new config differ, what both have is kept, and the
rest starts anew.
"""

import collections
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from googlenet.train.state import TrainState, is_schedule_free

_OPTIMIZER, _COUNT, _SLOW = 'opt_state/', 'opt_state/count', 'opt_state/slow/'
# What starts from other arrays of the checkpoint if it is not stored.
_COPIES = {
  'ema_params/': 'params/',
  'ema_network_state/': 'network_state/',
  _SLOW: 'params/',
}
# Parts of a state, as messages call them, and the fields they depend on.
_AVERAGE, _LOOKAHEAD = 'averaged parameters', 'slow weights of Lookahead'
_MOMENTS, _SCALE = 'momentum of the optimizer', 'loss scale'
_FROZEN = 'momentum of frozen parts'
_FIELDS = {
  _MOMENTS: ('optimizer.momentum', 'finetune.frozen'),
  _FROZEN: ('finetune.frozen',),
  _LOOKAHEAD: ('optimizer.lookahead_period',),
  _AVERAGE: ('train.ema_decay',),
  _SCALE: ('train.loss_scale',),
}

Changes = Mapping[str, tuple[Any, Any]]


class Sources(NamedTuple):
  """Where the arrays of a state come from.

  Attributes:
    names: the arrays of the checkpoint that each array of the state is read
      from; () for one that starts anew.
    anew: the parts of the state that start anew.
    dropped: the parts of the checkpoint that the new config does not use.
  """

  names: dict[str, tuple[str, ...]]
  anew: tuple[str, ...] = ()
  dropped: tuple[str, ...] = ()


def find_sources(expected: Iterable[str], stored: set[str]) -> Sources:
  """Finds the arrays of a checkpoint that the arrays of a state continue.

  The momentum of an optimizer is kept as a whole or not at all, because
  rules such as Adam count the steps that it averages over.

  Args:
    expected: the names of the state's arrays.
    stored: the names in the checkpoint.
  """
  names = {name: (name,) for name in expected}
  anew, dropped = {}, {}  # ordered sets
  for prefix, origin in _COPIES.items():
    part = _LOOKAHEAD if prefix == _SLOW else _AVERAGE
    for name in _within(names, prefix):
      if name not in stored:
        names[name] = (origin + name.removeprefix(prefix),)
        anew[part] = None
    if _within(stored, prefix) and not _within(names, prefix):
      dropped[part] = None
  if _COUNT in names and _COUNT not in stored:
    names[_COUNT] = ()
  parameters = {n.removeprefix('params/') for n in _within(names, 'params/')}
  found = collections.defaultdict(list)
  for name in sorted(_rule(stored)):
    found[_signature(name, parameters)].append(name)
  signatures = {n: _signature(n, parameters) for n in _rule(names)}
  if signatures.keys() != set(_rule(stored)):
    missing = [s for s in signatures.values() if s not in found]
    if missing:
      anew[_MOMENTS] = None
    elif found.keys() - set(signatures.values()):
      keeps_some = any(parameter for _, parameter in signatures.values())
      dropped[_FROZEN if keeps_some else _MOMENTS] = None
    for name, signature in signatures.items():
      names[name] = () if missing else tuple(found[signature])
  return Sources(names, tuple(anew), tuple(dropped))


def _within(names: Iterable[str], prefix: str) -> list[str]:
  return [name for name in names if name.startswith(prefix)]


def _rule(names: Iterable[str]) -> list[str]:
  """Returns the names of the optimizer's arrays, without those of Lookahead."""
  return [
    name
    for name in _within(names, _OPTIMIZER)
    if name != _COUNT and not name.startswith(_SLOW)
  ]


def _signature(name: str, parameters: set[str]) -> tuple[str, str]:
  """Returns what an array of the optimizer is, wherever it lies in the chain.

  Args:
    name: like 'opt_state/1/0/trace/conv_1/conv_7x7/w'.
    parameters: names of all parameters.

  Returns:
    ('trace', 'conv_1/conv_7x7/w'), or ('count', '') if it belongs to no
    parameter.
  """
  parts = name.split('/')
  for i in range(1, len(parts)):
    if (parameter := '/'.join(parts[i:])) in parameters:
      return parts[i - 1], parameter
  return parts[-1], ''


def finish(
  state: TrainState, like: TrainState, sources: Sources, changes: Changes
) -> tuple[TrainState, str]:
  """Sets what the new config decides and a checkpoint cannot hold.

  Args:
    state: read from `sources`.
    like: the state before the first step under the new config.
    sources: returned by `find_sources`.
    changes: (value there, value here) of each changed field.

  Returns:
    The state, whose schedule goes on with the updates made so far; and which
    parts start anew or are dropped, '' if none.
  """
  check, anew = state.finite_check, sources.anew
  updates = np.asarray(state.step - check.skipped, np.int32)

  def is_schedule(node: Any) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)

  if any(found != (name,) for name, found in sources.names.items()):
    opt_state = jax.tree.map(
      lambda x: optax.ScaleByScheduleState(updates) if is_schedule(x) else x,
      state.opt_state,
      is_leaf=is_schedule,
    )
    state = state._replace(opt_state=opt_state)
  if is_schedule_free(state.opt_state) and 'optimizer.momentum' in changes:
    state = _with_share(state, like.opt_state.b1)
  if changes.keys() & {*_FIELDS[_SCALE]}:
    new = like.finite_check
    check = check._replace(
      loss_scale=np.asarray(new.loss_scale),
      good_steps=np.asarray(new.good_steps),
    )
    state, anew = state._replace(finite_check=check), (*anew, _SCALE)
  return state, _describe(anew, sources.dropped, changes)


def _with_share(state: TrainState, b1: Any) -> TrainState:
  """Gives the average of schedule-free learning another share in a step."""
  params = jax.tree.map(
    lambda x, z: (b1 * x + (1 - b1) * z).astype(x.dtype),
    state.ema_params,
    state.opt_state.z,
  )
  b1 = np.asarray(b1, np.float32)
  return state._replace(
    params=params, opt_state=state.opt_state._replace(b1=b1)
  )


def _describe(
  anew: Iterable[str], dropped: Iterable[str], changes: Changes
) -> str:
  """Returns what starts anew or is dropped, and the fields that changed it."""

  def with_fields(part: str) -> str:
    fields = [
      f'config.{name} {there!r} -> {here!r}'
      for name, (there, here) in changes.items()
      if name in _FIELDS[part]
    ]
    return f'{part} ({", ".join(fields)})'

  return '; '.join(
    f'{word}: {", ".join(map(with_fields, parts))}'
    for word, parts in (('new', anew), ('dropped', dropped))
    if parts
  )
