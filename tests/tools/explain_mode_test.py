"""--mode=explain: what is in its pages, pictures and arrays."""

import base64
import io
import os
import re

import numpy as np
import pytest
from conftest import last_of_each
from PIL import Image
from run_files import problems
from saved_run import CLASS_NAMES, save_run

import googlenet
import launch
from googlenet.cli.mode_flags import define_flags
from googlenet.cli.modes import FLAGS, MODES
from googlenet.data.sources import load_dataset
from googlenet.tools.explain import (
  baselines,
  cam,
  engine,
  gradients,
  methods,
  parts,
  pictures,
  sanity,
)


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """A run and photos, in the current folder."""
  monkeypatch.chdir(tmp_path)
  config.data.eval_split = 'test[:10]'
  save_run(tmp_path / 'runs/trial', config)
  os.mkdir('photos')
  for i in range(3):
    drawn = np.random.default_rng(i).integers(0, 256, (9, 9 + i), np.uint8)
    Image.fromarray(drawn).save(f'photos/{i}.png')
  return tmp_path


def explain(*flags: str, code: int = 0) -> None:
  argv = ['launch.py', '--mode=explain', '--workdir=runs/trial', *flags]
  argv = last_of_each([*argv, '--config.train.compilation_cache='])
  assert launch.main(argv) == code


def test_arrays_of_a_split(run, config, capfd):
  explain(
    '--output=a.npz',
    '--method=gradient,integrated_gradients,grad_cam,channels,branches',
    '--image_index=6',
    '--num_images=9',
    f'--class={CLASS_NAMES[3]}',
    '--against=5',
    '--layer=conv_1',
    '--baseline=mean',
    '--steps=8',
    '--sanity',
  )
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  assert 'explain  a.npz: gradient, integrated_gradients' in shown.out
  assert 'of 4 images' in shown.out
  assert 'float32, one view' in shown.out
  images, labels = load_dataset(config.data, 'test').read(np.arange(6, 10))
  net = googlenet.load('runs/trial')
  with np.load('a.npz', allow_pickle=False) as found:
    found = dict(found)
  np.testing.assert_array_equal(found['image_index'], [6, 7, 8, 9])
  np.testing.assert_array_equal(found['label'], labels)
  np.testing.assert_array_equal(found['image'], images)
  assert set(found['class']) == {CLASS_NAMES[3]}
  assert set(found['against']) == {CLASS_NAMES[5]}
  logits = engine.logits(net, images)
  np.testing.assert_allclose(found['logits'], logits, atol=1e-5)
  np.testing.assert_allclose(
    found['probabilities'], net.predict(images, views=False), atol=1e-4
  )
  np.testing.assert_allclose(
    found['gradient'], gradients.gradient(net, images, (3, 5)), atol=1e-6
  )
  np.testing.assert_allclose(
    found['grad_cam'], cam.grad_cam(net, images, (3, 5), 'conv_1'), atol=1e-4
  )
  expected = parts.channels_by_ablation(net, images, (3, 5), 'conv_1')
  np.testing.assert_allclose(found['channels_ablation'], expected, atol=1e-4)
  assert found['channels_names'].tolist() == [
    f'conv_1:{i}' for i in range(expected.shape[1])
  ]
  assert found['branches_names'].tolist() == [
    f'inception_2a/{name}'
    for name in ('conv_1x1', 'conv_3x3', 'conv_5x5', 'pool_proj')
  ]
  sums = found['integrated_gradients'].sum((1, 2, 3))
  start = np.broadcast_to(
    np.float32(255 * net.config.data.mean[0]), images.shape
  )
  score = logits - engine.logits(net, start)
  np.testing.assert_allclose(sums, score[:, 3] - score[:, 5], rtol=0.01)
  np.testing.assert_allclose(
    found['integrated_gradients_residual'],
    sums - found['integrated_gradients_difference'],
    atol=1e-4,
  )
  assert found['sanity_layers'].tolist() == [
    'logits',
    'inception_2a',
    'conv_1',
  ]
  assert found['gradient_sanity'].shape == (4, 3)
  tested = sanity.cascade(  # of what is shown: magnitudes
    net, lambda other: gradients.gradient(other, images, (3, 5)), 0, True
  )
  np.testing.assert_allclose(
    found['gradient_sanity'], np.stack(list(tested.values()), -1), atol=1e-3
  )
  assert sorted(os.listdir()) == ['a.npz', 'photos', 'runs']


