"""Imported networks see images, and name classes, as where they come from."""

import types

import ml_collections
import numpy as np
import pytest
from conftest import ROOT, load_config
from PIL import Image

import launch
from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.data import classes, files, imagenet, images, pipeline
from googlenet.errors import UserError
from googlenet.input.preprocess import preprocess
from googlenet.io import array_files
from googlenet.io.workdir import read_classes, write_classes
from googlenet.tools.modes import import_weights
from googlenet.tools.weights import names, plans, presets

# Networks whose outputs are in the order of ImageNet's development kit.
DEVKIT = ('inception5h', 'inception_fid')
PAIRS = [(v, name) for v, known in presets.PRESETS.items() for name in known]


def unfrozen(config):
  return ml_collections.ConfigDict(config.to_dict())


def plan_of(variant, preset='', given=(), stored=None, **data):
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.variant = variant
  config.data.update(data)
  scheme = names.SCHEMES[variant]
  if stored is None:  # the first and the last layer are enough here
    last = scheme.modules['logits'] + scheme.dense['b']
    count = 1008 if variant.startswith(DEVKIT) else 1000
    stored = {last: array_files.Stored((count,), 'float32', lambda: 1 / 0)}
  return plans.make_plan(config, scheme, stored, preset, given)


# short side, crop, filter, mean of red, deviation of red
EXPECTED = {
  ('torchvision', 'torchvision'): (256, 224, 'bilinear', 0.5, 0.5),
  ('inception_v3', 'torchvision'): (342, 299, 'bilinear', 0.5, 0.5),
  ('inception_v3', 'timm'): (341, 299, 'bicubic', 0.5, 0.5),
  ('inception_v3', 'gluon'): (341, 299, 'bicubic', 0.485, 0.229),
  ('inception_fid', 'pytorch_fid'): (
    *(299, 299, 'bicubic'),
    *(128 / 255, 128 / 255),
  ),
  ('inception5h', 'lucid'): (224, 224, 'bilinear', 117 / 255, 1 / 255),
  ('inception5h_lucent', 'lucid'): (224, 224, 'bilinear', 117 / 255, 1 / 255),
  ('alexnet_torchvision', 'torchvision'): (256, 224, 'bilinear', 0.485, 0.229),
  ('vgg16', 'torchvision'): (256, 224, 'bilinear', 0.485, 0.229),
  ('paper', 'caffe'): (256, 224, 'bilinear', 123 / 255, 1 / 255),
}


@pytest.mark.parametrize(('variant', 'preset'), PAIRS)
def test_a_preset_sets_all_that_images_and_classes_need(variant, preset):
  config = plan_of(variant, preset).config
  data = config.data
  found = data.resize, data.image_size, data.interpolation
  assert (*found, data.mean[0], data.std[0]) == EXPECTED[variant, preset]
  assert data.squeeze == (preset in ('caffe', 'lucid', 'pytorch_fid'))
  assert config.model.num_classes == (
    1008 if variant.startswith(DEVKIT) else 1000
  )
  assert (data.source, data.name, data.data_dir) == ('folder', 'imagenet', '')


def photo(path, size=(301, 230)):
  rng = np.random.default_rng(0)
  blocks = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
  image = blocks.resize(size, Image.Resampling.BICUBIC)
  image.save(path)
  return image


def inputs_of(config, path):
  """What the network of a run sees of a file: float32 [S, S, 3]."""
  transform = images.make_transform(config.data, config.augment, 0, False)
  size = config.data.image_size
  pixels = files.make_reader(transform, (size, size, 3))(path)
  return np.asarray(preprocess(pixels[None], config.data)[0])


def by_hand(image, short, crop, filter_name, mean, std, is_squeezed):
  """The same, by Pillow and NumPy alone."""
  width, height = image.size
  sides = (
    (int(short * width / height), short)
    if width > height
    else (short, int(short * height / width))
  )
  if is_squeezed:
    sides = short, short
  image = image.resize(sides, getattr(Image.Resampling, filter_name.upper()))
  left, top = (round((side - crop) / 2) for side in sides)
  x = np.asarray(image)[top : top + crop, left : left + crop] / 255
  return (x - mean) / std


