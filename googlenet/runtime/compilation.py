"""Compiling with options of XLA."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils

from googlenet.runtime.allocator import release_free_memory

Options = tuple[tuple[str, Any], ...]


def compile_with(options: Options, lowered: Any) -> Any:
  """Compiles what `jax.jit(f).lower(...)` returns.

  Raises:
    jax.errors.JaxRuntimeError: XLA knows no such option.
  """
  with warnings.catch_warnings():
    # XLA cannot write a program that calls oneDNN to the compilation cache, and
    # nobody can mend that: such a program is compiled anew at each start.
    warnings.filterwarnings(
      'ignore', message='Error writing persistent compilation cache entry'
    )
    compiled = lowered.compile(compiler_options=dict(options))
  # The compiler leaves hundreds of MiB in pieces that a step has no use for.
  release_free_memory()
  return compiled


def compiled_with(
  options: Options, function: Callable[..., Any]
) -> Callable[..., Any]:
  """Returns a jitted or pmapped function, compiled with options of XLA.

  As without them, that happens at the first call with new shapes; `jax.pmap`
  takes no options itself.
  """
  if not options:
    return function
  programs = {}

  def call(*args: Any) -> Any:
    leaves, structure = jax.tree.flatten(args)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
      return function(*args)  # part of a larger program, with its options
    key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    if key not in programs:
      programs[key] = compile_with(options, function.lower(*args))
    if jax.process_count() > 1:
      return _call_in_all_processes(programs[key], args)
    return programs[key](*args)

  return call


def _call_in_all_processes(program: Any, args: tuple[Any, ...]) -> Any:
  """Calls a compiled `pmap`, as `pmap` itself does with several processes.

  The program takes and returns arrays of all processes; here as there each
  process has its own part of them.
  """
  shardings, _ = program.input_shardings
  meshes, specs = _split(shardings)
  everywhere = jax.tree.map(
    multihost_utils.host_local_array_to_global_array, args, meshes, specs
  )
  out = program(*everywhere)
  meshes, specs = _split(program.output_shardings)
  return jax.tree.map(
    multihost_utils.global_array_to_host_local_array, out, meshes, specs
  )


def _split(shardings: Any) -> tuple[Any, Any]:
  """Returns the trees of meshes and of partition specs."""
  return tuple(
    jax.tree.map(lambda sharding, name=name: getattr(sharding, name), shardings)
    for name in ('mesh', 'spec')
  )
