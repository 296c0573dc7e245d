"""GoogLeNet and variants: Szegedy et al., 2014 (arXiv 1409.4842), Table 1."""

from googlenet.kernels.padding import Padding
from googlenet.model import blocks
from googlenet.model.blocks import MakeBlock, Widths
from googlenet.model.rows import (
  LOGITS,
  AdaptiveAvgPool,
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

# fmt: off
# The nine blocks of Table 1, by stage, with their `Widths`: 1x1, 3x3
# reduce, 3x3, 5x5 reduce, 5x5, pool projection.
TABLE_1 = {
  'stage_3': (
    ('inception_3a', 64, 96, 128, 16, 32, 32),
    ('inception_3b', 128, 128, 192, 32, 96, 64),
  ),
  'stage_4': (
    ('inception_4a', 192, 96, 208, 16, 48, 64),
    ('inception_4b', 160, 112, 224, 24, 64, 64),
    ('inception_4c', 128, 128, 256, 24, 64, 64),
    ('inception_4d', 112, 144, 288, 32, 64, 64),
    ('inception_4e', 256, 160, 320, 32, 128, 128),
  ),
  'stage_5': (
    ('inception_5a', 256, 160, 320, 32, 128, 128),
    ('inception_5b', 384, 192, 384, 48, 128, 128),
  ),
}
# fmt: on


def stem(
  padding: Padding = 'SAME', pool: MaxPool | None = None
) -> tuple[Stage, Stage]:
  """Returns stages 1 and 2, which reduce the image side to 1/8."""
  pool = pool or MaxPool()
  return (
    Stage(
      'stage_1',
      (
        ConvLayer('conv_1', (Conv('conv_7x7', 64, 7, 2, padding),)),
        pool,
        LocalResponseNorm(),
      ),
    ),
    Stage(
      'stage_2',
      (
        ConvLayer(
          'conv_2',
          (Conv('conv_3x3_reduce', 64, 1), Conv('conv_3x3', 192, 3)),
        ),
        LocalResponseNorm(),
        pool,
      ),
    ),
  )


def inception_stages(
  make: tuple[MakeBlock, MakeBlock, MakeBlock],
  after: tuple[tuple[MaxPool | Block, ...], ...],
) -> tuple[Stage, ...]:
  """Returns stages 3 to 5 with the widths of Table 1.

  Args:
    make: kind of block in each stage.
    after: layer specs after the blocks of each stage.
  """
  return tuple(
    Stage(stage, (*(block(row[0], Widths(*row[1:])) for row in rows), *rest))
    for (stage, rows), block, rest in zip(
      TABLE_1.items(), make, after, strict=True
    )
  )


def googlenet(
  block: MakeBlock = blocks.inception,
  stem_padding: Padding = 'SAME',
  pool: MaxPool | None = None,
  last_pool: MaxPool | None = None,
) -> tuple[Stage, ...]:
  """Returns the five stages with one kind of block."""
  pool = pool or MaxPool()
  return (
    *stem(stem_padding, pool),
    *inception_stages((block,) * 3, ((pool,), (last_pool or pool,), ())),
  )


def aux_heads(
  pool: AvgPool | AdaptiveAvgPool,
) -> tuple[AuxHead, AuxHead]:
  """Returns the two auxiliary classifiers of section 5 with the given pool."""
  ops = (
    pool,
    Conv('conv_1x1', 128, 1),
    Flatten(),
    Dense('fc', 1024),
    Dropout(0.7),
    LOGITS,
  )
  return (
    AuxHead('aux_1', 'inception_4a', ops),
    AuxHead('aux_2', 'inception_4d', ops),
  )


# As in the paper and in Caffe's model, but without padding, where Caffe rounds
# up: a 14x14 map (224 pixels) becomes 4x4, a 6x6 map (96 pixels) 1x1.
PAPER_HEADS = aux_heads(AvgPool(5, 3, 'VALID'))

# GoogLeNet without auxiliary heads, LRN and dropout, as in textbooks.
PLAIN = Architecture(googlenet(), aux_heads=PAPER_HEADS)

# Table 1 and Caffe's bvlc_googlenet.
PAPER = Architecture(
  googlenet(stem_padding=3, pool=MaxPool(padding='CEIL')),
  aux_heads=PAPER_HEADS,
  uses_aux_heads=True,
  normalization='lrn',
  dropout=0.4,
  initializer='caffe',
)

# torchvision.models.googlenet, which differs from the paper: batch norm, 3x3
# instead of 5x5, a last pooling of 2x2, heads that always pool to 4x4.
TORCHVISION = Architecture(
  googlenet(
    blocks.inception_3x3,
    stem_padding=3,
    pool=MaxPool(padding='CEIL'),
    last_pool=MaxPool(2, 2, 'CEIL'),
  ),
  aux_heads=aux_heads(AdaptiveAvgPool(4)),
  uses_aux_heads=True,
  normalization='batch',
  dropout=0.2,
)

# Ioffe and Szegedy, 2015 (arXiv 1502.03167): batch norm, no LRN, no dropout.
BN = Architecture(googlenet(), aux_heads=PAPER_HEADS, normalization='batch')
