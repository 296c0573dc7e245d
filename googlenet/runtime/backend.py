"""Which backend JAX will choose, and the variables that it should start with.

Both have to be known before JAX is imported, so nothing here imports it: the
answer follows from JAX_PLATFORMS, the installed plugins and the device files,
which is what JAX itself looks at.
"""

import glob
import importlib.util
import pathlib
import re
from collections.abc import Callable, Mapping, MutableMapping
from importlib import metadata
from typing import Any, NamedTuple

Options = tuple[tuple[str, Any], ...]  # of XLA: (name, value)


class Backend(NamedTuple):
  """An accelerator backend.

  Attributes:
    name: what `jax.default_backend()` returns.
    platforms: its names in JAX_PLATFORMS.
    plugin: a module, or what the name of one in `jax_plugins` begins with.
    devices: patterns of its device files; one of them has to be there.
    visible: variables that hide its devices where they are empty, negative or
      begin with 'no' (NoDevFiles, none).
  """

  name: str
  platforms: tuple[str, ...]
  plugin: str
  devices: tuple[str, ...]
  visible: tuple[str, ...] = ()


# In JAX's order: the first that can be used is chosen.
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

# How XLA is to compile for a GPU; docs/performance.md has what each gave.
GPU_OPTIONS = (
  # The few matrix products go to cuBLAS: Triton has to compile each of them in
  # dozens of forms.
  ('xla_gpu_enable_triton_gemm', False),
  # It compiles every fusion twice and times both, for a third to two thirds of
  # the whole time to compile, and nothing that shows in the speed of a step.
  ('xla_gpu_experimental_enable_fusion_autotuner', False),
  # No CUDA graphs: XLA writes addresses into all of their nodes at each step, 5
  # ms of one in a trace on an H100. What is won without them is not measured.
  ('xla_gpu_enable_command_buffer', ''),
)
# By default XLA times the algorithms of each convolution and takes the fastest:
# another one each time, with other bits, and for half of the time until the
# first step. So it takes the first of cuDNN's that always gives the same. For
# programs without scatters of floats, which XLA would make one by one.
REPRODUCIBLE_OPTIONS = (('xla_gpu_exclude_nondeterministic_ops', True),)
# A flag that XLA does not know ends the process: versions that know these.
_KNOWN_FROM, _KNOWN_BEFORE = (0, 9), (0, 13)
_XLA_PACKAGES = (
  'jaxlib',
  *(f'jax-{name}-pjrt' for name in ('cuda12', 'cuda13', 'rocm6', 'rocm7')),
)
_LOG_LEVEL = 'TF_CPP_MIN_LOG_LEVEL'
_FRACTION = 'XLA_PYTHON_CLIENT_MEM_FRACTION'
_PREALLOCATE = 'XLA_PYTHON_CLIENT_PREALLOCATE'
# Whoever sets one of these decides about memory; two fractions are an error.
_MEMORY = (
  _FRACTION,
  _PREALLOCATE,
  'XLA_PYTHON_CLIENT_ALLOCATOR',
  'XLA_CLIENT_MEM_FRACTION',
)


def has_plugin(name: str) -> bool:
  """Returns whether the plugin of a `Backend` is installed; imports none."""
  package, dot, start = name.partition('.')
  spec = importlib.util.find_spec(package)
  if spec is None or not dot:
    return spec is not None
  folders = spec.submodule_search_locations or ()
  return any(glob.glob(f'{glob.escape(f)}/{start}*') for f in folders)


def has_device(patterns: tuple[str, ...]) -> bool:
  """Returns whether there is a file of one of these patterns."""
  return any(glob.glob(pattern) for pattern in patterns)


def expected_backend(
  environment: Mapping[str, str],
  has_plugin: Callable[[str], bool] = has_plugin,
  has_device: Callable[[tuple[str, ...]], bool] = has_device,
) -> str:
  """Returns what `jax.default_backend()` will be.

  Args:
    environment: variables of the process.
    has_plugin: says whether a `Backend.plugin` is installed.
    has_device: says whether there is a device file of `Backend.devices`.
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
    if not rows:  # the CPU, or one that this table does not know
      return platform
    for row in filter(is_usable, rows):
      return row.name
  usable = [] if wanted else [row.name for row in BACKENDS if is_usable(row)]
  return usable[0] if usable else 'cpu'


def xla_versions() -> list[str]:
  """Returns the versions of the installed packages that hold XLA."""
  found = []
  for package in _XLA_PACKAGES:
    try:
      found.append(metadata.version(package))
    except metadata.PackageNotFoundError:
      continue
  return found


def flags_of(environment: Mapping[str, str]) -> str:
  """Returns the flags of XLA_FLAGS, which may name a file of them; '': none."""
  text = environment.get('XLA_FLAGS', '').strip()
  if text and not text.startswith('-'):
    try:
      return pathlib.Path(text).read_text(encoding='utf-8')
    except (OSError, ValueError):  # XLA says what is wrong with it
      return ''
  return text


def without_flags(options: Options, flags: str) -> Options:
  """Returns the options of XLA that flags, separated by blanks, do not name."""
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
  """Returns the variables to set for a backend; none that the user has set.

  Args:
    backend: as `expected_backend` returns it; only 'gpu' wants any.
    preallocates: whether the process takes most of the device's memory at its
      start, as training does; else it takes what it needs.
    environment: variables of the process.
    versions: of all that holds XLA, see `xla_versions`.
    is_alone: whether the run has no other process. `jax.pmap`, which is what
      calls programs of several, takes the options of kernels from here alone.
  """
  if backend != 'gpu':
    return {}
  found = {}
  flags = environment.get('XLA_FLAGS', '').strip()
  is_list = not flags or flags.startswith('-')  # else it names a file of them
  numbers = [tuple(map(int, re.findall(r'\d+', v)[:2])) for v in versions]
  is_known = numbers and all(
    _KNOWN_FROM <= number < _KNOWN_BEFORE for number in numbers
  )
  options = GPU_OPTIONS if is_alone else GPU_OPTIONS + REPRODUCIBLE_OPTIONS
  unset = without_flags(options, flags) if is_list and is_known else ()
  if unset:
    found['XLA_FLAGS'] = ' '.join([*flags.split(), *map(_as_flag, unset)])
  if _LOG_LEVEL not in environment:
    found[_LOG_LEVEL] = '3'  # what matters of its errors comes as exceptions
  if not any(name in environment for name in _MEMORY):
    found |= {_FRACTION: '0.9'} if preallocates else {_PREALLOCATE: 'false'}
  return found


def prepare(
  environment: MutableMapping[str, str],
  preallocates: bool,
  is_alone: bool = True,
) -> None:
  """Sets the variables of `settings` for the backend that JAX will choose.

  Call it before JAX is imported. Children inherit them: what is already there,
  also from a parent like this process, stays.
  """
  backend = expected_backend(environment)
  if backend == 'gpu':
    environment |= settings(
      backend, preallocates, environment, xla_versions(), is_alone
    )


def in_force(environment: Mapping[str, str]) -> str:
  """Returns the variables of `settings` as they are, for one line; '' on CPUs.

  What the user has set is among them.
  """
  if expected_backend(environment) != 'gpu':
    return ''
  return ' '.join(
    f'{name}={environment[name]}'
    for name in ('XLA_FLAGS', _LOG_LEVEL, *_MEMORY)
    if name in environment
  )
