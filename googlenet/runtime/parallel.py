"""The way onto the devices: one program on all of them, arrays on all of them.

Nothing else in the project calls `jax.pmap` or `jax.shard_map`. A program has
one parallel axis, `PMAP_AXIS`, over the devices of all processes. Each process
gives and takes its own part: arrays that differ between devices have a leading
axis [D, ...] of its D devices; what is the same on every device has none.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from googlenet.runtime.backend import Options, flags_of, without_flags
from googlenet.runtime.compilation import compiled_with, shown_at_first_call

# The parallel axis: gradients, metrics and batch norm are averaged over it.
PMAP_AXIS = 'batch'

# What `train.parallel` may name.
PMAP, SHARD_MAP = FORMS = 'pmap', 'shard_map'

Axis = int | None  # 0: one part a device; None: the same on every device
Axes = Axis | tuple[Axis, ...]


def parallelize(
  function: Callable[..., Any],
  *,
  in_axes: tuple[Axis, ...],
  out_axes: Axes = 0,
  donate_argnums: int | tuple[int, ...] = (),
  options: Options = (),
  what: str = '',
  how: str = PMAP,
  is_local: bool = False,
) -> Callable[..., Any]:
  """Makes a function run on every device; it is compiled when first called.

  Both ways compile the same program. `jax.pmap` is in maintenance mode; the
  other one is what JAX recommends for new code.

  Args:
    function: what one device computes, of arrays or trees of arrays. Where an
      axis is 0 it sees its own part, without that axis. In it,
      `jax.lax.pmean(x, PMAP_AXIS)` averages over the devices of all processes.
    in_axes: one for each argument: 0 for [D, ...] with the D devices of this
      process, None for what is the same on every device.
    out_axes: the same for what is returned, or for each of a tuple.
    donate_argnums: arguments whose memory the outputs may take. They cannot be
      used after the call.
    options: of XLA, to compile it.
    what: name of the program, printed while it compiles; '': prints nothing.
    how: 'pmap', or 'shard_map' for `jax.jit(jax.shard_map(...))`.
    is_local: whether only the devices of this process take part.

  Returns:
    A function of the same arguments, by position.
  """
  is_alone = jax.process_count() == 1
  mesh = _mesh(is_local)
  to_this_process = functools.partial(_take_part, mesh, in_axes, out_axes)
  if how == SHARD_MAP:
    mapped = _shard_map(function, mesh, in_axes, out_axes, donate_argnums)
    program = compiled_with(options, mapped, what)
    return program if is_alone else to_this_process(program)
  mapped = jax.pmap(
    function,
    axis_name=PMAP_AXIS,
    in_axes=in_axes,
    out_axes=out_axes,
    donate_argnums=donate_argnums,
    devices=jax.local_devices() if is_local else None,
  )
  if is_alone:
    return compiled_with(options, mapped, what)
  # `pmap` takes no options of XLA. Without any it is called as it is: it finds
  # its part of arrays faster than `_take_part`.
  if not without_flags(options, flags_of(os.environ)):
    return shown_at_first_call(mapped, what)
  return compiled_with(options, mapped, what, to_this_process)


def _mesh(is_local: bool) -> jax.sharding.Mesh:
  """Returns all devices, those of one process side by side as in `pmap`."""
  processes = range(jax.process_count())
  if is_local:
    processes = [jax.process_index()]
  devices = [d for i in processes for d in jax.local_devices(process_index=i)]
  return jax.sharding.Mesh(np.array(devices), (PMAP_AXIS,))


def _specs(axes: Axes) -> Any:
  """Returns axes as JAX writes them for a mesh."""
  if isinstance(axes, tuple):
    return tuple(map(_specs, axes))
  return PartitionSpec() if axes is None else PartitionSpec(PMAP_AXIS)


def _map_parts(function: Callable, axes: Axes, tree: Any) -> Any:
  """Applies a function to the arrays that have an axis of devices."""
  if isinstance(axes, tuple):
    return tuple(
      _map_parts(function, axis, part)
      for axis, part in zip(axes, tree, strict=True)
    )
  return tree if axes is None else jax.tree.map(function, tree)


def _shard_map(
  function: Callable[..., Any],
  mesh: jax.sharding.Mesh,
  in_axes: tuple[Axis, ...],
  out_axes: Axes,
  donate_argnums: int | tuple[int, ...],
) -> Callable[..., Any]:
  """Returns what `jax.pmap` does for a function, of arrays on a whole mesh."""

  @functools.wraps(function)
  def on_a_device(*args: Any) -> Any:
    args = _map_parts(lambda x: jax.lax.squeeze(x, [0]), in_axes, args)
    out = function(*args)
    return _map_parts(lambda x: jax.lax.expand_dims(x, [0]), out_axes, out)

  def on_mesh(axes: Axes) -> Any:
    return jax.tree.map(
      functools.partial(jax.sharding.NamedSharding, mesh), _specs(axes)
    )

  return jax.jit(
    jax.shard_map(
      on_a_device,
      mesh=mesh,
      in_specs=_specs(in_axes),
      out_specs=_specs(out_axes),
      # As for `jax.pmap`, an output without an axis is promised to be the same
      # on every device.
      check_vma=False,
    ),
    in_shardings=on_mesh(in_axes),
    out_shardings=on_mesh(out_axes),
    donate_argnums=donate_argnums,
  )


def _take_part(
  mesh: jax.sharding.Mesh,
  in_axes: tuple[Axis, ...],
  out_axes: Axes,
  program: Callable[..., Any],
) -> Callable[..., Any]:
  """Returns a program of all processes as a function of one's own arrays.

  Outputs that are the same on every device stay arrays of all processes: each
  can read them, and the next call takes them as they are.
  """
  in_specs = _specs(in_axes)

  def own_part(x: jax.Array) -> jax.Array:
    return multihost_utils.global_array_to_host_local_array(
      x, mesh, PartitionSpec(PMAP_AXIS)
    )

  def call(*args: Any) -> Any:
    args = multihost_utils.host_local_array_to_global_array(
      args, mesh, in_specs
    )
    return _map_parts(own_part, out_axes, program(*args))

  return call


def replicated(tree: Any) -> Any:
  """Puts arrays on every local device, just as `pmap` returns them.

  Anything else would be moved, and the step compiled, a second time.
  """
  everywhere = jax.sharding.NamedSharding(_mesh(True), PartitionSpec())
  return jax.device_put(tree, everywhere)


def steps_in_flight() -> int:
  """Returns how many steps to give to the devices ahead of the running one.

  A GPU or TPU should never wait for Python. A CPU does not gain by it:
  it computes on the threads that wait.
  """
  return 0 if jax.default_backend() == 'cpu' else 2
