"""Ablations of branches: which there are, their pooling, their kernels."""

from collections.abc import Callable, Sequence
from typing import Any

from googlenet.model import rows
from googlenet.model.ablations.trees import (
  POOLS,
  blocks_of,
  branch_name,
  check_keys,
  each,
  found_in,
  number,
  pair,
)

MAX_KERNEL = 31  # pixels a side


def edit_branches(
  architecture: rows.Architecture,
  edit: Callable[[rows.Block, rows.Branch], rows.Branch],
) -> rows.Architecture:
  """Edits each branch of each block; empty ones are left out."""

  def edit_block(block: rows.Block) -> rows.Block:
    branches = (edit(block, branch) for branch in block.branches)
    branches = tuple(branch for branch in branches if branch)
    if not branches:
      raise ValueError(f'would have no branch left in {block.name}')
    return block._replace(branches=branches)

  stages = each(architecture.stages, rows.Block, edit_block)
  return architecture._replace(stages=stages)


def _branch_keys(architecture: rows.Architecture) -> list[str]:
  """Returns the names of branches, alone and with their block."""
  return [
    key
    for block in blocks_of(architecture)
    for branch in block.branches
    for key in _keys_of(block, branch)
  ]


def _keys_of(block: rows.Block, branch: rows.Branch) -> tuple[str, str]:
  name = branch_name(branch)
  return name, f'{block.name}/{name}'


def drop_branches(
  architecture: rows.Architecture, names: Sequence[str]
) -> rows.Architecture:
  """Drops branches of all blocks ('5x5'), or of one ('inception_3a/5x5').

  Raises:
    ValueError: no block has such a branch, or one would have none left.
  """
  check_keys('branch', names, _branch_keys(architecture))
  return edit_branches(
    architecture,
    lambda block, branch: (
      () if set(_keys_of(block, branch)) & set(names) else branch
    ),
  )


def block_pool(architecture: rows.Architecture, kind: str) -> rows.Architecture:
  """Replaces pooling with stride 1 in blocks: 'max', 'average' or 'none'.

  Raises:
    ValueError: no block pools with stride 1, or 'none' would leave a branch
      without operations.
  """
  if not any(
    pool.stride == 1 for pool in found_in(blocks_of(architecture), POOLS)
  ):
    raise ValueError('has no block that pools with stride 1')

  def edit(block: rows.Block, branch: rows.Branch) -> rows.Branch:
    def replace(pool: Any) -> Any:
      if pool.stride > 1:
        return pool
      if kind == 'none':
        return None
      wanted = {'max': rows.MaxPool, 'average': rows.AvgPool}[kind]
      same = isinstance(pool, wanted)
      return pool if same else wanted(pool.window, 1, pool.padding)

    def clean(node: Any) -> Any:
      """Removes what `replace` made None from lists of operations."""
      if hasattr(node, '_fields') or not isinstance(node, tuple):
        return node
      return tuple(clean(part) for part in node if part is not None)

    left = clean(each(branch, POOLS, replace))
    if not left:
      raise ValueError(
        f'has a branch {block.name}/pool of pooling alone: drop it with '
        'config.model.drop_branches'
      )
    return left

  return edit_branches(architecture, edit)


def kernel_sizes(
  architecture: rows.Architecture, texts: Sequence[str]
) -> rows.Architecture:
  """Sets kernels: of branches, of convolution layers or of one convolution.

  All sides above 1 change, of a group with only 1x1 kernels both sides of the
  last. The most precise name counts.

  Raises:
    ValueError: there is no such branch, layer or convolution, or a size is no
      whole number from 1 to `MAX_KERNEL`.
  """
  sizes = {
    key: number(text, value, 1, MAX_KERNEL)
    for text, (key, value) in zip(texts, map(pair, texts), strict=True)
  }
  known: list[str] = []

  def edit_group(ops: Any, row: str, names: Sequence[str]) -> Any:
    convs = found_in(ops, rows.Conv)
    known.extend((*names, *(f'{row}/{conv.name}' for conv in convs)))
    wide = [conv for conv in convs if conv.shape != (1, 1)] or convs[-1:]

    def resize(conv: rows.Conv) -> rows.Conv:
      keys = [*(names if conv in wide else ()), f'{row}/{conv.name}']
      keys = [key for key in keys if key in sizes]
      return _resized(conv, sizes[max(keys, key=len)]) if keys else conv

    return each(ops, rows.Conv, resize)

  def edit_branch(block: rows.Block, branch: rows.Branch) -> rows.Branch:
    keys = _keys_of(block, branch)
    # 'pool=3' would seem to be the window of the pooling.
    return edit_group(branch, block.name, () if keys[0] == 'pool' else keys)

  edited = edit_branches(architecture, edit_branch)
  stages = each(
    edited.stages,
    rows.ConvLayer,
    lambda row: row._replace(
      convs=edit_group(row.convs, row.name, (row.name,))
    ),
  )
  check_keys('kernels', list(sizes), known)
  return architecture._replace(stages=stages)


def _resized(conv: rows.Conv, size: int) -> rows.Conv:
  height, width = conv.shape
  wanted: Any = size
  if height != width:
    wanted = tuple(size if side > 1 else 1 for side in conv.shape)
  # Numbers of pixels that stand for 'SAME' stay so.
  padding = conv.padding
  if height == width and padding == (height - 1) // 2:
    padding = (size - 1) // 2
  return conv._replace(kernel_size=wanted, padding=padding)
