"""A trained network as a pure, jitted function of stored pixels."""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import ml_collections

from googlenet.errors import UserError, did_you_mean
from googlenet.input.preprocess import preprocess
from googlenet.model import graph
from googlenet.model.network import Network, Outputs
from googlenet.runtime.compilation import compiled_with

# An additional end point: the softmax of the logits.
PROBABILITIES = 'probabilities'


def end_point_names(network: Network, image_size: int) -> tuple[str, ...]:
  """Returns the names of all end points, from first to last.

  Args:
    network: made from a config.
    image_size: side of the images after resizing, in pixels.
  """
  layers = graph.graph(network.architecture, (image_size, image_size, 1))
  return (*graph.end_points(layers), PROBABILITIES)


def check_end_points(
  names: Iterable[str], known: Iterable[str], flag: str
) -> None:
  """Raises UserError if a name is not a known end point."""
  known = tuple(known)
  for name in names:
    if name not in known:
      raise UserError(
        f'{flag}={name}: the network has no such end point'
        f'{did_you_mean(name, known)}; allowed are {", ".join(known)}'
      )


def make_function(
  network: Network, data_config: ml_collections.ConfigDict, precision: str
) -> Callable[..., Outputs]:
  """Makes the pure function: preprocessing, then the network in eval mode.

  Args:
    network: the network.
    data_config: the `data` section, for `preprocess`.
    precision: `train.precision`.

  Returns:
    (params, network_state, images, end_points=()) -> Outputs. `images` are
    uint8 [B, H, W, C] of any H and W, `logits` float32 [B, num_classes];
    the requested `end_points` are float32 [B, ...].
  """
  policy = jmp.get_policy(precision)

  def function(
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    end_points: tuple[str, ...] = (),
  ) -> Outputs:
    images = preprocess(images, data_config)
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


class Apply(NamedTuple):
  """The function of `make_function`, compiled once for each image shape.

  It computes the unchanged images, not the views of the `eval` section. It may
  be used inside `jax.jit`, `jax.grad` and `jax.vmap`.
  """

  network: Network
  data_config: ml_collections.FrozenConfigDict
  precision: str

  @property
  def end_points(self) -> tuple[str, ...]:
    """The names of all end points."""
    return end_point_names(self.network, self.data_config.image_size)

  def __call__(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    end_points: Iterable[str] = (),
  ) -> Outputs:
    """Computes logits and end points; the arguments are as in `make_function`.

    Raises:
      UserError: an end point is unknown.
    """
    program = _jitted(*self, tuple(end_points))
    return program(params, network_state, images)


@functools.lru_cache(maxsize=32)
def _jitted(
  network: Network,
  data_config: ml_collections.FrozenConfigDict,
  precision: str,
  end_points: tuple[str, ...],
) -> Callable[..., Outputs]:
  known = end_point_names(network, data_config.image_size)
  check_end_points(end_points, known, 'end_points')
  function = make_function(network, data_config, precision)
  return compiled_with(
    network.kernels.compiler_options,
    jax.jit(functools.partial(function, end_points=end_points)),
    'network',
  )
