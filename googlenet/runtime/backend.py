"""Predicts the backend that JAX will choose; sets its environment variables.

Both are needed before JAX is imported, so this file does not import it. The
prediction uses what JAX itself looks at: JAX_PLATFORMS, the installed plugins
and the device files.
"""

import glob
import importlib.util
import pathlib
import re
from collections.abc import Callable, Mapping, MutableMapping
from importlib import metadata
from typing import Any, NamedTuple

Options = tuple[tuple[str, Any], ...]  # compile options of XLA: (name, value)


class Backend(NamedTuple):
  """An accelerator backend.

  Attributes:
    name: what `jax.default_backend()` returns.
    platforms: its names in JAX_PLATFORMS.
    plugin: name of its module, or prefix of a module in `jax_plugins`.
    devices: patterns of its device files; at least one file must exist.
    visible: variables that hide its devices if they are empty, negative or
      begin with 'no' (NoDevFiles, none).
  """

  name: str
  platforms: tuple[str, ...]
  plugin: str
  devices: tuple[str, ...]
  visible: tuple[str, ...] = ()


# In JAX's order of preference: it takes the first usable one.
BACKENDS = (
  Backend('tpu', ('tpu',), 'libtpu', ('/dev/accel[0-9]*', '/dev/vfio/[0-9]*')),
  Backend(
    'gpu',
    ('cuda', 'gpu'),
    'jax_plugins.xla_cuda',
    ('/dev/nvidia0', '/dev/nvidiactl', '/dev/dxg'),  # dxg: Windows (WSL)
    ('CUDA_VISIBLE_DEVICES',),
  ),
  Backend(
    'gpu',
    ('rocm', 'gpu'),
    'jax_plugins.xla_rocm',
    ('/dev/kfd', '/dev/dxg'),
    ('HIP_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES'),
  ),
)

# Compile options for GPUs; docs/performance.md shows their effect.
GPU_OPTIONS = (
  # The few matrix products use cuBLAS: Triton would compile dozens of variants
  # of each.
  ('xla_gpu_enable_triton_gemm', False),
  # The autotuner compiles every fusion twice and times both. This takes a third
  # to two thirds of the compile time and does not make a step faster.
  ('xla_gpu_experimental_enable_fusion_autotuner', False),
  # No CUDA graphs: XLA writes addresses into all of their nodes at each step,
  # which took 5 ms in a trace on an H100. The gain has not been measured.
  ('xla_gpu_enable_command_buffer', ''),
)
# By default XLA times the algorithms of each convolution and takes the fastest.
# The choice, and so the bits, differ from start to start, and timing takes half
# of the time until the first step. With this option XLA takes the first
# deterministic algorithm of cuDNN. Only for programs without scatters of
# floats, which XLA would then run one element at a time.
REPRODUCIBLE_OPTIONS = (('xla_gpu_exclude_nondeterministic_ops', True),)
# Versions of XLA that know these flags; an unknown flag ends the process.
_KNOWN_FROM, _KNOWN_BEFORE = (0, 9), (0, 13)
_XLA_PACKAGES = (
  'jaxlib',
  *(f'jax-{name}-pjrt' for name in ('cuda12', 'cuda13', 'rocm6', 'rocm7')),
)
_LOG_LEVEL = 'TF_CPP_MIN_LOG_LEVEL'
_FRACTION = 'XLA_PYTHON_CLIENT_MEM_FRACTION'
_PREALLOCATE = 'XLA_PYTHON_CLIENT_PREALLOCATE'
# If the user has set one of these, none is set here: setting two fractions is
# an error.
_MEMORY = (
  _FRACTION,
  _PREALLOCATE,
  'XLA_PYTHON_CLIENT_ALLOCATOR',
  'XLA_CLIENT_MEM_FRACTION',
)


def has_plugin(name: str) -> bool:
  """Returns whether a plugin is installed, without importing it."""
  package, dot, start = name.partition('.')
  spec = importlib.util.find_spec(package)
  if spec is None or not dot:
    return spec is not None
  folders = spec.submodule_search_locations or ()
  return any(glob.glob(f'{glob.escape(f)}/{start}*') for f in folders)


def has_device(patterns: tuple[str, ...]) -> bool:
  """Returns whether a file matches one of the patterns."""
  return any(glob.glob(pattern) for pattern in patterns)


