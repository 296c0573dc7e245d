"""--mode=fid: features of images in folders, arrays and statistics."""

import json
import types
import zipfile

import ml_collections
import numpy as np
import pytest
from conftest import last_of_each, start
from networks import model_config
from PIL import Image
from run_files import files_under, problems
from saved_run import save_run

import googlenet
import launch
from googlenet.cli import command_line
from googlenet.errors import UserError
from googlenet.input.preprocess import preprocess
from googlenet.model import network as network_lib
from googlenet.tools import fid, hub
from googlenet.tools.fid import extract
from googlenet.tools.fid import files as statistics_files


def pictures(count, seed, mean):
  rng = np.random.default_rng(seed)
  x = rng.normal(mean, 50, (count, 4, 4)).clip(0, 255).astype(np.uint8)
  return x.repeat(7, 1).repeat(7, 2)


GENERATED, REAL = pictures(23, 0, 100), pictures(40, 1, 130)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A run, and the two sets as folders and arrays."""
  from conftest import small_config

  folder = tmp_path_factory.mktemp('fid')
  config = small_config()
  config.eval.batch_size = 16
  save_run(folder / 'run', config)
  for name, images in (('generated', GENERATED), ('real', REAL)):
    (folder / name).mkdir()
    for i, image in enumerate(images):
      Image.fromarray(image).save(folder / name / f'{i:02}.png')
  np.savez(folder / 'generated.npz', GENERATED)
  np.savez_compressed(
    folder / 'real.npz', images=REAL[..., None], labels=np.arange(40)
  )
  return folder


@pytest.fixture
def here(made, monkeypatch):
  monkeypatch.chdir(made)
  return made


def run(*flags, code=0):
  argv = ['launch.py', '--mode=fid', '--workdir=run', *flags]
  argv = last_of_each([*argv, '--config.train.compilation_cache='])
  assert launch.main(argv) == code


def results(path):
  found = json.loads(path.read_text())
  path.unlink()
  return found


def test_folders_arrays_and_statistics_give_the_same(here, capfd):
  """And what an independent computation makes of the features of the run."""
  net = googlenet.load('run')
  a, b = (
    net.features(x[..., None], ['stage_2', 'logits']) for x in (GENERATED, REAL)
  )
  x, y = (fid.statistics(part['stage_2'].astype(np.float64)) for part in (a, b))
  np.testing.assert_allclose(
    x.covariance, np.cov(a['stage_2'], rowvar=False), atol=1e-6
  )
  distance = fid.frechet_distance(x, y)
  kernel = fid.kernel_distance(a['stage_2'], b['stage_2'], 7, 11, seed=2)
  score = fid.inception_score(a['logits'], 4, seed=2)
  assert distance > 0.1

  flags = ('--subsets=7', '--subset_size=11', '--splits=4', '--seed=2')
  run('--images=generated', '--against=real', *flags, '--output=a.json')
  shown = capfd.readouterr()
  lines = shown.out.splitlines()
  assert lines[0] == f'FD       {distance:.4f}'
  assert lines[1].startswith(f'KD       {kernel.mean:.6f} ± {kernel.std:.6f}')
  assert lines[2].startswith(f'IS       {score.mean:.4f} ± {score.std:.4f}')
  assert lines[3:6] == [
    'images   generated: 23 images',
    'against  real: 40 images',
    'features 28 of stage_2',
  ]
  assert 'not FID, KID and IS as others publish them' in shown.out
  # 23 images, 28 features: of the 40 there is no warning.
  (warning,) = problems(shown.err).splitlines()
  assert 'generated: 23 images are fewer than the 28 features' in warning
  folders = results(here / 'a.json')
  assert folders['fid'] == pytest.approx(distance, rel=1e-5)
  assert folders['kid']['mean'] == pytest.approx(kernel.mean, abs=1e-5)
  assert folders['inception_score']['mean'] == pytest.approx(score.mean)

  run('--images=generated.npz', '--against=real.npz', *flags, '--output=a.json')
  arrays = results(here / 'a.json')
  for name in ('fid', 'kid', 'inception_score'):
    assert arrays[name] == folders[name]

  run('--images=real', '--output=real_statistics.npz')
  with np.load('real_statistics.npz') as written:
    # What pytorch-fid and clean-fid read.
    assert written['mu'].dtype == written['sigma'].dtype == np.float64
    np.testing.assert_allclose(written['sigma'], y.covariance, atol=1e-6)
  capfd.readouterr()
  run(
    '--images=generated',
    '--against=real_statistics.npz',
    '--config.eval.batch_size=5',
    '--output=a.json',
  )
  shown = capfd.readouterr().out
  assert 'KID      left out: statistics are no images' in shown
  assert 'against  real_statistics.npz: statistics of 40 images' in shown
  assert results(here / 'a.json')['fid'] == pytest.approx(
    folders['fid'], rel=1e-5
  )
  run(
    '--images=real_statistics.npz',
    '--against=real_statistics.npz',
    '--metrics=fid',
  )
  assert capfd.readouterr().out.startswith('FD       0.0000\n')


def test_statistics_of_others_are_read(here, tmp_path):
  """`mu` and `sigma` alone, in float32, compressed, with other arrays."""
  mean, covariance = np.ones(28, np.float32), np.eye(28, dtype=np.float32)
  path = tmp_path / 'other.npz'
  np.savez_compressed(path, mu=mean, sigma=covariance, mu_s=np.ones(3))
  found, about = fid.read_statistics(path)
  assert about == statistics_files.About()
  assert found.count == 0
  assert fid.frechet_distance(found, found) == 0
  run('--images=generated', f'--against={path}')


def bad(path, **arrays):
  np.savez(path, **arrays)
  return [f'--images={path.name}']


def damaged(path):
  np.savez_compressed(path, images=GENERATED)
  data = bytearray(path.read_bytes())
  with zipfile.ZipFile(path) as zipped:
    start = zipped.infolist()[0].header_offset + 100
  data[start + 400 : start + 430] = bytes(30)
  path.write_bytes(data)
  return [f'--images={path.name}']


def no_image(path):
  path.mkdir()
  (path / 'a.png').write_bytes(b'none')
  Image.fromarray(REAL[0]).save(path / 'b.png')
  return [f'--images={path.name}']


EYE = np.eye(28)


def unnamed(path):
  np.save(path.with_suffix('.npy'), GENERATED)
  return [f'--images={path.with_suffix(".npy").name}']


BAD = {
  'nothing': (lambda path: [], ['--images is missing']),
  'no folder': (lambda path: ['--images=genrated'], ["'generated'"]),
  'no image': (no_image, ['a.png cannot be read: not an image']),
  'empty folder': (
    lambda path: [path.mkdir(), f'--images={path.name}'][1:],
    ['no image found'],
  ),
  'mu without sigma': (
    lambda path: bad(path, mu=np.ones(28)),
    ['holds mu without sigma'],
  ),
  'statistics of another shape': (
    lambda path: bad(path, mu=np.ones(28), sigma=np.ones((28, 2))),
    ['mu is [28] and sigma [28, 2]'],
  ),
  'NaN': (
    lambda path: bad(path, mu=np.ones(28), sigma=EYE * np.nan),
    ['holds NaN'],
  ),
  'other features': (
    lambda path: [
      *bad(path, mu=np.ones(5), sigma=np.eye(5)),
      '--against=generated',
    ],
    ['5 and 28 features'],
  ),
  'no covariance': (
    lambda path: [
      *bad(path, mu=np.ones(28), sigma=-EYE),
      '--against=generated',
    ],
    ['eigenvalue is -1'],
  ),
  'floats': (
    lambda path: bad(path, arr_0=np.zeros((3, 28, 28, 3))),
    ['no arrays of images (arr_0 float64 [3, 28, 28, 3])', 'uint8'],
  ),
  'two arrays': (
    lambda path: bad(path, a=GENERATED, b=REAL),
    ['holds 2 arrays of images (a uint8 [23, 28, 28], b uint8'],
  ),
  'objects': (
    lambda path: bad(path, a=np.array([{}], dtype=object)),
    ['cannot be read', 'pickle'],
  ),
  'channels': (
    lambda path: bad(path, a=np.zeros((3, 8, 8, 5), np.uint8)),
    ['a is uint8 [3, 8, 8, 5]', '1 or 3 channels'],
  ),
  'damaged': (damaged, ['is damaged']),
  'one image': (
    lambda path: bad(path, a=GENERATED[:1]),
    ['one_image.npz: 1 image has no covariance'],
  ),
  'an array without a name': (
    unnamed,
    ["np.savez('an_array_without_a_name.npz', np.load('an_array"],
  ),
  'unknown metric': (
    lambda path: ['--images=generated', '--metrics=fid,kif'],
    ["'kif' is unknown", "did you mean 'kid'"],
  ),
  'nothing to compare with': (
    lambda path: ['--images=generated', '--metrics=kid'],
    ['--metrics=kid: kid: --against is missing'],
  ),
  'too many parts': (
    lambda path: ['--images=generated', '--splits=30'],
    ['23 images cannot be split into 30'],
  ),
  'resize of another network': (
    lambda path: ['--images=generated', '--resize=clean'],
    ['--resize=clean is for the Inception network'],
  ),
  'unknown layer': (
    lambda path: ['--images=generated', '--end_points=stage_9'],
    ['--end_points', 'stage_9'],
  ),
  'statistics with nothing': (
    lambda path: bad(path, mu=np.ones(28), sigma=EYE),
    ['nothing to compare'],
  ),
  'statistics of two': (
    lambda path: ['--images=generated', '--against=real', '--output=a.npz'],
    ['leave out --against'],
  ),
  'output of another kind': (
    lambda path: ['--images=generated', '--output=a.txt'],
    ['.npz, .json'],
  ),
  'no subset': (
    lambda path: ['--images=generated', '--subset_size=1'],
    ['--subset_size=1 is not allowed'],
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_line(case, here, capfd):
  make, words = BAD[case]
  flags = make(here / f'{case.replace(" ", "_")}.npz')
  before = files_under(here)
  capfd.readouterr()
  run(*flags, code=2)
  shown = capfd.readouterr()
  (line,) = [x for x in problems(shown.err).splitlines() if 'warning' not in x]
  assert line.startswith('error: ')
  for word in words:
    assert word in line, line
  assert files_under(here) == before


def test_arrays_in_the_home_folder(here, monkeypatch):
  monkeypatch.setenv('HOME', str(here))
  np.savez(here / 'home.npz', GENERATED)
  assert fid.open_images('~/home.npz').count == len(GENERATED)


def test_statistics_of_another_network_or_layer_are_refused(
  here, tmp_path, capfd
):
  path = tmp_path / 'a.npz'
  net = googlenet.load('run')
  about = statistics_files.About('', 'stage_2', statistics_files.digest_of(net))
  found = fid.Statistics(np.ones(28), EYE, 40)
  for changed, words in (
    (about._replace(end_point='stage_1'), '--end_points=stage_1, or make it'),
    (about._replace(resize='clean'), 'another way to resize'),
    (about._replace(weights='00'), 'another network: give the --workdir'),
  ):
    fid.write_statistics(path, found, changed)
    assert fid.read_statistics(path)[1] == changed
    run('--images=generated', f'--against={path}', code=2)
    assert words in capfd.readouterr().err


# ---- The Inception network of FID.


def inception(**data):
  """A network of that variant without parameters."""
  config = googlenet.get_config('fmnist96').unlock()
  config.model.variant = 'inception_fid'
  config.data.update(
    {'channels': 3, 'image_size': 299, 'mean': (128 / 255,) * 3}
    | {'std': (128 / 255,) * 3, **data}
  )
  return types.SimpleNamespace(
    config=ml_collections.FrozenConfigDict(config),
    image_shape=(299, 299, 3),
    stored_shape=(299, 299, 3),
    path='run',
  )


@pytest.mark.parametrize(
  ('name', 'formula'),
  [
    ('', lambda x: (x - 128) / 128),
    ('clean', lambda x: (x - 128) / 128),
    ('legacy_tensorflow', lambda x: (x - 128) / 128),
    ('legacy_pytorch', lambda x: 2 * (x / 255) - 1),
  ],
)
def test_what_the_inception_network_sees(name, formula):
  """An image that has its size already: the scale alone; grey is colour."""
  prepare, data = extract.prepare_for(inception(), name)
  pixels = np.random.default_rng(0).integers(0, 256, (299, 299, 3), np.uint8)
  found = preprocess(prepare.of_pixels(pixels)[None], data)
  np.testing.assert_allclose(found[0], formula(pixels.astype(float)), atol=1e-6)
  grey = prepare.of_pixels(pixels[:9, :9, :1])
  assert grey.shape == (299, 299, 3)
  np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_a_network_that_sees_images_otherwise_is_another():
  net = inception(mean=(0.5,) * 3)
  assert not extract.is_inception(net)
  with pytest.raises(UserError, match='is for the Inception network'):
    extract.prepare_for(net, 'clean')


def test_the_network_of_fid_is_that_of_2015():
  """Parameters of pytorch-fid's file, and where its pools are."""
  network = network_lib.make_network(
    model_config(variant='inception_fid', num_classes=1008)
  )
  pools = {
    row.name: row.branches[-1][0]
    for stage in network.architecture.stages
    for row in stage.rows
    if getattr(row, 'name', '').startswith('inception_')
  }
  kinds = {name: type(pool).__name__ for name, pool in pools.items()}
  assert [k for k, kind in kinds.items() if kind == 'MaxPool'] == [
    'inception_7c'
  ]
  assert not any(getattr(p, 'count_padding', False) for p in pools.values())
  assert all((p.window, p.stride) == (3, 1) for p in pools.values())


def test_it_is_the_default(monkeypatch):
  asked = []
  monkeypatch.setattr(hub, 'run_of', lambda name: asked.append(name) or '')
  with pytest.raises(UserError):
    command_line.parse(launch.FLAGS, ['', '--mode=fid', '--images=a'])
  assert asked == [hub.FID]


@pytest.mark.slow
def test_four_devices_give_what_one_gives(here, compilation_cache):
  flags = (
    *('--mode=fid', '--workdir=run', '--images=generated', '--against=real'),
    f'--config.train.compilation_cache={compilation_cache}',
  )
  found = []
  for devices in (1, 4):
    path = here / f'{devices}.json'
    done = start(here, *flags, f'--output={path.name}', devices=devices)
    assert done.returncode == 0, done.stderr
    found.append(results(path))
  one, four = found
  assert four['fid'] == pytest.approx(one['fid'], rel=1e-5)
  assert four['kid']['mean'] == pytest.approx(one['kid']['mean'], abs=1e-6)
  np.testing.assert_allclose(
    four['inception_score']['mean'], one['inception_score']['mean'], rtol=1e-6
  )
