"""Small networks: one for 28x28 images, one for tests and tutorials."""

from googlenet.model import blocks
from googlenet.model.blocks import Widths
from googlenet.model.googlenet import inception_stages, stem
from googlenet.model.rows import (
  LOGITS,
  Architecture,
  AuxHead,
  AvgPool,
  Conv,
  ConvLayer,
  Dense,
  Dropout,
  Flatten,
  LocalResponseNorm,
  MaxPool,
  Stage,
)

# For the native 28x28 of MNIST-like data: the stem halves the side twice, not
# three times, and no pooling follows stage 4. The last map is 4x4.
FMNIST28 = Architecture(
  (
    Stage(
      'stage_1',
      (ConvLayer('conv_1', (Conv('conv_3x3', 64, 3),)), MaxPool()),
    ),
    stem()[1],
    *inception_stages((blocks.inception,) * 3, ((MaxPool(),), (), ())),
  ),
  normalization='batch',
)

# A tiny network with the same kinds of layers, for tests and tutorials.
TINY = Architecture(
  (
    Stage(
      'stage_1',
      (
        ConvLayer('conv_1', (Conv('conv_7x7', 8, 7, stride=2),)),
        MaxPool(),
        LocalResponseNorm(),
      ),
    ),
    Stage(
      'stage_2', (blocks.inception('inception_2a', Widths(8, 8, 12, 4, 4, 4)),)
    ),
  ),
  aux_heads=(
    AuxHead(
      'aux_1',
      'inception_2a',
      (
        AvgPool(2, 2, 'VALID'),
        Conv('conv_1x1', 4, 1),
        Flatten(),
        Dense('fc', 8),
        Dropout(0.7),
        LOGITS,
      ),
    ),
  ),
)
