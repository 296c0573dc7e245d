"""Compiles with options of XLA, and shows on the console what is compiled."""

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax

from googlenet.runtime.allocator import release_free_memory
from googlenet.runtime.backend import Options, flags_of, without_flags
from googlenet.runtime.progress import working

_COMPILED = '/jax/core/compile/backend_compile_duration'


class _Process:
  """State of this process that all compilations share."""

  seconds = 0.0  # spent compiling


def _count(event: str, seconds: float, **_: Any) -> None:
  if event == _COMPILED:
    _Process.seconds += seconds


jax.monitoring.register_event_duration_secs_listener(_count)


def seconds_compiled() -> float:
  """Returns the seconds that XLA has spent compiling in this process."""
  return _Process.seconds


def compiling(
  what: str, options: Options
) -> contextlib.AbstractContextManager[None]:
  """Shows a line while a program is compiled, and says where it is kept.

  Args:
    what: name of the program; '': shows nothing.
    options: compile options of XLA.
  """
  if not what:
    return contextlib.nullcontext()
  return working(f'compile  {what}: {_source(options)}')


def shown_at_first_call(
  function: Callable[..., Any], what: str
) -> Callable[..., Any]:
  """Wraps a function that is compiled at its first call, to print a line then.

  Args:
    function: compiled without options.
    what: name of the program; '': prints nothing.
  """
  is_compiled = False

  def call(*args: Any) -> Any:
    nonlocal is_compiled
    if is_compiled:
      return function(*args)
    with compiling(what, ()):
      out = function(*args)
    is_compiled = True
    return out

  return call if what else function


def _are_traced(leaves: list[Any]) -> bool:
  """Returns whether a function is called while a larger one is traced."""
  return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def _source(options: Options) -> str:
  """Says whether a program is kept between starts, and where."""
  if any('onednn' in name for name, _ in options):
    return 'compiled at each start, as XLA cannot keep what calls oneDNN'
  folder = jax.config.jax_compilation_cache_dir
  if not folder or not jax.config.jax_enable_compilation_cache:
    return 'compiled at each start, as there is no compilation cache'
  home = os.path.expanduser('~') + os.sep
  if folder.startswith(home):
    folder = os.path.join('~', folder.removeprefix(home))
  return f'compiled once, then read from {folder} at later starts'


def compile_with(options: Options, lowered: Any) -> Any:
  """Compiles what `jax.jit(f).lower(...)` returns.

  Options that the user has set in XLA_FLAGS are left out.

  Raises:
    jax.errors.JaxRuntimeError: XLA does not know an option.
  """
  options = without_flags(options, flags_of(os.environ))
  with warnings.catch_warnings():
    # XLA cannot write a program that calls oneDNN to the compilation cache, so
    # it is compiled at each start. The user cannot change that.
    warnings.filterwarnings(
      'ignore', message='Error writing persistent compilation cache entry'
    )
    compiled = lowered.compile(compiler_options=dict(options))
  # The compiler leaves hundreds of MiB of free heap that a step cannot use.
  release_free_memory()
  return compiled


def compiled_with(
  options: Options,
  function: Callable[..., Any],
  what: str = '',
  adapt: Callable[[Any], Callable[..., Any]] = lambda program: program,
) -> Callable[..., Any]:
  """Returns a function that is compiled with options of XLA when called.

  That happens at the first call with new shapes. `jax.pmap` takes no options
  itself, and calls what it compiles four times as slowly: 3 ms for a training
  state, as long as a step of a small batch takes on a GPU.

  Args:
    options: (name, value) each; may be empty.
    function: made by `jax.jit` or `jax.pmap`.
    what: name of the program, printed while it compiles; '': prints nothing.
    adapt: wraps each compiled program.
  """
  programs: dict[Any, Callable[..., Any]] = {}
  latest: list[Callable[..., Any]] = []

  def call(*args: Any) -> Any:
    # A program checks its arguments itself. Looking it up by their shapes first
    # would double the time of a call.
    for program in latest:
      with contextlib.suppress(TypeError, ValueError):
        return program(*args)
    leaves, structure = jax.tree.flatten(args)
    if _are_traced(leaves):
      return function(*args)  # part of a larger program, with its options
    key = structure, tuple(map(_kind, leaves))
    if key not in programs:
      with compiling(what, options):
        programs[key] = adapt(compile_with(options, function.lower(*args)))
    latest[:] = [programs[key]]
    return programs[key](*args)

  return call


def _kind(leaf: Any) -> Any:
  """Returns shape, dtype and placement: what a program is compiled for."""
  if not hasattr(leaf, 'dtype'):
    return type(leaf)
  is_placed = getattr(leaf, 'committed', False)
  return leaf.shape, leaf.dtype, leaf.sharding if is_placed else None