def expected_backend(
  environment: Mapping[str, str],
  has_plugin: Callable[[str], bool] = has_plugin,
  has_device: Callable[[tuple[str, ...]], bool] = has_device,
) -> str:
  """Predicts what `jax.default_backend()` will return.

  Args:
    environment: environment variables of the process.
    has_plugin: tells whether a `Backend.plugin` is installed.
    has_device: tells whether a device file of `Backend.devices` exists.
  """

  def is_usable(backend: Backend) -> bool:
    is_hidden = any(
      re.match(r'\s*(-|$|no)', environment[name], re.IGNORECASE)
      for name in backend.visible
      if name in environment
    )
    return (
      has_plugin(backend.plugin)
      and has_device(backend.devices)
      and not is_hidden
    )

  wanted = environment.get('JAX_PLATFORM_NAME') or environment.get(
    'JAX_PLATFORMS', ''
  )
  for platform in filter(None, wanted.lower().replace(' ', '').split(',')):
    rows = [row for row in BACKENDS if platform in row.platforms]
    if not rows:  # the CPU, or a platform that is not in the table
      return platform
    for row in filter(is_usable, rows):
      return row.name
  usable = [] if wanted else [row.name for row in BACKENDS if is_usable(row)]
  return usable[0] if usable else 'cpu'


def xla_versions() -> list[str]:
  """Returns the versions of the installed packages that contain XLA."""
  found = []
  for package in _XLA_PACKAGES:
    try:
      found.append(metadata.version(package))
    except metadata.PackageNotFoundError:
      continue
  return found


def flags_of(environment: Mapping[str, str]) -> str:
  """Returns the flags in XLA_FLAGS, or in the file that it names; '': none."""
  text = environment.get('XLA_FLAGS', '').strip()
  if text and not text.startswith('-'):
    try:
      return pathlib.Path(text).read_text(encoding='utf-8')
    except (OSError, ValueError):  # XLA reports the error itself
      return ''
  return text


def without_flags(options: Options, flags: str) -> Options:
  """Returns the options that do not occur in blank-separated XLA flags."""
  names = {flag.lstrip('-').partition('=')[0] for flag in flags.split()}
  return tuple(option for option in options if option[0] not in names)


def _as_flag(option: tuple[str, Any]) -> str:
  name, value = option
  text = str(value).lower() if isinstance(value, bool) else value
  return f'--{name}={text}'


def settings(
  backend: str,
  preallocates: bool,
  environment: Mapping[str, str],
  versions: list[str],
  is_alone: bool = True,
) -> dict[str, str]:
  """Returns the variables to set for a backend, without those already set.

  Args:
    backend: what `expected_backend` returns; only 'gpu' needs variables.
    preallocates: whether the process takes most of the device's memory at its
      start, as training does, or only what it needs.
    environment: environment variables of the process.
    versions: what `xla_versions` returns.
    is_alone: whether the run has one process. Programs of several processes
      are called by `jax.pmap`, which takes compile options only from XLA_FLAGS.
  """
  if backend != 'gpu':
    return {}
  found = {}
  flags = environment.get('XLA_FLAGS', '').strip()
  is_list = not flags or flags.startswith('-')  # otherwise it names a file
  numbers = [tuple(map(int, re.findall(r'\d+', v)[:2])) for v in versions]
  is_known = numbers and all(
    _KNOWN_FROM <= number < _KNOWN_BEFORE for number in numbers
  )
  options = GPU_OPTIONS if is_alone else GPU_OPTIONS + REPRODUCIBLE_OPTIONS
  unset = without_flags(options, flags) if is_list and is_known else ()
  if unset:
    found['XLA_FLAGS'] = ' '.join([*flags.split(), *map(_as_flag, unset)])
  if _LOG_LEVEL not in environment:
    found[_LOG_LEVEL] = '3'  # errors that matter arrive as exceptions
  if not any(name in environment for name in _MEMORY):
    found |= {_FRACTION: '0.9'} if preallocates else {_PREALLOCATE: 'false'}
  return found


def prepare(
  environment: MutableMapping[str, str],
  preallocates: bool,
  is_alone: bool = True,
) -> None:
  """Sets the variables of `settings` for the backend that JAX will choose.

  Call this before JAX is imported. Variables that exist already stay, also
  those inherited from a parent process that has called this.
  """
  backend = expected_backend(environment)
  if backend == 'gpu':
    environment |= settings(
      backend, preallocates, environment, xla_versions(), is_alone
    )


def in_force(environment: Mapping[str, str]) -> str:
  """Returns the current variables of `settings` as one line; '' on CPUs.

  They include values that the user has set.
  """
  if expected_backend(environment) != 'gpu':
    return ''
  return ' '.join(
    f'{name}={environment[name]}'
    for name in ('XLA_FLAGS', _LOG_LEVEL, *_MEMORY)
    if name in environment
  )
