"""Tests of what is foretold of the backend, and of the variables set for it."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, SMALL, config_flags
from run_files import problems

from googlenet.cli.modes import MODES
from googlenet.kernels import KERNELS
from googlenet.runtime import backend

FLAGS = (
  '--xla_gpu_enable_triton_gemm=false',
  '--xla_gpu_experimental_enable_fusion_autotuner=false',
  '--xla_gpu_enable_command_buffer=',
)
XLA_FLAGS = ' '.join(FLAGS)
CUDA, ROCM, TPU = 'jax_plugins.xla_cuda', 'jax_plugins.xla_rocm', 'libtpu'
NVIDIA, KFD, ACCEL = '/dev/nvidiactl', '/dev/kfd', '/dev/accel[0-9]*'

# Plugins, device files and variables; what JAX chooses.
CHOSEN = {
  'nothing': ([], [], {}, 'cpu'),
  'a plugin without a device': ([CUDA], [], {}, 'cpu'),
  'a device without a plugin': ([], [NVIDIA], {}, 'cpu'),
  'cuda': ([CUDA], [NVIDIA], {}, 'gpu'),
  'cuda in Windows': ([CUDA], ['/dev/dxg'], {}, 'gpu'),
  'rocm': ([ROCM], [KFD], {}, 'gpu'),
  'the plugin of the other': ([ROCM], [NVIDIA], {}, 'cpu'),
  'tpu': ([TPU], [ACCEL], {}, 'tpu'),
  'tpu of another driver': ([TPU], ['/dev/vfio/[0-9]*'], {}, 'tpu'),
  'tpu goes first': ([CUDA, TPU], [NVIDIA, ACCEL], {}, 'tpu'),
  'cpu is asked for': ([CUDA], [NVIDIA], {'JAX_PLATFORMS': 'cpu'}, 'cpu'),
  'cpu, in another way': (
    [CUDA],
    [NVIDIA],
    {'JAX_PLATFORM_NAME': 'cpu'},
    'cpu',
  ),
  'the second of a list': ([CUDA], [], {'JAX_PLATFORMS': 'cuda,cpu'}, 'cpu'),
  'the first of a list': (
    [CUDA],
    [NVIDIA],
    {'JAX_PLATFORMS': 'gpu,cpu'},
    'gpu',
  ),
  'cuda before tpu': (
    [CUDA, TPU],
    [NVIDIA, ACCEL],
    {'JAX_PLATFORMS': 'cuda,tpu'},
    'gpu',
  ),
  'one of elsewhere': ([CUDA], [NVIDIA], {'JAX_PLATFORMS': 'METAL'}, 'metal'),
  'no device is to be seen': (
    [CUDA],
    [NVIDIA],
    {'CUDA_VISIBLE_DEVICES': '-1'},
    'cpu',
  ),
  'nor here': ([CUDA], [NVIDIA], {'CUDA_VISIBLE_DEVICES': ''}, 'cpu'),
  'nor there': (
    [CUDA],
    [NVIDIA],
    {'CUDA_VISIBLE_DEVICES': 'NoDevFiles'},
    'cpu',
  ),
  'one is to be seen': ([CUDA], [NVIDIA], {'CUDA_VISIBLE_DEVICES': '1'}, 'gpu'),
}


@pytest.mark.parametrize('case', CHOSEN)
def test_the_backend_is_foretold(case):
  plugins, devices, environment, expected = CHOSEN[case]
  found = backend.expected_backend(
    environment,
    plugins.__contains__,
    lambda patterns: bool(set(patterns) & set(devices)),
  )
  assert found == expected


def test_plugins_and_devices_of_this_machine(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  assert not backend.has_plugin('no_such_package')
  assert not backend.has_plugin('no_such_package.xla_cuda')
  (tmp_path / 'some_plugins/xla_cuda13').mkdir(parents=True)
  assert backend.has_plugin('some_plugins')
  assert backend.has_plugin('some_plugins.xla_cuda')
  assert not backend.has_plugin('some_plugins.xla_rocm')
  (tmp_path / 'accel0').touch()
  assert backend.has_device((f'{tmp_path}/none', f'{tmp_path}/accel[0-9]*'))
  assert not backend.has_device((f'{tmp_path}/accel',))


# Of the user; and what is set beside them for a run that preallocates.
ALL = {
  'XLA_FLAGS': XLA_FLAGS,
  'TF_CPP_MIN_LOG_LEVEL': '3',
  'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.9',
}


def without(*names: str) -> dict[str, str]:
  return {name: value for name, value in ALL.items() if name not in names}


MEMORY = 'XLA_PYTHON_CLIENT_MEM_FRACTION'
GIVEN = {
  'nothing': ({}, ALL),
  'other flags': (
    {'XLA_FLAGS': '--xla_dump_to=x'},
    {**ALL, 'XLA_FLAGS': f'--xla_dump_to=x {XLA_FLAGS}'},
  ),
  'one of these flags': (
    {'XLA_FLAGS': '--xla_gpu_enable_triton_gemm=true'},
    {
      **ALL,
      'XLA_FLAGS': ' '.join(['--xla_gpu_enable_triton_gemm=true', *FLAGS[1:]]),
    },
  ),
  'all of them': ({'XLA_FLAGS': XLA_FLAGS}, without('XLA_FLAGS')),
  'a file of flags': ({'XLA_FLAGS': 'flags.txt'}, without('XLA_FLAGS')),
  'a level': (
    {'TF_CPP_MIN_LOG_LEVEL': '0'},
    without('TF_CPP_MIN_LOG_LEVEL'),
  ),
  **{
    name: ({name: '1'}, without(MEMORY))
    for name in (
      MEMORY,
      'XLA_CLIENT_MEM_FRACTION',
      'XLA_PYTHON_CLIENT_PREALLOCATE',
      'XLA_PYTHON_CLIENT_ALLOCATOR',
    )
  },
}


@pytest.mark.parametrize('case', GIVEN)
def test_what_the_user_has_set_stays(case):
  given, expected = GIVEN[case]
  assert backend.settings('gpu', True, given, ['0.11.2']) == expected


def test_several_processes_have_the_options_of_the_kernels_too():
  """`jax.pmap`, which calls their programs, takes none."""
  option = '--xla_gpu_exclude_nondeterministic_ops'
  found = backend.settings('gpu', True, {}, ['0.11.2'], is_alone=False)
  assert found['XLA_FLAGS'] == f'{XLA_FLAGS} {option}=true'
  for name, _ in KERNELS['gpu'].compiler_options:
    assert f'--{name}=' in found['XLA_FLAGS']
  given = {'XLA_FLAGS': f'{option}=false'}
  found = backend.settings('gpu', True, given, ['0.11.2'], is_alone=False)
  assert found['XLA_FLAGS'] == f'{option}=false {XLA_FLAGS}'


def test_only_what_trains_takes_the_memory_at_once():
  found = backend.settings('gpu', False, {}, ['0.11.2'])
  assert found['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'
  assert MEMORY not in found
  assert [name for name, mode in MODES.items() if mode.preallocates] == [
    'train',
    'sweep',
    'benchmark',
  ]


@pytest.mark.parametrize(
  ('versions', 'is_set'),
  [
    (['0.9.0'], True),
    (['0.12.0.1', '0.12.0'], True),
    (['0.12.0', '0.8.3'], False),
    (['0.13.0'], False),
    ([], False),
  ],
)
def test_a_flag_only_for_an_xla_that_knows_it(versions, is_set):
  """It ends the process of any other."""
  found = backend.settings('gpu', True, {}, versions)
  assert ('XLA_FLAGS' in found) is is_set


@pytest.mark.parametrize('name', ['cpu', 'tpu', 'metal'])
def test_other_backends_want_nothing(name):
  assert backend.settings(name, True, {}, ['0.11.2']) == {}


def test_the_installed_xla_is_asked():
  assert backend.xla_versions()[0].startswith('0.')


# A GPU for `expected_backend`, by a name that is the CPU for JAX.
_AS_WITH_A_GPU = """
import os, runpy, sys
from googlenet.runtime import backend
gpu = backend.Backend('gpu', ('cpu',), 'json', ('/',))
backend.BACKENDS = (gpu,)
"""


def with_a_gpu(
  folder, code: str, *argv: str, stdin: str = '', **variables: str
) -> subprocess.CompletedProcess:
  """Runs code in a process that takes this machine for one with a GPU."""
  names = ('XLA_FLAGS', 'TF_CPP_MIN_LOG_LEVEL', *backend._MEMORY)
  environment = {k: v for k, v in os.environ.items() if k not in names}
  return subprocess.run(
    [sys.executable, '-c', _AS_WITH_A_GPU + code, *argv],
    cwd=folder,
    env={
      **environment,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(ROOT),
      **variables,
    },
    input=stdin,
    capture_output=True,
    text=True,
  )


_LAUNCH = f"""
sys.argv[0] = {str(ROOT / 'launch.py')!r}
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.slow
def test_a_run_says_what_was_set_and_what_was_not_as_foretold(
  tmp_path, compilation_cache
):
  flags = config_flags('configs/fmnist96.py', compilation_cache)
  done = with_a_gpu(tmp_path, _LAUNCH, *flags, *SMALL)
  assert done.returncode == 0, done.stderr
  settings = ' '.join(f'{name}={value}' for name, value in ALL.items())
  assert f'\nsettings {settings}\n' in done.stdout
  assert problems(done.stderr) == (
    'warning: JAX computes on cpu, although plugins and device files point to '
    'gpu: results are right, but the settings of this process are those of '
    'gpu, and it may be slower; set JAX_PLATFORMS to choose one\n'
  )


