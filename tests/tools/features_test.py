"""--mode=features: end points of a split or of files, against the network."""

import os
import re
import signal

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from conftest import ROOT, last_of_each
from PIL import Image
from run_files import problems
from saved_run import save_run

import googlenet
import launch
from googlenet.data.sources import load_dataset
from googlenet.tools.inference import feature_files


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """A run and photos, in the current folder."""
  monkeypatch.chdir(tmp_path)
  config.eval.batch_size = 4
  config.data.eval_split = 'test[:10]'
  save_run(tmp_path / 'runs/trial', config)
  os.mkdir('photos')
  for i in range(6):
    rng = np.random.default_rng(i)
    pixels = rng.integers(0, 256, (9, 9 + i), np.uint8)
    Image.fromarray(pixels).save(f'photos/{"a" * i}{i}.png')
  return tmp_path


def features(*flags: str, code: int = 0) -> None:
  argv = ['launch.py', '--mode=features', '--workdir=runs/trial', *flags]
  argv = last_of_each([*argv, '--config.train.compilation_cache='])
  assert launch.main(argv) == code


@pytest.mark.parametrize('on_device_mb', [0, 100])
def test_a_split(run, config, capfd, on_device_mb):
  features(
    '--end_points=stage_1,probabilities,stage_1',
    '--output=a.npz',
    f'--config.data.on_device_mb={on_device_mb}',
  )
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  assert (
    'features a.npz: stage_1 [7, 7, 8], probabilities [10] of 10 images, '
    in shown.out
  )
  images, labels = load_dataset(config.data, 'test').read(np.arange(10))
  net = googlenet.load('runs/trial')
  expected = net.features(images, ['stage_1', 'probabilities'])
  with np.load('a.npz', allow_pickle=False) as found:
    assert set(found.files) == {'label', 'stage_1', 'probabilities'}
    assert found['label'].dtype == np.int32
    np.testing.assert_array_equal(found['label'], labels)
    for name, values in expected.items():
      assert found[name].dtype == np.float32
      np.testing.assert_allclose(found[name], values, atol=1e-6)
  assert sorted(os.listdir()) == ['a.npz', 'photos', 'runs']


def test_files(run, capfd):
  (run / 'photos/b.png').write_bytes(b'none')
  features('--images=photos', '--output=a.npz', code=65)
  shown = capfd.readouterr()
  assert problems(shown.err).splitlines() == [
    'warning: photos/b.png cannot be read: not an image that Pillow can read',
    'error: 1 of 7 images could not be read, see the warnings above; the '
    'others are done',
  ]
  net = googlenet.load('runs/trial')
  paths = sorted(str(p) for p in (run / 'photos').glob('*[0-9].png'))
  expected = net.features(net.read(paths), ['stage_2'])['stage_2']
  with np.load('a.npz', allow_pickle=False) as found:
    assert set(found.files) == {'path', 'stage_2'}
    assert [str(run / path) for path in found['path']] == paths
    np.testing.assert_allclose(found['stage_2'], expected, atol=1e-6)


def test_records_by_the_code_of_the_readme(run, config, capfd):
  features('--end_points=stage_2', '--output=features.array_record')
  capfd.readouterr()
  text = (ROOT / 'docs/use.md').read_text()
  (code,) = re.findall(r'```python\n(import io\n.*?)```', text, re.S)
  exec(code, {})  # noqa: S102
  images, labels = load_dataset(config.data, 'test').read(np.arange(10))
  assert capfd.readouterr().out == f'(28,) {labels[0]}\n'
  net = googlenet.load('runs/trial')
  expected = net.features(images, ['stage_2'])['stage_2']
  import io

  with ArrayRecordDataSource('features.array_record') as records:
    assert len(records) == 10
    for i in (7, 3):
      record = np.load(io.BytesIO(records[i]), allow_pickle=False)
      assert record['label'] == labels[i]
      np.testing.assert_allclose(record['stage_2'], expected[i], atol=1e-6)


BAD_INPUT = {
  'unknown end point': (
    ['--output=a.npz', '--end_points=stage_2,incepton_2a'],
    ['--end_points: ', "did you mean 'inception_2a'", '--points'],
  ),
  'no output': ([], ['--output= has no known ending', '.npz, .array_record']),
  'unknown format': (
    ['--output=a.npz', '--format=h5'],
    ['--format=h5', 'npz, array_record'],
  ),
  'an output that is there': (
    ['--output=photos', '--format=npz'],
    ['--output=photos exists already'],
  ),
  'an output in no folder': (['--output=b/a.npz'], ['no writable folder b']),
  'no images': (
    ['--output=a.npz', '--images=photos/*.jpg'],
    ['--images=photos/*.jpg', 'no image found'],
  ),
  'no split': (
    ['--output=a.npz', '--config.data.eval_split=tset'],
    ["config.data.eval_split='tset'", "did you mean 'test'"],
  ),
  'no run': (['--output=a.npz', '--workdir=photos'], ['holds no run']),
  'no workdir': (['--output=a.npz', '--workdir='], ['--workdir is missing']),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(run, capfd, case):
  flags, words = BAD_INPUT[case]
  before = sorted(run.rglob('*'))
  features(*flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  assert shown.err.startswith('error: ')
  assert shown.err.count('\n') == 1
  for word in words:
    assert word in shown.err
  assert sorted(run.rglob('*')) == before


@pytest.mark.parametrize('format', feature_files.WRITERS)
@pytest.mark.parametrize('ending', ['a full disk', 'a signal'])
def test_what_ends_early_leaves_nothing(
  run, monkeypatch, capfd, format, ending
):
  writer = {
    'npz': feature_files.Columns,
    'array_record': feature_files.Records,
  }[format]
  original, calls = writer.write, []

  def write(self, arrays):
    calls.append(arrays)
    if len(calls) == 2:
      if ending == 'a signal':
        os.kill(os.getpid(), signal.SIGTERM)
      raise OSError(28, 'No space left on device')
    original(self, arrays)

  monkeypatch.setattr(writer, 'write', write)
  code = 130 if ending == 'a signal' else 74
  features(f'--output=a.{format}', code=code)
  assert sorted(os.listdir()) == ['photos', 'runs']


def test_no_image_that_can_be_read(run, capfd):
  (run / 'b.png').write_bytes(b'none')
  features('--images=b.png', '--output=a.npz', code=65)
  assert 'none of 1 image could be read' in capfd.readouterr().err
  assert not (run / 'a.npz').exists()


def test_an_npz_costs_the_memory_of_a_batch(tmp_path):
  """40 MB in batches of 400 kB."""
  import tracemalloc

  rng = np.random.default_rng(0)
  batch = rng.normal(size=(100, 1000)).astype(np.float32)
  tracemalloc.start()
  with feature_files.npz(tmp_path / 'a.npz') as writer:
    for i in range(100):
      writer.write({'x': batch + i, 'label': np.full(100, i, np.int32)})
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 5e6
  with np.load(tmp_path / 'a.npz') as found:
    assert found['x'].shape == (10_000, 1000)
    np.testing.assert_array_equal(found['x'][-100:], batch + 99)
    np.testing.assert_array_equal(found['label'], np.arange(100).repeat(100))
