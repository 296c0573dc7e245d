"""Every point of a network can be read and replaced.

image_gradients_test.py differentiates points by the image.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import XLA, images, make, model_config

from googlenet import kernels as kernels_lib
from googlenet.errors import UserError
from googlenet.model import network as network_lib
from googlenet.model import points, variants
from googlenet.tools.inference import channels, edits

IMAGES = images(2, 28, 28, 1)
ALL_KERNELS = pytest.mark.parametrize(
  'kernels', [name for name in kernels_lib.KERNELS if name != 'onednn']
)


@functools.cache
def tiny(kernels='xla', normalization='lrn'):
  return make(
    (28, 28, 1), variant='tiny', kernels=kernels, normalization=normalization
  )


def run(found, end_points=(), edit=None, x=IMAGES):
  network, params, state = found
  outputs, _ = network.apply(
    params, state, None, x, False, end_points=end_points, edit=edit
  )
  return outputs


def test_points_are_what_their_names_say():
  """By hand, from the parameters: the stem and a block of the tiny network."""
  network, params, _ = tiny()
  names = points.shapes(network.architecture)
  found = run(tiny(), names).end_points
  np.testing.assert_array_equal(found['images'], IMAGES)

  def conv(x, name, stride=1):
    p = params[name]
    return XLA.conv(x, p['w'], stride=stride) + p['b']

  pre = conv(IMAGES, 'conv_1/conv_7x7', 2)
  expected = {
    'conv_1/conv_7x7:pre': pre,
    'conv_1:pre': pre,
    'conv_1/conv_7x7': jax.nn.relu(pre),
    'conv_1': jax.nn.relu(pre),
    'stage_1/max_pool': (y := XLA.max_pool(jax.nn.relu(pre), 3, 2, 'SAME')),
    'stage_1/local_response_norm': (y := XLA.lrn(y)),
    'stage_1': y,
    'inception_2a/max_pool': (pooled := XLA.max_pool(y, 3, 1, 'SAME')),
  }
  pres = []
  for branch in ('1x1', '3x3', '5x5', 'pool'):
    last = 'pool_proj' if branch == 'pool' else f'conv_{branch}'
    x = pooled if branch == 'pool' else y
    if branch in ('3x3', '5x5'):
      name = f'inception_2a/{last}_reduce'
      expected[f'{name}:pre'] = conv(x, name)
      expected[name] = x = jax.nn.relu(conv(x, name))
    pres.append(conv(x, f'inception_2a/{last}'))
    expected[f'inception_2a/{last}:pre'] = pres[-1]
    expected[f'inception_2a/{last}'] = jax.nn.relu(pres[-1])
  expected['inception_2a:pre'] = block = jnp.concatenate(pres, -1)
  expected['inception_2a'] = jax.nn.relu(block)
  expected['stage_2'] = mean = jax.nn.relu(block).mean((1, 2))
  expected['stage_2/global_mean'] = expected['head/dropout'] = mean
  p = params['logits']
  expected['logits'] = mean @ p['w'] + p['b']
  assert set(names) == {'images', *expected}
  for name, value in expected.items():
    np.testing.assert_allclose(
      found[name], value, rtol=1e-4, atol=1e-5, err_msg=name
    )


@ALL_KERNELS
@pytest.mark.parametrize('normalization', ['none', 'batch'])
def test_reading_changes_nothing(kernels, normalization):
  """Also where a fused kernel hides the point otherwise."""
  found = tiny(kernels, normalization)
  names = points.shapes(found[0].architecture)
  plain = run(found)
  assert plain.end_points == {}
  read = run(found, names)
  np.testing.assert_array_equal(read.logits, plain.logits)
  reference = run(tiny('xla', normalization), names).end_points
  for name, value in reference.items():
    np.testing.assert_allclose(
      read.end_points[name], value, rtol=1e-3, atol=1e-5, err_msg=name
    )


@ALL_KERNELS
def test_an_edit_that_changes_nothing_changes_no_bit(kernels):
  found = tiny(kernels)
  names = [
    name
    for name in points.shapes(found[0].architecture)
    if name not in ('conv_1:pre', 'inception_2a:pre')
  ]
  edited = run(found, edit=dict.fromkeys(names, lambda x: x))
  np.testing.assert_array_equal(edited.logits, run(found).logits)


@ALL_KERNELS
def test_a_channel_without_weights_is_an_ablated_channel(kernels):
  found = network, params, state = tiny(kernels)
  name = 'inception_2a/conv_3x3_reduce'
  silent = jax.tree.map(jnp.asarray, params)
  silent[name] = jax.tree.map(lambda w: w.at[..., 2].set(0), silent[name])
  expected = run((network, silent, state)).logits
  for point in (name, f'{name}:pre', 'mixed2a_3x3_bottleneck'):
    edit = {point: edits.ablate(2)}
    np.testing.assert_allclose(
      run(found, edit=edit).logits, expected, atol=1e-6
    )
  assert np.abs(expected - run(found).logits).max() > 1e-4


def test_the_activation_of_another_image_takes_its_place():
  """What comes after depends on the patched map alone."""
  found, other = tiny(), IMAGES[::-1]
  for point in ('conv_1', 'stage_1', 'inception_2a', 'stage_2'):
    theirs = run(found, [point], x=other)
    edit = {point: edits.replace(theirs.end_points[point])}
    patched = run(found, ['logits'], edit)
    np.testing.assert_allclose(patched.logits, theirs.logits, atol=1e-6)
  mean = run(found, ['stage_1']).end_points['stage_1'].mean((0, 1, 2))
  out = run(found, ['stage_1'], {'stage_1': edits.replace(mean, [1, 3])})
  kept = run(found, ['stage_1']).end_points['stage_1']
  for channel in range(8):
    expected = mean[channel] if channel in (1, 3) else kept[..., channel]
    got = out.end_points['stage_1'][..., channel]
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape))


def test_names_of_lucid():
  network = network_lib.make_network(model_config(variant='paper'))
  architecture = network.architecture
  for theirs, ours in {
    'conv2d0_pre_relu': 'conv_1/conv_7x7:pre',
    'conv2d2': 'conv_2/conv_3x3',
    'localresponsenorm1': 'stage_2/local_response_norm',
    'maxpool10': 'stage_4/max_pool',
    'mixed3b': 'inception_3b',
    'mixed4a_pre_relu': 'inception_4a:pre',
    'mixed4c_3x3_bottleneck_pre_relu': 'inception_4c/conv_3x3_reduce:pre',
    'mixed5b_pool_reduce': 'inception_5b/pool_proj',
    'nn0': 'aux_1/fc',
    'softmax2_pre_activation': 'logits',
  }.items():
    assert points.resolve(theirs, architecture) == ours
    assert points.to_lucid(ours) == theirs
  shapes = points.shapes(architecture, (224, 224, 3))
  assert shapes['inception_4c/conv_3x3'] == (14, 14, 256)
  for name in shapes:
    alias = points.to_lucid(name)
    assert not alias or points.resolve(alias, architecture) == name


def test_residual_blocks_and_gates_have_points():
  residual, se = (
    points.shapes(variants.resolve(model_config(variant=name)))
    for name in ('residual', 'se')
  )
  assert residual['inception_3a:pre'] == residual['inception_3a/add']
  assert 'inception_3a/linear' in residual
  assert se['inception_3a/se_expand'] == (256,)
  assert 'inception_3a:pre' not in se  # the gates come after the activation


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (
      {'end_points': ['inception_2a/conv_3x3_reduc']},
      'did you mean .inception_2a/conv_3x3_reduce',
    ),
    ({'end_points': ['mixed9z']}, '--mode=summary --points'),
    (
      {'edit': {'logit': jnp.abs}},
      "'logit' is no point.*did you mean 'logits'",
    ),
    (
      {'edit': {'inception_2a:pre': jnp.abs}},
      'can only be read: name one of its parts, inception_2a/conv_1x1:pre, ',
    ),
  ],
)
def test_points_that_do_not_exist(options, words):
  with pytest.raises(UserError, match=words):
    run(tiny(), **options)


@pytest.mark.parametrize(
  ('edit', 'words'),
  [
    (
      lambda x: x[..., :1],
      r"^edit of 'conv_1': the function gives a value of shape "
      r'\(2, 14, 14, 1\); allowed is an array of the shape of its map, '
      r'\(2, 14, 14, 8\)$',
    ),
    (lambda x: None, "^edit of 'conv_1': .* gives a value of type NoneType; "),
    (np.zeros(8), "^edit of 'conv_1': a value of type ndarray; allowed is a "),
    (
      edits.ablate(2, 8),
      "^edit of 'conv_1': channels=8: the point has channels 0 to 7$",
    ),
  ],
)
def test_edits_that_are_not_allowed(edit, words):
  with pytest.raises(UserError, match=words):
    run(tiny(), edit={'conv_1': edit})


def test_two_names_of_an_edited_point_are_refused():
  twice = {'inception_2a': edits.ablate(0), 'mixed2a': edits.ablate(1)}
  words = "^edit: 'inception_2a' and 'mixed2a' are the same point: give one "
  with pytest.raises(UserError, match=words):
    run(tiny(), edit=twice)


@pytest.mark.parametrize('channel', [-1, 1.5, 'a'])
def test_an_ablated_channel_is_a_whole_number_from_0(channel):
  with pytest.raises(UserError, match=r'^channels=.* is no channel: allowed'):
    edits.ablate(channel)


def test_replaced_channels_are_a_list():
  with pytest.raises(UserError, match=r'^channels=5 is no list .*such as .5.$'):
    edits.replace(0.0, 5)


def test_channels_as_text():
  architecture = tiny()[0].architecture

  def parse(text):
    return channels.parse(text, architecture, ('Shirt', 'T-shirt/top'))

  assert parse('inception_2a:3, conv_1:0-2,logits:1,conv_1:1') == (
    ('inception_2a', 3),
    ('conv_1', 0),
    ('conv_1', 1),
    ('conv_1', 2),
    ('logits', 1),
  )
  assert parse('logits:T-shirt/top') == (('logits', 1),)
  assert parse('conv2d0_pre_relu:7') == (('conv_1/conv_7x7:pre', 7),)
  assert len(parse('inception_2a:pre')) == 28
  assert parse('inception_2a/conv_1x1:pre:0-1')[1].index == 1
  for text, words in {
    '': 'name channels',
    'conv_1:8': 'conv_1 has channels 0 to 7',
    'conv_1:3-1': 'the range is reversed: give conv_1:1-3',
    'conv_2:1': "'conv_2' is no point of the network, did you mean 'conv_1'",
    'logits:Shir': "'Shir' is no class, did you mean 'Shirt'",
  }.items():
    with pytest.raises(UserError, match=words):
      parse(text)
