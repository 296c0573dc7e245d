"""Compiling with options of XLA, and a line on the console meanwhile."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import jax
from jax.experimental import multihost_utils

from googlenet.runtime.allocator import release_free_memory
from googlenet.runtime.backend import Options, flags_of, without_flags
from googlenet.runtime.terminal import waiting

_COMPILED = '/jax/core/compile/backend_compile_duration'


class _Process:
  """What this process knows of compiling."""

  stream: TextIO | None = None  # the console; None: nothing is told
  seconds = 0.0  # that XLA has compiled for


def _count(event: str, seconds: float, **_: Any) -> None:
  if event == _COMPILED:
    _Process.seconds += seconds


jax.monitoring.register_event_duration_secs_listener(_count)


def seconds_compiled() -> float:
  """Returns for how many seconds XLA has compiled in this process so far."""
  return _Process.seconds


@contextlib.contextmanager
def told_on(stream: TextIO | None) -> Iterator[None]:
  """Prints there what is being compiled; None: prints nothing."""
  before, _Process.stream = _Process.stream, stream
  try:
    yield
  finally:
    _Process.stream = before


@contextlib.contextmanager
def shown(what: str) -> Iterator[None]:
  """Shows a line for what takes a while, 'compile  what', in process 0."""
  if _Process.stream is None or jax.process_index():
    yield
    return
  with waiting(f'compile  {what}', _Process.stream):
    yield


def told(
  what: str | Callable[..., str], options: Options, function: Callable
) -> Callable:
  """Wraps a function so that each compilation of it prints a line.

  A function is compiled at its first call with arguments of new shapes.

  Args:
    what: the program, in words; or what makes them of the arguments.
    options: of XLA, that it is compiled with.
    function: jitted, or one that calls what is. Its first argument is the
      parameters or a state with them, always of the same shapes.
  """
  seen = set()

  def call(*args: Any) -> Any:
    leaves = jax.tree.leaves(args[1:])
    key = tuple(getattr(leaf, 'shape', leaf) for leaf in leaves)
    if key in seen or _are_traced(jax.tree.leaves(args)):
      return function(*args)
    words = what if isinstance(what, str) else what(*args)
    with shown(f'{words}: {_source(options)}'):
      out = function(*args)
    seen.add(key)
    return out

  return call


def _are_traced(leaves: list[Any]) -> bool:
  """Returns whether arguments are those of a larger program."""
  return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def _source(options: Options) -> str:
  """Returns where a program comes from, in words."""
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

  Options that XLA_FLAGS names are those of the user.

  Raises:
    jax.errors.JaxRuntimeError: XLA knows no such option.
  """
  options = without_flags(options, flags_of(os.environ))
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
  options: Options, function: Callable[..., Any], what: str = ''
) -> Callable[..., Any]:
  """Returns a jitted or pmapped function, compiled with options of XLA.

  As without them, that happens at the first call with new shapes. `jax.pmap`
  takes no options itself, and calls what it compiles four times as slowly: 3 ms
  for a training state, as long as a step of a small batch takes on a GPU.

  Args:
    options: (name, value) each; none is fine.
    function: the function.
    what: name of the program, printed while it compiles (see `told`); '':
      prints nothing.
  """
  if what:
    return told(what, options, compiled_with(options, function))
  # With several processes a call costs more than one of `jax.pmap` itself.
  unset = without_flags(options, flags_of(os.environ))
  if jax.process_count() > 1 and not unset:
    return function
  programs: dict[Any, Callable[..., Any]] = {}
  latest: list[Callable[..., Any]] = []

  def call(*args: Any) -> Any:
    # A program looks itself whether it was compiled for its arguments; done
    # here, that takes as long again as its call.
    for program in latest:
      with contextlib.suppress(TypeError, ValueError):
        return program(*args)
    leaves, structure = jax.tree.flatten(args)
    if _are_traced(leaves):
      return function(*args)  # part of a larger program, with its options
    key = structure, tuple(map(_kind, leaves))
    if key not in programs:
      compiled = compile_with(options, function.lower(*args))
      programs[key] = (
        functools.partial(_call_in_all_processes, compiled)
        if jax.process_count() > 1
        else compiled
      )
    latest[:] = [programs[key]]
    return programs[key](*args)

  return call


def _kind(leaf: Any) -> Any:
  """Returns what a program is compiled for: shape, dtype and placement."""
  if not hasattr(leaf, 'dtype'):
    return type(leaf)
  is_placed = getattr(leaf, 'committed', False)
  return leaf.shape, leaf.dtype, leaf.sharding if is_placed else None


def _call_in_all_processes(program: Any, *args: Any) -> Any:
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
