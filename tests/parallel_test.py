"""Functions on every device: `jax.pmap`, and its twin of `jax.shard_map`."""

import io
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, environment
from run_files import losses

from googlenet import config as config_lib
from googlenet.runtime import progress
from googlenet.runtime.parallel import FORMS, PMAP_AXIS, parallelize, replicated

UNKNOWN = (('xla_no_such_option', True),)


@pytest.mark.parametrize('how', FORMS)
def test_arguments_and_results_with_and_without_an_axis(how):
  seen = []

  def function(state, batch, scale):
    seen.append((state['w'].shape, batch['x'].shape, scale.shape))
    y = batch['x'] * state['w'] * scale
    return {'sum': jax.lax.psum(y.sum(), PMAP_AXIS)}, (y, y + 1)

  call = parallelize(
    function, in_axes=(None, 0, None), out_axes=(None, 0), how=how
  )
  x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
  sums, (y, more) = call({'w': jnp.full(2, 2.0)}, {'x': x}, np.float32(0.5))
  assert set(seen) == {((2,), (3, 2), ())}
  assert sums['sum'].shape == ()
  assert float(sums['sum']) == 15.0
  np.testing.assert_array_equal(y, x)
  np.testing.assert_array_equal(more, x + 1)


@pytest.mark.parametrize('how', FORMS)
def test_a_donated_argument_is_used_up_and_no_other(how):
  call = parallelize(
    lambda state, x: state + x.sum(),
    in_axes=(None, 0),
    out_axes=None,
    donate_argnums=0,
    how=how,
  )
  state, x = replicated((jnp.ones(3), jnp.ones((1, 2))))
  np.testing.assert_array_equal(call(state, x), [3, 3, 3])
  assert state.is_deleted()
  assert not x.is_deleted()


@pytest.mark.parametrize('how', FORMS)
def test_options_reach_the_compiler_and_a_line_the_console(
  how, compilation_cache
):
  def double(options, what):
    return parallelize(
      lambda x: 2 * x, in_axes=(0,), options=options, what=what, how=how
    )

  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    double(UNKNOWN, '')(np.ones((1, 2)))
  stream, call = io.StringIO(), double((), 'double')
  with progress.shown_on(stream):
    for _ in range(2):
      np.testing.assert_array_equal(call(np.ones((1, 2))), [[2, 2]])
  assert stream.getvalue() == (
    f'compile  double: compiled once, then read from {compilation_cache} at '
    'later starts\n'
  )


# A run of each form and one that begins with `pmap` and goes on at step 3 with
# `shard_map`.
PROGRAM = """
import os, shutil, sys
from googlenet import config as config_lib
from googlenet.io import checkpoint
from googlenet.runtime.machine import tune_machine
from googlenet.train.loop import train_and_evaluate

def train(form, workdir):
  config = config_lib.load('config.json')
  config.train.parallel = form
  train_and_evaluate(config_lib.resolve(config), workdir)

tune_machine(sys.argv[1])
train('pmap', 'pmap')
train('shard_map', 'shard_map')
shutil.copytree('pmap', 'crossed')
os.remove('crossed/result.json')
os.remove(checkpoint.path_of('crossed', 6))
train('shard_map', 'crossed')
"""


def saved(workdir: pathlib.Path) -> dict[str, bytes]:
  """Returns all arrays of the last checkpoint but what tells of the run."""
  with np.load(workdir / 'checkpoints/step_000000006.npz') as file:
    return {
      key: file[key].tobytes()
      for key in set(file.files) - {'about', 'progress'}
    }


def evaluated(workdir: pathlib.Path) -> dict[str, float]:
  result = json.loads((workdir / 'result.json').read_text())
  return {key: result[key] for key in result if key.startswith('eval/')}


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 2, 4])
def test_shard_map_makes_the_run_of_pmap(
  config, tmp_path, compilation_cache, devices
):
  """To the bit: XLA is given the same program.

  Batch norm and its estimate over devices, dropout and augmentation by place,
  an average of the parameters, a padded evaluation; and a run that is continued
  with the other form.
  """
  config.model.normalization = 'batch'
  config.model.dropout = 0.3
  config.augment.flip = 'random'
  config.augment.crop_padding = 2
  config.train.ema_decay = 0.9
  config.eval.batch_norm_batches = 2
  config.eval.batch_size = 384
  config.data.train_split = 'train[:640]'
  config.checkpoint.every_steps = 3
  config.logging.every_steps = 1
  config.logging.tensorboard = False
  text = config_lib.to_json(config_lib.resolve(config))
  (tmp_path / 'config.json').write_text(text)
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, compilation_cache],
    cwd=tmp_path,
    env={
      **os.environ,
      **environment(devices, optimized=False),
      'PYTHONPATH': str(ROOT),
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert f'devices  {devices} x cpu' in done.stdout
  pmap, *others = (tmp_path / n for n in ('pmap', 'shard_map', 'crossed'))
  assert losses(pmap).shape == (6, 2)
  for other in others:
    np.testing.assert_array_equal(losses(other), losses(pmap))
    assert saved(other) == saved(pmap)
    assert evaluated(other) == evaluated(pmap)
  assert evaluated(pmap)['eval/count'] == 1000
