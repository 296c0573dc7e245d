"""Fine-tuning: start from another run, freeze parts, scale learning rates.

A part of the network is named by a prefix of its parameter paths, like
`inception_3a` or `inception_3a/conv_1x1`.
"""

import math
import os
import shlex
from typing import Any

import haiku as hk
import ml_collections
import numpy as np
import optax

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.fields.flag_text import as_text
from googlenet.io import checkpoint, named, pretrained
from googlenet.model import ablations, graph, variants
from googlenet.model.context import is_within
from googlenet.model.groups import check_groups, parse_factors
from googlenet.model.network import Network
from googlenet.optimizer.groups import with_frozen, with_rates
from googlenet.runtime.terminal import warn

# Fields of the `model` section that say what a network computes with given
# parameters; those of its auxiliary heads are left out.
_COMPUTED = (
  'variant',
  'architecture',
  'width_multiplier',
  'normalization',
  'activation',
  *(name for name in ablations.FIELDS if name != 'aux_after'),
)
_MAX_PROBLEMS = 3  # mismatches listed in an error; the others are counted


def adapt_optimizer(
  finetune_config: ml_collections.ConfigDict,
  params: hk.Params,
  optimizer: optax.GradientTransformation,
) -> tuple[optax.GradientTransformation, tuple[str, ...]]:
  """Applies group rates and frozen parts to an optimizer.

  Args:
    finetune_config: the `finetune` section.
    params: parameters of the network, or their shapes.
    optimizer: made from the `optimizer` section.

  Returns:
    The optimizer, and console lines that describe the changes.

  Raises:
    UserError: a part is not in the network, or nothing is left to train.
  """
  frozen = tuple(finetune_config.frozen)
  rates = parse_factors(finetune_config.learning_rates)
  # Only whole layers can be frozen, not single parameters.
  check_groups('finetune.frozen', frozen, dict.fromkeys(params, ()))
  check_groups('finetune.learning_rates', rates, params)
  if all(is_within(module, frozen) for module in params):
    raise UserError(
      f'config.finetune.frozen={frozen} leaves nothing to train: freeze fewer '
      'parts',
      'finetune.frozen',
    )
  for part in rates:
    if is_within(part, frozen):
      raise UserError(
        f'config.finetune.learning_rates: {part!r} is frozen by '
        f'config.finetune.frozen={frozen}; leave it out of one of them',
        'finetune.learning_rates',
      )
  lines = []
  if frozen:
    lines.append(_describe_frozen(frozen, params))
  if rates:
    factors = ', '.join(f'{part} x {rate:g}' for part, rate in rates.items())
    lines.append(f'rates    {factors}')
  optimizer = with_frozen(with_rates(optimizer, rates), frozen, params)
  return optimizer, tuple(lines)


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


def load(
  workdir: str,
  network: Network,
  params: hk.Params,
  network_state: hk.State,
  model_config: ml_collections.ConfigDict | None = None,
) -> tuple[hk.Params, hk.State, tuple[str, ...]]:
  """Loads the parameters and running statistics of another run.

  Classifiers and auxiliary heads keep their new parameters where the other run
  lacks them or has other shapes. If the number of image channels differs,
  `convert_channels` adapts the first convolution.

  Args:
    workdir: folder of the other run, or its name, see `named.find`.
    network: the network of this run.
    params: newly initialized.
    network_state: newly initialized.
    model_config: the `model` section of this run, for messages.

  Returns:
    params, network_state, and console lines that list what was not loaded.

  Raises:
    UserError: the other run does not exist or has another network.
  """
  workdir = named.find(os.path.expanduser(workdir))
  if not checkpoint.paths(workdir):
    raise UserError(
      f'config.finetune.from_workdir={workdir!r} '
      f'{checkpoint.why_none(workdir)}',
      'finetune.from_workdir',
    )
  path, other = pretrained.read_run(workdir)
  other_params, lines = _fit_channels(
    graph.first_convolution(network.architecture), params, other.params
  )
  ours = {'params': params, 'network_state': network_state}
  theirs = {'params': other_params, 'network_state': other.network_state}
  taken, new, problems = _take_over(ours, theirs, _heads(network))
  known = {module for modules in ours.values() for module in modules}
  left = [
    module
    for module in {**other.params, **other.network_state}
    if module not in known
  ]
  problems += [
    f'{module} is not in this one'
    for module in left
    if not module.startswith('aux_')
  ]
  problems += _nonfinite(taken)
  told, how = _other_fields(workdir, model_config)
  if problems:
    more = len(problems) - _MAX_PROBLEMS
    raise UserError(
      f'config.finetune.from_workdir={workdir!r} has another network than '
      f'config.model: {f"{told}: {how}; " if told else ""}'
      f'{"; ".join(problems[:_MAX_PROBLEMS])}'
      + (f' and {more} more' if more > 0 else ''),
      'finetune.from_workdir',
    )
  if told:  # same shapes, as with another activation or another pooling
    warn(
      f'{told}: its parameters fit, but were trained for another function; '
      f'{how} to keep it'
    )
  images = pretrained.describe_images(workdir)
  its_images = f'; its images: {images}' if images else ''
  lines.insert(0, f'from     {path}: step {other.step:,}{its_images}')
  if new:
    lines.append(f'new      {", ".join(new)}: newly initialized')
  if left:
    lines.append(f'left out {", ".join(left)}: not in this network')
  return taken['params'], taken['network_state'], tuple(lines)


