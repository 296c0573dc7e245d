"""A trained network in Python: functions of stored pixels, files as images."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import photos
import pytest
from conftest import ROOT
from PIL import Image
from saved_run import CLASS_NAMES, save_run

import googlenet
from googlenet import config as config_lib
from googlenet.data import files, images, pipeline
from googlenet.data.sources import load_dataset
from googlenet.errors import UserError
from googlenet.io import checkpoint
from googlenet.tools.inference import predict, trained

END_POINTS = ('conv_1', 'stage_1', 'inception_2a', 'stage_2', 'logits')


@pytest.fixture
def net(config, tmp_path):
  config.data.image_size = 32
  config.eval.batch_size = 4
  return googlenet.load(save_run(tmp_path / 'run', config))


@pytest.fixture(scope='module')
def pixels():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (11, 28, 28, 1), np.uint8)


def reference(net, pixels, **kwargs):
  """Preprocessing word by word, then the network as it is."""
  data = net.config.data
  x = (np.float32(pixels) / 255 - np.float32(data.mean)) / np.float32(data.std)
  size = data.image_size
  x = jax.image.resize(x, (len(x), size, size, x.shape[-1]), 'bilinear')
  return net.network.apply(
    net.params, net.network_state, None, x, is_training=False, **kwargs
  )[0]


def test_what_a_loaded_network_tells(net):
  assert net.class_names == CLASS_NAMES
  assert net.stored_shape == (28, 28, 1)
  assert net.image_shape == (32, 32, 1)
  assert net.step == 7
  names = net.apply.end_points
  assert set(END_POINTS) < set(names)
  assert 'inception_2a/conv_3x3:pre' in names
  assert names[-2:] == ('logits', 'probabilities')


def test_a_damaged_header_leads_to_the_checkpoint_before(net, tmp_path, capsys):
  """The checksum is compared before anything is parsed."""
  newest = checkpoint.path_of(tmp_path / 'run', 9)
  data = bytearray(net.path.read_bytes())
  data[data.index(b"'shape': (") + 9] ^= 1  # ')': a text that never ends
  newest.write_bytes(data)
  again = googlenet.load(tmp_path / 'run')
  assert again.path == net.path
  assert again.step == 7
  assert again.stored_shape == net.stored_shape
  assert capsys.readouterr().err == (
    f'warning: checkpoint {newest} is damaged (its checksum differs): going on '
    'from step_000000007.npz\n'
  )
  net.path.unlink()
  with pytest.raises(UserError, match='its checksum differs') as error:
    googlenet.load(tmp_path / 'run')
  assert str(newest) in str(error.value)


def test_apply_is_the_network_after_preprocessing(net, pixels):
  expected = reference(net, pixels, end_points=['stage_1', 'conv_1'])
  out = net.apply(net.params, net.network_state, pixels, ['stage_1', 'conv_1'])
  np.testing.assert_allclose(out.logits, expected.logits, atol=1e-5)
  assert out.aux_logits == {}
  assert set(out.end_points) == {'stage_1', 'conv_1'}
  for name, value in out.end_points.items():
    np.testing.assert_allclose(value, expected.end_points[name], atol=1e-5)
  assert len(np.unique(np.argmax(out.logits, -1))) > 1


def test_apply_is_pure_it_may_be_part_of_another_function(net, pixels):
  state = net.network_state

  @jax.jit
  def loss(params):
    return net.apply(params, state, pixels[:2]).logits[:, 0].sum()

  gradient = jax.grad(loss)(net.params)
  step = 1e-2
  params = jax.tree.map(jnp.array, net.params)
  params['logits']['b'] = params['logits']['b'].at[0].add(step)
  assert float(gradient['logits']['b'][0]) == pytest.approx(2)
  difference = float(loss(params) - loss(net.params))
  assert difference == pytest.approx(2 * step, rel=1e-3)


@pytest.mark.parametrize('count', [1, 3, 4, 11])
def test_predictions_of_any_number_of_images(net, pixels, count):
  expected = jax.nn.softmax(reference(net, pixels[:count]).logits)
  found = net.predict(pixels[:count])
  assert found.shape == (count, 10)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, atol=1e-5)
  features = net.features(pixels[:count], ['stage_2', 'logits'])
  assert features['stage_2'].shape == (count, 28)
  np.testing.assert_allclose(
    jax.nn.softmax(features['logits']), expected, atol=1e-5
  )


def test_one_image_does_not_cost_a_batch():
  sizes = [predict.padded_size(n, 250, 1) for n in (1, 2, 3, 100, 129, 999)]
  assert sizes == [1, 2, 4, 128, 250, 250]
  sizes = [predict.padded_size(n, 250, 4) for n in (1, 5, 999)]
  assert sizes == [4, 8, 252]


def test_bfloat16_is_that_of_evaluation(config, tmp_path, pixels):
  config.train.precision = 'params=float32,compute=bfloat16,output=float32'
  net = googlenet.load(save_run(tmp_path / 'run', config))
  out = net.apply(net.params, net.network_state, pixels, ['stage_1'])
  assert out.logits.dtype == out.end_points['stage_1'].dtype == jnp.float32
  rounded = out.end_points['stage_1'].astype(jnp.bfloat16).astype(jnp.float32)
  np.testing.assert_array_equal(out.end_points['stage_1'], rounded)
  exact = net.apply(
    net.params, net.network_state, pixels, 'stage_1', precision='float32'
  )
  expected = reference(net, pixels, end_points=['stage_1'])
  np.testing.assert_allclose(
    exact.end_points['stage_1'], expected.end_points['stage_1'], atol=1e-5
  )
  np.testing.assert_allclose(exact.logits, expected.logits, atol=1e-5)
  assert np.abs(exact.logits - out.logits).max() > 1e-4


BAD_ARRAYS = {
  'floats': (np.zeros((1, 28, 28, 1), np.float32), 'images are float32'),
  'one image': (np.zeros((28, 28, 1), np.uint8), r'images are uint8 \(28, 28'),
  'no images': (np.zeros((0, 28, 28, 1), np.uint8), 'takes 1 or more of 1 ch'),
  'colour': (np.zeros((2, 28, 28, 3), np.uint8), r'takes 1 or more of 1 chan'),
}


@pytest.mark.parametrize('case', BAD_ARRAYS)
def test_arrays_that_are_no_images(net, case):
  array, words = BAD_ARRAYS[case]
  with pytest.raises(UserError, match=words):
    net.predict(array)


def test_unknown_end_point(net, pixels):
  for call in (
    lambda: net.features(pixels, ['stage_9']),
    lambda: net.apply(net.params, net.network_state, pixels, ['stage_9']),
  ):
    with pytest.raises(
      UserError, match=r'end_points: .stage_9. .*mean .stage_'
    ):
      call()


# ---- Files.

PHOTO = photos.photo(0).resize((60, 45), Image.BILINEAR).convert('RGB')


def as_mode(mode: str) -> Image.Image:
  """The photo in another mode; what it shows is that of `PHOTO`."""
  grey = np.asarray(PHOTO.convert('L'))
  if mode == 'I;16':
    return Image.fromarray(grey.astype(np.uint16) * 257)
  if mode == 'PA':
    return PHOTO.convert('P').convert('PA')
  return PHOTO.convert(mode)


@pytest.mark.parametrize(
  ('mode', 'suffix', 'tolerance'),
  [
    ('RGB', 'png', 0),
    ('RGB', 'tiff', 0),
    ('RGB', 'webp', 20),
    ('RGB', 'jpg', 20),
    ('RGB', 'gif', 30),
    ('RGBA', 'png', 0),
    ('L', 'png', 1),
    ('LA', 'png', 1),
    ('I;16', 'png', 1),
    ('I;16', 'tiff', 1),
    ('P', 'png', 30),
    ('CMYK', 'jpg', 20),
    ('CMYK', 'tiff', 1),
    ('YCbCr', 'jpg', 20),
    ('1', 'png', 255),
  ],
)
def test_files_of_any_mode(tmp_path, mode, suffix, tolerance):
  path = tmp_path / f'photo.{suffix}'
  as_mode(mode).save(path)
  with Image.open(path) as image:
    if mode not in ('YCbCr',) and suffix not in ('gif', 'webp'):
      assert image.mode == mode
  for channels in (1, 3):
    found = files.make_reader(None, (18, 24, channels))(path)
    assert found.shape == (18, 24, channels)
    assert found.dtype == np.uint8
    like = PHOTO.convert('L') if channels == 1 or mode[0] in 'LI1' else PHOTO
    like = like.convert('L' if channels == 1 else 'RGB')
    like = like.resize((24, 18), Image.BILINEAR)
    like = np.asarray(like, int).reshape(18, 24, channels)
    difference = np.abs(found.astype(int) - like)
    assert difference.max() <= tolerance
    assert difference.mean() < 40


def test_16_bits_are_not_cut_off(tmp_path):
  values = np.array([[0, 255], [256, 65535]], np.uint16)
  Image.fromarray(values).save(tmp_path / 'a.png')
  found = files.make_reader(None, (2, 2, 1))(tmp_path / 'a.png')
  np.testing.assert_array_equal(found[..., 0], [[0, 0], [1, 255]])


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tiff'])
@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
  'transform', [None, images.CenterCrop(12, 15)], ids=['squeezed', 'cropped']
)
def test_orientation_is_undone(tmp_path, orientation, suffix, transform):
  """A photo stored in any orientation is read as the upright one is."""
  undo = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # stored so, to be turned by 270
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
  }
  turned = PHOTO.transpose(undo[orientation]) if orientation > 1 else PHOTO
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / f'photo.{suffix}'
  quality = {'quality': 100, 'subsampling': 0} if suffix == 'jpg' else {}
  turned.save(path, exif=exif, **quality)
  shape = (12, 12, 3) if transform else (12, 20, 3)
  found = files.make_reader(transform, shape)(path)
  upright = tmp_path / f'upright.{suffix}'
  PHOTO.save(upright, **quality)
  expected = files.make_reader(transform, shape)(upright)
  difference = np.abs(found.astype(int) - expected)
  assert difference.max() <= (6 if suffix == 'jpg' else 0)


def test_files_are_read_as_the_data_set_is(config, tmp_path):
  """The pixels of a set on their way to the device, from its files."""
  folder = tmp_path / 'set'
  photos.prepare(photos.Photos, folder)
  config.data.source, config.data.name = 'tfds', 'photos'
  config.data.data_dir = str(folder)
  config.data.eval_split = 'validation'
  config.model.num_classes = 4
  for resize in (0, 40):
    config.data.resize = resize
    dataset = pipeline.load_split(config_lib.resolve(config), 'eval_split')
    reader = dataset.read.read
    if reader._source is None:
      reader.open()
    indices = np.arange(12)
    expected, _ = dataset.read(indices)
    run = save_run(
      tmp_path / f'run_{resize}',
      config,
      dataset.image_shape,
      class_names=photos.CLASS_NAMES,
    )
    net = googlenet.load(run)
    paths = []
    for i in indices:
      encoded = reader._source[int(i)]['image']
      paths.append(tmp_path / f'{resize}_{i}.jpg')
      paths[-1].write_bytes(encoded)
    np.testing.assert_array_equal(net.read(paths), expected)


def test_fashion_mnist_as_files_is_fashion_mnist(net, config, tmp_path):
  dataset = load_dataset(config_lib.resolve(config).data, 'test[:20]')
  pixels, _ = dataset.read(np.arange(20))
  paths = [tmp_path / f'{i}.png' for i in range(20)]
  for path, image in zip(paths, pixels, strict=True):
    Image.fromarray(image[..., 0]).save(path)
  np.testing.assert_array_equal(net.read(paths), pixels)


def huge_png() -> bytes:
  """The header of a PNG of 40,000 x 40,000 pixels, and some bytes more."""
  import struct
  import zlib

  def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', crc)

  header = struct.pack('>IIBBBBB', 40_000, 40_000, 8, 0, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(bytes(1000)))
    + chunk(b'IEND', b'')
  )


def bad_file(tmp_path, kind: str):
  path = tmp_path / 'bad.png'
  if kind == 'huge':
    path.write_bytes(huge_png())
  elif kind == 'no image':
    path.write_bytes(b'no image at all')
  elif kind == 'empty':
    path.write_bytes(b'')
  elif kind == 'cut off':
    PHOTO.save(path)
    path.write_bytes(path.read_bytes()[:1500])
  elif kind == 'a folder':
    path.mkdir()
  elif kind == 'PostScript':
    PHOTO.save(path, 'eps')
  elif kind == 'floats':
    path = tmp_path / 'bad.tiff'
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(path)
  return path


BAD_FILES = {
  'huge': 'more than 134,217,728 pixels',
  'no image': 'not an image that Pillow can read',
  'PostScript': 'not an image that Pillow can read',
  'empty': 'not an image that Pillow can read',
  'cut off': 'truncated',
  'missing': 'No such file',
  'a folder': 'Is a directory',
  'floats': 'mode F with values from 0.5 to 0.5',
}


@pytest.mark.parametrize('kind', BAD_FILES)
def test_bad_files(net, tmp_path, kind):
  path = bad_file(tmp_path, kind)
  with pytest.raises(UserError, match=BAD_FILES[kind]) as error:
    net.read([path])
  assert str(error.value).startswith(f'{path} cannot be read: ')


def test_a_size_above_ours_but_not_pillows(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'MAX_PIXELS', 60 * 45 - 1)
  PHOTO.save(tmp_path / 'a.png')
  with pytest.raises(files.UnreadableError, match='60x45 is more than 2,699'):
    files.make_reader(None, (8, 8, 3))(tmp_path / 'a.png')


def test_files_keep_their_order_and_threads_do_not_run_away(tmp_path):
  started = []

  def read(path):
    started.append(path)
    if path == '5':
      raise files.UnreadableError('five')
    return np.full((1, 1, 1), int(path), np.uint8)

  paths = [str(i) for i in range(100)]
  items = files.read_ahead(paths, read, ahead=8, num_threads=4)
  first = next(items)
  assert first.path == '0'
  assert len(started) <= 9
  problems = []
  batches = list(files.batches([first, *items], 30, problems.append))
  assert [item.path for item in problems] == ['5']
  assert problems[0].problem == 'five'
  assert [len(names) for names, _ in batches] == [30, 30, 30, 9]
  names = [name for part, _ in batches for name in part]
  values = np.concatenate([values for _, values in batches]).ravel()
  assert names == [path for path in paths if path != '5']
  assert [str(value) for value in values] == names


def test_three_lines_of_the_readme(config, tmp_path, monkeypatch):
  """The README's first lines of Python, as they stand there."""
  text = (ROOT / 'README.md').read_text()
  (code,) = re.findall(r'```python\n(import googlenet\n.*?)```', text, re.S)
  monkeypatch.chdir(tmp_path)
  save_run(tmp_path / 'runs/trial', config)
  (tmp_path / 'docs').symlink_to(ROOT / 'docs')
  scope = {}
  exec(code, scope)  # noqa: S102
  assert scope['probabilities'].shape == (1, 10)
  net = scope['net']
  expected = reference(net, net.read(['docs/photos/bag.jpg']))
  np.testing.assert_allclose(scope['logits'], expected.logits, atol=1e-5)
  assert scope['maps'].shape == (1, 7, 7, 8)