@pytest.mark.parametrize(('variant', 'preset'), PAIRS)
def test_inputs_are_those_of_the_preset(variant, preset, tmp_path):
  size = (230, 311) if variant == 'inception_v3' else (301, 230)
  image = photo(tmp_path / 'a.png', size)
  config = plan_of(variant, preset).config
  short, crop, interpolation, *_ = EXPECTED[variant, preset]
  how = presets.PRESETS[variant][preset]
  expected = by_hand(
    image, short, crop, interpolation, how.mean, how.std, how.squeeze
  )
  found = inputs_of(config, tmp_path / 'a.png')
  # Those of Caffe and lucid are 0..255: to 1e-3 of their range.
  tolerance = 0.1 if how.std[0] == 1 / 255 else 1e-3
  np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize(
  ('variant', 'name'),
  [
    ('torchvision', 'GoogLeNet_Weights'),
    ('inception_v3', 'Inception_V3_Weights'),
    ('alexnet_torchvision', 'AlexNet_Weights'),
    ('vgg16', 'VGG16_Weights'),
  ],
)
def test_inputs_and_names_are_those_of_torchvision(variant, name, tmp_path):
  models = pytest.importorskip(
    'torchvision.models',
    reason='compares with torchvision',
    # RuntimeError: it was made for another build of PyTorch.
    exc_type=(ImportError, RuntimeError),
  )
  weights = getattr(models, name).IMAGENET1K_V1
  expected = weights.transforms()(photo(tmp_path / 'a.png'))[None]
  if variant in ('torchvision', 'inception_v3'):
    make = models.GoogLeNet if variant == 'torchvision' else models.Inception3
    network = types.SimpleNamespace(transform_input=True)
    expected = make._transform_input(network, expected)
  plan = plan_of(variant, 'torchvision')
  found = inputs_of(plan.config, tmp_path / 'a.png')
  expected = expected[0].numpy().transpose(1, 2, 0)
  np.testing.assert_allclose(found, expected, atol=1e-3)
  assert plan.class_names == tuple(weights.meta['categories'])


def test_fields_that_were_given_are_kept():
  given = {'data.mean', 'data.image_size'}
  plan = plan_of('torchvision', '', given, mean=(0.1,), image_size=112)
  data = plan.config.data
  assert (data.mean, data.std) == ((0.1,), (0.5, 0.5, 0.5))
  assert (data.image_size, data.resize) == (112, 128)
  lines = '\n'.join(plan.lines)
  assert 'config.data.std=' in lines
  assert 'config.data.mean=' not in lines


def test_the_command_line_tells_which_fields_were_given(tmp_path):
  flags = [
    '--mode=import_weights',
    f'--config={ROOT}/configs/fmnist96.py',
    '--config.data.mean=0.1',
    '--config.model.variant=inception_v3',  # 96 pixels are too few for it
    f'--workdir={tmp_path}/run',
  ]
  found = command_line.parse(launch.FLAGS, ['launch.py', *flags])
  assert found.options['given'] == {'data.mean', 'model.variant'}
  assert found.config.model.num_classes == 0  # not those of Fashion-MNIST


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ([], '--preset is missing'),
    (['--preset=timm'], '--weights=a.pth: no such file'),  # at 299 pixels
    # No data set is read to complete the config.
    (
      ['--preset=timm', '--config.data.source=folder'],
      '--weights=a.pth: no such file',
    ),
  ],
)
def test_the_size_of_the_config_is_not_that_of_the_weights(
  tmp_path, capfd, flags, words
):
  command = [
    'launch.py',
    '--mode=import_weights',
    f'--config={ROOT}/configs/fmnist96.py',
    '--config.model.variant=inception_v3',
    '--config.train.compilation_cache=',
    '--weights=a.pth',
    f'--workdir={tmp_path}/run',
    *flags,
  ]
  assert launch.main(command) == 2
  assert f'error: {words}' in capfd.readouterr().err


def test_numbers_that_images_would_decide_are_refused():
  given = ('data.channels', 'data.mean')
  with pytest.raises(UserError, match='mean=.*auto.*give numbers'):
    plan_of('torchvision', '', given, channels=1, mean=('auto',))
  plan = plan_of('torchvision', '', given, mean=('auto',))
  assert plan.config.data.mean == (0.5, 0.5, 0.5)  # those of the preset


def test_weights_of_the_same_names_need_a_preset(tmp_path):
  """Gluon's, timm's and torchvision's Inception v3 differ in preparation."""
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.variant = 'inception_v3'
  config = ml_collections.FrozenConfigDict(config)
  run = tmp_path / 'run'
  with pytest.raises(UserError, match='--preset is missing: .*timm, gluon'):
    import_weights.import_run(config, str(run), 'a.pth')
  with pytest.raises(UserError, match=r'a\.pth'):  # such as: no such file
    import_weights.import_run(config, str(run), 'a.pth', 'gluon')
  given = {'data.mean', 'data.std', 'data.resize', 'data.image_size'}
  config = unfrozen(config)
  config.data.image_size = 299
  with pytest.raises(UserError, match=r'a\.pth'):
    import_weights.import_run(config, str(run), 'a.pth', given=given)
  with pytest.raises(UserError, match='did you mean .timm.'):
    presets.choose('inception_v3', 'tim')
  with pytest.raises(UserError, match="variant='vgg16': it takes torchvision"):
    presets.choose('vgg16', 'caffe')
  assert not run.exists()


