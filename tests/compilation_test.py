"""Tests of compiling with options of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from googlenet import assembly
from googlenet import config as config_lib
from googlenet import train_step as step_lib
from googlenet.data import batches
from googlenet.runtime.compilation import compiled_with
from googlenet.runtime.devices import replicated

NO_EFFECT = (('xla_embed_ir_in_executable', False),)
UNKNOWN = (('xla_no_such_option', True),)


def test_options_reach_the_compiler():
  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    compiled_with(UNKNOWN, jax.jit(lambda x: x + 1))(jnp.ones(2))


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
  run = assembly.build(config_lib.resolve(config))
  kernels = run.network.kernels._replace(compiler_options=UNKNOWN)
  setting = run.network.setting._replace(kernels=kernels)
  network = run.network._replace(setting=setting)
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
    step_lib.make_eval_step(network, run.config)(
      run.state.params, run.state.network_state, {**batch, 'mask': mask}
    )
