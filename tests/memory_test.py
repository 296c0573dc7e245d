"""Tests of a device that runs out of memory: one line, and the run goes on."""

import io
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, SMALL, config_flags, last_of_each
from run_files import files_under, problems

from googlenet import config as config_lib
from googlenet.runtime import memory
from googlenet.tools.benchmark import ours
from googlenet.train import hooks, loop, setup

GIB = 2**30
# Texts of JAX 0.10 to 0.12 and what lies under it; bytes that are asked for.
TEXTS = {
  # CPUs, all three.
  'RESOURCE_EXHAUSTED: Out of memory allocating 1229434597312 bytes.': (
    1229434597312
  ),
  'UNKNOWN: std::bad_alloc': None,
  # NVIDIA GPUs.
  'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.34GiB.': (
    round(12.34 * GIB)
  ),
  'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 18253611008 '
  'bytes.': 18253611008,
  'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 512B [tf-allocat'
  "or-allocation-error='']": 512,
  'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.50MiB.\n'
  'BufferAssignment OOM Debugging.\nBufferAssignment stats:\n'
  '  parameter allocation:   30.00MiB': round(1.5 * 2**20),
  'INTERNAL: Failed to allocate 2147483648 bytes for new constant': 2 * GIB,
  'RESOURCE_EXHAUSTED: Failed to allocate request for 2.00GiB (2147483648B) on '
  'device ordinal 0': 2 * GIB,
  'INTERNAL: failed to allocate 1.86GiB (2000683008 bytes) from device: '
  'CUDA_ERROR_OUT_OF_MEMORY: out of memory': round(1.86 * GIB),
  'INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory': None,
  'Out of memory: failed to allocate 100 MBytes': None,
  'RESOURCE_EXHAUSTED: Failed to allocate on device 1': None,
  'INTERNAL: CUDNN_STATUS_ALLOC_FAILED in tensorflow/stream_executor': None,
  'RESOURCE_EXHAUSTED: Underlying backend ran out of memory trying to '
  'instantiate command buffer with 3 (total of 12 alive graphs in the '
  'process)': None,
  # TPUs.
  'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in '
  'memory space hbm. Used 27.04G of 15.48G hbm. Exceeded hbm capacity by '
  '11.56G.': round(27.04 * GIB),
  'RESOURCE_EXHAUSTED: Attempting to allocate 3.50G. That was not possible. '
  'There are 2.15G free.': round(3.5 * GIB),
}
OTHERS = (
  'INVALID_ARGUMENT: no such option: xla_no_such_option',
  'INTERNAL: Failed to find a kernel for 12 bytes',
  'RESOURCE_EXHAUSTED: Shared memory size limit exceeded: requested 232448',
)


def raises_full(*args: object) -> None:
  raise jax.errors.JaxRuntimeError(
    'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3.00GiB.'
  )


@pytest.mark.parametrize('text', TEXTS)
def test_errors_for_lack_of_memory(text):
  assert memory.is_out_of_memory(jax.errors.JaxRuntimeError(text))
  assert memory.bytes_asked_for(text) == TEXTS[text]


@pytest.mark.parametrize('text', OTHERS)
def test_other_errors_pass(text):
  error = jax.errors.JaxRuntimeError(text)
  assert not memory.is_out_of_memory(error)
  with pytest.raises(jax.errors.JaxRuntimeError), memory.explained('training'):
    raise error
  assert not memory.is_out_of_memory(ValueError('out of memory'))


def test_numpy_says_it_in_its_own_way():
  with pytest.raises(MemoryError) as error:
    np.empty(2**61, np.uint8)
  assert memory.is_out_of_memory(error.value)
  assert memory.bytes_asked_for(str(error.value)) == 2**61


class Device:
  def __init__(self, stats: dict[str, int] | None | Exception):
    self._stats = stats

  def memory_stats(self) -> dict[str, int] | None:
    if isinstance(self._stats, Exception):
      raise self._stats
    return self._stats


@pytest.mark.parametrize(
  ('stats', 'expected'),
  [
    (
      [None],
      r'out of memory: 3\.0 GiB were asked for, the machine has [\d,.]+ GiB; '
      'lower config.eval.batch_size',
    ),
    (
      [
        {'bytes_limit': 80 * GIB, 'bytes_in_use': 2 * GIB},
        {'bytes_limit': 80 * GIB, 'bytes_in_use': 78 * GIB},
      ],
      'out of memory: 3.0 GiB were asked for, the device has 80.0 GiB, of '
      'which 78.0 GiB are in use; lower config.eval.batch_size',
    ),
    (
      [jax.errors.JaxRuntimeError('INTERNAL: the device is lost')],
      r'out of memory: 3\.0 GiB were asked for, the machine has [\d,.]+ GiB; '
      'lower config.eval.batch_size',
    ),
  ],
  ids=['a CPU', 'two GPUs', 'a GPU that does not answer'],
)
def test_the_line_tells_what_there_is(monkeypatch, stats, expected):
  monkeypatch.setattr(jax, 'local_devices', lambda: [*map(Device, stats)])
  with (
    pytest.raises(memory.OutOfMemoryError, match=f'^{expected}$'),
    memory.explained('evaluation'),
  ):
    raises_full()


