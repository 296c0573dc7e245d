"""Kinds of Inception blocks: functions from six widths to branches.

All take the columns of Table 1 (Szegedy et al., 2014) and put out the same
number of channels, one + out_1 + out_2 + pool, so any kind can stand in any row
of the table. Only `grid_reduction` does not: it stands between stages.
"""

from collections.abc import Callable
from typing import NamedTuple

from googlenet.model.rows import (
  AvgPool,
  Block,
  Branch,
  Conv,
  Fork,
  MaxPool,
  Residual,
)


class Widths(NamedTuple):
  """A row of Table 1: output channels of the convolutions of a block."""

  one: int  # the 1x1 branch
  reduce_1: int  # second branch: its 1x1
  out_1: int  # second branch: the convolution in space after it (3x3)
  reduce_2: int  # third branch: its 1x1
  out_2: int  # third branch: the last convolution in space (5x5)
  pool: int  # the 1x1 after pooling


MakeBlock = Callable[[str, Widths], Block]


def _ends(widths: Widths, pooling: MaxPool | AvgPool) -> tuple[Branch, ...]:
  """The first and the last branch, the same in all kinds."""
  return (
    (Conv('conv_1x1', widths.one, 1),),
    (pooling, Conv('pool_proj', widths.pool, 1)),
  )


def _one_3x3(widths: Widths) -> Branch:
  return (
    Conv('conv_3x3_reduce', widths.reduce_1, 1),
    Conv('conv_3x3', widths.out_1, 3),
  )


def inception(name: str, widths: Widths) -> Block:
  """Figure 2b of Szegedy et al., 2014."""
  first, last = _ends(widths, MaxPool(3, 1))
  five = (
    Conv('conv_5x5_reduce', widths.reduce_2, 1),
    Conv('conv_5x5', widths.out_2, 5),
  )
  return Block(name, (first, _one_3x3(widths), five, last))


def inception_3x3(name: str, widths: Widths) -> Block:
  """The block of TF-slim and torchvision: 3x3 in place of the 5x5."""
  first, last = _ends(widths, MaxPool(3, 1))
  return Block(
    name,
    (
      first,
      _one_3x3(widths),
      (
        Conv('conv_3x3_b_reduce', widths.reduce_2, 1),
        Conv('conv_3x3_b', widths.out_2, 3),
      ),
      last,
    ),
  )


def _double_3x3(reduce: int, out: int, stride: int = 1) -> Branch:
  """Two 3x3 see as far as one 5x5, for 18/25 of the work if reduce == out."""
  return (
    Conv('conv_double_3x3_reduce', reduce, 1),
    Conv('conv_double_3x3_1', out, 3),
    Conv('conv_double_3x3_2', out, 3, stride),
  )


def inception_v2(name: str, widths: Widths) -> Block:
  """Two 3x3 in place of the 5x5: Ioffe and Szegedy, 2015, figure 5."""
  first, last = _ends(widths, MaxPool(3, 1))
  return Block(
    name,
    (
      first,
      _one_3x3(widths),
      _double_3x3(widths.reduce_2, widths.out_2),
      last,
    ),
  )


def inception_a(name: str, widths: Widths) -> Block:
  """Figure 5 of Szegedy et al., 2015: `inception_v2` with average pooling."""
  block = inception_v2(name, widths)
  last = (AvgPool(), *block.branches[-1][1:])
  return block._replace(branches=(*block.branches[:-1], last))


def inception_b(name: str, widths: Widths) -> Block:
  """Figure 6 of Szegedy et al., 2015: n x n as 1 x n and n x 1, here n = 5.

  The paper has n = 7 on maps of 17x17; the fourth stage here has 14x14 at 224
  pixels and 6x6 at 96.
  """
  first, last = _ends(widths, AvgPool())
  return Block(
    name,
    (
      first,
      (
        Conv('conv_5x5_reduce', widths.reduce_1, 1),
        Conv('conv_1x5', widths.reduce_1, (1, 5)),
        Conv('conv_5x1', widths.out_1, (5, 1)),
      ),
      (
        Conv('conv_double_5x5_reduce', widths.reduce_2, 1),
        Conv('conv_double_5x1_1', widths.reduce_2, (5, 1)),
        Conv('conv_double_1x5_1', widths.reduce_2, (1, 5)),
        Conv('conv_double_5x1_2', widths.reduce_2, (5, 1)),
        Conv('conv_double_1x5_2', widths.out_2, (1, 5)),
      ),
      last,
    ),
  )


def inception_c(name: str, widths: Widths) -> Block:
  """Figure 7 of Szegedy et al., 2015: 1x3 and 3x1 side by side."""
  first, last = _ends(widths, AvgPool())

  def fork(prefix: str, width: int) -> Fork:
    return Fork(
      (
        (Conv(f'{prefix}_1x3', width // 2, (1, 3)),),
        (Conv(f'{prefix}_3x1', width - width // 2, (3, 1)),),
      )
    )

  return Block(
    name,
    (
      first,
      (Conv('conv_3x3_reduce', widths.reduce_1, 1), fork('conv', widths.out_1)),
      (
        Conv('conv_double_3x3_reduce', widths.reduce_2, 1),
        Conv('conv_double_3x3', widths.out_2, 3),
        fork('conv_double', widths.out_2),
      ),
      last,
    ),
  )


def grid_reduction(
  name: str, reduce_1: int, out_1: int, reduce_2: int, out_2: int
) -> Block:
  """Figure 10 of Szegedy et al., 2015: halves height and width of the map.

  The output has out_1 + out_2 channels more than the input.
  """
  return Block(
    name,
    (
      (
        Conv('conv_3x3_reduce', reduce_1, 1),
        Conv('conv_3x3', out_1, 3, stride=2),
      ),
      _double_3x3(reduce_2, out_2, stride=2),
      (MaxPool(),),
    ),
  )


def inception_residual(name: str, widths: Widths) -> Block:
  """Figure 10 of arXiv 1602.07261: three branches, added to the input.

  They are scaled by 0.2; section 3.3 has 0.1 to 0.3.
  """
  width = widths.one + widths.out_1 + widths.out_2 + widths.pool
  return Block(
    name,
    (
      (Conv('conv_1x1', widths.one, 1),),
      _one_3x3(widths),
      _double_3x3(widths.reduce_2, widths.out_2),
    ),
    Residual(width, 0.2),
  )
