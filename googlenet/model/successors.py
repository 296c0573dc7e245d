"""Later kinds of Inception blocks with the widths of Table 1 of the paper."""

from googlenet.model import blocks
from googlenet.model.blocks import Widths
from googlenet.model.googlenet import (
  PAPER_HEADS,
  googlenet,
  inception_stages,
  stem,
)
from googlenet.model.rows import Architecture, Block, SqueezeExcite

# Batch norm, and two 3x3 instead of the 5x5: Ioffe and Szegedy, 2015 (arXiv
# 1502.03167), figure 5.
INCEPTION_V2 = Architecture(
  googlenet(blocks.inception_v2),
  aux_heads=PAPER_HEADS,
  normalization='batch',
)

# The blocks A, B, C and grid reductions of Inception v3 (Szegedy et al., 2015,
# arXiv 1512.00567) with the widths of Table 1.
FACTORIZED = Architecture(
  (
    *stem(),
    *inception_stages(
      (blocks.inception_a, blocks.inception_b, blocks.inception_c),
      (
        (blocks.grid_reduction('reduction_3', 64, 96, 32, 64),),
        (blocks.grid_reduction('reduction_4', 128, 192, 64, 96),),
        (),
      ),
    ),
  ),
  aux_heads=PAPER_HEADS,
  normalization='batch',
)

# Residual Inception blocks (arXiv 1602.07261) with the widths of Table 1.
RESIDUAL = Architecture(
  googlenet(blocks.inception_residual),
  aux_heads=PAPER_HEADS,
  normalization='batch',
)


def se_inception(name: str, widths: Widths) -> Block:
  """The block of the paper with squeeze-and-excite on its output."""
  return blocks.inception(name, widths)._replace(after=(SqueezeExcite(),))


# SE-Inception: figure 2 of Hu et al., 2018 (arXiv 1709.01507), batch norm.
SE = Architecture(
  googlenet(se_inception), aux_heads=PAPER_HEADS, normalization='batch'
)
