"""The trace of a run and its table of layer times."""

import contextlib
import gzip
import io
import json
import types
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io.workdir import check_workdir
from googlenet.model import blocks, variants
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.model.rows import (
  LOGITS,
  Architecture,
  AuxHead,
  Conv,
  ConvLayer,
  Flatten,
  MaxPool,
  SqueezeExcite,
  Stage,
)
from googlenet.tools.modes import summary
from googlenet.train import checks, layer_times, loop, profiling, setup
from googlenet.train.layer_times import LayerTime

# Pooling after a convolution, after a block, and in a row; gates; a head.
MIXED_STAGES = (
  Stage(
    'stage_1',
    (
      ConvLayer('conv_1', (Conv('a', 6, 3, stride=2), Conv('b', 4, 1))),
      MaxPool(),
      MaxPool(stride=1),
      ConvLayer('conv_2', (Conv('a', 5, 3),)),
    ),
  ),
  Stage(
    'stage_2',
    (
      blocks.inception(
        'inception_2a', blocks.Widths(2, 2, 3, 2, 4, 1)
      )._replace(after=(SqueezeExcite(2),)),
      MaxPool(),
    ),
  ),
)
MIXED = Architecture(
  MIXED_STAGES,
  aux_heads=(AuxHead('aux_1', 'inception_2a', (MaxPool(), Flatten(), LOGITS)),),
  uses_aux_heads=True,
)


@pytest.fixture
def mixed(config, monkeypatch):
  """A config of that network."""
  monkeypatch.setitem(variants.ARCHITECTURES, 'mixed', MIXED)
  config.model.variant = 'mixed'
  config.data.image_size = 32
  return config


def make(config):
  """Returns the network of a config, its parameters and state."""
  network = network_lib.make_network(config.model)
  return network, *init_from_numpy(network, (32, 32, 1), 0)


def keys(count):
  return jax.random.split(jax.random.key(0), count)


def run(config, workdir):
  """Trains, and returns the folder of the profile."""
  loop.train_and_evaluate(config_lib.resolve(config), workdir)
  return workdir / 'profile'


def traced_steps(folder) -> list[int]:
  """The numbers of the steps in the trace that Perfetto opens."""
  (path,) = folder.glob('plugins/profile/*/perfetto_trace.json.gz')
  with gzip.open(path) as file:
    events = json.load(file)['traceEvents']
  assert len(events) > 10
  return [
    int(e['args']['step_num']) for e in events if e.get('name') == 'train'
  ]


def tensorboard_steps(folder) -> int:
  """The number of steps in the trace that TensorBoard opens."""
  (path,) = folder.glob('plugins/profile/*/*.xplane.pb')
  profile = jax.profiler.ProfileData.from_file(str(path))
  names = [
    event.name
    for plane in profile.planes
    for line in plane.lines
    for event in line.events
  ]
  return names.count('train')


@pytest.fixture(scope='module')
def traced_run(tmp_path_factory):
  """Workdir and screen of a run of which two steps are traced."""
  workdir, screen = tmp_path_factory.mktemp('traced') / 'run', io.StringIO()
  config = small_config()
  config.logging.profile_steps = 2
  with contextlib.redirect_stdout(screen):
    run(config, workdir)
  return workdir, screen.getvalue()


@pytest.fixture(scope='module')
def plain_run(tmp_path_factory):
  """Workdir of the same run without a trace: to start one would fail."""
  workdir = tmp_path_factory.mktemp('plain') / 'run'
  config = small_config()
  assert config.logging.profile_steps == 0
  refuse = mock.Mock(side_effect=AssertionError('traced'))
  with (
    mock.patch.object(jax.profiler, 'start_trace', refuse),
    mock.patch.object(layer_times, 'report', refuse),
  ):
    run(config, workdir)
  return workdir


def test_a_run_leaves_traces_and_the_table(traced_run):
  workdir, screen = traced_run
  folder = workdir / 'profile'
  assert traced_steps(folder) == [3, 4]
  assert tensorboard_steps(folder) == 2
  table = (folder / 'layers.txt').read_text()
  assert table in screen
  lines = [line.split() for line in table.splitlines()]
  assert [line[:4] for line in lines[2:4]] == [
    # 2 * (14 * 14 * 49 * 8), and the six convolutions at 7 * 7 places.
    ['conv_1', '+', 'max_pool', '7x7x8'],
    ['inception_2a', '7x7x28', '0.14', lines[3][3]],
  ]
  assert lines[2][4] == '0.15'
  assert [line[0] for line in lines[4:6]] == ['logits', 'sum']
  assert 'whole step' in table
  assert 'do not add up' in table


def test_traced_steps_are_the_steps_of_the_run_but_for_speed(
  traced_run, plain_run
):
  records, arrays = {}, {}
  for name, workdir in (('traced', traced_run[0]), ('plain', plain_run)):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    records[name] = [json.loads(line) for line in lines]
    with np.load(workdir / 'checkpoints/step_000000006.npz') as file:
      # What it tells of the run holds times.
      arrays[name] = {k: file[k] for k in file.files if k != 'about'}
  speed = 'train/images_per_second'
  # Recorded every second step; the third and the fourth are traced.
  assert [speed in r for r in records['traced'][:3]] == [True, False, True]
  assert [speed in r for r in records['plain'][:3]] == [True, True, True]
  for record in records['traced'] + records['plain']:
    record.pop(speed, None)
  assert records['traced'] == records['plain']
  chex.assert_trees_all_equal(arrays['traced'], arrays['plain'])