def test_a_run_on_a_cpu_says_and_sets_nothing(launch_here, capfd):
  done = launch_here('--mode=summary')
  assert done.returncode == 0
  assert 'settings' not in done.stdout
  assert not backend.in_force({**ALL, 'JAX_PLATFORMS': 'cpu'})
  environment = {'JAX_PLATFORMS': 'cpu'}
  backend.prepare(environment, True)
  assert environment == {'JAX_PLATFORMS': 'cpu'}


def test_version_says_what_training_would_start_with(tmp_path):
  done = with_a_gpu(tmp_path, _LAUNCH, '--version', XLA_FLAGS='--xla_dump_to=x')
  assert done.stdout.splitlines()[-1] == (
    f'training starts with XLA_FLAGS=--xla_dump_to=x {XLA_FLAGS} '
    'TF_CPP_MIN_LOG_LEVEL=3 XLA_PYTHON_CLIENT_MEM_FRACTION=0.9'
  )
  assert done.stderr == ''


_OURS = (
  "runpy.run_module('googlenet.tools.benchmark.ours', run_name='__main__')"
)

# What a process has, once JAX is imported.
_WATCH = """
import atexit, json
prepare = backend.prepare
def watched(*args, **options):
  assert 'jax' not in sys.modules
  prepare(*args, **options)
  print('prepared', file=sys.stderr)
backend.prepare = watched
atexit.register(lambda: print(json.dumps(dict(os.environ))))
"""


@pytest.mark.parametrize(
  ('code', 'argv', 'preallocates'),
  [
    (
      "runpy.run_module('googlenet.tools.benchmark.ours', run_name='__main__')",
      [],
      1,
    ),
    (_LAUNCH, ['--mode=sweep'], 1),
    (_LAUNCH, ['--mode=predict'], 0),
  ],
  ids=['benchmark', 'sweep', 'predict'],
)
def test_the_variables_are_there_before_jax(tmp_path, code, argv, preallocates):
  done = with_a_gpu(
    tmp_path, _WATCH + code, *argv, stdin='{"config": {"no": 1}}'
  )
  assert done.returncode in (1, 2)  # bad input, that is all it has
  assert 'prepared' in done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  expected = backend.settings('gpu', bool(preallocates), {}, ['0.11.2'])
  assert {name: found[name] for name in expected} == expected
