"""Attribution to the positions of a map inside the network."""

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError
from googlenet.model import points
from googlenet.model.network import Network
from googlenet.tools.explain import engine
from googlenet.tools.explain import target as target_lib
from googlenet.tools.explain.engine import Forward
from googlenet.tools.explain.gradients import scored
from googlenet.tools.explain.target import PREDICTED, Given
from googlenet.tools.inference import insight
from googlenet.tools.inference.trained import Trained


def find_layer(network: Network, layer: str, flag: str = 'layer') -> str:
  """Returns the name of a map.

  Args:
    network: any.
    layer: the name of a point, or lucid's for it; '': the last map.
    flag: for messages.

  Raises:
    UserError: there is no such point, it is no map, it can only be read, or the
      logits do not depend on it.
  """
  architecture = network.architecture
  shapes = points.shapes(architecture)
  is_side = tuple(f'{head.name}/' for head in architecture.aux_heads)
  maps = [
    name
    for name, shape in shapes.items()
    if len(shape) == 3 and not name.startswith(is_side)
  ]
  if not layer:
    return maps[-1]
  try:
    found = points.resolve(layer, architecture)
    points.plan(architecture, network.kernels, (), {found: lambda y: y})
  except UserError as error:
    raise UserError(f'{flag}: {error}') from error
  if found not in maps:
    raise UserError(
      f'{flag}={layer}: it must be a map [h, w, C] on the way to the logits, '
      f'such as {maps[-1]}'
    )
  return found


def _maps_and_gradients(forward: Forward, layers: tuple[str, ...]):
  def program(params, network_state, shared, is_real, arrays):
    del shared, is_real
    images, weights = arrays

    def score(
      changes: dict[str, jax.Array],
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
      edit = {
        layer: lambda y, change=change: y + change
        for layer, change in changes.items()
      }
      out = forward(params, network_state, images, layers, edit)
      return jnp.sum(weights * out.logits), out.end_points

    shapes = jax.eval_shape(
      lambda: forward(params, network_state, images, layers).end_points
    )
    changes = jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), shapes)
    slopes, values = jax.grad(score, has_aux=True)(changes)
    return {layer: (values[layer], slopes[layer]) for layer in layers}

  return program


def maps_and_gradients(
  net: Trained, images: np.ndarray, target: Given, layers: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns maps and the gradient of the score by each, [N, h, w, C].

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    layers: names of maps; '': the last one.

  Raises:
    UserError: images, target or a layer are not allowed.
  """
  found = {layer: find_layer(net.network, layer) for layer in layers}
  static = tuple(dict.fromkeys(found.values()))
  arrays = scored(net, images, target)
  made = engine.run(net, _maps_and_gradients, (static,), arrays)
  return {layer: made[name] for layer, name in found.items()}


def grad_cam(
  net: Trained,
  images: np.ndarray,
  target: Given = PREDICTED,
  layer: str = '',
  keep_negative: bool = False,
) -> np.ndarray:
  """Returns Grad-CAM of a map, in logits, float32 [N, h, w].

  Selvaraju et al., 2017 (arXiv 1610.02391): ReLU of the sum of the channels,
  each times the sum of its gradient over positions. The paper takes the mean,
  which only divides the map by its number of positions. With the sum, Grad-CAM
  of the last map before a global mean is its class activation map, whose mean
  plus a bias is the logit.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    layer: the name of a map; '': the last one.
    keep_negative: whether to leave out the ReLU.

  Raises:
    UserError: images, target or layer are not allowed.
  """
  values, slope = maps_and_gradients(net, images, target, (layer,))[layer]
  maps = np.einsum('nhwc,nc->nhw', values, slope.sum((1, 2)))
  return maps if keep_negative else np.maximum(maps, 0)


def class_activation_map(
  net: Trained, images: np.ndarray, target: Given = PREDICTED
) -> np.ndarray:
  """Returns the exact map of the last layer, in logits, float32 [N, h, w].

  Zhou et al., 2016 (arXiv 1512.04150): the mean of a map plus the bias of its
  class is the logit, see `insight.class_activation_maps`.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.

  Raises:
    UserError: images or target are not allowed, or the network has no global
      mean before its logits.
  """
  engine.as_float(net, images)
  target = target_lib.resolve(target, net.class_names)
  target_lib.check_count(target, len(images))
  maps = []
  for start in range(0, len(images), engine.ROWS):
    rows = slice(start, start + engine.ROWS)
    found = insight.class_activation_maps(net, images[rows])
    weights = target_lib.weights(target.of(rows), found.logits)
    maps.append(np.einsum('nkhw,nk->nhw', found.maps, weights))
  return np.concatenate(maps)
