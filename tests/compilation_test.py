"""Tests of compiling with options of XLA, and of what is told of it."""

import io
import os
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import (
  compilation_cache as compilation_cache_of_jax,
)

from googlenet import config as config_lib
from googlenet.data import batches
from googlenet.runtime import compilation, progress
from googlenet.runtime.compilation import compiled_with
from googlenet.runtime.parallel import replicated
from googlenet.train import evaluate, setup
from googlenet.train import step as step_lib

NO_EFFECT = (('xla_embed_ir_in_executable', False),)
UNKNOWN = (('xla_no_such_option', True),)


def test_options_reach_the_compiler():
  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    compiled_with(UNKNOWN, jax.jit(lambda x: x + 1))(jnp.ones(2))


def test_options_that_the_user_has_set_stay(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_other=1 --xla_no_such_option=false')
  double = compiled_with(UNKNOWN, jax.jit(lambda x: 2 * x))
  assert double(jnp.ones(2)).tolist() == [2, 2]
  monkeypatch.setenv('XLA_FLAGS', '--xla_no_such_option_=false')
  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    compiled_with(UNKNOWN, jax.jit(lambda x: 2 * x))(jnp.ones(2))


def test_options_in_a_file_of_the_user_stay_too(monkeypatch, tmp_path):
  (tmp_path / 'flags').write_text('--xla_other=1\n--xla_no_such_option=false\n')
  monkeypatch.setenv('XLA_FLAGS', str(tmp_path / 'flags'))
  double = compiled_with(UNKNOWN, jax.jit(lambda x: 2 * x))
  assert double(jnp.ones(2)).tolist() == [2, 2]


def test_arrays_may_come_from_another_place():
  """What is on the devices already, after what was not: two programs."""
  double = compiled_with((), jax.jit(lambda x: 2 * x))
  for x in (np.ones(2), replicated(np.ones(2)), jax.device_put(np.ones(2))):
    assert double(x).tolist() == [2, 2]


def test_one_program_for_each_shape_and_dtype():
  traced = []

  @jax.jit
  def double(tree):
    traced.append(tree['x'].aval.str_short())
    return tree['x'] * 2

  call = compiled_with(NO_EFFECT, double)
  for x in (jnp.ones(2), jnp.zeros(2), jnp.ones(3), jnp.ones(2, jnp.int32)):
    np.testing.assert_array_equal(call({'x': x}), np.asarray(x) * 2)
  assert traced == ['float32[2]', 'float32[3]', 'int32[2]']


def test_a_larger_program_may_hold_it():
  call = compiled_with(NO_EFFECT, jax.jit(jnp.sin))
  slope = jax.jit(jax.grad(lambda x: call(x) * 3))(0.0)
  assert slope == 3.0


def test_training_and_evaluation_are_compiled_with_the_options_of_the_kernels(
  config,
):
  run = setup.build(config_lib.resolve(config))
  kernels = run.network.kernels._replace(compiler_options=UNKNOWN)
  context = run.network.context._replace(kernels=kernels)
  network = run.network._replace(context=context)
  order = batches.TrainIndices(0, 1000, config.train.batch_size, 0, 1)
  batch = next(iter(run.train.batches(order)))
  seed = replicated(np.uint32(0))
  train_step = step_lib.make_train_step(
    network, optax.sgd(1.0), optax.constant_schedule(1.0), run.config
  )
  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    train_step(run.state, batch, seed)
  mask = np.ones(batch['label'].shape, np.float32)
  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    evaluate.make_eval_step(network, run.config)(
      run.state.params, run.state.network_state, {**batch, 'mask': mask}
    )


@pytest.fixture
def set_jax():
  """Sets an option of JAX for the length of a test."""
  before = {}

  def set_option(name, value):
    before.setdefault(name, getattr(jax.config, name))
    jax.config.update(name, value)

  yield set_option
  for name, value in before.items():
    jax.config.update(name, value)


def test_a_program_is_told_of_at_its_first_call_alone(
  compilation_cache, set_jax
):
  set_jax('jax_compilation_cache_dir', compilation_cache)
  call = compiled_with((), jax.jit(lambda params, x: params + x), 'sum')
  stream = io.StringIO()
  with progress.shown_on(stream):
    for x in (jnp.ones(2), jnp.zeros(2), jnp.ones(3)):
      np.testing.assert_array_equal(call(1.0, x), 1 + np.asarray(x))
    # Part of a larger program, by either argument.
    jax.jit(lambda x: call(1.0, x))(jnp.ones(4))
    jax.grad(lambda params: call(params, jnp.ones(6)).sum())(1.0)
  call(1.0, jnp.ones(5))  # outside of it: nothing is told
  line = f'compile  sum: compiled once, then read from {compilation_cache} at '
  assert stream.getvalue() == f'{line}later starts\n' * 2


def test_a_program_that_cannot_be_kept_is_not_said_to_be(
  set_jax, tmp_path, monkeypatch
):
  def line(*options):
    stream = io.StringIO()
    with progress.shown_on(stream), compilation.compiling('sum', options):
      pass
    return stream.getvalue()

  home = os.path.expanduser('~')
  set_jax('jax_compilation_cache_dir', f'{home}/.c/d')
  kept = 'compile  sum: compiled once, then read from ~/.c/d at later starts'
  assert line() == line(('xla_other', True)) == f'{kept}\n'
  assert line(('xla_cpu_experimental_onednn_custom_call', True)) == (
    'compile  sum: compiled at each start, as XLA cannot keep what calls '
    'oneDNN\n'
  )
  each = 'compile  sum: compiled at each start, as there is no '
  set_jax('jax_enable_compilation_cache', False)
  assert line() == f'{each}compilation cache\n'

  set_jax('jax_enable_compilation_cache', True)
  set_jax('jax_compilation_cache_dir', str(tmp_path))
  monkeypatch.setattr(os, 'access', lambda folder, how: folder != str(tmp_path))
  there = f'compile  sum: read from {tmp_path} if it is there, which cannot be '
  assert line() == f'{there}written\n'


def test_a_cache_that_fails_is_told_of_in_one_line(
  tmp_path, set_jax, monkeypatch, capsys
):
  """Two programs in a cache folder that has become a file."""
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)
  monkeypatch.setattr(warnings, 'filters', [('always', None, Warning, None, 0)])
  compilation.tell_cache_errors_once()
  folder = tmp_path / 'cache'
  set_jax('jax_compilation_cache_dir', str(folder))
  set_jax('jax_persistent_cache_min_compile_time_secs', 0.0)
  compilation_cache_of_jax.reset_cache()
  try:
    jax.jit(lambda x: x + 3)(jnp.ones(3)).block_until_ready()
    assert list(folder.iterdir())
    shutil.rmtree(folder)
    folder.touch()
    for n in (4, 5):
      jax.jit(lambda x, n=n: x + n)(jnp.ones(3)).block_until_ready()
  finally:
    compilation_cache_of_jax.reset_cache()
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  assert lines[0].startswith('warning: compiled programs are not kept, so they')
  assert 'Not a directory' in lines[0]
  assert 'config.train.compilation_cache takes another folder' in lines[0]
  # The user cannot change that XLA keeps no program which calls oneDNN.
  error = "Error writing persistent compilation cache entry for '{}': {}: no"
  warnings.warn(error.format('a', 'JaxRuntimeError'), stacklevel=1)
  warnings.warn(error.format('b', 'OSError'), stacklevel=1)
  assert capsys.readouterr().err == ''


def test_seconds_are_those_of_the_compiler():
  before = compilation.seconds_compiled()
  double = jax.jit(lambda x: x * 2)
  double(jnp.ones(7))
  after = compilation.seconds_compiled()
  assert after > before
  double(jnp.ones(7))
  assert compilation.seconds_compiled() == after


def test_one_process_of_several_tells(monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
  stream = io.StringIO()
  with progress.shown_on(stream), progress.working('it'):
    pass
  assert stream.getvalue() == ''
