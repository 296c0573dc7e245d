"""The peer process of this project.

It is started as `python -m googlenet.tools.benchmark.ours`, reads a job as JSON
from stdin and writes each result as a line of JSON to stdout as soon as it is
measured (see `process`). It times the data, the input pipeline and the steps of
the training loop.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from googlenet.runtime import backend

if __name__ == '__main__':  # before JAX is imported
  backend.prepare(os.environ, preallocates=True)

import jax
import ml_collections

from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.model.initialization import count_parameters
from googlenet.model.precision import get_policy
from googlenet.runtime import memory
from googlenet.runtime.machine import tune_machine
from googlenet.tools.benchmark import batch_sizes
from googlenet.tools.benchmark.parts import measure_shares
from googlenet.tools.benchmark.rates import measure_rates
from googlenet.tools.benchmark.stepping import (
  Stepper,
  measure_inference,
  measure_training,
)
from googlenet.train import setup

Config = ml_collections.FrozenConfigDict
Tell = Callable[[dict[str, Any]], None]


def with_batch_size(config: Config, batch_size: int) -> Config:
  """Returns a config with another `train.batch_size`."""
  changed = ml_collections.ConfigDict(config.to_dict())
  changed.train.batch_size = batch_size
  return config_lib.resolve(changed)


def check(config: Config, sizes: list[int]) -> None:
  """Checks all batch sizes before any of them is measured.

  Raises:
    UserError: a size does not fit the data or the devices.
  """
  dataset = pipeline.load_split(config, 'train_split')
  num_devices = jax.device_count()
  for size in sizes:
    try:
      one = with_batch_size(config, size)
      config_lib.durations(one.train, dataset.num_examples, num_devices)
      config_lib.check_pairs(one, num_devices)
    except UserError as error:
      if size == config.train.batch_size:
        raise
      raise UserError(
        f'config.benchmark.batch_sizes: {size} cannot be measured: {error}',
        'benchmark.batch_sizes',
      ) from error


def measure(config: Config, started: float, tell: Tell) -> None:
  """Measures every batch size, the smallest first.

  The order matters because peak memory never falls within a process.

  Args:
    config: resolved, with the precision to measure as `train.precision`.
    started: `time.monotonic()` when this process was started.
    tell: receives each result as soon as it is measured.

  Raises:
    UserError: the config does not fit the data or the devices.
  """
  is_cpu = jax.default_backend() == 'cpu'
  sizes = batch_sizes.resolve(config, jax.default_backend())
  main_size = batch_sizes.main_size(config, sizes)
  check(config, sizes)
  dtype = get_policy(config.train.precision).compute_dtype
  tell({**describe_devices(), 'dtype': dtype.__name__, 'batch_sizes': sizes})
  for size in sizes:
    is_first = size == sizes[0]
    try:
      with memory.explained('benchmark'):
        stepper = Stepper(setup.build(with_batch_size(config, size)))
        if is_first:
          tell(describe_network(stepper))
        measure_size(stepper, started if is_first else None, tell)
        # Only here, since it compiles two more programs.
        if is_cpu and size == main_size:
          tell({'shares': measure_shares(stepper)})
    except memory.OutOfMemoryError as error:
      tell({'error': f'batch {size}: {error}'})
      break  # the remaining sizes are larger
    finally:
      stepper = None  # frees its memory before the next one is built
  # Measured last, so that peak_bytes is the peak of training.
  rates = measure_rates(dtype, config.benchmark.steps)
  tell({'rates': rates._asdict()})


def measure_size(stepper: Stepper, started: float | None, tell: Tell) -> None:
  """Measures training, then inference; `started` only for the first size."""
  trained = measure_training(stepper)
  first_done = trained.pop('first_done')
  if started is not None:
    tell({'start_s': first_done - started})
  size = str(stepper.run.config.train.batch_size)
  tell({'sizes': {size: trained}})
  tell({'sizes': {size: measure_inference(stepper)}})


def describe_devices() -> dict[str, Any]:
  """Returns the devices and the framework, for the report."""
  devices = jax.devices()
  return {
    'framework': f'jax {jax.__version__}',
    'backend': jax.default_backend(),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'num_devices': len(devices),
  }


def describe_network(stepper: Stepper) -> dict[str, Any]:
  """Returns the kernels and the parameter count, for the report."""
  return {
    'kernels': stepper.run.network.kernels.name,
    'parameters': count_parameters(stepper.state.params),
  }


def write_line(message: dict[str, Any]) -> None:
  """Writes a result as one line to stdout, without buffering."""
  print(json.dumps(message), flush=True)


def main() -> int:
  """Measures the job on stdin; a user error becomes a result too."""
  job = json.load(sys.stdin)
  try:
    if job.get('operations'):
      from googlenet.tools import operations  # only here: its import takes time

      operations.register(job['operations'])
    config = config_lib.resolve(config_lib.from_json(json.dumps(job['config'])))
    tune_machine(config.train.compilation_cache)
    with memory.explained('benchmark'):
      measure(config, job['started'], write_line)
  except memory.OutOfMemoryError as error:
    write_line({'error': str(error)})
    return 2
  except (UserError, OSError) as error:
    write_line({'error': str(error), 'is_bad_input': True})
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
