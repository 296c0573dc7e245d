"""The network as a function of stored pixels, and a loop over batches.

What training, evaluation and every use of a trained network have in common is
`preprocess` and `Network.apply`; here they become one pure function of uint8
images, and that one a loop over batches on all devices.

trained.py makes it from a run, insight.py looks into it; outputs.py and
feature_files.py write what users ask of it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import ml_collections
import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.input.preprocess import preprocess
from googlenet.model import graph
from googlenet.model.network import Network, Outputs
from googlenet.runtime.compilation import compiled_with
from googlenet.runtime.parallel import parallelize, steps_in_flight

# Beside the end points of the network: the softmax of its logits.
PROBABILITIES = 'probabilities'


def end_point_names(network: Network, image_size: int) -> tuple[str, ...]:
  """Returns all names that `Apply` and `Apply.step` take, from first to last.

  Args:
    network: made from a config.
    image_size: side of what it sees, in pixels.
  """
  layers = graph.graph(network.architecture, (image_size, image_size, 1))
  return (*graph.end_points(layers), PROBABILITIES)


def check_end_points(
  names: Iterable[str], known: Iterable[str], flag: str
) -> None:
  """Checks that a network has these end points.

  Raises:
    UserError: it has not.
  """
  known = tuple(known)
  for name in names:
    if name not in known:
      raise UserError(
        f'{flag}={name}: the network has no such end point'
        f'{did_you_mean(name, known)}; allowed are {", ".join(known)}'
      )


def make_function(
  network: Network, config: ml_collections.ConfigDict
) -> Callable[..., Outputs]:
  """Makes the pure function behind everything here.

  Args:
    network: the network of `config.model`.
    config: the `data` and `train` sections are read.

  Returns:
    (params, network_state, images, end_points=()) -> Outputs: images are uint8
    [B, H, W, C] of any H and W, as a set stores them; `logits` float32
    [B, num_classes]; `end_points` float32, those that were asked for.
  """
  policy = jmp.get_policy(config.train.precision)

  def function(
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    end_points: tuple[str, ...] = (),
  ) -> Outputs:
    images = preprocess(images, config.data)
    params, images = policy.cast_to_compute((params, images))
    wanted = [name for name in end_points if name != PROBABILITIES]
    outputs, _ = network.apply(
      params,
      network_state,
      None,
      images,
      is_training=False,
      with_end_points=bool(wanted),
    )
    logits = policy.cast_to_output(outputs.logits)
    found = {
      name: outputs.end_points[name].astype(jnp.float32) for name in wanted
    }
    if PROBABILITIES in end_points:
      found[PROBABILITIES] = jax.nn.softmax(logits.astype(jnp.float32))
    return Outputs(logits, {}, found)

  return function


class Apply:
  """The function of `make_function`, jitted: compiled once for each shape.

  Within another `jax.jit`, `jax.grad` or `jax.vmap` it is part of that.
  """

  def __init__(self, network: Network, config: ml_collections.ConfigDict):
    """Compiles nothing yet; `config` as for `make_function`."""
    self._network, self._config = network, config
    self._names = end_point_names(network, config.data.image_size)
    self._programs: dict[Any, Callable] = {}

  @property
  def end_points(self) -> tuple[str, ...]:
    """All names that may be asked for."""
    return self._names

  def __call__(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    end_points: Iterable[str] = (),
  ) -> Outputs:
    """As `make_function` says.

    Raises:
      UserError: there is no such end point.
    """
    end_points = tuple(end_points)
    check_end_points(end_points, self._names, 'end_points')
    if end_points not in self._programs:
      function = make_function(self._network, self._config)
      self._programs[end_points] = compiled_with(
        self._network.kernels.compiler_options,
        jax.jit(functools.partial(function, end_points=end_points)),
        'network',
      )
    return self._programs[end_points](params, network_state, images)

  def step(self, end_points: Iterable[str]) -> Callable:
    """Returns the form for all devices, which computes these end points alone.

    Returns:
      (params, network_state, images) -> {name: float32 [D, B, ...]}, for images
      uint8 [D, B, H, W, C] and parameters on every device.

    Raises:
      UserError: there is no such end point.
    """
    end_points = tuple(end_points)
    check_end_points(end_points, self._names, 'end_points')
    key = ('all devices', end_points)
    if key not in self._programs:
      function = make_function(self._network, self._config)

      def step(params, network_state, images):
        return function(params, network_state, images, end_points).end_points

      self._programs[key] = parallelize(
        step,
        in_axes=(None, None, 0),
        options=self._network.kernels.compiler_options,
        what='network',
        how=self._config.train.parallel,
      )
    return self._programs[key]


def padded_size(count: int, batch_size: int, num_devices: int) -> int:
  """Returns the images of a program that is to compute `count` in all.

  A full batch, or the next power of two where there are fewer: few shapes are
  compiled, and one image does not cost a batch.

  Args:
    count: images in all.
    batch_size: images of a full batch, at most.
    num_devices: the result is a multiple of it.
  """
  size = min(batch_size, 1 << max(count - 1, 0).bit_length())
  return -(-size // num_devices) * num_devices


def run_batches(
  step: Callable,
  params: hk.Params,
  network_state: hk.State,
  batches: Iterable[tuple[Any, np.ndarray]],
  size: int,
) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
  """Applies a step of `Apply.step` to batches, some given to devices ahead.

  Args:
    step: the step.
    params: on every local device.
    network_state: likewise.
    batches: uint8 [n, H, W, C] each, 0 < n <= size, and what it is of.
    size: images of the program, a multiple of the local devices.

  Yields:
    What a batch is of, and {name: float32 [n, ...]}, in order.
  """
  num_devices = jax.local_device_count()
  in_flight, waiting = steps_in_flight(), []

  def finish(of, count, out):
    arrays = {name: np.asarray(x) for name, x in out.items()}
    return of, {
      name: x.reshape(size, *x.shape[2:])[:count] for name, x in arrays.items()
    }

  for of, batch in batches:
    count = len(batch)
    if count < size:
      padding = np.zeros((size - count, *batch.shape[1:]), np.uint8)
      batch = np.concatenate([batch, padding])
    batch = batch.reshape(num_devices, -1, *batch.shape[1:])
    waiting.append((of, count, step(params, network_state, batch)))
    if len(waiting) > in_flight:
      yield finish(*waiting.pop(0))
  for item in waiting:
    yield finish(*item)