def _other_fields(
  workdir: str, model_config: ml_collections.ConfigDict | None
) -> tuple[str, str]:
  """Says which fields name another network than a run has.

  Args:
    workdir: of that run.
    model_config: the `model` section of this run.

  Returns:
    The fields with both values, and the flags that take those of that run;
    ('', '') if there are none, or if it is not known.
  """
  if model_config is None:
    return '', ''
  try:
    theirs = config_lib.load(os.path.join(workdir, 'config.json')).model
    if _computed(theirs) == _computed(model_config):
      return '', ''
  except (UserError, OSError):
    return '', ''
  names = [name for name in _COMPUTED if theirs[name] != model_config[name]]
  told = ' and '.join(
    f'config.model.{name} is {model_config[name]!r} here and {theirs[name]!r} '
    f'in {workdir}'
    for name in names
  )
  flags = ' '.join(
    f'--config.model.{name}={shlex.quote(as_text(theirs[name]))}'
    for name in names
  )
  return told, f'give --config={workdir} or {flags}'


def _computed(model_config: ml_collections.ConfigDict) -> Any:
  """Returns what a `model` section makes of parameters in evaluation."""
  model = ml_collections.ConfigDict(model_config.to_dict())
  model.update(num_classes=1, dropout=0.0, stochastic_depth=0.0)
  model.update(initializer='he', aux_heads='off', aux_after=())
  return variants.resolve(model), model.activation


def _fit_channels(
  first: str, params: hk.Params, other: hk.Params
) -> tuple[hk.Params, list[str]]:
  """Adapts the first convolution to this run's number of image channels.

  Args:
    first: name of that convolution.
    params: parameters of this run.
    other: parameters of the other run.

  Returns:
    The parameters of the other run, and a console line if they changed.
  """
  old, want = other.get(first, {}).get('w'), params[first]['w'].shape
  if not _differ_in_channels(old, want):
    return other, []
  line = (
    f'channels {first}: {old.shape[2]} -> {want[2]}, each an equal share of '
    'the old sum'
  )
  fitted = other[first] | {'w': convert_channels(old, want[2])}
  return {**other, first: fitted}, [line]


def _take_over(
  ours: dict[str, hk.Params],
  theirs: dict[str, hk.Params],
  replaceable: set[str],
) -> tuple[dict[str, hk.Params], tuple[str, ...], list[str]]:
  """Replaces the arrays of this run by those of the other run.

  Args:
    ours: 'params' and 'network_state' of this run.
    theirs: the same two trees of the other run.
    replaceable: modules that keep our arrays where the other run lacks them or
      has other shapes.

  Returns:
    The trees, the modules that kept our arrays, and a list of mismatches.
  """
  new: dict[str, None] = {}  # an ordered set
  problems = []
  for tree, modules in ours.items():
    for module, leaves in modules.items():
      found = theirs[tree].get(module, {})
      if _shapes(found) == _shapes(leaves):
        continue
      if module in replaceable:
        new[module] = None
      else:
        problems += _differences(module, found, leaves)
  # Per module, not per array: a new weight must not get an old bias.
  taken = {
    tree: {
      module: leaves if module in new else theirs[tree].get(module, leaves)
      for module, leaves in modules.items()
    }
    for tree, modules in ours.items()
  }
  return taken, tuple(new), problems


def _nonfinite(trees: dict[str, hk.Params]) -> list[str]:
  return [
    f'{module}/{leaf} is not finite'
    for modules in trees.values()
    for module, leaves in modules.items()
    for leaf, array in leaves.items()
    if not np.isfinite(array).all()
  ]


def convert_channels(w: np.ndarray, channels: int) -> np.ndarray:
  """Adapts weights [kh, kw, C, width] of a first convolution to new channels.

  Each new channel gets the sum over the old channels divided by the number of
  new ones. The response to a grey image stays the same, whether the image has
  one channel or repeats it in three.
  """
  total = w.sum(axis=2, keepdims=True, dtype=np.float64) / channels
  return np.repeat(total, channels, axis=2).astype(w.dtype)


def _differ_in_channels(w: Any, shape: tuple[int, ...]) -> bool:
  """Whether the weights differ from `shape` only in input channels."""
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
  layers = [
    layer for layer in graph.graph(network.architecture) if layer.weights
  ]
  # Without a fully connected layer at the end (NiN), the convolutions of the
  # last row act as the classifier.
  last = layers[-1].row
  return {
    layer.name
    for layer in layers
    if layer.is_side or not layer.stage or layer.row == last
  }
