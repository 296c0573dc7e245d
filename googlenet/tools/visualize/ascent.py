"""The programs of a gradient ascent on images, on all devices.

Arrays of images are [D, b, ...]: D devices, b images on each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from googlenet.errors import UserError, shown
from googlenet.model import points
from googlenet.runtime.parallel import parallelize
from googlenet.runtime.progress import Progress
from googlenet.tools.inference import channels
from googlenet.tools.inference.trained import Trained
from googlenet.tools.visualize import forward as forward_lib
from googlenet.tools.visualize.objectives import PIXELS, Objective, rows_of
from googlenet.tools.visualize.parametrization import Parametrization
from googlenet.tools.visualize.rendered import Rendered
from googlenet.tools.visualize.transforms import Transform

# (params, network_state, images, seen, parameters, redirect) -> float32 [b].
Values = Callable[..., jax.Array]


def checked(
  objectives: Objective | Sequence[Objective],
) -> Sequence[Objective]:
  """Returns objectives as a list.

  Raises:
    UserError: there is none, something else is given, or a number in one is NaN
      or infinite.
  """
  given = [objectives] if isinstance(objectives, Objective) else objectives
  is_list = isinstance(given, Sequence) and not isinstance(given, str)
  if not is_list or not given or any(type(x) is not Objective for x in given):
    raise UserError(
      f'objectives={shown(objectives)} is not allowed: it takes what '
      "googlenet.tools.visualize.objectives make, such as channel('conv_1', 0)"
    )
  for objective in given:
    if not all(
      np.isfinite(x).all() for x in jax.tree.leaves(objective.parameters)
    ):
      raise UserError(
        f'the objective {shown(objective.names[0])} holds a weight, a vector or'
        ' a map that is NaN or infinite: give finite numbers'
      )
  return given


def make_values(
  net: Trained, objective: Objective, sizes: Sequence[tuple[int, int]]
) -> tuple[Values, Trained]:
  """Makes the function that computes an objective, and the network it takes.

  Args:
    net: a trained network.
    objective: what is computed.
    sizes: (height, width) of the images, one or several.

  Returns:
    (params, network_state, images, seen, parameters, redirect) -> float32 [b]:
    `images` are float32 [b, H, W, C] in 0..255, `seen` what the network sees of
    them, `parameters` those of the objective, `redirect` [] whether gradients
    pass ReLUs that are off; None: no. And the network with its `params` and
    `network_state`.

  Raises:
    UserError: the network has no such point or channel, or takes no images of
      this size.
  """
  names = [name for name in objective.points if name != PIXELS]
  own = [points.resolve(name, net.network.architecture) for name in names]
  channels.check(
    [channel for channel in objective.channels if channel.point != PIXELS],
    net.network.architecture,
    net.image_shape,
  )
  net = forward_lib.prepared(net, own)
  for size in sizes:
    forward_lib.check_size(net, *size)
  forward = forward_lib.make_forward(net.network, net.config.data, names)

  def values(params, network_state, images, seen, parameters, redirect):
    maps = forward(params, network_state, seen, redirect) if names else {}
    return objective.function(maps | {PIXELS: images / 255}, parameters)

  return values, net


def keys_of(seed: jax.Array, members: jax.Array) -> jax.Array:
  """Returns a key per image, [b]: the same for all of one place in a group."""
  fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  return fold(jax.random.key(seed), members)


def step_keys(
  seed: jax.Array, members: jax.Array, number: jax.Array
) -> jax.Array:
  """Returns the key of each image for a step, which differs from `keys_of`."""
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
  return fold(keys_of(seed, members), number + 1)


def on_devices(net: Trained, function: Callable[..., Any], **options) -> Any:
  """Returns `parallelize`, as the run of a network sets it."""
  return parallelize(
    function,
    options=net.network.kernels.compiler_options,
    how=net.config.train.parallel,
    **options,
  )


def batches(objective: Objective, batch_size: int) -> list[np.ndarray]:
  """Divides the images of an objective into batches of one size.

  A group stays together. What is missing in the last batch repeats its last
  group.

  Args:
    objective: of any number of images.
    batch_size: largest number of images at once on a device, or one group.

  Returns:
    Indices of images, int [D, b] each.
  """
  devices, group = jax.local_device_count(), objective.group
  num_groups = objective.count // group
  most = max(1, batch_size // group) * devices
  count = -(-num_groups // -(-num_groups // most))  # equal batches
  count = -(-count // devices) * devices
  rows = np.arange(objective.count).reshape(num_groups, group)
  found = []
  for start in range(0, num_groups, count):
    part = rows[start : start + count]
    part = np.concatenate([part, part[-1:].repeat(count - len(part), 0)])
    found.append(part.reshape(devices, -1))
  return found


def unpadded(rows: np.ndarray, x: jax.Array) -> np.ndarray:
  """Returns the images of a batch without repetitions: [D, b, ...] -> [n, ...].

  Args:
    rows: of `batches`.
    x: a number or image for each.
  """
  _, first = np.unique(rows, return_index=True)
  return np.asarray(x).reshape(-1, *x.shape[2:])[first]


class Ascent(NamedTuple):
  """The programs of one objective.

  Attributes:
    init: (members, seed) -> state; `members` int32 [D, b] are the places of the
      images in their groups.
    step: (state, parameters, members, seed, number) -> (state, values); the
      state that goes in cannot be used again.
    image: state -> images uint8 [D, b, H, W, C].
    finish: (state, parameters) -> (images uint8, values of these, not moved).
  """

  init: Callable[..., Any]
  step: Callable[..., tuple[Any, jax.Array]]
  image: Callable[[Any], jax.Array]
  finish: Callable[[Any, Any], tuple[jax.Array, jax.Array]]


def make_ascent(
  net: Trained,
  objective: Objective,
  shape: tuple[int, int, int],
  parametrization: Parametrization,
  transform: Transform,
  optimizer: optax.GradientTransformation,
  redirected_steps: int,
) -> Ascent:
  """Makes the programs that maximize an objective, see `render.render`.

  The optimizer sees each image alone, so none depends on those beside it.
  """
  values_of, net = make_values(net, objective, [shape[:2]])

  def init(members: jax.Array, seed: jax.Array) -> Any:
    keys = keys_of(seed, members)
    variables = jax.vmap(lambda key: parametrization.init(key, shape))(keys)
    return variables, jax.vmap(optimizer.init)(variables)

  def image_of(state: Any) -> jax.Array:
    images = parametrization.image(state[0], shape)
    return jnp.round(images).astype(jnp.uint8)

  def step(params, network_state, state, parameters, members, seed, number):
    variables, opt_state = state
    keys = step_keys(seed, members, number)

    def loss(variables: jax.Array) -> tuple[jax.Array, jax.Array]:
      images = parametrization.image(variables, shape)
      values = values_of(
        params,
        network_state,
        images,
        transform(keys, images),
        parameters,
        number < redirected_steps if redirected_steps else None,
      )
      return -values.sum(), values

    gradients, values = jax.grad(loss, has_aux=True)(variables)
    updates, opt_state = jax.vmap(optimizer.update)(
      gradients, opt_state, variables
    )
    return (optax.apply_updates(variables, updates), opt_state), values

  def finish(params, network_state, state, parameters):
    images = image_of(state)
    x = images.astype(jnp.float32)
    values = values_of(params, network_state, x, x, parameters, None)
    return images, values

  own = net.params, net.network_state
  run = functools.partial(on_devices, net)
  return Ascent(
    run(init, in_axes=(0, None)),
    functools.partial(
      run(
        step,
        in_axes=(None, None, 0, 0, 0, None, None),
        out_axes=(0, 0),
        donate_argnums=2,
        what='gradient ascent',
      ),
      *own,
    ),
    run(image_of, in_axes=(0,)),
    functools.partial(
      run(finish, in_axes=(None, None, 0, 0), out_axes=(0, 0)), *own
    ),
  )


def inputs_of(objective: Objective, rows: np.ndarray) -> tuple[Any, jax.Array]:
  """Returns the parameters and members of a batch of `batches`."""
  parameters = jax.tree.map(jnp.asarray, rows_of(objective, rows))
  return parameters, jnp.asarray(rows % objective.group, jnp.int32)


def climb(
  ascent: Ascent,
  objective: Objective,
  rows: np.ndarray,
  steps: int,
  seed: int,
  kept: frozenset[int],
  bar: Progress,
) -> Rendered:
  """Makes the images of a batch of `batches`.

  Args:
    ascent: of the objective.
    objective: what to maximize.
    rows: of the batch.
    steps: of the ascent.
    seed: fixes noise and movements.
    kept: after how many steps frames are kept.
    bar: shows steps of single images.
  """
  parameters, members = inputs_of(objective, rows)
  host = functools.partial(unpadded, rows)
  state = ascent.init(members, np.uint32(seed))
  curve, frames = [], []
  for number in range(steps):
    state, values = ascent.step(
      state, parameters, members, np.uint32(seed), np.int32(number)
    )
    curve.append(values)
    if number + 1 in kept:
      frames.append(host(ascent.image(state)))
    bar.update(len(host(rows)))
  images, values = ascent.finish(state, parameters)
  return Rendered.of_batch(
    host(images), host(values), [host(x) for x in curve], frames
  )
