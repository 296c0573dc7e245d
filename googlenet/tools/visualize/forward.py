"""The network as a function of float images of any size, with named maps."""

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections

from googlenet.model.network import Network
from googlenet.tools.exports.inference import for_inference
from googlenet.tools.inference.trained import Trained

# (params, network_state, images float32 [B, H, W, C] in 0..255, redirect [])
# -> {point: float32 [B, ...]}.
Forward = Callable[
  [hk.Params, hk.State, jax.Array, jax.Array], dict[str, jax.Array]
]


def normalize(
  images: jax.Array, data_config: ml_collections.ConfigDict
) -> jax.Array:
  """Normalizes images as `preprocess` does, without a change of size.

  Args:
    images: float32 [B, H, W, C] in 0..255.
    data_config: the `data` section: `mean` and `std`.
  """
  mean = jnp.asarray(data_config.mean, jnp.float32)
  std = jnp.asarray(data_config.std, jnp.float32)
  return (images / 255 - mean) / std


def make_forward(
  network: Network,
  data_config: ml_collections.ConfigDict,
  points: Sequence[str],
) -> Forward:
  """Makes the function from images to the maps of some points."""

  def forward(
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    redirect: jax.Array,
  ) -> dict[str, jax.Array]:
    outputs, _ = network.apply(
      params,
      network_state,
      None,
      normalize(images, data_config),
      is_training=False,
      with_end_points=True,
    )
    return {point: outputs.end_points[point] for point in points}

  return forward


def prepared(net: Trained, points: Sequence[str]) -> Trained:
  """Returns the network that computes points: float32, heads only if needed.

  Auxiliary heads take only images of the network's own size.
  """
  del points
  return for_inference(net)
