"""Ablations: fields of the `model` section that edit the rows of a network.

  drop_branches ('5x5', 'inception_3a/pool')     blocks without these branches
  block_pool    'average'                        another pooling in blocks
  kernel_sizes  ('5x5=3', 'conv_1/conv_7x7=5')   other kernels
  stage_widths  ('3=0.5',)                       a factor for widths of a stage
  stage_depths  ('4=3',)                         the number of blocks of a stage
  stage_blocks  ('4=inception_v2',)              the kind of block of a stage
  aux_after     ('inception_4b',)                where auxiliary heads sit

A branch has the name of its first convolution, without `conv_` and `_reduce`;
one that begins with pooling is `pool`. What remains keeps its names. Blocks
that halve the map (grid reductions) lose branches and change kernels and widths
like others; they are not counted, replaced or pooled otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from googlenet.errors import UserError
from googlenet.model import graph, rows
from googlenet.model.ablations.branches import (
  block_pool,
  drop_branches,
  kernel_sizes,
)
from googlenet.model.ablations.stages import (
  KINDS,
  stage_blocks,
  stage_depths,
  stage_widths,
)
from googlenet.model.ablations.trees import check_keys

__all__ = ('FIELDS', 'KINDS', 'apply', 'changed', 'describe')


def changed(model_config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the ablations of a `model` section that are on, by field."""
  values = {name: model_config[name] for name in _EDITS}
  return {
    name: value if isinstance(value, str) else tuple(value)
    for name, value in values.items()
    if value != 'auto' and len(value)
  }


def describe(model_config: ml_collections.ConfigDict) -> str:
  """Returns the name of a network, with its ablations."""
  found = [f'{name}={value}' for name, value in changed(model_config).items()]
  return ' '.join([model_config.variant, *found])


def apply(
  architecture: rows.Architecture, model_config: ml_collections.ConfigDict
) -> rows.Architecture:
  """Returns a network with the ablations of the `model` section.

  Args:
    architecture: with its fields left open.
    model_config: the section.

  Raises:
    UserError: an ablation is not possible in this network.
  """
  wanted = changed(model_config)
  if not wanted:
    return architecture
  has_heads = architecture.uses_aux_heads
  if model_config.aux_heads != 'auto':
    has_heads = model_config.aux_heads == 'on'
  name, edited = '', {}
  try:
    for name, edit in _EDITS.items():
      if name in wanted:
        edited[name] = architecture = edit(architecture, wanted[name])
    for problem in (_misfit, *([_lost_head] if has_heads else [])):
      if problem(architecture):  # an edit may mend what one before it broke
        name = next(name for name in edited if problem(edited[name]))
        raise ValueError(problem(edited[name]))
    if 'aux_after' in wanted and not has_heads:
      name = 'aux_after'
      raise ValueError("has its heads off: give config.model.aux_heads='on'")
  except UserError:  # of an operation of the user's
    raise
  except ValueError as error:
    raise UserError(
      f'config.model.{name}={wanted[name]!r}: the network '
      f'{model_config.variant!r} {error}',
      f'model.{name}',
    ) from error
  return architecture


def _misfit(architecture: rows.Architecture) -> str:
  """Returns why a network cannot be computed, without its heads, or ''."""
  try:
    graph.graph(architecture._replace(aux_heads=()), (512, 512, 3))
  except UserError:  # of an operation of the user's
    raise
  except ValueError as error:
    return (
      f'cannot be computed: {error}; to change other blocks only, name them, '
      "as 'BLOCK/3x3=5' or 'BLOCK/pool'"
    )
  return ''


def aux_after(
  architecture: rows.Architecture, names: Sequence[str]
) -> rows.Architecture:
  """Puts auxiliary heads after these rows, as many as there are names.

  The first ones are those of the network; more are like its last one.

  Raises:
    ValueError: the network has no heads, or no such row.
  """
  heads = architecture.aux_heads
  if not heads:
    raise ValueError('has no auxiliary heads')
  known = [
    row.name
    for stage in architecture.stages
    for row in stage.rows
    if hasattr(row, 'name')
  ]
  check_keys('row', names, known)
  more = [
    heads[-1]._replace(name=f'aux_{i + 1}')
    for i in range(len(heads), len(names))
  ]
  return architecture._replace(
    aux_heads=tuple(
      head._replace(after=name)
      for head, name in zip((*heads, *more), names, strict=False)
    )
  )


def _lost_head(architecture: rows.Architecture) -> str:
  """Returns which head stands after a row that is gone, or ''."""
  known = {
    getattr(row, 'name', '')
    for stage in architecture.stages
    for row in stage.rows
  }
  for head in architecture.aux_heads:
    if head.after not in known:
      return (
        f'would lose {head.after}, after which its head {head.name} sits: give '
        "config.model.aux_after, or config.model.aux_heads='off'"
      )
  return ''


# The edit of each field, in the order in which they are made.
_EDITS: dict[str, Callable[[rows.Architecture, Any], rows.Architecture]] = {
  'stage_blocks': stage_blocks,
  'stage_depths': stage_depths,
  'kernel_sizes': kernel_sizes,
  'block_pool': block_pool,
  'drop_branches': drop_branches,
  'stage_widths': stage_widths,
  'aux_after': aux_after,
}
FIELDS = tuple(_EDITS)
