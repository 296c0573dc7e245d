"""Compiles with options of XLA, and shows on the console what is compiled."""

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax

from googlenet.runtime.allocator import release_free_memory
from googlenet.runtime.backend import Options, flags_of, without_flags
from googlenet.runtime.maps import forget_programs
from googlenet.runtime.progress import working
from googlenet.runtime.terminal import warn

_COMPILED = '/jax/core/compile/backend_compile_duration'
# JAX's warning: what failed, and the exception. One of JAX itself means that
# the program calls oneDNN: XLA cannot write it, so it is compiled at each
# start, and the user cannot change that.
_CACHE_ERROR = (
  "Error (reading|writing) persistent compilation cache entry for '"
)
_UNWRITABLE = _CACHE_ERROR + r".*': (JaxRuntime|XlaRuntime|Memory)Error"


class _Process:
  """State of this process that all compilations share."""

  seconds = 0.0  # spent compiling


def _count(event: str, seconds: float, **_: Any) -> None:
  if event == _COMPILED:
    _Process.seconds += seconds


jax.monitoring.register_event_duration_secs_listener(_count)


def tell_cache_errors_once() -> None:
  """Shows one line for all cached programs that cannot be read or written.

  JAX warns for each program, with a line of its own code.
  """
  show, told = warnings.showwarning, set()

  def show_once(message: Any, *args: Any, **kwargs: Any) -> None:
    if not (found := re.match(_CACHE_ERROR, str(message))):
      show(message, *args, **kwargs)
    elif found[1] not in told and not re.match(_UNWRITABLE, str(message)):
      told.add(found[1])
      what = 'are not kept' if found[1] == 'writing' else 'cannot be read'
      why = str(message)[found.end() :].partition(': ')[2]
      warn(
        f'compiled programs {what}, so they are compiled again at each start: '
        f'{" ".join(why.split())[:200]}; config.train.compilation_cache takes '
        "another folder, or '' for none"
      )

  warnings.showwarning = show_once


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


def are_traced(leaves: Iterable[Any]) -> bool:
  """Returns whether a function is called while a larger one is traced."""
  return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def _source(options: Options) -> str:
  """Says whether a program is kept between starts, and where."""
  if any('onednn' in name for name, _ in options):
    return 'compiled at each start, as XLA cannot keep what calls oneDNN'
  folder = jax.config.jax_compilation_cache_dir
  if not folder or not jax.config.jax_enable_compilation_cache:
    return 'compiled at each start, as there is no compilation cache'
  if os.path.exists(folder) and not os.access(folder, os.W_OK):
    return f'read from {folder} if it is there, which cannot be written'
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
  forget_programs()
  options = without_flags(options, flags_of(os.environ))
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message=_UNWRITABLE)
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
    if are_traced(leaves):
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
