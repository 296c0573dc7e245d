"""Times the parts of a training step: forward, backward, optimizer, input."""

import statistics
import time
from collections.abc import Callable

import jax

from googlenet.runtime.parallel import parallelize
from googlenet.tools.benchmark.clock import median_seconds
from googlenet.tools.benchmark.stepping import Stepper
from googlenet.train import loss as loss_lib
from googlenet.train import setup


def make_parts(run: setup.Run) -> tuple[Callable, Callable]:
  """Returns functions for the loss and the gradient of a training step.

  Both are (params, network_state, batch) -> arrays with a device axis. They run
  on all devices and do not average over them.
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
    parallelize(
      fn,
      in_axes=(None, None, 0),
      options=run.network.kernels.compiler_options,
      how=config.train.parallel,
    )
    for fn in (loss, gradient)
  )


def shares(
  waiting: float, forward: float, gradient: float, step: float
) -> dict[str, float]:
  """Returns the share of each part in a training step; they add up to 1.

  A part is the difference of two measured times. Where noise makes it negative,
  it counts as 0.

  Args:
    waiting: seconds until the next batch is ready.
    forward: seconds of the loss alone.
    gradient: seconds of the loss and the gradient.
    step: seconds of the whole step on a batch that is ready.
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


def measure_shares(stepper: Stepper) -> dict[str, float]:
  """Measures `shares` of the training step; all times are medians."""
  count = stepper.run.config.benchmark.steps
  batches, waits, steps = stepper.take(1 + count), [], []
  for _ in range(1 + count):
    start = time.perf_counter()
    batch = jax.block_until_ready(next(batches))
    ready = time.perf_counter()
    jax.block_until_ready(stepper.step(batch))
    waits.append(ready - start)
    steps.append(time.perf_counter() - ready)
  params, network_state = stepper.state.params, stepper.state.network_state
  loss, gradient = make_parts(stepper.run)
  return shares(
    statistics.median(waits[1:]),
    median_seconds(lambda: loss(params, network_state, batch), count),
    median_seconds(lambda: gradient(params, network_state, batch), count),
    statistics.median(steps[1:]),
  )
