"""Initial parameters, drawn by Haiku or by NumPy.

Training runs use NumPy, because XLA would compile a random draw for each of 60
shapes, which takes a minute. An abstract run of the network gives the shapes.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError, shown
from googlenet.model.context import is_within

if TYPE_CHECKING:  # it imports this file
  from googlenet.model.network import Network


class Scheme(NamedTuple):
  """An initialization scheme for weights and biases.

  Attributes:
    scale: the weights have variance scale / fan.
    fan: 'fan_in' or 'fan_avg'.
    distribution: 'normal', truncated at two deviations, or 'uniform'.
    bias: initial value of biases.
  """

  scale: float
  fan: str
  distribution: str
  bias: float


INITIALIZERS: dict[str, Scheme] = {
  # He et al., 2015, arXiv 1502.01852, for ReLU.
  'he': Scheme(2.0, 'fan_in', 'normal', 0.0),
  # Glorot and Bengio, 2010.
  'xavier': Scheme(1.0, 'fan_avg', 'uniform', 0.0),
  # Caffe's 'xavier' filler and biases, as in bvlc_googlenet.
  'caffe': Scheme(1.0, 'fan_in', 'uniform', 0.2),
}
# For classifiers: no activation follows, so scale 1 preserves the variance.
LOGITS = Scheme(1.0, 'fan_in', 'normal', 0.0)
# Initial values of batch-norm parameters and state.
_CONSTANTS = {'scale': 1.0, 'offset': 0.0, 'mean': 0.0, 'variance': 1.0}


def scheme_of(module: str, initializer: str) -> Scheme:
  """Returns the initialization scheme of a module path."""
  is_classifier = module.split('/')[-1] == 'logits'
  return LOGITS if is_classifier else INITIALIZERS[initializer]


def as_haiku(scheme: Scheme) -> hk.initializers.Initializer:
  """Returns the Haiku initializer for the weights of a scheme."""
  distributions = {'normal': 'truncated_normal', 'uniform': 'uniform'}
  return hk.initializers.VarianceScaling(
    scheme.scale, scheme.fan, distributions[scheme.distribution]
  )


def variance_scaling(
  rng: np.random.Generator, shape: tuple[int, ...], scheme: Scheme
) -> np.ndarray:
  """Draws float32 weights [..., C_in, C_out] like Haiku's VarianceScaling."""
  receptive_field = int(np.prod(shape[:-2]))
  fan_in, fan_out = receptive_field * shape[-2], receptive_field * shape[-1]
  fan = {'fan_in': fan_in, 'fan_avg': (fan_in + fan_out) / 2}[scheme.fan]
  variance = scheme.scale / fan
  if scheme.distribution == 'uniform':
    limit = np.sqrt(3 * variance)
    return rng.uniform(-limit, limit, shape).astype(np.float32)
  # Truncation at two standard deviations reduces the deviation to 0.8796.
  draws = rng.standard_normal(shape, np.float32)
  while (outside := np.abs(draws) > 2).any():
    draws[outside] = rng.standard_normal(int(outside.sum()), np.float32)
  return draws * np.float32(np.sqrt(variance) / 0.87962566103423978)


def abstract_init(
  network: 'Network', image_shape: tuple[int, int, int]
) -> tuple[hk.Params, hk.State]:
  """Returns shapes and dtypes of `network.init` without computing anything.

  Args:
    network: made by `make_network`.
    image_shape: (H, W, C) of the network's input.
  """

  def init(key: jax.Array, image: jax.Array) -> tuple[hk.Params, hk.State]:
    # Zeros: to trace random draws would take most of the time.
    with hk.custom_creator(
      lambda create, shape, dtype, *_: create(shape, dtype, jnp.zeros)
    ):
      return network.init(key, image)

  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  _, apply = hk.transform(init)  # where a creator is allowed
  return jax.eval_shape(functools.partial(apply, {}, None), key, image)


def init_from_numpy(
  network: 'Network', image_shape: tuple[int, int, int], seed: int
) -> tuple[hk.Params, hk.State]:
  """Draws initial parameters with NumPy.

  Args:
    network: made by `make_network`.
    image_shape: (H, W, C) of the network's input.
    seed: determines all values, the same on every backend.

  Returns:
    params and network_state, float32 NumPy arrays.

  Raises:
    UserError: the shape is none of an image, or the seed no whole number.
  """
  _check(image_shape, seed)
  from googlenet.model import graph, rows  # they import this file

  rng = np.random.default_rng(seed)
  initializer = network.architecture.initializer
  layers = graph.graph(network.architecture, image_shape)
  own = [layer.name for layer in layers if type(layer.op) is rows.Own]
  drawn = _drawn_by_haiku(network, image_shape, seed) if own else {}

  def draw(path, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    module, name = path[-2].key, path[-1].key
    if is_within(module, own):  # with its own initializers
      return np.asarray(drawn[module][name])
    scheme = scheme_of(module, initializer)
    if name == 'w':
      return variance_scaling(rng, leaf.shape, scheme)
    value = scheme.bias if name == 'b' else _CONSTANTS[name]
    return np.full(leaf.shape, value, np.float32)

  return jax.tree_util.tree_map_with_path(
    draw, abstract_init(network, image_shape)
  )


def _check(image_shape: Sequence[int], seed: int) -> None:
  whole = (int, np.integer)
  sides = list(np.atleast_1d(np.asarray(image_shape, object)))
  if len(sides) != 3 or not all(
    isinstance(side, whole) and side > 0 for side in sides
  ):
    raise UserError(
      f'image_shape={shown(image_shape)} is not allowed: it takes (H, W, C), '
      'three whole numbers from 1'
    )
  if not isinstance(seed, whole) or seed < 0:  # None would draw a random one
    raise UserError(
      f'seed={shown(seed)} is not allowed: it takes a whole number from 0'
    )


def _drawn_by_haiku(
  network: 'Network', image_shape: tuple[int, int, int], seed: int
) -> hk.Params:
  image = jnp.zeros((1, *image_shape))
  return jax.jit(network.init)(jax.random.key(seed), image)[0]


def count_parameters(params: hk.Params) -> int:
  """Returns the number of scalars in all parameters."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