def test_without_profile_steps_nothing_is_traced(plain_run):
  assert not (plain_run / 'profile').exists()


def test_a_run_that_fails_closes_its_trace(config, tmp_path, monkeypatch):
  build = setup.build

  def broken(config, *options):
    parts = build(config, *options)
    calls = []

    def train_step(*arguments):
      calls.append(1)
      if len(calls) == 4:
        raise KeyboardInterrupt
      return parts.train_step(*arguments)

    return parts._replace(train_step=train_step)

  monkeypatch.setattr(setup, 'build', broken)
  config.logging.profile_steps = 3
  with pytest.raises(KeyboardInterrupt):
    run(config, tmp_path / 'run')
  assert traced_steps(tmp_path / 'run/profile') == [3, 4]
  jax.profiler.start_trace(tmp_path / 'next')
  jax.profiler.stop_trace()


def test_a_loss_that_is_not_finite_is_told_before_the_trace(config, tmp_path):
  config.logging.profile_steps = 2
  config.logging.every_steps = 50
  config.optimizer.learning_rate = 1e30
  config.optimizer.grad_clip_norm = 0
  with pytest.raises(UserError, match='train/loss is nan at step 2'):
    run(config, tmp_path / 'run')
  assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_profile_holds_a_run(tmp_path):
  (tmp_path / 'profile').mkdir()
  with pytest.raises(UserError, match='already holds a run .profile.'):
    check_workdir(tmp_path)


@pytest.fixture
def calls(monkeypatch):
  """What the profiler of JAX and the hook were asked for, in order."""
  calls = []

  def put(text):
    return lambda *_, **__: calls.append(text)

  monkeypatch.setattr(jax.profiler, 'start_trace', put('start'))
  monkeypatch.setattr(jax.profiler, 'stop_trace', put('stop'))
  monkeypatch.setattr(layer_times, 'report', lambda *_: 'table')
  return calls


def make_profile(calls, workdir, config, first_step=1, lines=None):
  """Returns a hook that traces the steps 3 and 4."""
  config.logging.profile_steps = 2
  lines = [] if lines is None else lines
  session = types.SimpleNamespace(
    run=setup.build(config_lib.resolve(config)),
    writer=types.SimpleNamespace(open=lambda: calls.append('open')),
    console=types.SimpleNamespace(line=lines.append),
    first_step=first_step,
  )
  return profiling.Profile(
    session, workdir, lambda step: calls.append(f'settle {step}')
  )


def test_a_run_that_is_continued_says_that_it_is_not_traced(
  config, calls, tmp_path
):
  lines = []
  make_profile(calls, tmp_path, config, 2, lines)
  assert lines == []
  make_profile(calls, tmp_path, config, 3, lines)
  assert lines == [
    'profile  config.logging.profile_steps=2: nothing is traced, because only '
    'steps 3 to 4 of a run are'
  ]
  (tmp_path / 'profile').mkdir()
  make_profile(calls, tmp_path, config, 3, lines)
  assert len(lines) == 1  # it was traced when it began


def after_steps(profile, calls, last):
  state = profile._session.run.state
  for step in range(1, last + 1):
    calls.append(step)
    assert profile(step, state, {}) is state


def test_a_trace_starts_and_ends_between_whole_steps(config, calls, tmp_path):
  profile = make_profile(calls, tmp_path, config)
  after_steps(profile, calls, 5)
  profile.close()
  assert calls == [1, 2, 'settle 2', 'open', 'start', 3, 4, 'stop', 5]


