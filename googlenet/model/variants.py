"""Every network as rows of data, and what a config makes of it."""

import itertools
from typing import Any

import ml_collections

from googlenet.errors import UserError
from googlenet.model.googlenet import (
  BN,
  FACTORIZED,
  FMNIST28,
  INCEPTION_V2,
  PAPER,
  PLAIN,
  RESIDUAL,
  TINY,
  TORCHVISION,
)
from googlenet.model.inception_v3 import INCEPTION_V3
from googlenet.model.rows import (
  CLASSES,
  Architecture,
  Block,
  Conv,
  Dense,
  Dropout,
  LocalResponseNorm,
  Residual,
  Stage,
)
from googlenet.model.zoo import ALEXNET, NIN, VGG_16

ARCHITECTURES: dict[str, Architecture] = {
  'plain': PLAIN,
  'paper': PAPER,
  'torchvision': TORCHVISION,
  'bn': BN,
  'inception_v2': INCEPTION_V2,
  'factorized': FACTORIZED,
  'residual': RESIDUAL,
  'inception_v3': INCEPTION_V3,
  'fmnist28': FMNIST28,
  'tiny': TINY,
  'alexnet': ALEXNET,
  'vgg16': VGG_16,
  'nin': NIN,
}
NORMALIZATIONS = ('none', 'lrn', 'batch')


def resolve(model_config: ml_collections.ConfigDict) -> Architecture:
  """Returns the network that the `model` section asks for, nothing left open.

  Widths are multiplied, the number of classes and the rates of dropout filled
  in, and rows and heads left out that are not in use.

  Raises:
    UserError: the network cannot be had like that.
  """
  variant = model_config.variant
  architecture = ARCHITECTURES[variant]
  normalization = model_config.normalization
  if normalization == 'auto':
    normalization = architecture.normalization
  if normalization == 'lrn' and not _has_lrn(architecture):
    raise UserError(
      f"config.model.normalization='lrn': the network {variant!r} has no place "
      'for it; allowed is one of auto, none, batch'
    )
  uses_aux_heads = architecture.uses_aux_heads
  if model_config.aux_heads != 'auto':
    uses_aux_heads = model_config.aux_heads == 'on'
  if uses_aux_heads and not architecture.aux_heads:
    raise UserError(
      f"config.model.aux_heads='on': the network {variant!r} has none; allowed "
      'is one of auto, off'
    )
  dropout = model_config.dropout
  dropout = architecture.dropout if dropout is None else dropout
  initializer = model_config.initializer
  if initializer == 'auto':
    initializer = architecture.initializer

  depth_rate = model_config.stochastic_depth
  num_residual = sum(
    isinstance(row, Block) and row.residual is not None
    for stage in architecture.stages
    for row in stage.rows
  )
  if depth_rate and not num_residual:
    raise UserError(
      f'config.model.stochastic_depth={depth_rate}: the network {variant!r} '
      'has no residual blocks; allowed is 0'
    )
  places = itertools.count(1)

  def fill(node: Any) -> Any:
    if isinstance(node, Conv | Dense | Residual):
      if node.width == CLASSES:
        width = model_config.num_classes
      else:
        width = max(round(node.width * model_config.width_multiplier), 1)
      node = node._replace(width=width)
    if isinstance(node, Residual) and depth_rate:
      # Huang et al., 2016, arXiv 1603.09382, section 3: linear decay.
      place = next(places)
      node = node._replace(
        drop_rate=depth_rate * place / num_residual, place=place
      )
    elif isinstance(node, Dropout) and node.rate is None:
      return node._replace(rate=dropout)
    if not isinstance(node, tuple):
      return node
    parts = [
      fill(part)
      for part in node
      if normalization == 'lrn' or not isinstance(part, LocalResponseNorm)
    ]
    return type(node)(*parts) if hasattr(node, '_fields') else tuple(parts)

  filled = fill(
    architecture._replace(
      aux_heads=architecture.aux_heads if uses_aux_heads else (),
      uses_aux_heads=uses_aux_heads,
      normalization=normalization,
      dropout=dropout,
      initializer=initializer,
    )
  )
  return filled._replace(stages=_place_dropout(filled.stages))


def _place_dropout(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
  """Gives each Dropout row a place of its own: no two draw the same mask."""
  places = itertools.count()
  return tuple(
    stage._replace(
      rows=tuple(
        row._replace(place=next(places)) if isinstance(row, Dropout) else row
        for row in stage.rows
      )
    )
    for stage in stages
  )


def _has_lrn(architecture: Architecture) -> bool:
  return any(
    isinstance(row, LocalResponseNorm)
    for stage in architecture.stages
    for row in stage.rows
  )
