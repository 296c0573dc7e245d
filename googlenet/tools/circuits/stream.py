"""The images of a split in random order, and steps that look at them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from googlenet.data import batches
from googlenet.data.stream import IndexBatch
from googlenet.runtime.parallel import parallelize
from googlenet.runtime.progress import Progress
from googlenet.tools.inference.apply import make_function
from googlenet.tools.inference.trained import Trained


class Batch(NamedTuple):
  """A batch on the devices.

  Attributes:
    images: uint8 [D, B, H, W, C].
    labels: int32 [D * B].
    index: int32 [D * B], of the example in the split; -1: padding.
  """

  images: Any
  labels: np.ndarray
  index: np.ndarray


def index_batches(
  num_examples: int, batch_size: int, num_devices: int, seed: int
) -> list[IndexBatch]:
  """Returns each example once, in random order; the last batch is padded.

  A split may be sorted by class: in order, a batch would show few of them.

  Args:
    num_examples: of the split.
    batch_size: as in `batches.eval_indices`.
    num_devices: of this process.
    seed: of the order.
  """
  order = batches.epoch_order(seed, 0, num_examples)
  return [
    IndexBatch(np.where(part.indices < 0, -1, order[part.indices]))
    for part in batches.eval_indices(num_examples, batch_size, num_devices)
  ]


def shuffled(
  inputs: batches.Pipeline, batch_size: int, seed: int, what: str
) -> Iterator[Batch]:
  """Yields a split in random order, and shows the progress.

  Args:
    inputs: the input pipeline of the split.
    batch_size: in all.
    seed: of the order.
    what: the work, for the progress bar.
  """
  dataset, devices = inputs.dataset, jax.local_device_count()
  parts = index_batches(dataset.num_examples, batch_size, devices, seed)
  with (
    contextlib.closing(inputs.batches(parts)) as given,
    Progress(what, dataset.num_examples, 'images') as bar,
  ):
    for part, batch in zip(parts, given, strict=True):
      labels = np.asarray(batch['label']).reshape(-1)
      yield Batch(batch['image'], labels, part.indices)
      bar.update(int((part.indices >= 0).sum()))


def make_step(
  net: Trained,
  names: tuple[str, ...],
  finish: Callable[..., Any] = lambda points: points,
  num_arguments: int = 0,
) -> Callable[..., Any]:
  """Makes the function that computes points of a batch on all devices.

  It computes in float32, whatever the precision of the run.

  Args:
    net: the network.
    names: of the points.
    finish: (points {name: [B, ...]}, *arguments) -> what is returned; it runs
      on the device.
    num_arguments: number of arguments of `finish` after the points.

  Returns:
    (images uint8 [D, B, H, W, C], *arguments [D, B, ...]) -> [D, B, ...].
  """
  function = make_function(net.network, net.config.data, 'float32')

  def step(params, network_state, images, *arguments):
    outputs = function(params, network_state, images, names)
    return finish(outputs.end_points, *arguments)

  program = parallelize(
    step,
    in_axes=(None, None, 0, *[0] * num_arguments),
    options=net.network.kernels.compiler_options,
    what='network',
    how=net.config.train.parallel,
  )
  return lambda *given: program(net.params, net.network_state, *given)


def on_devices(values: np.ndarray) -> np.ndarray:
  """Splits values [D * B, ...] over this process's devices: [D, B, ...]."""
  return values.reshape(jax.local_device_count(), -1, *values.shape[1:])
