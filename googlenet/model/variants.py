"""The table of networks, and how the `model` config section selects one."""

import itertools
from typing import Any

import ml_collections

from googlenet.errors import UserError
from googlenet.model import ablations, own
from googlenet.model.architecture_text import OWN, read_network
from googlenet.model.googlenet import (
  BN,
  PAPER,
  PLAIN,
  TORCHVISION,
)
from googlenet.model.inception5h import INCEPTION5H, INCEPTION5H_LUCENT
from googlenet.model.inception_v3 import INCEPTION_FID, INCEPTION_V3
from googlenet.model.rows import (
  CLASSES,
  Architecture,
  Conv,
  Dense,
  Dropout,
  LocalResponseNorm,
  Residual,
)
from googlenet.model.small import FMNIST28, FMNIST28_3X3, TINY
from googlenet.model.successors import (
  FACTORIZED,
  INCEPTION_V2,
  RESIDUAL,
  SE,
)
from googlenet.model.zoo import ZOO

ARCHITECTURES: dict[str, Architecture] = {
  'plain': PLAIN,
  'paper': PAPER,
  'torchvision': TORCHVISION,
  'bn': BN,
  'inception_v2': INCEPTION_V2,
  'factorized': FACTORIZED,
  'residual': RESIDUAL,
  'se': SE,
  'inception_v3': INCEPTION_V3,
  'inception_fid': INCEPTION_FID,
  'inception5h': INCEPTION5H,
  'inception5h_lucent': INCEPTION5H_LUCENT,
  'fmnist28': FMNIST28,
  'fmnist28_3x3': FMNIST28_3X3,
  'tiny': TINY,
  **ZOO,
}
NORMALIZATIONS = ('none', 'lrn', 'batch')


def architecture_of(model_config: ml_collections.ConfigDict) -> Architecture:
  """Returns the network of the `model` section, with its fields left open.

  Raises:
    UserError: the text of a custom network is wrong or missing, or there
      is one with another variant; or the network does not allow an ablation.
  """
  variant, text = model_config.variant, model_config.architecture
  if (variant == OWN) == bool(text):
    found = read_network(text) if text else ARCHITECTURES[variant]
    return ablations.apply(found, model_config)
  raise UserError(
    f'config.model.variant={variant!r}, but config.model.architecture is '
    f'{"given" if text else "empty"}: a network of your own takes '
    "variant='own' and architecture=to_text(...), see docs/own_network.md",
    own.FIELD,
  )


def resolve(model_config: ml_collections.ConfigDict) -> Architecture:
  """Returns the network of the `model` section.

  Fills in widths, number of classes and dropout rates, and removes LRN and
  auxiliary heads if they are off.

  Raises:
    UserError: a field turns on LRN, auxiliary heads or stochastic depth in a
      network without them.
  """
  variant, architecture = model_config.variant, architecture_of(model_config)
  normalization = model_config.normalization
  if normalization == 'auto':
    normalization = architecture.normalization
  all_rows = [row for stage in architecture.stages for row in stage.rows]
  if normalization == 'lrn' and LocalResponseNorm not in map(type, all_rows):
    raise UserError(
      f"config.model.normalization='lrn': the network {variant!r} has no LRN "
      'layers; allowed is one of auto, none, batch'
    )
  uses_aux_heads = architecture.uses_aux_heads
  if model_config.aux_heads != 'auto':
    uses_aux_heads = model_config.aux_heads == 'on'
  if uses_aux_heads and not architecture.aux_heads:
    raise UserError(
      f"config.model.aux_heads='on': the network {variant!r} has no auxiliary "
      'heads; allowed is one of auto, off'
    )
  dropout = model_config.dropout
  dropout = architecture.dropout if dropout is None else dropout
  initializer = model_config.initializer
  if initializer == 'auto':
    initializer = architecture.initializer

  depth_rate = model_config.stochastic_depth
  num_residual = sum(bool(getattr(row, 'residual', None)) for row in all_rows)
  if depth_rate and not num_residual:
    raise UserError(
      f'config.model.stochastic_depth={depth_rate}: the network {variant!r} '
      'has no residual blocks; allowed is 0'
    )
  numbers = itertools.count(1)

  def width(row: Conv | Dense | Residual) -> Any:
    if row.width == CLASSES:
      return row._replace(width=model_config.num_classes)
    scaled = round(row.width * model_config.width_multiplier)
    return row._replace(width=max(scaled, 1))

  def residual(row: Residual) -> Residual:
    # Huang et al., 2016, arXiv 1603.09382, section 3: linear decay.
    drop_rate = depth_rate * next(numbers) / num_residual
    return width(row)._replace(drop_rate=drop_rate)

  def rate(row: Dropout) -> Dropout:
    return row._replace(rate=dropout) if row.rate is None else row

  fillers = {Conv: width, Dense: width, Residual: residual, Dropout: rate}

  def fill(node: Any) -> Any:
    """Fills in all rows of a tree of tuples; removes LRN if it is off."""
    if type(node) in fillers:
      return fillers[type(node)](node)
    if not isinstance(node, tuple):
      return node
    parts = [
      fill(part)
      for part in node
      if normalization == 'lrn' or type(part) is not LocalResponseNorm
    ]
    return type(node)(*parts) if hasattr(node, '_fields') else tuple(parts)

  return fill(
    architecture._replace(
      aux_heads=architecture.aux_heads if uses_aux_heads else (),
      uses_aux_heads=uses_aux_heads,
      normalization=normalization,
      dropout=dropout,
      initializer=initializer,
    )
  )
