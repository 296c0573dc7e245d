"""A process that measures this project: `python -m googlenet.benchmark.ours`.

A job comes as JSON on stdin (see `runner`), a report leaves as one line of JSON
on stdout. What is timed is what `loop` does: its data, its feed, its steps.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from googlenet.runtime import backend

if __name__ == '__main__':  # before JAX is imported
  backend.prepare(os.environ, preallocates=True)

import jax
import jmp
import ml_collections
import numpy as np

from googlenet import assembly
from googlenet import config as config_lib
from googlenet import loss as loss_lib
from googlenet import train_step as step_lib
from googlenet.benchmark.clock import intervals, median_seconds, seconds
from googlenet.benchmark.flops import flop_per_image, product_flop_per_s
from googlenet.data import batches
from googlenet.errors import UserError
from googlenet.network.initialization import count_parameters
from googlenet.runtime import memory
from googlenet.runtime.allocator import release_free_memory
from googlenet.runtime.compilation import compiled_with
from googlenet.runtime.devices import PMAP_AXIS, replicated, steps_in_flight
from googlenet.runtime.machine import tune_machine

Config = ml_collections.FrozenConfigDict


def with_train(config: Config, **fields: Any) -> Config:
  """Returns a config whose `train` section has other values."""
  changed = ml_collections.ConfigDict(config.to_dict())
  changed.train.update(fields)
  return config_lib.resolve(changed)


def peak_bytes() -> int:
  """Returns the most memory used so far: resident, or of one device."""
  if jax.default_backend() != 'cpu':
    return max(
      device.memory_stats()['peak_bytes_in_use']
      for device in jax.local_devices()
    )
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Training:
  """A run as `assembly.build` makes it, advanced step by step."""

  def __init__(self, run: assembly.Run):
    self.run, self.state = run, run.state
    self._seed = replicated(np.uint32(run.config.seed))
    self._made = 0

  def take(self, count: int) -> Iterator[batches.Batch]:
    """Yields the next batches of the training order."""
    config = self.run.config
    first, self._made = self._made, self._made + count
    yield from self.run.train.batches(
      batches.TrainIndices(
        config.seed,
        self.run.train.dataset.num_examples,
        config.train.batch_size,
        first,
        self._made,
      )
    )

  def step(self, batch: batches.Batch) -> step_lib.Metrics:
    """Starts one training step."""
    self.state, metrics = self.run.train_step(self.state, batch, self._seed)
    return metrics

  def steps(self, count: int) -> Iterator[step_lib.Metrics]:
    """Takes batches and starts a training step on each."""
    return map(self.step, self.take(count))


def infer(training: Training, count: int) -> Iterator[step_lib.Metrics]:
  """Takes batches of the evaluation split and starts a step on each."""
  run, state = training.run, training.state
  size = run.config.train.batch_size
  num_examples = run.evaluation.dataset.num_examples
  indices = [
    batches.IndexBatch(
      (np.arange(i * size, (i + 1) * size) % num_examples).astype(np.int32)
    )
    for i in range(count)
  ]
  for batch in run.evaluation.batches(indices):
    mask = np.ones(batch['label'].shape, np.float32)
    yield run.eval_step(
      state.params, state.network_state, {**batch, 'mask': mask}
    )


def measure_size(training: Training) -> dict[str, float]:
  """Returns what one batch size gives; `first_done` is a time of day."""
  config = training.run.config
  count, in_flight = config.benchmark.steps, steps_in_flight()
  first_s = seconds(lambda: next(training.steps(1)))
  first_done = time.time()
  release_free_memory()  # as `training.epochs` does
  calls = 1 + count + in_flight
  train_s = statistics.median(intervals(training.steps(calls), in_flight))
  peak = peak_bytes()
  # The first of these compiles.
  times = intervals(infer(training, 1 + calls), in_flight)
  infer_s = statistics.median(times[1:])
  return {
    'train_images_per_s': config.train.batch_size / train_s,
    'infer_images_per_s': config.train.batch_size / infer_s,
    'compile_s': max(first_s - train_s, 0.0),
    'peak_bytes': peak,
    'first_done': first_done,
  }


def make_parts(run: assembly.Run) -> tuple[Callable, Callable]:
  """Returns the pmapped loss and gradient of a training step.

  Both are (params, network_state, batch) -> arrays with a device axis, not
  averaged over devices.
  """
  config = run.config
  num_parts = config.train.microbatches
  loss_fn = loss_lib.make_loss_fn(run.network, config)
  gradient_fn = loss_lib.make_gradient_fn(loss_fn, num_parts)

  def keys(batch):
    size = batch['label'].shape[0]
    return tuple(jax.random.split(jax.random.key(config.seed), (2, size)))

  def loss(params, network_state, batch):
    if num_parts == 1:
      return loss_fn(params, network_state, batch, keys(batch))[0]
    parts = jax.tree.map(
      lambda x: x.reshape(num_parts, -1, *x.shape[1:]), (batch, keys(batch))
    )
    return jax.lax.map(
      lambda part: loss_fn(params, network_state, *part)[0], parts
    )

  def gradient(params, network_state, batch):
    _, (grads, _) = gradient_fn(params, network_state, batch, keys(batch))
    return grads

  return tuple(
    compiled_with(
      run.network.kernels.compiler_options,
      jax.pmap(fn, axis_name=PMAP_AXIS, in_axes=(None, None, 0)),
    )
    for fn in (loss, gradient)
  )


def shares(
  waiting: float, forward: float, gradient: float, step: float
) -> dict[str, float]:
  """Returns what parts of a training step take of its time; they add up to 1.

  Each part is a difference of two times, which noise can make negative: then
  it is 0.

  Args:
    waiting: seconds until a batch is there.
    forward: seconds of the loss alone.
    gradient: seconds of loss and gradient.
    step: seconds of the whole step, the batch at hand.
  """
  forward = min(forward, step)
  gradient = min(max(gradient, forward), step)
  parts = {
    'forward': forward,
    'backward': gradient - forward,
    'optimizer': step - gradient,
    'input': waiting,
  }
  return {name: part / (waiting + step) for name, part in parts.items()}


def measure_shares(training: Training) -> dict[str, float]:
  """Returns `shares` of the training step, each time a median."""
  count = training.run.config.benchmark.steps
  feed, waits, steps = training.take(1 + count), [], []
  for _ in range(1 + count):
    start = time.perf_counter()
    batch = jax.block_until_ready(next(feed))
    ready = time.perf_counter()
    jax.block_until_ready(training.step(batch))
    waits.append(ready - start)
    steps.append(time.perf_counter() - ready)
  params, network_state = training.state.params, training.state.network_state
  loss, gradient = make_parts(training.run)
  return shares(
    statistics.median(waits[1:]),
    median_seconds(lambda: loss(params, network_state, batch), count),
    median_seconds(lambda: gradient(params, network_state, batch), count),
    statistics.median(steps[1:]),
  )


def build(config: Config, batch_size: int) -> assembly.Run:
  """Returns the run of one batch size.

  Raises:
    UserError: as `assembly.build`, the batch size by the name of its field.
  """
  try:
    return assembly.build(with_train(config, batch_size=batch_size))
  except UserError as error:
    text = str(error)
    if batch_size != config.train.batch_size:
      text = text.replace('train.batch_size=', 'benchmark.batch_sizes: ', 1)
    raise UserError(text) from error


def measure(config: Config, batch_sizes: list[int], started: float) -> dict:
  """Returns the report of a job, smallest batch first (memory only grows).

  Args:
    config: `train.precision` is what to measure; the step is taken apart at
      `train.batch_size`.
    batch_sizes: rising; images a step, over all devices.
    started: time of day when this process was started.

  Raises:
    UserError: the config does not fit the data or the devices.
  """
  report = {'sizes': {}}
  for batch_size in batch_sizes:
    training = Training(build(config, batch_size))
    measured = measure_size(training)
    first_done = measured.pop('first_done')
    report.setdefault('start_s', first_done - started)
    report['sizes'][str(batch_size)] = measured
    if batch_size == config.train.batch_size:
      report['shares'] = measure_shares(training)
    report |= describe(training)
    del training  # before the next one is built
  dtype = jmp.get_policy(config.train.precision).compute_dtype
  rate = product_flop_per_s(dtype, config.benchmark.steps)
  return report | {'product_flop_per_s': rate}


def describe(training: Training) -> dict[str, Any]:
  """Returns what network runs on what devices."""
  run, devices = training.run, jax.devices()
  image_shape = assembly.image_shape(run.config, run.train.dataset)
  return {
    'framework': f'jax {jax.__version__}',
    'backend': jax.default_backend(),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'kernels': run.network.kernels.name,
    'parameters': count_parameters(training.state.params),
    'flop_per_image': flop_per_image(run.config.model, image_shape),
  }


def main() -> int:
  """Measures the job on stdin; bad input becomes a report with an error."""
  job = json.load(sys.stdin)
  try:
    config = config_lib.resolve(config_lib.from_json(json.dumps(job['config'])))
    tune_machine(config.train.compilation_cache)
    with memory.explained('benchmark'):
      report = measure(config, job['batch_sizes'], job['started'])
  except (UserError, OSError) as error:
    report = {'error': str(error)}
  print(json.dumps(report), flush=True)
  return 2 if 'error' in report else 0


if __name__ == '__main__':
  sys.exit(main())
