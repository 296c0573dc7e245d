"""Ablations: fields of the `model` section that edit the rows of a network.

  drop_branches ('5x5', 'inception_3a/pool')     blocks without these branches
  block_pool    'average'                        another pooling in blocks
  kernel_sizes  ('5x5=3', 'conv_1/conv_7x7=5')   other kernels
  stage_widths  ('3=0.5',)                       a factor for widths of a stage
  stage_depths  ('4=3',)                         the number of blocks of a stage
  stage_blocks  ('4=inception_v2',)              the kind of block of a stage
  aux_after     ('inception_4b',)                where auxiliary heads sit

A branch has the name of its first convolution, without `conv_` and `_reduce`;
one that begins with pooling is `pool`. What remains keeps its names. Blocks
that halve the map (grid reductions) lose branches and change kernels and widths
like others; they are not counted, replaced or pooled otherwise.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections

from googlenet.errors import UserError, did_you_mean
from googlenet.model import blocks, graph, rows
from googlenet.model.blocks import MakeBlock, Widths
from googlenet.model.successors import se_inception

MAX_DEPTH = 20  # blocks of a stage
MAX_KERNEL = 31  # pixels a side


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
_POOLS = (rows.MaxPool, rows.AvgPool)


def changed(model_config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the ablations of a `model` section that are on, by field."""
  values = {name: model_config[name] for name in _EDITS}
  return {
    name: value if isinstance(value, str) else tuple(value)
    for name, value in values.items()
    if value != 'auto' and len(value)
  }


def describe(model_config: ml_collections.ConfigDict) -> str:
  """Returns the name of a network, with its ablations."""
  found = [f'{name}={value}' for name, value in changed(model_config).items()]
  return ' '.join([model_config.variant, *found])


def apply(
  architecture: rows.Architecture, model_config: ml_collections.ConfigDict
) -> rows.Architecture:
  """Returns a network with the ablations of the `model` section.

  Args:
    architecture: with its fields left open.
    model_config: the section.

  Raises:
    UserError: an ablation is not possible in this network.
  """
  wanted = changed(model_config)
  if not wanted:
    return architecture
  has_heads = architecture.uses_aux_heads
  if model_config.aux_heads != 'auto':
    has_heads = model_config.aux_heads == 'on'
  name = ''
  try:
    for name, edit in _EDITS.items():
      if name in wanted:
        architecture = edit(architecture, wanted[name])
    name = next(iter(wanted))
    graph.graph(architecture._replace(aux_heads=()), (512, 512, 3))
    if has_heads:
      _check_heads(architecture)
    elif 'aux_after' in wanted:
      name = 'aux_after'
      raise ValueError("has its heads off: give config.model.aux_heads='on'")
  except UserError:  # of an operation of the user's
    raise
  except ValueError as error:
    raise UserError(
      f'config.model.{name}={wanted[name]!r}: the network '
      f'{model_config.variant!r} {error}',
      f'model.{name}',
    ) from error
  return architecture


def _each(node: Any, kind: Any, edit: Callable[[Any], Any]) -> Any:
  """Edits all rows of one or several types in a tree of tuples."""
  if isinstance(node, kind):
    return edit(node)
  if not isinstance(node, tuple):
    return node
  parts = [_each(part, kind, edit) for part in node]
  return type(node)(*parts) if hasattr(node, '_fields') else tuple(parts)


def _found(node: Any, kind: Any) -> list[Any]:
  """Returns all rows of one or several types in a tree of tuples."""
  found: list[Any] = []
  _each(node, kind, found.append)
  return found


def branch_name(branch: rows.Branch) -> str:
  """Returns the name of a branch: '1x1', 'double_3x3', 'pool'."""
  if isinstance(branch[0], (*_POOLS, rows.AdaptiveAvgPool)):
    return 'pool'
  named = _found(branch, (rows.Conv, rows.Own))
  if not named:
    return graph.kind_of(branch[0])
  return re.sub('^conv_|_reduce$|_proj$', '', named[0].name)


def _blocks(architecture: rows.Architecture) -> tuple[rows.Block, ...]:
  return tuple(_found(architecture.stages, rows.Block))


