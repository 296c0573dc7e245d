"""Ablations: the rows that each field makes, in every network or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SMALL, VARIANTS, images, make, model_config

from googlenet.errors import UserError
from googlenet.model import ablations, graph, variants
from googlenet.model import network as network_lib
from googlenet.model.architecture_text import to_text
from googlenet.model.rows import (
  LOGITS,
  Architecture,
  AvgPool,
  Block,
  Conv,
  ConvLayer,
  GlobalMean,
  MaxPool,
  Residual,
  Stage,
)

ONE = (Conv('conv_1x1', 8, 1),)
THREE = (Conv('conv_3x3_reduce', 8, 1), Conv('conv_3x3', 12, 3))
FIVE = (Conv('conv_5x5_reduce', 4, 1), Conv('conv_5x5', 4, 5))
POOL = (MaxPool(3, 1), Conv('pool_proj', 4, 1))


def of_tiny(**fields):
  """The blocks of stage 2 of `tiny`, and the first convolution."""
  found = variants.architecture_of(model_config(variant='tiny', **fields))
  first, second = found.stages
  return second.rows, first.rows[0].convs


@pytest.mark.parametrize(
  ('field', 'value', 'branches'),
  [
    ('drop_branches', ('5x5',), (ONE, THREE, POOL)),
    ('drop_branches', ('inception_2a/1x1', 'pool'), (THREE, FIVE)),
    ('block_pool', 'max', (ONE, THREE, FIVE, POOL)),
    (
      'block_pool',
      'average',
      (ONE, THREE, FIVE, (AvgPool(3, 1), Conv('pool_proj', 4, 1))),
    ),
    ('block_pool', 'none', (ONE, THREE, FIVE, POOL[1:])),
    (
      'kernel_sizes',
      ('5x5=3', '1x1=5', 'inception_2a/conv_3x3_reduce=2'),
      (
        (Conv('conv_1x1', 8, 5),),
        (Conv('conv_3x3_reduce', 8, 2), Conv('conv_3x3', 12, 3)),
        (Conv('conv_5x5_reduce', 4, 1), Conv('conv_5x5', 4, 3)),
        POOL,
      ),
    ),
    (
      'stage_widths',
      ('2=0.5',),
      (
        (Conv('conv_1x1', 4, 1),),
        (Conv('conv_3x3_reduce', 4, 1), Conv('conv_3x3', 6, 3)),
        (Conv('conv_5x5_reduce', 2, 1), Conv('conv_5x5', 2, 5)),
        (MaxPool(3, 1), Conv('pool_proj', 2, 1)),
      ),
    ),
    (
      'stage_blocks',
      ('stage_2=inception_v2',),
      (
        ONE,
        THREE,
        (
          Conv('conv_double_3x3_reduce', 4, 1),
          Conv('conv_double_3x3_1', 4, 3),
          Conv('conv_double_3x3_2', 4, 3),
        ),
        POOL,
      ),
    ),
    ('stage_blocks', ('2=conv_3x3',), ((Conv('conv_3x3', 28, 3),),)),
  ],
)
def test_the_rows_of_an_edited_block(field, value, branches):
  blocks, first = of_tiny(**{field: value})
  assert blocks == (Block('inception_2a', branches),)
  assert first == (Conv('conv_7x7', 8, 7, stride=2),)


def test_rows_that_no_field_names_stay():
  assert of_tiny(kernel_sizes=('conv_1=3',)) == (
    (Block('inception_2a', (ONE, THREE, FIVE, POOL)),),
    (Conv('conv_7x7', 8, 3, stride=2),),
  )
  # 3 pixels around a 7x7 are 'SAME', so a 3x3 has one of them.
  paper = variants.architecture_of(
    model_config(variant='paper', kernel_sizes=('conv_1=3',))
  )
  assert paper.stages[0].rows[0].convs == (Conv('conv_7x7', 64, 3, 2, 1),)
  plain = variants.architecture_of(model_config())
  assert plain is variants.PLAIN


def names_of(stage):
  return [row.name for row in stage.rows if isinstance(row, Block)]


def test_depths_repeat_the_last_block_or_leave_it_out():
  found = variants.architecture_of(
    model_config(variant='factorized', stage_depths=('3=4', '4=1'))
  )
  stages = {stage.name: stage for stage in found.stages}
  assert names_of(stages['stage_3']) == [
    *('inception_3a', 'inception_3b', 'inception_3c', 'inception_3d'),
    'reduction_3',
  ]
  second, third = stages['stage_3'].rows[1:3]
  assert third == second._replace(name='inception_3c')
  assert names_of(stages['stage_4']) == ['inception_4a', 'reduction_4']
  # Inception v3 begins stages with a reduction, and names blocks otherwise.
  found = variants.architecture_of(
    model_config(variant='inception_v3', stage_depths=('4=5',), aux_heads='off')
  )
  assert names_of(found.stages[3]) == [
    'reduction_6a',
    *(f'inception_6{letter}' for letter in 'bcdef'),
  ]


def test_widths_of_a_stage_with_residuals_and_of_the_classes():
  residual = variants.architecture_of(
    model_config(variant='residual', stage_widths=('3=0.25',))
  )
  assert residual.stages[2].rows[0].residual == Residual(64, 0.2)
  assert residual.stages[3] == variants.RESIDUAL.stages[3]


def test_heads_sit_after_other_rows():
  heads = variants.architecture_of(
    model_config(
      variant='paper', aux_after=('inception_3b', 'conv_2', 'inception_5a')
    )
  ).aux_heads
  assert [(head.name, head.after) for head in heads] == [
    ('aux_1', 'inception_3b'),
    ('aux_2', 'conv_2'),
    ('aux_3', 'inception_5a'),
  ]
  assert len({head.ops for head in heads}) == 1
  config = model_config(variant='tiny', aux_heads='on', aux_after=('conv_1',))
  params, out = shapes_of(config, 64)
  assert out.aux_logits['aux_1'].shape == (2, 10)
  # Its convolution sees the 8 channels of conv_1.
  assert params['aux_1/conv_1x1']['w'].shape == (1, 1, 8, 4)


def shapes_of(config, side):
  """Shapes of the parameters and of the outputs for two images."""
  network = network_lib.make_network(config)
  x = jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32)
  params, state = jax.eval_shape(network.init, jax.random.key(0), x)
  out, _ = jax.eval_shape(
    lambda params, state, x: network.apply(params, state, None, x, False),
    *(params, state, x),
  )
  return params, out


def test_what_remains_computes_the_same():
  """Without the 5x5, a block gives its other channels."""
  whole, params, state = make((28, 28, 1), variant='tiny')
  part, fewer, _ = make((28, 28, 1), variant='tiny', drop_branches=('5x5',))
  assert fewer.keys() == params.keys() - {
    'inception_2a/conv_5x5_reduce',
    'inception_2a/conv_5x5',
  }
  x, points = images(2, 28, 28, 1), ('inception_2a',)

  def block(network, values):
    out, _ = network.apply(values, state, None, x, False, points)
    return np.asarray(out.end_points['inception_2a'])

  kept = {name: params[name] for name in fewer} | {'logits': fewer['logits']}
  np.testing.assert_allclose(
    block(part, kept),
    np.delete(block(whole, params), slice(20, 24), axis=-1),
    atol=1e-6,
  )


CASES = [
  *({'drop_branches': (name,)} for name in ('1x1', '5x5', 'pool', '7x7')),
  *({'block_pool': kind} for kind in ('average', 'none')),
  *(
    {'kernel_sizes': (text,)} for text in ('3x3=5', 'conv_1=3', 'double_3x3=1')
  ),
  {'stage_widths': ('2=1.5', '3=0.5')},
  {'stage_depths': ('3=3', '4=1', '5=1')},
  *({'stage_blocks': (f'4={kind}',)} for kind in ablations.KINDS),
  {'aux_heads': 'on', 'aux_after': ('inception_3b', 'inception_5a')},
  {
    'drop_branches': ('pool',),
    'kernel_sizes': ('3x3=5',),
    'stage_blocks': ('4=residual', '5=inception_c'),
    'stage_depths': ('5=3',),
    'stage_widths': ('5=0.3',),
  },
]
# Some of the networks that take a field, by field.
HAVE_BLOCKS = {
  *('plain', 'paper', 'torchvision', 'bn', 'inception_v2', 'factorized'),
  *('residual', 'se', 'inception_v3', 'inception5h', 'fmnist28'),
}


def resolved(variant, fields):
  """The network, or None where a line refuses it."""
  heads = {'aux_heads': 'off', **fields}
  refused = ''
  try:
    return variants.resolve(model_config(variant=variant, **heads))
  except UserError as error:
    refused = str(error)
  field = refused.partition('=')[0].removeprefix('config.model.')
  assert field in ablations.FIELDS
  assert '\n' not in refused
  assert len(refused) < 600
  return None


@VARIANTS
def test_every_network_takes_a_field_or_refuses_it(variant):
  taken = {
    next(iter(case)) for case in CASES if resolved(variant, case) is not None
  }
  if variant in HAVE_BLOCKS:
    assert taken >= {'kernel_sizes', 'stage_widths', 'stage_blocks'}
    assert taken >= {'drop_branches', 'stage_depths'}
  else:
    assert 'kernel_sizes' in taken


@pytest.mark.slow
@VARIANTS
@pytest.mark.parametrize('fields', CASES, ids=str)
def test_a_network_that_takes_a_field_can_be_computed(variant, fields):
  architecture = resolved(variant, fields)
  if architecture is None:
    return
  side = max(SMALL[variant], graph.smallest_image(architecture))
  params, out = shapes_of(
    model_config(variant=variant, **{'aux_heads': 'off', **fields}), side
  )
  assert out.logits.shape == (2, 10)
  assert len(out.aux_logits) == len(fields.get('aux_after', ()))
  counted = graph.graph(architecture, (side, side, 1))
  assert sum(layer.parameters for layer in counted) == sum(
    leaf.size for leaf in jax.tree.leaves(params)
  )


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (
      ["drop_branches=('7x7',)"],
      ["'tiny' has no branch '7x7'", 'it has 1x1, 3x3, 5x5, pool'],
    ),
    (
      ["drop_branches=('1x1','3x3','5x5','pool')"],
      ['no branch left in inception_2a'],
    ),
    (["drop_branches=('5x5','5x5')"], ['is not allowed', 'different branches']),
    (['block_pool=mean'], ['one of auto, max, average, none']),
    (["kernel_sizes=('pool=3',)"], ["no kernels 'pool'", 'conv_1']),
    (["kernel_sizes=('5x5=99',)"], ['whole number from 1 to 31']),
    (["kernel_sizes=('5x5',)"], ['name=size']),
    (["stage_widths=('3=2',)"], ["no stage '3'", 'stage_1, stage_2']),
    (["stage_widths=('2=0',)"], ['above 0']),
    (["stage_widths=('2=1','stage_2=2')"], ['stage_2 only once']),
    (["stage_depths=('1=2',)"], ['no blocks in stage_1', 'stage_2']),
    (["stage_depths=('2=0',)"], ['from 1 to 20']),
    (["stage_blocks=('2=vgg',)"], ['kinds inception, ']),
    (["aux_after=('conv_1',)"], ["config.model.aux_heads='on'"]),
    (
      ["aux_after=('stage_1',)", 'aux_heads=on'],
      ["no row 'stage_1'", 'conv_1, inception_2a'],
    ),
    (["aux_after=('conv_1','conv_1')", 'aux_heads=on'], ['different rows']),
  ],
)
def test_what_a_network_does_not_allow_is_one_line(
  flags, words, assert_refused
):
  given = [f'--config.model.{flag}' for flag in flags]
  assert_refused(given, [f'config.model.{flags[0].partition("=")[0]}', *words])


def test_branches_that_no_longer_fit_and_heads_that_are_lost_are_told():
  v3 = {'variant': 'inception_v3', 'kernel_sizes': ('3x3=5',)}
  for more in ({}, {'stage_depths': ('3=2',), 'block_pool': 'max'}):
    with pytest.raises(
      UserError,
      match='kernel_sizes=.*reduction_6a: its branches differ.*name them',
    ):
      variants.resolve(model_config(**v3, **more))
  # What does not fit may be dropped.
  left = ('reduction_6a/pool', 'reduction_6a/double_3x3')
  v3 |= {'kernel_sizes': ('reduction_6a/3x3=5',), 'drop_branches': left}
  assert variants.resolve(model_config(**v3)).stages
  with pytest.raises(
    UserError, match='depths=.*lose inception_4d.*aux_2.*aux_aft'
  ):
    variants.resolve(model_config(variant='paper', stage_depths=('4=2',)))
  block = Block('own', (ONE, (MaxPool(3, 1),)))
  text = to_text(
    Architecture(
      (Stage('a', (ConvLayer('c', (Conv('x', 4, 3),)), block)),),
      (GlobalMean(), LOGITS),
    )
  )
  own = {'variant': 'own', 'architecture': text}
  with pytest.raises(UserError, match='own/pool of pooling alone: drop it'):
    variants.resolve(model_config(**own, block_pool='none'))
  with pytest.raises(UserError, match='in own other branches than'):
    variants.resolve(model_config(**own, stage_blocks=('a=inception',)))
  found = variants.resolve(
    model_config(**own, drop_branches=('pool',), stage_depths=('a=2',))
  )
  assert [row.name for row in found.stages[0].rows] == ['c', 'own', 'own_2']
  assert found.stages[0].rows[1].branches == (ONE,)
