"""The peers of the benchmark, this project and torch, as commands to start."""

import importlib.util
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import ml_collections

from googlenet.errors import UserError
from googlenet.model import graph, rows, variants
from googlenet.model.precision import get_policy

Config = ml_collections.FrozenConfigDict

_ROOT = pathlib.Path(__file__).resolve().parents[3]
# The glibc settings that `runtime.allocator` makes for this project on CPUs.
_TORCH_ALLOCATOR = {
  'MALLOC_MMAP_MAX_': '0',
  'MALLOC_TRIM_THRESHOLD_': '16000000000',
  'MALLOC_ARENA_MAX': '1',
}
# Name: (dtype, channels last, compiled), in order of increasing start-up time.
TORCH_FORMS = {
  'torch bf16 channels_last': ('bfloat16', True, False),
  'torch fp32 channels_last': ('float32', True, False),
  'torch fp32': ('float32', False, False),
  'torch bf16 channels_last compiled': ('bfloat16', True, True),
}
# Prefix of the names of this project's peers.
OURS = 'ours'
REFERENCE = 'torch fp32 channels_last'


class Contender(NamedTuple):
  """One peer: a process to start.

  `job` is written to its stdin as JSON, with the time of the start added.
  """

  name: str
  command: list[str]
  environment: dict[str, str]
  job: dict[str, Any]


def find_torch(torch_python: str) -> tuple[str, str]:
  """Returns (path of a Python with torch, ''), or ('', why there is none).

  Args:
    torch_python: `benchmark.torch_python`.

  Raises:
    UserError: the Python that `torch_python` names does not run or cannot
      import torch.
  """
  if torch_python == 'none':
    return '', 'config.benchmark.torch_python=none'
  if not torch_python:
    if importlib.util.find_spec('torch'):
      return sys.executable, ''
    return '', (
      'this Python has no torch (pip install torch, or name a Python that has '
      'it: --config.benchmark.torch_python=...)'
    )
  path = shutil.which(os.path.expanduser(torch_python))
  problem = 'no such program'
  if path:
    try:
      done = subprocess.run(
        [path, '-c', 'import torch'], capture_output=True, text=True
      )
    except OSError as error:
      problem = f'it cannot be run: {error.strerror}'
    else:
      if not done.returncode:
        return path, ''
      problem = f'it cannot import torch: {last_line(done.stderr)}'
  raise UserError(
    f'config.benchmark.torch_python={torch_python!r}: {problem}; give the path '
    "of a Python that has torch, '' for this one, or none"
  )


def our_contenders(
  config: Config, folder: pathlib.Path, operations: str = ''
) -> list[Contender]:
  """Returns the peers of this project, one for each compute dtype.

  Args:
    config: resolved.
    folder: an empty folder; compiled programs are cached there between rounds.
    operations: file that registers the operations of the network, or ''.
  """
  contenders = {}
  for precision in config.benchmark.precisions:
    dtype = get_policy(precision).compute_dtype.__name__
    job_config = config.to_dict()
    job_config['train'] |= {
      'precision': precision,
      'compilation_cache': str(folder / f'ours-{dtype}'),
    }
    job_config['logging'] |= {'profile_steps': 0}
    name = f'{OURS} {dtype}'
    paths = [str(_ROOT), os.environ.get('PYTHONPATH', '')]
    contenders[name] = Contender(
      name,
      [sys.executable, '-m', 'googlenet.tools.benchmark.ours'],
      {'PYTHONPATH': os.pathsep.join(filter(None, paths))},
      {'config': job_config, 'operations': operations},
    )
  return list(contenders.values())


def torch_contenders(
  config: Config,
  channels: int,
  python: str,
  backend: str,
  batch_sizes: list[int],
  folder: pathlib.Path,
) -> list[Contender]:
  """Returns the peers in torch: the same network in each of `TORCH_FORMS`.

  Args:
    config: resolved.
    channels: of the images.
    python: a Python that has torch.
    backend: 'cpu' or 'gpu': where this project runs, and torch as well.
    batch_sizes: to measure, the same as for this project.
    folder: an empty folder; compiled programs are cached there between rounds.
  """
  size = config.data.image_size
  job = {
    'rows': torch_rows(variants.resolve(config.model)),
    'image_shape': [size, size, channels],
    'num_classes': config.model.num_classes,
    'optimizer': {
      name: config.optimizer[name]
      for name in ('learning_rate', 'momentum', 'nesterov', 'weight_decay')
    },
    'batch_sizes': batch_sizes,
    'steps': config.benchmark.steps,
    'device': 'cuda' if backend == 'gpu' else backend,
  }
  environment = {
    **(_TORCH_ALLOCATOR if backend == 'cpu' else {}),
    'TORCHINDUCTOR_CACHE_DIR': str(folder / 'torch'),
  }
  return [
    Contender(
      name,
      [python, str(_ROOT / 'googlenet/tools/benchmark/torch_peer.py')],
      environment,
      {**job, 'dtype': dtype, 'channels_last': last, 'compile': compiled},
    )
    for name, (dtype, last, compiled) in TORCH_FORMS.items()
  ]


def has_torch_peer(model_config: ml_collections.ConfigDict) -> bool:
  """Whether `torch_peer` can build the network of a `model` section."""
  architecture = variants.resolve(model_config)
  own = variants.architecture_of(model_config)
  return (
    own in (variants.PLAIN, variants.TINY)
    and architecture.normalization == 'none'
    and model_config.activation == 'relu'
    and not architecture.dropout
    and not architecture.aux_heads
  )


def torch_rows(architecture: rows.Architecture) -> list[list[Any]]:
  """Returns the rows of a network in the form that `torch_peer.Network` takes.

  Raises:
    TypeError: `torch_peer` lacks an operation of the network.
  """
  found = []
  layers = itertools.takewhile(
    lambda layer: layer.kind != 'global_mean', graph.graph(architecture)
  )
  for row, group in itertools.groupby(layers, lambda layer: layer.row):
    parts = list(group)
    if any(part.kind == 'concat' for part in parts):
      widths = [part.op.width for part in parts if part.kind == 'conv']
      found.append([row, 'inception', *widths])
      continue
    for part in parts:
      op = part.op
      if part.kind == 'conv':
        numbers = [op.width, op.kernel_size, op.stride]
        found.append([part.name, 'conv', *numbers])
      elif part.kind == 'max_pool':
        found.append(['', 'pool', op.window, op.stride])
      else:
        raise TypeError(f'torch_peer lacks the operation {op}')
  return found


def last_line(text: str) -> str:
  """Returns the last line of a text, without blank lines at its end."""
  lines = text.strip().splitlines()
  return lines[-1] if lines else ''
