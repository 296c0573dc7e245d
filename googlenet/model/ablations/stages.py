"""Ablations of stages: widths, numbers and kinds of their blocks."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from googlenet.errors import did_you_mean
from googlenet.model import blocks, rows
from googlenet.model.ablations.trees import (
  POOLS,
  blocks_of,
  branch_name,
  each,
  found_in,
  number,
  pair,
)
from googlenet.model.blocks import MakeBlock, Widths
from googlenet.model.successors import se_inception

MAX_DEPTH = 20  # blocks of a stage


def conv_3x3(name: str, widths: Widths) -> rows.Block:
  """One 3x3 convolution with as many channels: a plain chain of layers."""
  width = widths.one + widths.out_1 + widths.out_2 + widths.pool
  return rows.Block(name, ((rows.Conv('conv_3x3', width, 3),),))


# By value in `model.stage_blocks`.
KINDS: dict[str, MakeBlock] = {
  'inception': blocks.inception,
  'inception_3x3': blocks.inception_3x3,
  'inception_v2': blocks.inception_v2,
  'inception_a': blocks.inception_a,
  'inception_b': blocks.inception_b,
  'inception_c': blocks.inception_c,
  'residual': blocks.inception_residual,
  'se': se_inception,
  'conv_3x3': conv_3x3,
}


def _by_stage(
  architecture: rows.Architecture,
  texts: Sequence[str],
  edit: Callable[[rows.Stage, str], rows.Stage],
) -> rows.Architecture:
  """Edits stages: '3=...' is 'stage_3=...'; edit(stage, what follows)."""
  names = [stage.name for stage in architecture.stages]
  values = {}
  for key, value in map(pair, texts):
    name = key if key in names else f'stage_{key}'
    if name not in names:
      raise ValueError(f'has no stage {key!r}; it has {", ".join(names)}')
    if name in values:
      raise ValueError(f'has {name} only once, but it is named twice')
    values[name] = value
  return architecture._replace(
    stages=tuple(
      edit(stage, values[stage.name]) if stage.name in values else stage
      for stage in architecture.stages
    )
  )


def stage_widths(
  architecture: rows.Architecture, texts: Sequence[str]
) -> rows.Architecture:
  """Multiplies the widths of stages, rounded, at least 1.

  Raises:
    ValueError: there is no such stage, a factor is not above 0 and at most
      100, or a stage has no widths.
  """

  def edit(stage: rows.Stage, value: str) -> rows.Stage:
    factor = float(value)
    if not 0 < factor <= 100:
      raise ValueError(
        f'takes for {stage.name} a factor above 0 and at most 100, not {value}'
      )
    if not any(conv.width for conv in found_in(stage.rows, rows.Conv)):
      raise ValueError(
        f'has in {stage.name} no widths but the number of classes'
      )

    def scale(row: Any) -> Any:
      if row.width == rows.CLASSES:
        return row
      return row._replace(width=max(round(row.width * factor), 1))

    return stage._replace(
      rows=each(stage.rows, (rows.Conv, rows.Residual), scale)
    )

  return _by_stage(architecture, texts, edit)


def _is_counted(row: Any) -> bool:
  """Whether a row is a block that keeps height and width."""
  return isinstance(row, rows.Block) and all(
    op.stride == 1 for op in found_in(row, (rows.Conv, *POOLS))
  )


def _counted(
  architecture: rows.Architecture, stage: rows.Stage
) -> list[rows.Block]:
  """Returns the blocks of a stage.

  Raises:
    ValueError: it has none.
  """
  found = [row for row in stage.rows if _is_counted(row)]
  if not found:
    have = [
      s.name for s in architecture.stages if any(map(_is_counted, s.rows))
    ]
    raise ValueError(
      f'has no blocks in {stage.name}; it has '
      + (f'blocks in {", ".join(have)}' if have else 'no blocks at all')
    )
  return found


def stage_depths(
  architecture: rows.Architecture, texts: Sequence[str]
) -> rows.Architecture:
  """Sets the numbers of blocks: the first ones, or the last one repeated.

  Repeated blocks have the next names: inception_3c after inception_3b.

  Raises:
    ValueError: there is no such stage, it has no blocks, or a number is not
      from 1 to `MAX_DEPTH`.
  """
  taken = {block.name for block in blocks_of(architecture)}

  def edit(stage: rows.Stage, value: str) -> rows.Stage:
    count = number(f'{stage.name}={value}', value, 1, MAX_DEPTH)
    found = _counted(architecture, stage)
    dropped = {block.name for block in found[count:]}
    more, names = [], _next_names(found[-1].name)
    while len(found) + len(more) < count:
      name = next(name for name in names if name not in taken)
      more.append(found[-1]._replace(name=name))
    after = stage.rows.index(found[-1]) + 1
    edited = (*stage.rows[:after], *more, *stage.rows[after:])
    return stage._replace(
      rows=tuple(r for r in edited if getattr(r, 'name', '') not in dropped)
    )

  return _by_stage(architecture, texts, edit)


def _next_names(name: str) -> Iterator[str]:
  """Yields 'inception_3c', ... for 'inception_3b'; 'mine_2', ... for 'mine'."""
  lettered = re.fullmatch(r'(.*\d)([a-z])', name)
  if lettered:
    for code in range(ord(lettered[2]) + 1, ord('z') + 1):
      yield f'{lettered[1]}{chr(code)}'
  for i in range(2, 10_000):
    yield f'{name}_{i}'


def stage_blocks(
  architecture: rows.Architecture, texts: Sequence[str]
) -> rows.Architecture:
  """Replaces the blocks of stages by another of the `KINDS`.

  Raises:
    ValueError: there is no such stage or kind, it has no blocks, or one that
      six widths do not describe.
  """

  def edit(stage: rows.Stage, kind: str) -> rows.Stage:
    if kind not in KINDS:
      raise ValueError(
        f'takes for {stage.name} one of {", ".join(KINDS)}, not {kind!r}'
        f'{did_you_mean(kind, KINDS)}'
      )
    _counted(architecture, stage)
    return stage._replace(
      rows=tuple(
        KINDS[kind](row.name, widths_of(row)) if _is_counted(row) else row
        for row in stage.rows
      )
    )

  return _by_stage(architecture, texts, edit)


def widths_of(block: rows.Block) -> Widths:
  """Returns the six widths of a block with the branches of the paper, or like.

  These are one 1x1 convolution, two branches that begin with one, and one that
  pools; residual blocks have no last one.

  Raises:
    ValueError: it has other branches.
  """
  ones, pools, inner = [], [], []
  for branch in block.branches:
    is_pool = branch_name(branch) == 'pool'
    (pools if is_pool else inner if len(branch) > 1 else ones).append(branch)
  count = len(ones), len(inner), len(pools)
  starts = [b[0] for b in (*ones, *inner)] + [b[-1] for b in pools]
  is_1x1 = all(isinstance(x, rows.Conv) and x.shape == (1, 1) for x in starts)
  if not is_1x1 or count != (1, 2, 0 if block.residual else 1):
    raise ValueError(
      f'has in {block.name} other branches than 1x1, two with a 1x1 reduction '
      'and one that pools: no other kind can replace it'
    )
  one, (out_1, out_2) = ones[0][0].width, map(_channels, inner)
  if block.residual:
    pool = max(block.residual.width - one - out_1 - out_2, 1)
  else:
    pool = pools[0][-1].width
  reduce_1, reduce_2 = (branch[0].width for branch in inner)
  return Widths(one, reduce_1, out_1, reduce_2, out_2, pool)


def _channels(branch: rows.Branch) -> int:
  """Returns the output channels of a branch that ends in convolutions."""
  if isinstance(branch[-1], rows.Fork):
    return sum(map(_channels, branch[-1].branches))
  return found_in(branch, rows.Conv)[-1].width
