"""Compiling with options of XLA."""

import warnings
from collections.abc import Callable
from typing import Any

import jax

from googlenet.allocator import release_free_memory

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
    return programs[key](*args)

  return call