def _edit_branches(
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

  stages = _each(architecture.stages, rows.Block, edit_block)
  return architecture._replace(stages=stages)


def _check_keys(what: str, keys: Sequence[str], known: Sequence[str]) -> None:
  """Checks names; of those with a '/', only whether they are known."""
  for key in keys:
    if key not in known:
      short = dict.fromkeys(name for name in known if '/' not in name)
      has = f'; it has {", ".join(short)}' if short else ''
      raise ValueError(f'has no {what} {key!r}{did_you_mean(key, known)}{has}')


def _branch_keys(architecture: rows.Architecture) -> list[str]:
  """Returns the names of branches, alone and with their block."""
  return [
    key
    for block in _blocks(architecture)
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
  _check_keys('branch', names, _branch_keys(architecture))
  return _edit_branches(
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
    pool.stride == 1 for pool in _found(_blocks(architecture), _POOLS)
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

    left = clean(_each(branch, _POOLS, replace))
    if not left:
      raise ValueError(
        f'has a branch {block.name}/pool of pooling alone: drop it with '
        'config.model.drop_branches'
      )
    return left

  return _edit_branches(architecture, edit)


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
    key: _number(text, value, 1, MAX_KERNEL)
    for text, (key, value) in zip(texts, map(_pair, texts), strict=True)
  }
  known: list[str] = []

  def edit_group(ops: Any, row: str, names: Sequence[str]) -> Any:
    convs = _found(ops, rows.Conv)
    known.extend((*names, *(f'{row}/{conv.name}' for conv in convs)))
    wide = [conv for conv in convs if conv.shape != (1, 1)] or convs[-1:]

    def resize(conv: rows.Conv) -> rows.Conv:
      keys = [*(names if conv in wide else ()), f'{row}/{conv.name}']
      keys = [key for key in keys if key in sizes]
      return _resized(conv, sizes[max(keys, key=len)]) if keys else conv

    return _each(ops, rows.Conv, resize)

  def edit_branch(block: rows.Block, branch: rows.Branch) -> rows.Branch:
    keys = _keys_of(block, branch)
    # 'pool=3' would seem to be the window of the pooling.
    return edit_group(branch, block.name, () if keys[0] == 'pool' else keys)

  edited = _edit_branches(architecture, edit_branch)
  stages = _each(
    edited.stages,
    rows.ConvLayer,
    lambda row: row._replace(
      convs=edit_group(row.convs, row.name, (row.name,))
    ),
  )
  _check_keys('kernels', list(sizes), known)
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


def _pair(text: str) -> tuple[str, str]:
  key, _, value = text.partition('=')
  return key, value


def _number(text: str, value: str, low: int, high: int) -> int:
  if not value.isdecimal() or not low <= int(value) <= high:
    raise ValueError(f'takes in {text!r} a whole number from {low} to {high}')
  return int(value)


def _by_stage(
  architecture: rows.Architecture,
  texts: Sequence[str],
  edit: Callable[[rows.Stage, str], rows.Stage],
) -> rows.Architecture:
  """Edits stages: '3=...' is 'stage_3=...'; edit(stage, what follows)."""
  names = [stage.name for stage in architecture.stages]
  values = {}
  for key, value in map(_pair, texts):
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
    if not any(conv.width for conv in _found(stage.rows, rows.Conv)):
      raise ValueError(
        f'has in {stage.name} no widths but the number of classes'
      )

    def scale(row: Any) -> Any:
      if row.width == rows.CLASSES:
        return row
      return row._replace(width=max(round(row.width * factor), 1))

    return stage._replace(
      rows=_each(stage.rows, (rows.Conv, rows.Residual), scale)
    )

  return _by_stage(architecture, texts, edit)


def _is_counted(row: Any) -> bool:
  """Whether a row is a block that keeps height and width."""
  return isinstance(row, rows.Block) and all(
    op.stride == 1 for op in _found(row, (rows.Conv, *_POOLS))
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
  taken = {block.name for block in _blocks(architecture)}

  def edit(stage: rows.Stage, value: str) -> rows.Stage:
    count = _number(f'{stage.name}={value}', value, 1, MAX_DEPTH)
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
  for number in range(2, 10_000):
    yield f'{name}_{number}'


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
  return _found(branch, rows.Conv)[-1].width


def aux_after(
  architecture: rows.Architecture, names: Sequence[str]
) -> rows.Architecture:
  """Puts auxiliary heads after these rows, as many as there are names.

  The first ones are those of the network; more are like its last one.

  Raises:
    ValueError: the network has no heads, or no such row.
  """
  heads = architecture.aux_heads
  if not heads:
    raise ValueError('has no auxiliary heads')
  known = [
    row.name
    for stage in architecture.stages
    for row in stage.rows
    if hasattr(row, 'name')
  ]
  _check_keys('row', names, known)
  more = [
    heads[-1]._replace(name=f'aux_{i + 1}')
    for i in range(len(heads), len(names))
  ]
  return architecture._replace(
    aux_heads=tuple(
      head._replace(after=name)
      for head, name in zip((*heads, *more), names, strict=False)
    )
  )


def _check_heads(architecture: rows.Architecture) -> None:
  """Raises ValueError if a head stands after a row that is gone."""
  known = {
    getattr(row, 'name', '')
    for stage in architecture.stages
    for row in stage.rows
  }
  for head in architecture.aux_heads:
    if head.after not in known:
      raise ValueError(
        f'would lose {head.after}, after which its head {head.name} sits: give '
        "config.model.aux_after, or config.model.aux_heads='off'"
      )


# The edit of each field, in the order in which they are made.
_EDITS: dict[str, Callable[[rows.Architecture, Any], rows.Architecture]] = {
  'stage_blocks': stage_blocks,
  'stage_depths': stage_depths,
  'kernel_sizes': kernel_sizes,
  'block_pool': block_pool,
  'drop_branches': drop_branches,
  'stage_widths': stage_widths,
  'aux_after': aux_after,
}
FIELDS = tuple(_EDITS)
