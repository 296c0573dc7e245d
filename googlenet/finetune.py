"""Fine-tuning: parameters of another run, frozen parts, rates of their own.

Parts are named by a prefix of the path of their parameters: `inception_3a`, or
`inception_3a/conv_1x1`.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import haiku as hk
import ml_collections
import numpy as np
import optax

from googlenet import pretrained
from googlenet.architectures import rows
from googlenet.errors import UserError, did_you_mean
from googlenet.groups import parse_factors, with_frozen, with_rates
from googlenet.modules import is_within
from googlenet.network import Network
from googlenet.weights.names import first_convolution

_SHOWN = 20


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


# ---- Parameters of another run.


def load(
  workdir: str,
  network: Network,
  params: hk.Params,
  network_state: hk.State,
) -> tuple[hk.Params, hk.State, tuple[str, ...]]:
  """Takes over the parameters and running statistics of another run.

  Classifiers and auxiliary heads that are of another shape, or that the other
  run has not, stay as they are. A first convolution for another number of
  channels is `convert_channels` of the other's.

  Args:
    workdir: of the other run.
    network: of this run.
    params: newly drawn.
    network_state: likewise.

  Returns:
    params, network_state, and lines that tell what was not taken over.

  Raises:
    UserError: there is no such run, or it is of another network.
  """
  try:
    path, other = pretrained.read_run(workdir)
  except UserError as error:
    text = str(error).replace(
      f'--workdir={workdir}', f'config.finetune.from_workdir={workdir!r}'
    )
    raise UserError(text) from error
  replaceable = _heads(network)
  first = first_convolution(network.architecture)
  taken = {'params': dict(params), 'network_state': dict(network_state)}
  theirs = {'params': other.params, 'network_state': other.network_state}
  new: dict[str, None] = {}  # modules, in order
  problems, lines = [], []
  for tree, modules in taken.items():
    for module, leaves in modules.items():
      found = theirs[tree].get(module, {})
      if module == first and tree == 'params':
        old, want = found.get('w'), leaves['w'].shape
        if _differ_in_channels(old, want):
          found = found | {'w': convert_channels(old, want[2])}
          lines.append(
            f'channels {first}: {old.shape[2]} -> {want[2]}, the sum over the '
            'old ones in equal parts'
          )
      if _shapes(found) == _shapes(leaves):
        modules[module] = found
      elif module in replaceable:
        new[module] = None
      else:
        problems += _differences(module, found, leaves)
  ours = params.keys() | network_state.keys()
  left = [
    module
    for module in {**other.params, **other.network_state}
    if module not in ours
  ]
  problems += [
    f'{module} is not in this one'
    for module in left
    if not module.startswith('aux_')
  ]
  problems += [
    f'{module}/{leaf} is not finite'
    for modules in taken.values()
    for module, leaves in modules.items()
    for leaf, array in leaves.items()
    if not np.isfinite(array).all()
  ]
  if problems:
    more = len(problems) - _SHOWN
    raise UserError(
      f'config.finetune.from_workdir={workdir!r} is of another network than '
      f'config.model: {"; ".join(problems[:_SHOWN])}'
      + (f' and {more} more' if more > 0 else '')
    )
  for module in new:  # the two parts of a classifier belong together
    for tree, fresh in (('params', params), ('network_state', network_state)):
      if module in fresh:
        taken[tree][module] = fresh[module]
  images = pretrained.describe_images(workdir)
  its_images = f'; its images: {images}' if images else ''
  lines.insert(0, f'from     {path}: step {other.step:,}{its_images}')
  if new:
    lines.append(f'new      {", ".join(new)}: newly initialised')
  if left:
    lines.append(f'left out {", ".join(left)}: not in this network')
  return taken['params'], taken['network_state'], tuple(lines)


def convert_channels(w: np.ndarray, channels: int) -> np.ndarray:
  """Adapts a first convolution [kh, kw, C, width] to other images.

  Each new channel gets the sum over the old ones divided by the number of new
  ones: what comes out for a grey image stays the same, be it in one channel or
  repeated in three.
  """
  total = w.sum(axis=2, keepdims=True, dtype=np.float64) / channels
  return np.repeat(total, channels, axis=2).astype(w.dtype)


def _differ_in_channels(w: Any, shape: tuple[int, ...]) -> bool:
  """Whether weights have another number of input channels and no more."""
  if w is None or w.ndim != 4 or w.shape == shape:
    return False
  return (*w.shape[:2], w.shape[3]) == (*shape[:2], shape[3])


def _shapes(leaves: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def _differences(
  module: str, found: dict[str, Any], wanted: dict[str, Any]
) -> list[str]:
  have, want = _shapes(found), _shapes(wanted)
  return [
    f'{module}/{name} has {have.get(name, "nothing")} in place of '
    f'{want.get(name, "nothing")}'
    for name in sorted(have.keys() | want.keys())
    if have.get(name) != want.get(name)
  ]


def _heads(network: Network) -> set[str]:
  """Returns the modules of classifiers and auxiliary heads."""
  architecture = network.architecture
  names = {op.name for op in architecture.head if isinstance(op, rows.Dense)}
  if architecture.has_logits:
    names.add('logits')
  else:  # the convolutions of the last layer are as wide as there are classes
    last = [
      row
      for row in architecture.stages[-1].rows
      if isinstance(row, rows.ConvLayer)
    ][-1]
    names |= {f'{last.name}/{conv.name}' for conv in last.convs}
  for head in architecture.aux_heads:
    names |= {
      f'{head.name}/{op.name}'
      for op in (*head.ops, rows.Dense('logits', 0))
      if isinstance(op, rows.Conv | rows.Dense)
    }
  return names
