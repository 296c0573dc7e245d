"""Attribution to branches of a block and to channels of a map."""

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.model import points
from googlenet.tools.explain import cam, engine
from googlenet.tools.explain.engine import Forward
from googlenet.tools.explain.gradients import scored
from googlenet.tools.explain.target import PREDICTED, Given
from googlenet.tools.inference import insight
from googlenet.tools.inference.trained import Trained


def channels_by_gradient(
  net: Trained,
  images: np.ndarray,
  target: Given = PREDICTED,
  layer: str = '',
) -> np.ndarray:
  """Returns activation times gradient of each channel, in logits, [N, C].

  Summed over positions; channel attribution of Olah et al., 2018 (The Building
  Blocks of Interpretability). In the last map before a global mean these are
  exact: with the bias they add up to the logit.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    layer: the name of a map; '': the last one.

  Raises:
    UserError: images, target or layer are not allowed.
  """
  values, slope = cam.map_and_gradient(net, images, target, layer)
  return np.einsum('nhwc,nhwc->nc', values, slope)


def _ablation(forward: Forward, layer: str, num_channels: int):
  def program(params, network_state, shared, is_real, arrays):
    del shared
    images, weights = arrays

    def scores(x: jax.Array, weights: jax.Array, edit=None) -> jax.Array:
      logits = forward(params, network_state, x, (), edit).logits
      return jnp.sum(weights * logits, -1)

    whole = scores(images, weights)

    def rows(image: jax.Array, channel: jax.Array) -> jax.Array:
      is_channel = jax.nn.one_hot(channel, num_channels)  # [size, C]
      kept = 1 - is_channel[:, None, None, :]
      edit = {layer: lambda y: y * kept.astype(y.dtype)}
      drop = whole[image] - scores(images[image], weights[image], edit)
      return drop[:, None] * is_channel

    return engine.sum_over_pairs(is_real, num_channels, rows)

  return program


def channels_by_ablation(
  net: Trained,
  images: np.ndarray,
  target: Given = PREDICTED,
  layer: str = '',
) -> np.ndarray:
  """Returns the drop of the score without each channel, in logits, [N, C].

  Each channel alone is set to zero, as in Morcos et al., 2018 (arXiv
  1803.06959). It takes as many forward passes as there are channels.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    layer: the name of a map; '': the last one.

  Raises:
    UserError: images, target or layer are not allowed.
  """
  layer = cam.find_layer(net.network, layer)
  arrays = scored(net, images, target)
  width = points.shapes(net.network.architecture)[layer][-1]
  return engine.run(net, _ablation, (layer, width), arrays)


def branches_by_gradient(
  net: Trained, images: np.ndarray, target: Given, block: str
) -> dict[str, np.ndarray]:
  """Returns activation times gradient of each branch of a block, [N] each.

  The sum of `channels_by_gradient` over the channels of the branch.

  Raises:
    UserError: images or target are not allowed, or there is no such block.
  """
  parts = insight.branch_channels(net.network, block)
  found = channels_by_gradient(net, images, target, block)
  return {name: found[:, part].sum(-1) for name, part in parts.items()}


def branches_by_ablation(
  net: Trained, images: np.ndarray, target: Given, block: str
) -> dict[str, np.ndarray]:
  """Returns the drop of the score without each branch of a block, [N] each.

  The output of the whole branch is set to zero, see
  `insight.branch_contributions`.

  Raises:
    UserError: images or target are not allowed, or there is no such block.
  """
  _, weights = scored(net, images, target)
  found: dict[str, list[np.ndarray]] = {}
  for start in range(0, len(images), engine.ROWS):
    batch = slice(start, start + engine.ROWS)
    added = insight.branch_contributions(net, images[batch], block)
    for name, drop in added.items():
      found.setdefault(name, []).append((weights[batch] * drop).sum(-1))
  return {name: np.concatenate(drops) for name, drops in found.items()}
