"""The network as a function of float images of any size, with named maps."""

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.model import graph, points, rows
from googlenet.model import network as network_lib
from googlenet.model.taps import Edit
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


@jax.custom_vjp
def redirected_relu(x: jax.Array, redirect: jax.Array) -> jax.Array:
  """ReLU; with `redirect`, its gradient also reaches what is off.

  Where no gradient at all passes the ReLUs of an image, because all that matter
  are off, those go through that would raise x. The ascent then leaves a region
  in which a channel is dead (lucid, `misc/redirected_relu_grad.py`).

  Args:
    x: [B, ..., C].
    redirect: bool [], whether to do so.
  """
  del redirect
  return jax.nn.relu(x)


def _redirected_forward(x: jax.Array, redirect: jax.Array):
  return jax.nn.relu(x), (x, redirect)


def _redirected_backward(saved, gradient: jax.Array):
  x, redirect = saved
  plain = jnp.where(x > 0, gradient, 0)
  # `gradient` is that of the loss, minus the objective: below zero it would
  # raise x.
  other = jnp.where((x > 0) | (gradient < 0), gradient, 0)
  axes = tuple(range(1, x.ndim))
  is_dead = ~jnp.any(plain != 0, axes, keepdims=True)
  return jnp.where(redirect & is_dead, other, plain), None


redirected_relu.defvjp(_redirected_forward, _redirected_backward)


def activations(architecture: rows.Architecture) -> list[tuple[str, str]]:
  """Returns the points before and after each activation of the network."""
  found, known = [], points.shapes(architecture)
  for layer in graph.graph(architecture):
    if layer.kind in ('conv', 'dense') and not layer.op.is_linear:
      found.append((layer.name + points.PRE, layer.name))
    elif layer.kind == 'activation' and not layer.op.function:
      # The last layer of a row is the point of that row.
      after = layer.name if layer.name in known else layer.row
      found.append((layer.inputs[0], after))
  return found


def redirects(
  network: network_lib.Network, redirect: jax.Array
) -> dict[str, Edit]:
  """Returns edits that put `redirected_relu` in the place of every ReLU.

  They serve one call of the network: what is edited after an activation was
  kept before it. Networks with another activation need none.
  """
  if network.context.activation != 'relu':
    return {}
  kept: dict[str, jax.Array] = {}

  def keep(point: str) -> Edit:
    def edit(x: jax.Array) -> jax.Array:
      kept[point] = x
      return x

    return edit

  def put(point: str) -> Edit:
    return lambda _: redirected_relu(kept[point], redirect)

  edits = {}
  for before, after in activations(network.architecture):
    edits |= {before: keep(before), after: put(before)}
  return edits


def make_forward(
  network: network_lib.Network,
  data_config: ml_collections.ConfigDict,
  names: Sequence[str],
) -> Forward:
  """Makes the function from images to the maps of some points.

  Args:
    network: computes in float32.
    data_config: the `data` section, for `normalize`.
    names: of points.
  """

  def forward(
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    redirect: jax.Array | None,
  ) -> dict[str, jax.Array]:
    outputs, _ = network.apply(
      params,
      network_state,
      None,
      normalize(images, data_config),
      is_training=False,
      end_points=tuple(names),
      edit=None if redirect is None else redirects(network, redirect),
    )
    return outputs.end_points

  return forward


def prepared(net: Trained, names: Sequence[str]) -> Trained:
  """Returns the network that computes points, in float32.

  It has auxiliary heads only if a point is in one, since these take only images
  of the network's own size.
  """
  heads = [head.name for head in net.network.architecture.aux_heads]
  if not any(name.split('/')[0] in heads for name in names):
    return for_inference(net)
  config = ml_collections.ConfigDict(net.config.to_dict())
  config.train.precision = 'float32'
  config = config_lib.resolve(config)
  return net._replace(config=config, network=network_lib.from_config(config))


def check_size(net: Trained, height: int, width: int) -> None:
  """Checks that a prepared network can compute images of a size.

  Raises:
    UserError: a layer takes only images of the network's own size, or they are
      too small for one.
  """
  architecture, channels = net.network.architecture, net.image_shape[-1]
  smallest = graph.smallest_image(architecture)
  if min(height, width) < smallest:
    raise UserError(
      f'images of {height}x{width} are too small for this network: the '
      f'smallest side is {smallest} pixels'
    )
  own, other = (
    {
      x.name: x.shape
      for x in graph.graph(architecture, s)
      if x.kind == 'flatten'
    }
    for s in (net.image_shape, (height, width, channels))
  )
  for name, shape in own.items():
    if other[name] != shape:
      raise UserError(
        f'images of {height}x{width} are not possible: {name} of this network '
        f'takes only {net.image_shape[0]}x{net.image_shape[1]}'
      )