@pytest.mark.slow
def test_a_step_that_is_too_large_is_one_line(tmp_path, compilation_cache):
  """As a user runs it, with little memory to be had on any machine."""

  def run(*flags: str) -> subprocess.CompletedProcess:
    command = [
      sys.executable,
      str(ROOT / 'launch.py'),
      *config_flags('configs/fmnist96.py', compilation_cache),
      *SMALL,
      '--config.data.image_size=256',
      '--config.train.batch_size=30000',
      '--config.train.max_steps=1',
      '--workdir=run',
      *flags,
    ]
    # Address space, KiB; more than the start of the program takes.
    limited = ['sh', '-c', 'ulimit -v 8000000; exec "$@"', 'sh']
    limited += last_of_each(command)
    return subprocess.run(
      limited,
      cwd=tmp_path,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
    )

  done = run()
  assert done.returncode == 2, done.stderr
  assert problems(done.stderr).startswith('error: out of memory: ')
  assert done.stderr.endswith(
    ' GiB; raise config.train.microbatches or lower config.train.batch_size\n'
  )
  assert ' GiB were asked for, the machine has ' in done.stderr
  assert problems(done.stderr).count('\n') == 1
  assert files_under(tmp_path) == []
  done = run('--config.train.batch_size=8', '--config.data.eval_split=test[:8]')
  assert done.returncode == 0, done.stderr


def test_an_evaluation_that_is_too_large_is_made_by_the_next_start(
  config, tmp_path, monkeypatch
):
  config.logging.tensorboard = False
  run = config_lib.resolve(config)
  with monkeypatch.context() as patch:
    patch.setattr(hooks, 'evaluate', raises_full)
    for _ in range(2):  # the same command again meets the same end
      with pytest.raises(memory.OutOfMemoryError) as error:
        loop.train_and_evaluate(run, tmp_path / 'run')
  assert str(error.value).endswith(
    '; lower config.eval.batch_size; to continue the run in '
    f'{tmp_path}/run, add --allow_config_change'
  )
  names = files_under(tmp_path / 'run')
  assert 'checkpoints/step_000000006.npz' in names
  assert 'result.json' not in names
  config.eval.batch_size = 10
  config.data.eval_split = 'test[:20]'
  result = loop.train_and_evaluate(
    config_lib.resolve(config), tmp_path / 'run', allow_config_change=True
  )
  assert (result['step'], result['eval/count']) == (6, 20)


def test_statistics_that_are_too_large_name_their_own_field(
  config, tmp_path, monkeypatch
):
  config.model.normalization = 'batch'
  config.eval.batch_norm_batches = 2
  monkeypatch.setattr(hooks.precise_bn, 'estimate', raises_full)
  with pytest.raises(memory.OutOfMemoryError) as error:
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / 'run')
  assert '; set config.eval.batch_norm_batches=0; ' in str(error.value)
  assert 'checkpoints/step_000000006.npz' in files_under(tmp_path / 'run')


def test_advice_for_a_run_is_what_it_may_change(config, tmp_path, monkeypatch):
  """Not the batch size."""
  config.checkpoint.every_steps = 3
  build = setup.build

  def broken(config, *options):
    run = build(config, *options)

    def train_step(state, *inputs):
      return (
        raises_full() if state.step >= 4 else run.train_step(state, *inputs)
      )

    return run._replace(train_step=train_step)

  monkeypatch.setattr(setup, 'build', broken)
  with pytest.raises(memory.OutOfMemoryError) as error:
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / 'run')
  assert str(error.value).endswith(
    '; raise config.train.microbatches; to continue the run in '
    f'{tmp_path}/run, add --allow_config_change'
  )


@pytest.mark.parametrize(
  ('mode', 'flags', 'patched', 'remedy'),
  [
    (
      'train',
      SMALL,
      'googlenet.data.batches.make_pipeline',
      'lower config.data.on_device_mb, so that the set is streamed',
    ),
    (
      'train',
      SMALL,
      'googlenet.train.setup.init_from_numpy',
      'raise config.train.microbatches or lower config.train.batch_size',
    ),
    (
      'evaluate',
      (),
      'googlenet.tools.modes.evaluate.predict_split',
      'lower config.eval.batch_size',
    ),
  ],
  ids=['a set', 'parameters', 'evaluation'],
)
def test_every_mode_says_what_helps(
  trained_run, launch_here, tmp_path, monkeypatch, mode, flags, patched, remedy
):
  monkeypatch.setattr(patched, raises_full)
  workdir = trained_run if mode == 'evaluate' else tmp_path / 'run'
  config = '' if mode == 'evaluate' else 'configs/fmnist96.py'
  done = launch_here(
    f'--mode={mode}', *flags, f'--workdir={workdir}', config=config
  )
  assert done.returncode == 2
  stderr = problems(done.stderr)
  assert stderr.startswith('error: out of memory: 3.0 GiB were asked for, ')
  assert stderr.endswith(f'; {remedy}\n')
  assert stderr.count('\n') == 1


def test_a_measurement_reports_it(config, monkeypatch, capsys):
  job = {'config': config.to_dict(), 'batch_sizes': [1], 'started': 0.0}
  job['config']['train']['compilation_cache'] = ''
  monkeypatch.setattr(sys, 'stdin', io.StringIO(json.dumps(job)))
  monkeypatch.setattr(ours, 'measure', raises_full)
  assert ours.main() == 2
  report = json.loads(capsys.readouterr().out)
  assert report['error'].startswith('out of memory: 3.0 GiB were asked for, ')
  assert report['error'].endswith(
    '; lower config.benchmark.batch_sizes or raise config.train.microbatches'
  )