def test_the_background_of_tf_slim_is_left_out():
  """1,001 outputs, the first of which is none of ImageNet's classes."""
  w = np.arange(1001 * 2, dtype=np.float32).reshape(1001, 2)
  stored = {
    'fc.weight': array_files.Stored(w.shape, 'float32', lambda: w),
    'fc.bias': array_files.Stored((1001,), 'float32', lambda: w[:, 0]),
  }
  plan = plan_of('inception_v3', 'timm', stored=stored)
  assert plan.config.model.num_classes == 1000
  assert plan.stored['fc.weight'].shape == (1000, 2)
  np.testing.assert_array_equal(plan.stored['fc.weight'].read(), w[1:])
  np.testing.assert_array_equal(plan.stored['fc.bias'].read(), w[1:, 0])
  assert any('background' in line for line in plan.lines)
  assert plan.class_names[0] == 'tench'
  # Only where such files are known.
  plan = plan_of('inception_v3', 'gluon', stored=stored)
  assert plan.config.model.num_classes == 1001
  assert plan.class_names == ()
  assert plan.config.data.source == 'bundled'


def test_weights_of_ones_own_have_no_names_of_imagenet():
  stored = {'fc.bias': array_files.Stored((7,), 'float32', lambda: 1 / 0)}
  plan = plan_of('torchvision', stored=stored)
  assert plan.config.model.num_classes == 7
  assert plan.class_names == ()
  assert plan.config.data.name == 'fashion_mnist'
  assert plan.config.data.resize == 256


def test_lucid_has_classes_in_the_order_of_the_development_kit():
  """Of 1,008 outputs 0 and 1,001 to 1,007 are no classes."""
  plan = plan_of('inception5h')
  named = plan.class_names
  assert named[:4] == ('', 'kit fox', 'English setter', 'Siberian husky')
  assert named[996:] == (
    *('coffee mug', 'rubber eraser', 'stole'),
    *('carbonara', 'dumbbell'),
  )
  assert sorted(named[1:]) == sorted(imagenet.names_by_id().values())
  # Files with other outputs are of other classes.
  last = 'softmax2_pre_activation_matmul.bias'
  stored = {last: array_files.Stored((1000,), 'float32', lambda: 1 / 0)}
  plan = plan_of('inception5h', stored=stored)
  assert plan.config.model.num_classes == 1000
  assert plan.class_names == ()
  assert plan.config.data.source == 'bundled'


# ---- Classes of ImageNet.


def test_the_names_of_imagenet():
  known = imagenet.names_by_id()
  assert len(known) == len(set(known.values())) == 1000
  assert list(known) == sorted(known)
  assert list(known.items())[:2] == [
    ('n01440764', 'tench'),
    ('n01443537', 'goldfish'),
  ]
  assert known['n02099601'] == 'golden retriever'
  assert known['n15075141'] == 'toilet tissue'


@pytest.mark.parametrize('variant', ['torchvision', 'inception5h'])
def test_folders_named_by_wordnet_ids_are_classes_by_name(variant, tmp_path):
  """ImageNet's own layout, a part of it, in another order of labels."""
  for name in ('n02099601', 'n01440764'):
    (tmp_path / 'val' / name).mkdir(parents=True)
    photo(tmp_path / 'val' / name / 'a.png', (30, 30))
  plan = plan_of(variant)
  config = unfrozen(plan.config)
  config.data.data_dir = str(tmp_path / 'val')
  write_classes(tmp_path, plan.class_names)
  names_of_network = read_classes(tmp_path, config.model.num_classes)
  dataset = pipeline.load_split(config_lib.resolve(config), 'eval_split')
  matched = classes.with_classes(dataset, names_of_network)
  _, labels = matched.read(np.arange(2))
  expected = [names_of_network.index(x) for x in ('tench', 'golden retriever')]
  assert sorted(labels) == sorted(expected)
  config.data.update(
    source='bundled', name='fashion_mnist', eval_split='test', data_dir=''
  )
  dataset = pipeline.load_split(config_lib.resolve(config), 'eval_split')
  with pytest.raises(UserError, match='T-shirt/top, .* does not know'):
    classes.with_classes(dataset, names_of_network)


@pytest.mark.parametrize(
  ('field', 'value'), [('interpolation', 'bicubic'), ('squeeze', True)]
)
def test_the_device_does_not_resize_like_that(field, value):
  config = unfrozen(plan_of('torchvision').config)
  config.data.resize, config.data[field] = 0, value
  with pytest.raises(UserError, match=f'config.data.{field}=.*data.resize=0'):
    images.make_transform(config.data, config.augment, 0, False)
