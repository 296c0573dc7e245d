"""Small networks: one for 28x28 images, one for tests and tutorials."""

from googlenet.model import blocks
from googlenet.model.blocks import Widths
from googlenet.model.googlenet import inception_stages, stem
from googlenet.model.rows import (
  LOGITS,
  Architecture,
  AuxHead,
  AvgPool,
  Block,
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


def unreduced(name: str, one: int, three: int, pool: int) -> Block:
  """Figure 2a of Szegedy et al., 2014, the naive block, without its 5x5.

  The 3x3 convolution reads the whole input, not a 1x1 reduction. The branch
  with pooling ends in a 1x1 convolution, as in figure 2b.

  Args:
    name: of the block.
    one: output channels of the 1x1 branch.
    three: output channels of the 3x3 branch.
    pool: output channels of the pooling branch.
  """
  return Block(
    name,
    (
      (Conv('conv_1x1', one, 1),),
      (Conv('conv_3x3', three, 3),),
      (MaxPool(3, 1), Conv('pool_proj', pool, 1)),
    ),
  )


# Two convolutions see the 28x28 pixels before anything is pooled, and blocks do
# not reduce before their 3x3: a percent more accurate on Fashion-MNIST than
# FMNIST28 (docs/accuracy.md).
FMNIST28_3X3 = Architecture(
  (
    Stage('stage_1', (ConvLayer('conv_1', (Conv('conv_3x3', 32, 3),)),)),
    Stage(
      'stage_2', (ConvLayer('conv_2', (Conv('conv_3x3', 64, 3),)), MaxPool(2))
    ),
    Stage(
      'stage_3',
      (
        unreduced('inception_3a', 16, 64, 16),
        unreduced('inception_3b', 32, 192, 32),
        MaxPool(2),
      ),
    ),
    Stage(
      'stage_4',
      (
        unreduced('inception_4a', 32, 192, 32),
        unreduced('inception_4b', 32, 192, 32),
        MaxPool(2),
      ),
    ),
    Stage('stage_5', (unreduced('inception_5a', 64, 256, 64),)),
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
