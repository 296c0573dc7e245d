"""AlexNet in one column: Krizhevsky et al., 2012, its maps 55, 27, 13, 6."""

from googlenet.architectures.rows import (
  Architecture,
  Conv,
  ConvLayer,
  Dense,
  Dropout,
  Flatten,
  LocalResponseNorm,
  MaxPool,
  Stage,
)

_POOL = MaxPool(3, 2, 'VALID')

ALEXNET = Architecture(
  (
    Stage(
      'stage_1',
      (
        ConvLayer('conv_1', (Conv('conv_11x11', 96, 11, 4, 2),)),
        LocalResponseNorm(alpha=5e-4, k=2.0),
        _POOL,
      ),
    ),
    Stage(
      'stage_2',
      (
        ConvLayer('conv_2', (Conv('conv_5x5', 256, 5),)),
        LocalResponseNorm(alpha=5e-4, k=2.0),
        _POOL,
      ),
    ),
    Stage(
      'stage_3',
      (
        ConvLayer('conv_3', (Conv('conv_3x3', 384, 3),)),
        ConvLayer('conv_4', (Conv('conv_3x3', 384, 3),)),
        ConvLayer('conv_5', (Conv('conv_3x3', 256, 3),)),
        _POOL,
      ),
    ),
  ),
  head=(
    Flatten(),
    Dense('fc_6', 4096),
    Dropout(),
    Dense('fc_7', 4096),
    Dropout(),
  ),
  dropout=0.5,
)
