"""Odd arguments to a trained network: refused in one line, or meant so."""

import numpy as np
import pytest
from api_test import refused
from conftest import ROOT, small_config
from saved_run import save_run

import googlenet
from googlenet.data import pipeline
from googlenet.tools.circuits import expanded
from googlenet.tools.examples import ranking
from googlenet.tools.explain import cam, gradients, occlusion, sanity
from googlenet.tools.inference import edits
from googlenet.tools.inference.predict import Views
from googlenet.tools.visualize import dream, objectives, render

PHOTO = ROOT / 'docs/photos/bag.jpg'
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)


@pytest.fixture(scope='module')
def net(tmp_path_factory):
  config = small_config()
  config.model.num_classes = 10
  folder = tmp_path_factory.mktemp('runs') / 'run'
  return googlenet.load(save_run(folder, config))


def test_what_are_no_images(net):
  message = refused(net.predict, PIXELS[:, :0])
  assert 'images are (3, 0, 28, 1); the network takes 1 or more' in message
  for call in (net.predict, net.read):
    message = refused(call, list(PIXELS))
    assert 'images: a value of type ndarray in a list is not' in message
    for given in (None, 3):
      message = refused(call, given)
      assert f'a value of type {type(given).__name__} is not' in message
    assert 'of type int in a bytes' in refused(call, b'a.png')
  assert 'of type ndarray in a ndarray' in refused(net.read, PIXELS)


@pytest.mark.parametrize(
  'views',
  [
    *('false', None, 3, (True, 1, 1), Views(shift=-1), Views(shift=1.5)),
    *(Views(crops=3), Views('x'), Views(crops=0)),
  ],
)
def test_what_are_no_views(net, views):
  for given in (PIXELS, PHOTO):
    message = refused(net.predict, given, views)
    assert message.startswith(('views=', 'config.eval.'))
    assert 'is not allowed: it takes' in message


def test_views_may_be_numbers_of_numpy(net):
  np.testing.assert_array_equal(
    net.predict(PIXELS, Views(np.bool_(True), np.int64(1))),
    net.predict(PIXELS, Views(True, 1)),
  )
  np.testing.assert_array_equal(
    net.predict(PIXELS, np.bool_(False)), net.predict(PIXELS, False)
  )


def test_what_the_pure_function_refuses(net):
  def apply(images=PIXELS, *args, **kwargs):
    return net.apply(net.params, net.network_state, images, *args, **kwargs)

  assert 'images are int32 (3, 28, 28, 1)' in refused(
    apply, PIXELS.astype(np.int32)
  )
  assert 'images are uint8 (28, 28, 1)' in refused(apply, PIXELS[0])
  colour = np.repeat(PIXELS, 3, -1)
  assert 'images have 3 channel(s); the network takes 1' in refused(
    apply, colour
  )
  assert refused(apply, PIXELS, ['stage_1', 3]).startswith("end_points: '3' is")
  assert "'3' is no point" in refused(apply, edit={3: edits.ablate()})
  for edit in ([('stage_1', edits.ablate())], 'stage_1', edits.ablate()):
    expected = f'edit: a value of type {type(edit).__name__}; allowed is a dict'
    assert expected in refused(apply, edit=edit)
  for precision in (np.float32, None, 3):
    expected = f'precision={precision} is not allowed'
    assert expected in refused(apply, precision=precision)
  for value, what in (
    (np.zeros(7), 'shape (7,)'),
    (PIXELS, 'shape (3, 28, 28, 1)'),
    (None, 'type NoneType'),
    ('a', 'type str'),
  ):
    assert (
      f"edit of 'stage_1': a value of {what} does not fit the map, (3, 7, 7, 8)"
    ) in refused(apply, edit={'stage_1': edits.replace(value)})


def test_what_explanations_refuse(net):
  assert 'class=True is no class' in refused(cam.grad_cam, net, PIXELS, True)
  assert 'images are uint8 (3, 0, 28, 1)' in refused(
    cam.grad_cam, net, PIXELS[:, :0]
  )
  for steps in (1.5, '8', None, True):
    expected = f'steps={steps} is not allowed: it takes a whole number from 1'
    assert expected in refused(
      gradients.integrated_gradients, net, PIXELS, steps=steps
    )
  for baseline in (None, np.full((28, 28, 1), np.nan), ['a']):
    assert 'baseline holds values that are no finite numbers' in refused(
      gradients.integrated_gradients, net, PIXELS, baseline=baseline
    )
  for window in (4.0, '4'):
    expected = f'window={window} is not allowed: it takes a whole number'
    assert expected in refused(occlusion.occlusion, net, PIXELS, window=window)
  assert 'upto=None is no layer' in refused(sanity.randomized, net, None)


def test_channels_are_no_mask(net):
  mask = [True, False, True]
  assert 'channels=True is no channel' in refused(edits.replace, 0.0, mask)
  assert 'channels=True is no channel' in refused(edits.ablate, True)


def test_what_objectives_refuse(net):
  channel = objectives.channel('stage_1', 1)
  assert 'index=[] holds no channel' in refused(
    objectives.channel, 'stage_1', []
  )
  for count in (1, 0, 2.0):
    expected = f'count={count} is not allowed: it takes a whole number from 2'
    assert expected in refused(objectives.diversity, 'stage_1', count)
    assert expected in refused(
      objectives.interpolation, channel, channel, count
    )
  far = objectives.neuron('stage_1', 1, (7, 0))
  assert 'place=(7, 0) is not in the map: it has 7 rows and 7 columns' in (
    refused(render.render, net, far, steps=1)
  )
  assert 'steps=1.5 is not allowed' in refused(
    render.render, net, channel, steps=1.5
  )


def test_what_rankings_and_circuits_refuse(net):
  dataset = pipeline.load_split(net.config, 'eval_split')

  def top(channels=(('stage_1', 1),), *args):
    return ranking.top_images(net, dataset, channels, *args)

  assert 'channels: none is named' in refused(top, [], 3)
  for k in (-1, 1.5, '2', None):
    assert f'k={k} is not allowed: it takes a whole' in refused(
      top, [('stage_1', 1)], k
    )
  assert 'least=-1 is not allowed' in refused(top, [('stage_1', 1)], 2, -1)
  for given in ({'inputs': []}, {'outputs': []}):
    assert 's: no channel of ' in refused(
      expanded.expanded_weights, net, 'stage_1', 'inception_2a', **given
    )


def test_what_visualizations_refuse(net):
  layer = objectives.layer('stage_1')
  for given in ('stage_1', None, [], [None], 3):
    assert f'objectives={given!r} is not allowed' in refused(
      render.render, net, given, steps=1
    )
  for size in (32.5, (32.0, 32.0), '32', (32,), 0):
    assert f'size={size} is not allowed' in refused(
      render.render, net, layer, steps=1, size=size
    )
  assert 'a vector of 7 number(s) does not fit an activation of 8' in refused(
    render.render, net, objectives.direction('stage_1', np.ones(7)), steps=1
  )
  image = PIXELS[0]
  assert "objectives=['stage_1'] is not" in refused(
    dream.dream, net, image, 'stage_1'
  )
  for ratio in (0, -1.0, float('nan')):
    assert f'ratio={ratio} is not allowed: it takes a number from 1' in refused(
      dream.dream, net, image, layer, ratio=ratio
    )


def test_a_size_may_be_a_number_of_numpy(net):
  objective = objectives.channel('stage_1', 1)
  made = render.render(net, objective, steps=1, size=np.int64(32))
  assert made.images.shape == (1, 32, 32, 1)