def pictures_of(text: str) -> list[Image.Image]:
  return [
    Image.open(io.BytesIO(base64.b64decode(data)))
    for data in re.findall(r'src="data:image/\w+;base64,([^"]*)"', text)
  ]


def test_a_page_about_files(run, capfd):
  (run / 'photos/b.png').write_bytes(b'none')
  explain(
    '--images=photos',
    '--output=a.html',
    '--method=grad_cam,input_x_gradient,channels',
    '--sanity',
    code=65,
  )
  shown = capfd.readouterr()
  assert problems(shown.err).splitlines() == [
    'warning: photos/b.png cannot be read: not an image that Pillow can read',
    'error: 1 of 4 images could not be read, see the warnings above; the '
    'others are done',
  ]
  text = (run / 'a.html').read_text()
  assert 'http' not in re.sub(r'http://www.w3.org/\S+', '', text)
  assert len(pictures_of(text)) == 3 * 3
  net = googlenet.load('runs/trial')
  images = net.read([f'photos/{i}.png' for i in range(3)])
  for i, logits in enumerate(engine.logits(net, images)):
    assert f'photos/{i}.png</h2>' in text
    assert f'<td>{logits.max():.2f}</td>' in text
  assert 'class &#34;' in text  # names of classes are escaped
  for words in (
    'Grad-CAM',
    'arXiv 1610.02391',
    'float32',
    'inception_2a:',
    'Sanity check',
    'arXiv 1810.03292',
  ):
    assert words in text
  assert 'SmoothGrad' not in text


def test_a_picture(run):
  explain(
    '--images=photos/1.png', '--output=a.png', '--method=grad_cam,channels'
  )
  with Image.open('a.png') as image:
    assert image.format == 'PNG'
    assert min(image.size) > 200


def test_colours_of_a_map():
  pixels = np.full((4, 4, 1), 255, np.uint8)
  values = np.zeros((4, 4), np.float32)
  values[0, 0], values[3, 3] = 2, -2
  scale = pictures.scale_of(values, methods.SIGNED)
  assert (scale.low, scale.has_sign) == (-scale.high, True)
  drawn = np.asarray(pictures.overlay(pixels, values, scale), int)
  red, zero, blue = drawn[0, 0], drawn[0, -1], drawn[-1, -1]
  assert red[0] > red[2] + 50
  assert blue[2] > blue[0] + 50
  assert zero.min() > 240
  above = pictures.scale_of(np.abs(values), methods.MAGNITUDE)
  assert (above.low, above.high) == (0, scale.high)
  between = pictures.scale_of(values + 5, methods.POSITIVE)
  assert (between.low, between.high) == (3, 7)
  for same, scale_of_same in ((2.5, (0, 2.5)), (0, (0, 1))):
    scale = pictures.scale_of(np.full((4, 4), same), methods.POSITIVE)
    assert (scale.low, scale.high) == scale_of_same
  both = np.stack([values, -values / 2], -1)
  np.testing.assert_array_equal(pictures.flat(both, methods.SIGNED), values / 2)
  centred = pictures.flat(values + 3, methods.CENTRED)
  np.testing.assert_allclose(centred, values, atol=1e-6)
  np.testing.assert_array_equal(
    pictures.flat(both, methods.MAGNITUDE), np.abs(values)
  )


