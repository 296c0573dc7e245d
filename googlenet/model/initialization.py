"""The numbers that a network begins with, drawn by NumPy.

XLA compiles a random draw anew for each of 60 shapes, which takes a minute;
here shapes come from an abstract run of the network.
"""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from googlenet.model.initializers import INITIALIZERS, LOGITS, variance_scaling
from googlenet.model.network import Network

# Other parameters and state, by the last part of their names.
_CONSTANTS = {'scale': 1.0, 'offset': 0.0, 'mean': 0.0, 'variance': 1.0}


def abstract_init(
  network: Network, image_shape: tuple[int, int, int]
) -> tuple[hk.Params, hk.State]:
  """Returns shapes and dtypes of what `network.init` makes; computes nothing.

  Args:
    network: as made by `make_network`.
    image_shape: (H, W, C) of the images that the network will see.
  """
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(network.init, key, image)


def init_from_numpy(
  network: Network, image_shape: tuple[int, int, int], seed: int
) -> tuple[hk.Params, hk.State]:
  """Draws initial parameters.

  Args:
    network: as made by `make_network`; its architecture names the scheme.
    image_shape: (H, W, C) of the images that the network will see.
    seed: fixes every number, on every backend.

  Returns:
    params and network_state, float32 NumPy arrays.
  """
  rng = np.random.default_rng(seed)
  hidden = INITIALIZERS[network.architecture.initializer]

  def draw(path, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    module, name = path[-2].key, path[-1].key
    scheme = LOGITS if module.split('/')[-1] == 'logits' else hidden
    if name == 'w':
      return variance_scaling(rng, leaf.shape, scheme)
    value = scheme.bias if name == 'b' else _CONSTANTS[name]
    return np.full(leaf.shape, value, np.float32)

  return jax.tree_util.tree_map_with_path(
    draw, abstract_init(network, image_shape)
  )


def count_parameters(params: hk.Params) -> int:
  """Returns the number of scalars in all parameters."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
