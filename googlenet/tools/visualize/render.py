"""Gradient ascent on images, for many objectives at once, on all devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from googlenet.errors import UserError
from googlenet.model.graph import IMAGES
from googlenet.runtime.parallel import parallelize
from googlenet.runtime.progress import Progress
from googlenet.tools.inference.trained import Trained
from googlenet.tools.visualize import forward as forward_lib
from googlenet.tools.visualize import transforms as transforms_lib
from googlenet.tools.visualize.objectives import Objective, rows_of
from googlenet.tools.visualize.parametrisation import PARAMETRISATIONS

# Olah et al. (2017) show images of 512 steps; most change little after half.
STEPS = 256
LEARNING_RATE = 0.05
# Steps in which gradients pass ReLUs that are off, as in lucid.
REDIRECTED_STEPS = 16
BATCH_SIZE = 64


class Rendered(NamedTuple):
  """Images that were made, and how well they excite what they are for.

  Attributes:
    images: uint8 [N, H, W, C].
    values: float32 [N], the objective of these images, not moved.
    curves: float32 [N, steps], the objective at each step, with the random
      movements of the step.
    frames: uint8 [F, N, H, W, C], the images on the way; F may be 0.
    names: of the objective of each image.
  """

  images: np.ndarray
  values: np.ndarray
  curves: np.ndarray
  frames: np.ndarray
  names: tuple[str, ...]


def render(
  net: Trained,
  objectives: Objective | Sequence[Objective],
  *,
  steps: int = STEPS,
  size: int | tuple[int, int] | None = None,
  seed: int = 0,
  parametrisation: str = 'fourier',
  transforms: Sequence[transforms_lib.Transform] | None = None,
  optimizer: optax.GradientTransformation | None = None,
  redirected_steps: int = REDIRECTED_STEPS,
  num_frames: int = 0,
  batch_size: int = BATCH_SIZE,
) -> Rendered:
  """Makes images that maximise objectives.

  Every image of one seed begins with the same noise and makes the same
  movements, so it does not depend on which others are made beside it. Images of
  one group (`diversity`) begin differently.

  Args:
    net: a trained network.
    objectives: what to maximise, one image for each of `objective.count`. Of
      several objectives, each is compiled for itself.
    steps: of the ascent.
    size: of the images in pixels, S or (H, W); None: the network's.
    seed: fixes noise and movements.
    parametrisation: a key of `PARAMETRISATIONS`.
    transforms: random movements of each step, a different one for each image;
      None: `transforms.standard`; (): none.
    optimizer: of optax; None: Adam with rate 0.05.
    redirected_steps: steps in which gradients pass ReLUs that are off.
    num_frames: how many images to keep on the way, the last one included.
    batch_size: largest number of images at once on a device.

  Raises:
    UserError: a number is out of range, the parametrisation is unknown, or the
      network cannot compute a point at this size.
  """
  if isinstance(objectives, Objective):
    objectives = [objectives]
  checks = {
    'steps': (steps, 1),
    'num_frames': (num_frames, 0),
    'batch_size': (batch_size, 1),
  }
  for name, (value, least) in checks.items():
    if value < least:
      raise UserError(
        f'{name}={value} is not allowed: it takes a whole number from {least}'
      )
  if num_frames > steps:
    raise UserError(
      f'num_frames={num_frames} is more than steps={steps}: a step changes an '
      'image once'
    )
  if parametrisation not in PARAMETRISATIONS:
    raise UserError(
      f'parametrisation={parametrisation!r} is unknown: it takes one of '
      f'{", ".join(PARAMETRISATIONS)}'
    )
  height, width = _sides(net, size)
  shape = (height, width, net.image_shape[-1])
  if transforms is None:
    transforms = transforms_lib.standard(min(height, width))
  kept = np.linspace(0, steps, num_frames + 1).round().astype(int)[1:]
  parts = []
  total = sum(objective.count for objective in objectives)
  with Progress('visualize', total * steps, 'steps') as bar:
    for objective in objectives:
      ascent = make_ascent(
        net,
        objective,
        shape,
        PARAMETRISATIONS[parametrisation],
        transforms_lib.compose(transforms),
        optimizer or optax.adam(LEARNING_RATE),
        redirected_steps,
      )
      for rows in _batches(objective, batch_size):
        parts.append(
          _climb(ascent, objective, rows, steps, seed, set(kept.tolist()), bar)
        )
  return Rendered(
    *(
      np.concatenate([part[i] for part in parts], axis=axis)
      for i, axis in enumerate((0, 0, 0, 1))
    ),
    names=tuple(name for o in objectives for name in o.names),
  )


def _sides(net: Trained, size: int | tuple[int, int] | None) -> tuple[int, int]:
  """Returns (height, width) of the images.

  Raises:
    UserError: `size` is no size.
  """
  sides = net.image_shape[:2] if size is None else size
  sides = (sides, sides) if isinstance(sides, int) else tuple(sides)
  if len(sides) != 2 or min(sides) < 1:
    raise UserError(
      f'size={size} is not allowed: it takes a number of pixels from 1, or '
      '(height, width)'
    )
  return sides


class Ascent(NamedTuple):
  """Programs of one objective, for all devices.

  Images, variables and parameters of the objective are [D, b, ...] for D
  devices.

  Attributes:
    init: (members, seed) -> state; `members` int32 [D, b] are the places of the
      images in their groups.
    step: (state, parameters, members, seed, number) -> (state, values); the
      state that goes in cannot be used again.
    image: state -> uint8 images.
    value: (images uint8, parameters) -> values, without movement.
    num_devices: D.
  """

  init: Callable[..., Any]
  step: Callable[..., tuple[Any, jax.Array]]
  image: Callable[[Any], jax.Array]
  value: Callable[[jax.Array, Any], jax.Array]
  num_devices: int


def make_ascent(
  net: Trained,
  objective: Objective,
  shape: tuple[int, int, int],
  parametrisation: Any,
  transform: transforms_lib.Transform,
  optimizer: optax.GradientTransformation,
  redirected_steps: int,
) -> Ascent:
  """Makes the programs that maximise an objective, see `render`."""
  points = [point for point in objective.points if point != IMAGES]
  net = forward_lib.prepared(net, points)
  forward = forward_lib.make_forward(net.network, net.config.data, points)

  def keys_of(seed: jax.Array, members: jax.Array) -> jax.Array:
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return fold(jax.random.key(seed), members)

  def init(members: jax.Array, seed: jax.Array) -> Any:
    keys = keys_of(seed, members)
    variables = jax.vmap(lambda key: parametrisation.init(key, shape))(keys)
    return variables, jax.vmap(optimizer.init)(variables)

  def image_of(state: Any) -> jax.Array:
    images = parametrisation.image(state[0], shape)
    return jnp.round(images).astype(jnp.uint8)

  def values_of(
    params: Any,
    network_state: Any,
    images: jax.Array,
    seen: jax.Array,
    parameters: Any,
    redirect: jax.Array,
  ) -> jax.Array:
    maps = forward(params, network_state, seen, redirect) if points else {}
    return objective.function(maps | {IMAGES: images / 255}, parameters)

  def step(
    params: Any,
    network_state: Any,
    state: Any,
    parameters: Any,
    members: jax.Array,
    seed: jax.Array,
    number: jax.Array,
  ) -> tuple[Any, jax.Array]:
    variables, opt_state = state
    # Not the keys of `init`.
    keys = keys_of(seed, members)
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number + 1)

    def loss(variables: jax.Array) -> tuple[jax.Array, jax.Array]:
      images = parametrisation.image(variables, shape)
      values = values_of(
        params,
        network_state,
        images,
        transform(keys, images),
        parameters,
        number < redirected_steps,
      )
      return -values.sum(), values

    gradients, values = jax.grad(loss, has_aux=True)(variables)
    updates, opt_state = jax.vmap(optimizer.update)(
      gradients, opt_state, variables
    )
    return (optax.apply_updates(variables, updates), opt_state), values

  def value(
    params: Any, network_state: Any, images: jax.Array, parameters: Any
  ) -> jax.Array:
    images = images.astype(jnp.float32)
    off = jnp.zeros((), bool)
    return values_of(params, network_state, images, images, parameters, off)

  run = functools.partial(
    parallelize,
    options=net.network.kernels.compiler_options,
    how=net.config.train.parallel,
  )
  own = net.params, net.network_state
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
    functools.partial(run(value, in_axes=(None, None, 0, 0)), *own),
    jax.local_device_count(),
  )


def _batches(objective: Objective, batch_size: int) -> list[np.ndarray]:
  """Divides images into batches of one size: rows [D, b] of the objective.

  What is missing in the last batch repeats its last group.
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


