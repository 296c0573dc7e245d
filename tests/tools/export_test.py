"""--mode=export: each format in its own runtime, against the network itself."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT
from run_files import problems
from saved_run import CLASS_NAMES, save_run

import googlenet
import launch
from googlenet import config as config_lib
from googlenet.data.sources import load_dataset
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.model import rows, variants
from googlenet.model.initialization import count_parameters
from googlenet.tools.exports import inference, onnx_graph
from googlenet.train import loop

FORMATS = ('onnx', 'stablehlo', 'safetensors')


def need(format: str) -> None:
  """Skips a test where what it takes is not installed."""
  if format == 'onnx':
    pytest.importorskip('onnx', reason='pip install onnx onnxruntime')
    pytest.importorskip('onnxruntime', reason='pip install onnx onnxruntime')
  if format == 'stablehlo':
    pytest.importorskip('flatbuffers', reason='pip install flatbuffers')


def export(*flags: str, code: int = 0) -> None:
  argv = ['launch.py', '--mode=export', *flags]
  if not any(flag.startswith('--workdir=') for flag in flags):
    argv.append('--workdir=run')
  assert launch.main([*argv, '--config.train.compilation_cache=']) == code


def run_onnx(model: str | bytes, images: np.ndarray) -> list[np.ndarray]:
  import onnxruntime

  session = onnxruntime.InferenceSession(model)
  (given,) = session.get_inputs()
  assert (given.name, given.type) == ('images', 'tensor(uint8)')
  assert [o.name for o in session.get_outputs()] == ['logits', 'probabilities']
  return session.run(None, {'images': images})


def run_file(format: str, images: np.ndarray) -> list[np.ndarray]:
  """Runs model.<format>: logits and probabilities."""
  if format == 'onnx':
    return run_onnx('model.onnx', images)
  if format == 'stablehlo':
    from jax import export as jax_export

    data = pathlib.Path('model.stablehlo').read_bytes()
    out = jax_export.deserialize(data).call(images)
    return [out['logits'], out['probabilities']]
  net = googlenet.load('model.safetensors')
  features = net.features(images, ['logits', 'probabilities'])
  return list(features.values())


def pixels(shape, count=5):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, *shape), np.uint8)


def outputs(net, images):
  out = net.apply(net.params, net.network_state, images, ['probabilities'])
  return out.logits, out.end_points['probabilities']


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config.data.image_size = 32
  save_run(tmp_path / 'run', config)
  return tmp_path


@pytest.mark.parametrize('format', FORMATS)
def test_logits_are_equal_for_any_batch(run, capfd, format):
  need(format)
  export(f'--output=model.{format}')
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  assert f'model    model.{format}: {format}, ' in shown.out
  assert 'tiny, 2,186 parameters, 10 classes' in shown.out
  assert 'computes in' not in shown.out
  assert 'uint8 [batch, 28, 28, 1], grey, resized to 28x28' in shown.out
  assert 'step_000000007.npz: step 7' in shown.out
  beside = ['model.stablehlo.json'] if format == 'stablehlo' else []
  files = sorted(path.name for path in run.iterdir())
  assert files == [f'model.{format}', *beside, 'run']
  net = googlenet.load('run')
  for count in (1, 300):
    images = pixels((28, 28, 1), count)
    logits, probabilities = run_file(format, images)
    expected = outputs(net, images)
    assert logits.shape == probabilities.shape == (count, 10)
    np.testing.assert_allclose(logits, expected[0], atol=2e-5)
    np.testing.assert_allclose(probabilities, expected[1], atol=2e-6)
  if format == 'stablehlo':
    assert f'JAX {jax.__version__} or newer, on cpu, cuda, tpu' in shown.out


def test_views_are_in_the_program_or_told(run, config, capfd):
  config.eval.flip, config.eval.shift = True, 1
  save_run(run / 'views', config)
  net = googlenet.load('views')
  images = pixels((28, 28, 1))
  expected = {True: net.predict(images), False: net.predict(images, False)}
  assert np.abs(expected[True] - expected[False]).max() > 1e-3
  for format, flags, computed in (
    ('onnx', [], 1),
    ('stablehlo', [], 6),
    ('stablehlo', ['--noviews'], 1),
  ):
    try:
      need(format)
    except pytest.skip.Exception:
      continue
    for path in run.glob('model.*'):
      path.unlink()
    capfd.readouterr()
    export('--workdir=views', f'--output=model.{format}', *flags)
    shown = capfd.readouterr().out
    said = 'computes each image once' if computed == 1 else 'averages 6 views'
    assert f'views    {said}' in shown
    logits, probabilities = run_file(format, images)
    np.testing.assert_allclose(
      probabilities, expected[computed == 6], atol=2e-6
    )
    np.testing.assert_allclose(jax.nn.softmax(logits), probabilities, atol=2e-6)
    if format == 'stablehlo':
      about = json.loads(pathlib.Path('model.stablehlo.json').read_text())
      assert about['views'] == {
        'computed': computed,
        'evaluated_with': 6,
        'fields': 'eval.flip, eval.shift=1',
      }


# Small, but not so that maps of 1x1 hide the order of their values.
SIZES = {
  'inception_v3': 75,
  'inception_fid': 75,
  'alexnet': 99,
  'alexnet_torchvision': 99,
  'vgg16': 64,
  'nin': 67,
  'fmnist28': 28,
}


def onnx_net(config, tmp_path, stored_shape=(28, 28, 1)):
  need('onnx')
  config.model.kernels = 'xla'
  return googlenet.load(save_run(tmp_path / 'run', config, stored_shape))


@pytest.mark.parametrize(
  'variant',
  [
    # It has the operations of others, and takes as long as Inception v3.
    pytest.param(
      name, marks=[pytest.mark.slow] if name == 'inception_fid' else []
    )
    for name in variants.ARCHITECTURES
  ],
)
def test_onnx_of_every_network(config, tmp_path, variant):
  config.model.variant = variant
  config.model.width_multiplier = 0.1
  config.model.aux_heads = 'off'
  config.data.image_size = SIZES.get(variant, 40)
  net = onnx_net(config, tmp_path)
  images = pixels(net.stored_shape)
  logits, probabilities = run_onnx(onnx_graph.export(net), images)
  expected = outputs(net, images)
  scale = np.abs(expected[0]).max()
  assert scale > 0.05
  np.testing.assert_allclose(logits, expected[0], atol=1e-5 * max(scale, 1))
  np.testing.assert_allclose(probabilities, expected[1], atol=1e-5)


ACTIVATIONS = FIELDS['model.activation'].allowed.removeprefix('one of ')


@pytest.mark.parametrize('activation', ACTIVATIONS.split(', '))
def test_onnx_of_every_activation(config, tmp_path, activation):
  config.model.activation = activation
  config.model.normalization = 'batch' if activation == 'silu' else 'lrn'
  net = onnx_net(config, tmp_path)
  images = pixels(net.stored_shape)
  logits, _ = run_onnx(onnx_graph.export(net), images)
  np.testing.assert_allclose(logits, outputs(net, images)[0], atol=5e-6)


@pytest.mark.parametrize(
  ('stored_shape', 'size', 'channels'),
  [
    ((28, 28, 1), 28, 0),
    ((28, 28, 1), 40, 3),  # grey made colour
    ((50, 40, 3), 32, 1),  # colour made grey, shrunk
    ((20, 60, 3), 33, 0),  # one way larger, the other way smaller
    ((32, 32, 4), 32, 0),
  ],
)
def test_onnx_of_every_preprocessing(
  config, tmp_path, stored_shape, size, channels
):
  config.data.image_size, config.data.channels = size, channels
  seen = channels or stored_shape[-1]
  config.data.mean = tuple(0.1 * i for i in range(seen))
  config.data.std = tuple(0.2 + 0.1 * i for i in range(seen))
  net = onnx_net(config, tmp_path, stored_shape)
  images = pixels(stored_shape)
  logits, _ = run_onnx(onnx_graph.export(net), images)
  np.testing.assert_allclose(logits, outputs(net, images)[0], atol=5e-6)


def test_onnx_is_readable(config, tmp_path):
  import_onnx = pytest.importorskip('onnx', reason='pip install onnx')
  config.model.kernels = 'xla'
  net = googlenet.load(save_run(tmp_path / 'run', config))
  graph = import_onnx.load_from_string(onnx_graph.export(net)).graph
  names = [node.name for node in graph.node]
  assert len(set(names)) == len(names)
  assert {
    'conv_1/conv_7x7',
    'stage_1/max_pool',
    'inception_2a/conv_3x3_reduce',
    'inception_2a/conv_3x3_reduce/relu',
    'inception_2a/max_pool',
    'inception_2a/concat',
    'head/logits',
  } <= set(names)
  weights = {tensor.name: tensor for tensor in graph.initializer}
  kernel = import_onnx.numpy_helper.to_array(weights['conv_1/conv_7x7/w'])
  np.testing.assert_array_equal(
    kernel.transpose(2, 3, 1, 0), net.params['conv_1/conv_7x7']['w']
  )


def test_a_layer_that_onnx_has_not(config, tmp_path):
  net = onnx_net(config, tmp_path)
  first, last = net.network.architecture.stages
  pooled = last._replace(rows=(*last.rows, rows.AdaptiveAvgPool(2)))
  network = net.network._replace(
    architecture=net.network.architecture._replace(stages=(first, pooled))
  )
  with pytest.raises(UserError, match='layer stage_2.* AdaptiveAvgPool'):
    onnx_graph.export(net._replace(network=network))


BFLOAT16 = 'bfloat16'


@pytest.fixture
def half_run(run, config):
  """A run in bfloat16; returns its network, and the same in float32."""
  config.train.precision = BFLOAT16
  half = googlenet.load(save_run(run / 'half', config))
  config.train.precision = 'float32'
  return half, googlenet.load(save_run(run / 'wide', config))


@pytest.mark.parametrize('format', FORMATS)
def test_an_export_computes_in_float32_and_says_what_this_changes(
  half_run, capfd, format
):
  need(format)
  half, wide = half_run
  export('--workdir=half', f'--output=a.{format}')
  shown = capfd.readouterr().out
  pathlib.Path(f'a.{format}').rename(f'model.{format}')
  images = pixels((28, 28, 1))
  logits, _ = run_file(format, images)
  np.testing.assert_allclose(logits, outputs(wide, images)[0], atol=2e-5)
  differ = re.search(
    rf'computes in float32; logits of the run itself, in {BFLOAT16}, differ by '
    r'up to (\S+) of (\S+) \(64 random images\)',
    shown,
  )
  expected = inference.difference(half, wide)
  assert expected[0] > 100 * np.abs(logits - outputs(wide, images)[0]).max()
  assert differ.groups() == tuple(f'{number:.2g}' for number in expected)


def test_an_export_as_precise_as_the_run(half_run, capfd):
  export('--workdir=half', '--output=model.safetensors', '--precision=run')
  assert f'computes in {BFLOAT16}, as the run' in capfd.readouterr().out
  images = pixels((28, 28, 1))
  logits, _ = run_file('safetensors', images)
  half, wide = half_run
  np.testing.assert_array_equal(logits, outputs(half, images)[0])
  assert np.abs(logits - outputs(wide, images)[0]).max() > 1e-3
  export('--workdir=half', '--output=a.onnx', '--precision=run', code=2)
  shown = capfd.readouterr()
  assert shown.err.startswith('error: --precision=run: an ONNX file computes')
  assert shown.err.count('\n') == 1
  assert not pathlib.Path('a.onnx').exists()


def test_heads_are_left_out(config, tmp_path, monkeypatch, capfd):
  """Only training uses them; no format holds them or counts them."""
  ops = (rows.GlobalMean(), rows.Dense('fc', 50_000), rows.LOGITS)
  architecture = variants.ARCHITECTURES['tiny']._replace(
    aux_heads=(rows.AuxHead('aux_1', 'conv_1', ops),), uses_aux_heads=True
  )
  monkeypatch.setitem(variants.ARCHITECTURES, 'tiny', architecture)
  monkeypatch.chdir(tmp_path)
  config.model.aux_heads = 'on'
  net = googlenet.load(save_run(tmp_path / 'run', config))
  assert 'aux_1/fc' in net.params
  images = pixels((28, 28, 1))
  expected = outputs(net, images)
  for format in FORMATS:
    try:
      need(format)
    except pytest.skip.Exception:
      continue
    export(f'--output=model.{format}')
    shown = capfd.readouterr().out
    assert 'tiny, 2,186 parameters' in shown
    left = count_parameters(net.params) - 2_186
    assert f'left out auxiliary heads: {left:,} parameters' in shown
    assert left > 500_000
    assert pathlib.Path(f'model.{format}').stat().st_size < 100_000
    logits, _ = run_file(format, images)
    np.testing.assert_allclose(logits, expected[0], atol=2e-5)
  stored = googlenet.load('model.safetensors')
  assert stored.config.model.aux_heads == 'off'


def test_what_a_file_tells(run):
  export('--output=a', '--format=safetensors')
  pathlib.Path('a').rename('a.safetensors')
  told = {'safetensors': googlenet.load('a.safetensors').class_names}
  for format in ('stablehlo', 'onnx'):
    try:
      need(format)
    except pytest.skip.Exception:
      continue
    export(f'--output=b.{format}')
    if format == 'onnx':
      import onnxruntime

      session = onnxruntime.InferenceSession('b.onnx')
      about = session.get_modelmeta().custom_metadata_map
      about = {
        k: json.loads(v) if v[:1] in '[{' or v.isdigit() else v
        for k, v in about.items()
      }
    else:
      about = json.loads(pathlib.Path('b.stablehlo.json').read_text())
    told[format] = tuple(about['class_names'])
    assert about['image_shape'] == [28, 28, 1]
    assert about['step'] == 7
    assert about['jax'] == jax.__version__
    stored = json.loads(pathlib.Path('run/config.json').read_text())
    about['config']['train'].pop('compilation_cache')  # given to `export`
    del stored['train']['compilation_cache']
    assert about['config'] == stored
  assert set(told.values()) == {CLASS_NAMES}


def test_safetensors_is_read_by_its_own_library(run):
  export('--output=a.safetensors')
  found = safetensors.numpy.load_file('a.safetensors')
  net = googlenet.load('run')
  assert set(found) == {
    f'params/{module}/{name}'
    for module, leaves in net.params.items()
    for name in leaves
  }
  kernel = found['params/inception_2a/conv_3x3/w']
  np.testing.assert_array_equal(
    kernel, net.params['inception_2a/conv_3x3']['w']
  )
  with safetensors.safe_open('a.safetensors', 'np') as file:
    told = json.loads(file.metadata()['googlenet'])
  assert told['class_names'] == list(CLASS_NAMES)


DAMAGE = {
  'of another kind': 'does not describe its network',
  'an array is missing': 'params/logits/b is missing',
  'an array of another shape': r'params/logits/b is float32 \(9,\)',
  'an array too many': 'holds params/other',
  'cut off': 'damaged',
  'gone': 'no such file',
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_safetensors_that_cannot_be_loaded(run, damage):
  from googlenet.io import array_files

  export('--output=a.safetensors')
  path = pathlib.Path('a.safetensors')
  metadata = array_files.read_metadata(path)
  stored = {
    name: array.read() for name, array in array_files.read(path).items()
  }
  if damage == 'of another kind':
    metadata = {'format': 'pt'}
  elif damage == 'an array is missing':
    del stored['params/logits/b']
  elif damage == 'an array of another shape':
    stored['params/logits/b'] = stored['params/logits/b'][:9]
  elif damage == 'an array too many':
    stored['params/other'] = np.zeros(3, np.float32)
  array_files.write(path, stored, metadata)
  if damage == 'cut off':
    path.write_bytes(path.read_bytes()[:-4])
  elif damage == 'gone':
    path.unlink()
  with pytest.raises(UserError, match=DAMAGE[damage]) as error:
    googlenet.load(path)
  assert 'a.safetensors' in str(error.value)


BAD_INPUT = {
  'no output': ([], ['--output= has no known ending', '.onnx']),
  'a format alone': (['--format=onnx'], ['--output is missing']),
  'unknown format': (
    ['--output=a.onnx', '--format=onx'],
    ['--format=onx', "did you mean 'onnx'", 'stablehlo, onnx, safetensors'],
  ),
  'unknown precision': (
    ['--output=a.onnx', '--precision=float23'],
    ['--precision=float23', "did you mean 'float32'", 'one of float32, run'],
  ),
  'unknown ending': (['--output=a.pb'], ['--output=a.pb', '.safetensors']),
  'an output that is there': (
    ['--output=run/config.json', '--format=onnx'],
    ['--output=run/config.json', 'never overwritten'],
  ),
  'a file beside that is there': (
    ['--output=there.stablehlo'],
    ['--output=there.stablehlo.json', 'never overwritten'],
  ),
  'an output in no folder': (
    ['--output=out/a.onnx'],
    ['--output=out/a.onnx', 'no writable folder out'],
  ),
  'no run': (['--output=a.onnx', '--workdir=none'], ['none holds no run']),
  'no workdir': (['--output=a.onnx', '--workdir='], ['--workdir is missing']),
  'no checkpoint': (
    ['--output=a.safetensors', '--workdir=empty'],
    ['--workdir=empty holds no checkpoint'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(run, capfd, case):
  flags, words = BAD_INPUT[case]
  (run / 'there.stablehlo.json').write_text('')
  (run / 'empty').mkdir()
  config = (run / 'run/config.json').read_text()
  (run / 'empty/config.json').write_text(config)
  before = sorted(run.rglob('*'))
  export(*flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  assert shown.err.startswith('error: ')
  assert shown.err.count('\n') == 1
  for word in words:
    assert word in shown.err
  assert sorted(run.rglob('*')) == before


@pytest.mark.parametrize(
  ('format', 'package'), [('onnx', 'onnx'), ('stablehlo', 'flatbuffers')]
)
def test_a_missing_library_is_told(run, capfd, monkeypatch, format, package):
  monkeypatch.setitem(__import__('sys').modules, package, None)
  export(f'--output=a.{format}', code=2)
  assert f'pip install {package}\n' in capfd.readouterr().err
  assert sorted(path.name for path in run.iterdir()) == ['run']


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('format', FORMATS)
def test_the_example_of_the_docs(
  config, tmp_path, monkeypatch, capfd, format, channels
):
  """The command and the code of docs/export.md, as they stand there."""
  need(format)
  monkeypatch.chdir(tmp_path)
  config.data.mean = config.data.std = (0.5,) * channels
  save_run(tmp_path / 'runs/trial', config, (28, 28, channels))
  (tmp_path / 'docs').symlink_to(ROOT / 'docs')
  text = (ROOT / 'docs/export.md').read_text()
  _, text = re.split(rf'\n## {format}\n', text, flags=re.I)
  command = re.search(r'python (launch\.py .*)', text)[1].split()
  code = re.search(r'```python\n(.*?)```', text, re.S)[1]
  assert launch.main([*command, '--config.train.compilation_cache=']) == 0
  capfd.readouterr()
  scope = {}
  exec(code, scope)  # noqa: S102
  net = googlenet.load('runs/trial')
  expected = net.predict(net.read(['docs/photos/bag.jpg']))
  np.testing.assert_allclose(scope['probabilities'], expected, atol=0.02)
  best = net.class_names[int(np.argmax(scope['probabilities'][0]))]
  assert capfd.readouterr().out == f'{best}\n'


@pytest.mark.slow
def test_all_test_images_after_training(config, tmp_path, monkeypatch, capfd):
  for format in FORMATS:
    need(format)
  monkeypatch.chdir(tmp_path)
  config.train.max_steps = 200
  config.data.eval_split = 'test'
  result = loop.train_and_evaluate(config_lib.resolve(config), 'run')
  images, labels = load_dataset(config.data, 'test').read(np.arange(10_000))
  net = googlenet.load('run')
  expected = net.features(images, ['logits'])['logits']
  accuracy = np.mean(expected.argmax(-1) == labels)
  assert accuracy == pytest.approx(result['eval/accuracy'], abs=1e-6)
  assert accuracy > 0.5
  for format in FORMATS:
    export(f'--output=model.{format}')
    logits, _ = run_file(format, images)
    difference = np.abs(logits - expected).max()
    with capfd.disabled():
      print(f'{format}: {difference:.2g} of {np.abs(expected).max():.2g}')
    assert difference <= 3e-5
    assert np.mean(np.argmax(logits, -1) == labels) == accuracy
