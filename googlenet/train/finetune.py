"""Fine-tuning: parameters of another run, frozen parts, rates of their own.

Parts are named by a prefix of the path of their parameters: `inception_3a`, or
`inception_3a/conv_1x1`.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import haiku as hk
import ml_collections
import optax

from googlenet.errors import UserError, did_you_mean
from googlenet.model.context import is_within
from googlenet.model.network import Network
from googlenet.optimizer.groups import parse_factors, with_frozen, with_rates
from googlenet.train.transfer import load


class Start(NamedTuple):
  """Where training starts from, and how.

  Attributes:
    params: float32 arrays.
    network_state: likewise.
    optimizer: that leaves frozen parts alone.
    lines: to tell the user.
  """

  params: hk.Params
  network_state: hk.State
  optimizer: optax.GradientTransformation
  lines: tuple[str, ...]


def apply(
  finetune_config: ml_collections.ConfigDict,
  network: Network,
  params: hk.Params,
  network_state: hk.State,
  optimizer: optax.GradientTransformation,
) -> Start:
  """Changes the start of a training run as the `finetune` section says.

  Args:
    finetune_config: the section.
    network: of the run.
    params: newly drawn.
    network_state: likewise.
    optimizer: of the `optimizer` section.

  Raises:
    UserError: a name that the network has not; nothing is left to train; the
      other run cannot be read or is of another network.
  """
  frozen = tuple(finetune_config.frozen)
  rates = parse_factors(finetune_config.learning_rates)
  _check_parts('frozen', frozen, params)
  _check_parts('learning_rates', rates, params)
  for part in rates:
    if is_within(part, frozen):
      raise UserError(
        f'config.finetune.learning_rates: {part!r} is frozen by '
        f'config.finetune.frozen={frozen}; leave it out of one of them'
      )
  lines: tuple[str, ...] = ()
  if finetune_config.from_workdir:
    params, network_state, lines = load(
      finetune_config.from_workdir, network, params, network_state
    )
  if frozen:
    lines += (_describe_frozen(frozen, params),)
  if rates:
    told = ', '.join(f'{part} x {rate:g}' for part, rate in rates.items())
    lines += (f'rates    {told}',)
  optimizer = with_rates(optimizer, rates)
  return Start(
    params, network_state, with_frozen(optimizer, frozen, params), lines
  )


def _check_parts(field: str, parts: Iterable[str], params: hk.Params) -> None:
  """Checks that the network has every part, and more than the frozen ones."""
  parts = tuple(parts)
  known = sorted({name for m in params for name in (m, m.split('/')[0])})
  for part in parts:
    if not any(is_within(module, (part,)) for module in params):
      tops = ', '.join(dict.fromkeys(m.split('/')[0] for m in params))
      raise UserError(
        f'config.finetune.{field}: the network has no {part!r}'
        f'{did_you_mean(part, known)}; it has {tops} and what is within them'
      )
  if field == 'frozen' and all(is_within(module, parts) for module in params):
    raise UserError(
      f'config.finetune.frozen={parts} leaves nothing to train: leave out one '
      'of them'
    )


def _describe_frozen(frozen: tuple[str, ...], params: hk.Params) -> str:
  count = sum(
    math.prod(leaf.shape)
    for module, leaves in params.items()
    if is_within(module, frozen)
    for leaf in leaves.values()
  )
  return (
    f'frozen   {", ".join(frozen)}: {count:,} parameters and their running '
    'statistics'
  )
