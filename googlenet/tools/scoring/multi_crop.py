"""Predictions averaged over crops of an image.

Szegedy et al. (2014), section 7; softmax probabilities are averaged. Lengths
follow the size of the network's input: 224 makes 256, 288, 320 and 352 of 8, 9,
10 and 11 sevenths.
"""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import ml_collections

from googlenet.input import views as view_lib
from googlenet.input.preprocess import preprocess
from googlenet.model.network import Network
from googlenet.runtime.parallel import parallelize


class Protocol(NamedTuple):
  """Which crops are taken of an image."""

  sevenths: tuple[int, ...]  # short sides that the image is resized to
  num_squares: int  # of each: 1, or 3 along its longer side
  with_whole: bool  # of each also itself, beside its corners and centre


# By the number of crops.
PROTOCOLS = {
  10: Protocol((8,), 1, False),
  144: Protocol((8, 9, 10, 11), 3, True),
}


def square_sides(protocol: Protocol, image_size: int) -> list[int]:
  """Returns the sides of the squares, in pixels, for an input of image_size."""
  return [round(image_size * part / 7) for part in protocol.sevenths]


def views(
  squares: jax.Array, data_config: ml_collections.ConfigDict, with_whole: bool
) -> jax.Array:
  """Cuts corners and centre out of squares, and mirrors all.

  Args:
    squares: uint8 [B, R, R, C], R at least S = `image_size`.
    data_config: the `data` section, for `preprocess`.
    with_whole: takes the whole square as well, resized.

  Returns:
    float32 [V, B, S, S, C], preprocessed: above left and right, below left and
    right, centre, whole; then their mirror images.
  """
  size = data_config.image_size
  last = squares.shape[1] - size
  places = [(0, 0), (0, last), (last, 0), (last, last), (last // 2, last // 2)]
  crops = [
    squares[:, top : top + size, left : left + size] for top, left in places
  ]
  if with_whole:
    crops.append(squares)
  out = jnp.stack([preprocess(crop, data_config) for crop in crops])
  return jnp.concatenate([out, out[..., ::-1, :]])


def make_predict_step(
  network: Network,
  config: ml_collections.ConfigDict,
  eval_config: ml_collections.ConfigDict,
  protocol: Protocol | None,
) -> Callable[[hk.Params, hk.State, jax.Array], jax.Array]:
  """Makes the prediction of all devices.

  Args:
    network: the network of `config.model`.
    config: of the network; the `train` and `data` sections are read.
    eval_config: the `eval` section of all that are averaged.
    protocol: None: the views of the `eval` section.

  Returns:
    (params, network_state, images) -> probabilities float32 [D, B, K], averaged
    over the views of an image; images are uint8 [D, B, H, W, C], with a
    protocol [D, B, num_squares, R, R, C].
  """
  policy = jmp.get_policy(config.train.precision)

  def predict_step(params, network_state, images):
    params = policy.cast_to_compute(params)

    def logits_of(x):
      outputs, _ = network.apply(
        params,
        network_state,
        None,
        policy.cast_to_compute(x),
        is_training=False,
      )
      return outputs.logits

    if protocol is None:
      return view_lib.mean_probabilities(
        lambda view: logits_of(preprocess(view, config.data)),
        images,
        eval_config,
      )

    def probabilities(x):
      return jax.nn.softmax(logits_of(x).astype(jnp.float32))

    # One view after another: a batch of them all would not fit.
    def of_square(square):
      x = views(square, config.data, protocol.with_whole)
      return jax.lax.map(probabilities, x).mean(0)

    return jax.lax.map(of_square, jnp.moveaxis(images, 1, 0)).mean(0)

  return parallelize(
    predict_step,
    in_axes=(None, None, 0),
    options=network.kernels.compiler_options,
    what='evaluation step',
    how=config.train.parallel,
  )