def test_only_process_0_traces(config, calls, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    profile = make_profile(calls, tmp_path, config)
    patch.setattr(jax, 'process_index', lambda: 1)
    profile = profiling.Profile(profile._session, tmp_path, calls.append)
  after_steps(profile, calls, 5)
  assert calls == [1, 2, 3, 4, 5]
  assert list(tmp_path.iterdir()) == []


def test_a_trace_that_cannot_be_written_is_told(
  config, calls, tmp_path, monkeypatch
):
  def fail():
    raise jax.errors.JaxRuntimeError('no space')

  monkeypatch.setattr(jax.profiler, 'stop_trace', fail)
  profile = make_profile(calls, tmp_path, config)
  after_steps(profile, calls, 2)
  with pytest.raises(UserError, match='no trace in .*profile: no space'):
    profile.close()


def test_the_first_epoch_has_to_hold_the_trace():
  def check(profile_steps, steps_per_epoch, num_steps):
    durations = config_lib.Durations(steps_per_epoch, 50, num_steps)
    checks.check_profile_steps(profile_steps, durations)

  check(3, 5, 50)
  check(3, 50, 5)
  check(0, 1, 1)
  with pytest.raises(UserError, match='profile_steps=4.* at most 3'):
    check(4, 5, 50)
  with pytest.raises(UserError, match='profile_steps=4.* at most 3'):
    check(4, 50, 5)
  with pytest.raises(UserError, match='profile_steps=1.* choose 0'):
    check(1, 2, 50)


def test_rows_of_the_table_are_those_of_the_architecture(mixed):
  network, params, state = make(mixed)
  rows = layer_times.measure(network, params, state, jnp.ones((2, 32, 32, 1)))
  assert [(row.name, row.shape) for row in rows] == [
    ('conv_1 + max_pool', (8, 8, 4)),
    ('max_pool', (8, 8, 4)),
    ('conv_2', (8, 8, 5)),
    ('inception_2a', (8, 8, 10)),
    ('aux_1', (10,)),
    ('max_pool', (4, 4, 10)),
    ('logits', (10,)),
  ]
  counted = {
    row.name: row.multiply_adds
    for row in summary.summarize(mixed.model, (32, 32, 1))
  }
  for row in rows:
    expected = counted.get(row.name.removesuffix(' + max_pool'), 0)
    assert row.mflop == pytest.approx(2 * expected / 1e6)
    assert row.forward_ms > 0
    assert row.training_ms > 0
  assert [row.passes for row in rows] == [2, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
  ('kernels', 'normalization'), [('xla', 'batch'), ('cpu', 'none')]
)
def test_layers_after_one_another_are_the_network(
  mixed, kernels, normalization
):
  mixed.model.kernels = kernels
  mixed.model.normalization = normalization
  mixed.model.dropout = 0.5
  network, params, state = make(mixed)
  images = np.random.default_rng(0).standard_normal((3, 32, 32, 1), np.float32)
  x = network.kernels.to_layout(jnp.asarray(images))
  side = {}
  for layer in layer_times.split(network, params, state, keys(3)):
    y = layer.apply(layer.params, x)
    if layer.is_side:
      side[layer.name] = y
    else:
      x = y
  outputs, _ = network.apply(params, state, keys(3), images, is_training=True)
  np.testing.assert_allclose(x, outputs.logits, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(side, outputs.aux_logits, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_what_is_timed_takes_gradients_of_inputs_and_parameters(
  mixed, monkeypatch
):
  """All but that of the images; and outputs go on to the next layer."""
  network, params, state = make(mixed)
  timed = []

  def call(function, *arguments):
    timed.append((arguments, function(*arguments)))
    return 1.0

  monkeypatch.setattr(layer_times, '_milliseconds', call)
  images = jnp.asarray(
    np.random.default_rng(0).standard_normal((2, 32, 32, 1)), jnp.bfloat16
  )
  params = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), params)
  layer_times.measure(network, params, state, images)
  x = network.kernels.to_layout(images)
  layers = layer_times.split(network, params, state, keys(2))
  for i, layer in enumerate(layers):
    (own, given), y = timed[2 * i]
    chex.assert_trees_all_equal(own, layer.params)
    chex.assert_trees_all_equal(given, x)
    (_, _, gradient), (y_again, gradients) = timed[2 * i + 1]
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_again, gradient)
    assert y.dtype == jnp.bfloat16
    asked = (layer.params, x) if i else (layer.params,)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, asked)
    x = x if layer.is_side else y


def test_the_table_is_of_one_devices_part_of_a_batch(mixed, monkeypatch):
  mixed.train.microbatches = 2
  mixed.train.precision = 'params=float32,compute=bfloat16,output=float32'
  seen = {}

  def measure(network, params, state, images):
    del network, state
    seen['images'] = images
    seen['params'] = params
    return [LayerTime('conv_1', (1,), 1.0, 2, 1.0, 3.0)]

  monkeypatch.setattr(layer_times, 'measure', measure)
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  network, params, state = make(mixed)
  text = layer_times.report(mixed, network, params, state, 1, 0.007)
  assert seen['images'].shape == (64 // 4 // 2, 32, 32, 1)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(seen)}
  assert dtypes == {jnp.dtype(jnp.bfloat16)}
  assert '8 images on one of 4 x cpu' in text
  assert 'sum of the layers 3.0 ms, whole step 7.0 ms' in text
  assert 'runs every layer 2 times' in text


def test_the_table_as_text():
  rows = [
    LayerTime('conv_1', (8, 8, 4), 50.0, 2, 1.0, 4.0),
    LayerTime('max_pool', (4, 4, 4), 0.0, 3, 2.0, 1.0),
    LayerTime('logits', (10,), 1.0, 3, 1.0, 3.0),
  ]
  # 100 images: 2 * 5 GFLOP in 4 ms, 3 * 0.1 GFLOP in 3 ms.
  assert layer_times.render(rows, 100).splitlines() == [
    'layer     output  MFLOP/image  forward ms  backward ms  GFLOP/s   share',
    'conv_1     8x8x4        50.00       1.000        3.000   2500.0   50.0%',
    'max_pool   4x4x4         0.00       2.000        0.000        -   12.5%',
    'logits        10         1.00       1.000        2.000    100.0   37.5%',
    'sum                     51.00       4.000        4.000   1287.5  100.0%',
  ]