def test_a_data_set_of_other_channels_is_refused(config, tmp_path):
  save_run(tmp_path / 'run', config)
  with pytest.raises(UserError) as error:
    trained.load_run(tmp_path / 'run', channels=3)
  for word in (
    'config.data.channels=0: the data set has images of 3 channel(s)',
    'takes 1: give --config.data.channels=1, which converts',
  ):
    assert word in str(error.value)


@pytest.mark.parametrize(
  ('field', 'value', 'words'),
  [
    ('mean', (0.1, 0.2), 'has 2 numbers for images of 3 channel(s): give 1 or'),
    ('std', (0.1, 0.2), 'has 2 numbers for images of 3 channel(s): give 1 or'),
    ('channels', 1, 'gives images of 1 channel(s), and the network in'),
  ],
)
def test_images_of_files_have_the_channels_of_the_network(
  config, tmp_path, field, value, words
):
  """They went to the network, or into an exported file that cannot be run."""
  config.data.mean = config.data.std = (0.5, 0.5, 0.5)
  save_run(tmp_path / 'run', config, (28, 28, 3))
  config.data[field] = value
  with pytest.raises(UserError) as error:
    trained.load_run(tmp_path / 'run', config_lib.resolve(config))
  assert words in str(error.value)
  assert f'config.data.{field}=' in str(error.value)
