"""Attribution to branches of a block and to channels of a map."""

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError
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
  values, slope = cam.maps_and_gradients(net, images, target, (layer,))[layer]
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
  net: Trained, images: np.ndarray, target: Given, *blocks: str
) -> dict[str, np.ndarray]:
  """Returns activation times gradient of each branch of blocks, in logits.

  The sum of `channels_by_gradient` over the channels of the branch.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    *blocks: names of blocks; none: all of them.

  Returns:
    float32 [N] by block and branch, `inception_3a/conv_1x1`.

  Raises:
    UserError: images or target are not allowed, or there is no such block.
  """
  places = _places(net, blocks)
  made = cam.maps_and_gradients(net, images, target, tuple(places))
  found = {}
  for block, parts in places.items():
    added = np.einsum('nhwc,nhwc->nc', *made[block])
    for name, part in parts.items():
      found[f'{block}/{name}'] = added[:, part].sum(-1)
  return found


def _branch_ablation(forward: Forward, blocks: tuple[str, ...]):
  def program(params, network_state, shared, is_real, arrays):
    images, weights = arrays
    masks = dict(zip(blocks, shared, strict=True))  # [P, C] each

    def scores(x: jax.Array, weights: jax.Array, edit=None) -> jax.Array:
      logits = forward(params, network_state, x, (), edit).logits
      return jnp.sum(weights * logits, -1)

    whole = scores(images, weights)
    count = len(shared[0])

    def rows(image: jax.Array, branch: jax.Array) -> jax.Array:
      edit = {
        block: lambda y, kept=mask[branch]: y * kept[:, None, None, :]
        for block, mask in masks.items()
      }
      drop = whole[image] - scores(images[image], weights[image], edit)
      return drop[:, None] * jax.nn.one_hot(branch, count)

    return engine.sum_over_pairs(is_real, count, rows)

  return program


def branches_by_ablation(
  net: Trained, images: np.ndarray, target: Given, *blocks: str
) -> dict[str, np.ndarray]:
  """Returns the drop of the score without each branch of blocks, in logits.

  The output of one branch at a time is set to zero, as in
  `insight.branch_contributions`.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    *blocks: names of blocks; none: all of them.

  Returns:
    float32 [N] by block and branch, `inception_3a/conv_1x1`.

  Raises:
    UserError: images or target are not allowed, or there is no such block.
  """
  places = _places(net, blocks)
  names = [(block, name) for block, parts in places.items() for name in parts]
  masks = []
  for block, parts in places.items():
    width = max(part.stop for part in parts.values())
    mask = np.ones((len(names), width), np.float32)
    for i, (other, name) in enumerate(names):
      if other == block:
        mask[i, parts[name]] = 0
    masks.append(mask)
  arrays = scored(net, images, target)
  made = engine.run(
    net, _branch_ablation, (tuple(places),), arrays, tuple(masks)
  )
  return {
    f'{block}/{name}': made[:, i] for i, (block, name) in enumerate(names)
  }


def _places(
  net: Trained, blocks: tuple[str, ...]
) -> dict[str, dict[str, slice]]:
  """Returns the channels of each branch by block."""
  names = blocks or insight.block_names(net.network)
  if not names:
    raise UserError('this network has no blocks that concatenate branches')
  return {name: insight.branch_channels(net.network, name) for name in names}
