"""--mode=benchmark: measures this machine, and torch beside this project.

No device is used here, only in the processes that are started: one that waits
would keep the memory of a GPU from them.
"""

import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable
from typing import Any

import ml_collections

from googlenet import assembly
from googlenet.benchmark import contenders, results, runner, table
from googlenet.checkpoint.workdir import check_workdir

Config = ml_collections.FrozenConfigDict


def run(config: Config, workdir: str, started: float) -> None:
  """Prints the results and writes them to benchmark.json in the workdir.

  Args:
    config: resolved.
    workdir: a folder that holds no run yet; made at the end.
    started: unused.

  Raises:
    UserError: bad input, or our own measurement fails; nothing is written.
  """
  del started
  check_workdir(workdir)
  result = measure(config)
  path = pathlib.Path(workdir) / 'benchmark.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'x', encoding='utf-8') as file:
    file.write(json.dumps(result, indent=2, allow_nan=False) + '\n')
  print(f'\n{table.render(result)}\n\nin       {path}')


def measure(
  config: Config,
  start: Callable[[contenders.Contender], runner.Report] = runner.start,
) -> dict[str, Any]:
  """Measures all contenders and returns what benchmark.json holds.

  Args:
    config: resolved.
    start: runs one contender.

  Raises:
    UserError: as `run`.
  """
  dataset = assembly.load_split(config, 'train_split')
  assembly.load_split(config, 'eval_split')
  contenders.check_batch_sizes(config, dataset.num_examples)
  python, why_not = contenders.find_torch(config.benchmark.torch_python)
  if python and not contenders.has_torch_peer(config.model):
    python, why_not = '', 'it has the plain networks alone, as they are defined'
  if why_not:
    print(f'torch is left out: {why_not}', flush=True)
  channels = assembly.image_shape(config, dataset)[-1]
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)

    def others(report: runner.Report) -> list[contenders.Contender]:
      if not python:
        return []
      return contenders.torch_contenders(
        config, channels, python, report['backend'], folder
      )

    reports = runner.play(
      contenders.our_contenders(config, folder),
      others,
      config.benchmark.rounds,
      start=start,
    )
  sizes, size = contenders.batch_sizes(config), config.train.batch_size
  facts = next(iter(reports.values()))[0]
  return {
    **results.headline(reports, size),
    'batch_size': size,
    'machine': {
      **{key: facts[key] for key in ('devices', 'backend', 'kernels')},
      'cpus': os.cpu_count(),
      'platform': platform.platform(),
      'python': platform.python_version(),
    },
    'network': {
      'variant': config.model.variant,
      'image_shape': [config.data.image_size] * 2 + [channels],
      'num_classes': config.model.num_classes,
      'parameters': facts['parameters'],
      'flop_per_image': facts['flop_per_image'],
    },
    'rows': results.rows(reports, sizes),
    'starts': results.starts(reports, size),
    'efficiency': results.efficiency(reports, size),
    'torch_left_out': why_not,
    'config': config.to_dict(),
  }