def _climb(
  ascent: Ascent,
  objective: Objective,
  rows: np.ndarray,
  steps: int,
  seed: int,
  kept: set[int],
  bar: Progress,
) -> tuple[np.ndarray, ...]:
  """Makes the images of a batch; returns images, values, curves, frames."""
  parameters = jax.tree.map(jnp.asarray, rows_of(objective, rows))
  members = jnp.asarray(rows % objective.group, jnp.int32)
  seed = np.uint32(seed)
  state = ascent.init(members, seed)
  curve, frames = [], []
  _, first = np.unique(rows, return_index=True)

  def host(x: jax.Array) -> np.ndarray:
    """Returns the images of a batch without what fills it up."""
    return np.asarray(x).reshape(-1, *x.shape[2:])[first]

  for number in range(steps):
    state, values = ascent.step(
      state, parameters, members, seed, np.int32(number)
    )
    curve.append(values)
    if number + 1 in kept:
      frames.append(host(ascent.image(state)))
    bar.update(len(first))
  images = ascent.image(state)
  values = ascent.value(images, parameters)
  images = host(images)
  return (
    images,
    host(values),
    np.stack([host(x) for x in curve], axis=-1),
    np.stack(frames) if frames else np.zeros((0, *images.shape), np.uint8),
  )
