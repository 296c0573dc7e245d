"""Kinds of Inception blocks, each made from six widths.

All take the columns of Table 1 (Szegedy et al., 2014) and output the same
number of channels, one + out_1 + out_2 + pool, so each kind can replace any
block of the table. The exception is `grid_reduction`, used between stages.
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

  one: int  # first branch: 1x1
  reduce_1: int  # second branch: 1x1 before the 3x3
  out_1: int  # second branch: 3x3, or what replaces it
  reduce_2: int  # third branch: 1x1 before the 5x5
  out_2: int  # third branch: 5x5, or what replaces it
  pool: int  # fourth branch: 1x1 after pooling


MakeBlock = Callable[[str, Widths], Block]


def _ends(widths: Widths, pooling: MaxPool | AvgPool) -> tuple[Branch, ...]:
  """Returns the first and the last branch."""
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
  """The block of TF-slim and torchvision: a 3x3 replaces the 5x5."""
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
  """Two 3x3 see as much as one 5x5, at 18/25 of its cost if equally wide."""
  return (
    Conv('conv_double_3x3_reduce', reduce, 1),
    Conv('conv_double_3x3_1', out, 3),
    Conv('conv_double_3x3_2', out, 3, stride),
  )


def inception_v2(name: str, widths: Widths) -> Block:
  """Two 3x3 replace the 5x5: Ioffe and Szegedy, 2015, figure 5."""
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

  The paper uses n = 7 on 17x17 maps. Here stage 4 has 14x14 maps for images of
  224 pixels and 6x6 maps for 96 pixels.
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
  """Figure 7 of Szegedy et al., 2015: 1x3 and 3x1 in parallel."""
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

  The number of channels grows by out_1 + out_2.
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

  Their output is scaled by 0.2; section 3.3 uses 0.1 to 0.3.
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
