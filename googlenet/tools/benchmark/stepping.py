"""Runs single training and inference steps as `loop` does, and times them."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from googlenet.data import batches
from googlenet.runtime.allocator import release_free_memory
from googlenet.runtime.parallel import replicated, steps_in_flight
from googlenet.tools.benchmark.clock import seconds, step_seconds
from googlenet.tools.benchmark.memory import peak_bytes
from googlenet.train import setup
from googlenet.train import step as step_lib


class Stepper:
  """Runs the steps of a run that `setup.build` has made."""

  def __init__(self, run: setup.Run):
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

  def train(self, count: int) -> Iterator[step_lib.Metrics]:
    """Starts training steps on the next `count` batches."""
    return map(self.step, self.take(count))

  def infer(self, count: int) -> Iterator[step_lib.Metrics]:
    """Starts inference steps on `count` batches of the evaluation split."""
    run, state = self.run, self.state
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


def measure_training(stepper: Stepper) -> dict[str, Any]:
  """Returns the results of training.

  `first_done` is `time.monotonic()` at the end of the first step.
  """
  config = stepper.run.config
  first_s = seconds(lambda: next(stepper.train(1)))
  first_done = time.monotonic()
  release_free_memory()  # as after the first training step
  train_s = step_seconds(
    stepper.train, config.benchmark.steps, steps_in_flight()
  )
  return {
    'train_images_per_s': config.train.batch_size / train_s,
    'compile_s': max(first_s - train_s, 0.0),
    'peak_bytes': peak_bytes(),
    'first_done': first_done,
  }


def measure_inference(stepper: Stepper) -> dict[str, Any]:
  """Returns the results of inference."""
  config = stepper.run.config
  seconds(lambda: next(stepper.infer(1)))  # compiles
  infer_s = step_seconds(
    stepper.infer, config.benchmark.steps, steps_in_flight()
  )
  return {'infer_images_per_s': config.train.batch_size / infer_s}