BAD_INPUT = {
  'unknown method': (
    ['--method=gradcam'],
    ['--method=gradcam', "did you mean 'grad_cam'", 'occlusion'],
  ),
  'unknown class': (['--class=Shrt'], ['--class=Shrt', 'allowed are 0 to 9']),
  'the same class': (
    ['--class=1', '--against=1'],
    ['--against=1 is the class'],
  ),
  'unknown layer': (['--layer=conv_9'], ['--layer', 'conv_9', 'conv_1']),
  'no map': (['--layer=logits'], ['--layer=logits', 'map']),
  'unknown block': (
    ['--block=inception_9', '--method=branches'],
    ['--block=inception_9'],
  ),
  'unknown baseline': (['--baseline=white'], ['--baseline=white', 'blurred']),
  'steps': (['--steps=-1'], ['--steps=-1', 'from 1']),
  'seed': (['--seed=-1'], ['--seed=-1']),
  'window': (
    ['--window=29', '--method=occlusion'],
    ['--window=29', '28x28', '1 to 28'],
  ),
  'stride': (
    ['--window=3', '--stride=4', '--method=occlusion'],
    ['--stride=4', '1 to 3'],
  ),
  'layer without effect': (
    ['--layer=conv_1', '--method=integrated_gradients'],
    [
      '--layer=conv_1 has no effect on --method=integrated_gradients: leave it '
      'out, or add grad_cam or channels to --method'
    ],
  ),
  'block without effect': (
    ['--block=inception_2a'],
    ['--block=inception_2a has no effect', 'add branches to'],
  ),
  'window without effect': (['--window=3'], ['add occlusion to --method']),
  'stride without effect': (['--stride=3'], ['add occlusion to --method']),
  'baseline without effect': (
    ['--baseline=black', '--method=grad_cam,gradient'],
    ['--baseline=black has no effect', 'integrated_gradients or occlusion'],
  ),
  'steps without effect': (
    ['--steps=8', '--method=grad_cam'],
    ['--steps=8 has no effect', 'integrated_gradients or smoothgrad'],
  ),
  'image': (['--image_index=10'], ['--image_index=10', '0 to 9']),
  'number': (['--num_images=0'], ['--num_images=0']),
  'sanity of tables': (['--method=channels', '--sanity'], ['--sanity']),
  'output that exists': (['--output=photos', '--format=npz'], ['exists']),
  'too many for a picture': (
    ['--output=a.png', '--images=' + ','.join(['photos/0.png'] * 33)],
    ['--output=a.png', 'up to 32 images', '33'],
  ),
  'too many for a page': (
    ['--images=' + ','.join(['photos/0.png'] * 501)],
    ['--output=a.html', 'up to 500 images', '501'],
  ),
  'ending': (['--output=a.jpg'], ['.html, .png, .npz']),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(run, capfd, case):
  flags, words = BAD_INPUT[case]
  before = sorted(run.rglob('*'))
  explain('--output=a.html', *flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  assert shown.err.startswith('error: ')
  assert shown.err.count('\n') == 1
  for word in words:
    assert word in shown.err
  assert sorted(run.rglob('*')) == before


def test_a_network_without_class_maps_says_so(
  config, tmp_path, monkeypatch, capfd
):
  config.model.variant, config.model.width_multiplier = 'vgg16', 0.01
  config.data.image_size = 32
  monkeypatch.chdir(tmp_path)
  save_run(tmp_path / 'runs/trial', config)
  explain('--output=a.html', '--method=class_activation_map', code=2)
  assert 'no global mean' in capfd.readouterr().err
  explain('--output=a.html', '--method=branches', code=2)
  assert 'no blocks that concatenate' in capfd.readouterr().err


def test_the_help_names_every_method_and_baseline():
  from absl import flags

  values = flags.FlagValues()
  define_flags(values)
  for name in (*methods.METHODS, *methods.TABLES):
    assert name in values['method'].help
  for name in baselines.BASELINES:
    assert name in values['baseline'].help
  assert set(MODES['explain'].flags) <= set(FLAGS)
