"""Inception v3, with the layers of torchvision.models.inception_v3.

Szegedy et al., 2015 (arXiv 1512.00567), Table 1, in the version of TF-slim,
where the published weights come from: 299x299, 23.8 M parameters.

`INCEPTION_FID` is the network by which FID, KID and the Inception Score are
defined: the graph of TensorFlow's classify_image example (inception-2015-12-05,
1,008 outputs). It has the same convolutions. Its average pools do not count
padding, and the pool of its last block takes the maximum.
"""

from googlenet.model.rows import (
  LOGITS,
  AdaptiveAvgPool,
  Architecture,
  AuxHead,
  AvgPool,
  Block,
  Branch,
  Conv,
  ConvLayer,
  Flatten,
  Fork,
  MaxPool,
  Row,
  Stage,
)

_POOL = MaxPool(3, 2, 'VALID')


def _pool_proj(width: int) -> Branch:
  return (
    AvgPool(3, 1, 'SAME', count_padding=True),
    Conv('pool_proj', width, 1),
  )


def _a(name: str, pool_proj: int) -> Block:
  """35x35 maps; figure 5, but one branch keeps its 5x5."""
  return Block(
    name,
    (
      (Conv('conv_1x1', 64, 1),),
      (Conv('conv_5x5_reduce', 48, 1), Conv('conv_5x5', 64, 5)),
      (
        Conv('conv_double_3x3_reduce', 64, 1),
        Conv('conv_double_3x3_1', 96, 3),
        Conv('conv_double_3x3_2', 96, 3),
      ),
      _pool_proj(pool_proj),
    ),
  )


def _b(name: str, width: int) -> Block:
  """17x17 maps, figure 6: 7x7 as 1x7 and 7x1."""
  return Block(
    name,
    (
      (Conv('conv_1x1', 192, 1),),
      (
        Conv('conv_7x7_reduce', width, 1),
        Conv('conv_1x7', width, (1, 7)),
        Conv('conv_7x1', 192, (7, 1)),
      ),
      (
        Conv('conv_double_7x7_reduce', width, 1),
        Conv('conv_double_7x1_1', width, (7, 1)),
        Conv('conv_double_1x7_1', width, (1, 7)),
        Conv('conv_double_7x1_2', width, (7, 1)),
        Conv('conv_double_1x7_2', 192, (1, 7)),
      ),
      _pool_proj(192),
    ),
  )


def _c(name: str) -> Block:
  """8x8 maps, figure 7: 1x3 and 3x1 in parallel."""

  def fork(prefix: str) -> Fork:
    return Fork(
      (
        (Conv(f'{prefix}_1x3', 384, (1, 3)),),
        (Conv(f'{prefix}_3x1', 384, (3, 1)),),
      )
    )

  return Block(
    name,
    (
      (Conv('conv_1x1', 320, 1),),
      (Conv('conv_3x3_reduce', 384, 1), fork('conv')),
      (
        Conv('conv_double_3x3_reduce', 448, 1),
        Conv('conv_double_3x3', 384, 3),
        fork('conv_double'),
      ),
      _pool_proj(192),
    ),
  )


_REDUCTION_A = Block(
  'reduction_6a',
  (
    (Conv('conv_3x3', 384, 3, 2, 'VALID'),),
    (
      Conv('conv_double_3x3_reduce', 64, 1),
      Conv('conv_double_3x3_1', 96, 3),
      Conv('conv_double_3x3_2', 96, 3, 2, 'VALID'),
    ),
    (_POOL,),
  ),
)

_REDUCTION_B = Block(
  'reduction_7a',
  (
    (Conv('conv_3x3_reduce', 192, 1), Conv('conv_3x3', 320, 3, 2, 'VALID')),
    (
      Conv('conv_7x7_reduce', 192, 1),
      Conv('conv_1x7', 192, (1, 7)),
      Conv('conv_7x1', 192, (7, 1)),
      Conv('conv_7x7_3x3', 192, 3, 2, 'VALID'),
    ),
    (_POOL,),
  ),
)

INCEPTION_V3 = Architecture(
  (
    Stage(
      'stage_1',
      (
        ConvLayer(
          'conv_1',
          (
            Conv('conv_3x3_1', 32, 3, 2, 'VALID'),
            Conv('conv_3x3_2', 32, 3, 1, 'VALID'),
            Conv('conv_3x3_3', 64, 3),
          ),
        ),
        _POOL,
      ),
    ),
    Stage(
      'stage_2',
      (
        ConvLayer(
          'conv_2',
          (
            Conv('conv_3x3_reduce', 80, 1),
            Conv('conv_3x3', 192, 3, 1, 'VALID'),
          ),
        ),
        _POOL,
      ),
    ),
    Stage(
      'stage_3',
      (
        _a('inception_5b', 32),
        _a('inception_5c', 64),
        _a('inception_5d', 64),
      ),
    ),
    Stage(
      'stage_4',
      (
        _REDUCTION_A,
        _b('inception_6b', 128),
        _b('inception_6c', 160),
        _b('inception_6d', 160),
        _b('inception_6e', 192),
      ),
    ),
    Stage(
      'stage_5',
      (_REDUCTION_B, _c('inception_7b'), _c('inception_7c')),
    ),
  ),
  aux_heads=(
    AuxHead(
      'aux_1',
      'inception_6e',
      (
        AvgPool(5, 3, 'VALID'),
        Conv('conv_1x1', 128, 1),
        Conv('conv_5x5', 768, 5, 1, 'VALID'),
        AdaptiveAvgPool(1),
        Flatten(),
        LOGITS,
      ),
    ),
  ),
  uses_aux_heads=True,
  normalization='batch',
  dropout=0.5,
)


def _pooled_as_in_2015(row: Row) -> Row:
  """Returns a block with the pool that the graph of 2015 has before its 1x1."""
  if not row.name.startswith('inception_'):
    return row
  *branches, (_, projection) = row.branches
  pool = MaxPool(3, 1) if row.name == 'inception_7c' else AvgPool(3, 1)
  return row._replace(branches=(*branches, (pool, projection)))


INCEPTION_FID = INCEPTION_V3._replace(
  stages=tuple(
    stage._replace(rows=tuple(map(_pooled_as_in_2015, stage.rows)))
    if i > 2
    else stage
    for i, stage in enumerate(INCEPTION_V3.stages, start=1)
  ),
  aux_heads=(),
  uses_aux_heads=False,
)
