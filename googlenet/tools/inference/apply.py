"""A trained network as a pure, jitted function of stored pixels."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections

from googlenet.errors import UserError, did_you_mean
from googlenet.input.preprocess import preprocess
from googlenet.io.pretrained import channels_of
from googlenet.model import points, taps
from googlenet.model.network import Network, Outputs
from googlenet.model.precision import NAMES, get_policy
from googlenet.model.taps import Edit
from googlenet.runtime.compilation import are_traced, compiled_with

# An additional end point: the softmax of the logits.
PROBABILITIES = 'probabilities'
# A name or a path.
_One = TypeVar('_One', bound=str | os.PathLike[str])


def end_point_names(network: Network) -> tuple[str, ...]:
  """Returns the names of all points, and `probabilities`, in order."""
  return (*points.shapes(network.architecture), PROBABILITIES)


def listed(given: _One | Iterable[_One]) -> tuple[_One, ...]:
  """Returns names or paths as a tuple; one alone is not a list of letters."""
  if isinstance(given, str | os.PathLike):
    return (given,)
  return tuple(given)


def listed_paths(
  given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[str, ...]:
  """Returns paths of image files as a tuple of texts.

  Raises:
    UserError: one is no path.
  """
  is_iterable = isinstance(given, str | os.PathLike | Iterable)
  paths = listed(given) if is_iterable else (given,)
  for path in paths:
    if not isinstance(path, str | os.PathLike):
      among = f' in a {type(given).__name__}' if is_iterable else ''
      raise UserError(
        f'images: a value of type {type(path).__name__}{among} is not allowed: '
        'give an array uint8 [N, H, W, C], or paths of image files'
      )
  return tuple(map(os.fspath, paths))


def check_end_points(names: Iterable[str], network: Network, flag: str) -> None:
  """Raises UserError if a name is no point of the network."""
  for name in names:
    if name != PROBABILITIES:
      try:
        points.resolve(name, network.architecture)
      except UserError as error:
        raise UserError(f'{flag}: {error}') from error


def make_function(
  network: Network, data_config: ml_collections.ConfigDict, precision: str
) -> Callable[..., Outputs]:
  """Makes the pure function: preprocessing, then the network in eval mode.

  Args:
    network: the network.
    data_config: the `data` section, for `preprocess`.
    precision: `train.precision`.

  Returns:
    (params, network_state, images, end_points=(), edit=None) -> Outputs.
    `images` are uint8 or floats in 0..255, [B, H, W, C] of any H and W;
    `logits` are float32 [B, num_classes]; the requested `end_points` are
    float32 [B, ...]. `edit` maps names of points to functions that replace
    their maps. The function differentiates by `params`, and by `images` if they
    are floats.
  """
  policy = get_policy(precision)

  def function(
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    end_points: tuple[str, ...] = (),
    edit: Mapping[str, Edit] | None = None,
  ) -> Outputs:
    images = preprocess(images, data_config)
    _check_channels(network, params, images)
    params, images = policy.cast_to_compute((params, images))
    wanted = [name for name in end_points if name != PROBABILITIES]
    outputs, _ = network.apply(
      params,
      network_state,
      None,
      images,
      is_training=False,
      end_points=wanted,
      edit=edit,
    )
    logits = policy.cast_to_output(outputs.logits)
    found = {
      name: outputs.end_points[name].astype(jnp.float32) for name in wanted
    }
    if PROBABILITIES in end_points:
      found[PROBABILITIES] = jax.nn.softmax(logits.astype(jnp.float32))
    return Outputs(logits, {}, found)

  return function


def _check_channels(
  network: Network, params: hk.Params, images: jax.Array
) -> None:
  """Raises UserError if parameters are for images of other channels."""
  try:
    seen = channels_of(network, params)
  except KeyError:
    return  # Haiku says which parameters are missing
  if images.shape[-1] != seen:
    raise UserError(
      f'images have {images.shape[-1]} channel(s); the network takes {seen}: '
      'convert them, as net.read(paths) does'
    )


class Apply(NamedTuple):
  """The function of `make_function`, compiled once for each image shape.

  It computes the unchanged images, not the views of the `eval` section. It may
  be used inside `jax.jit`, `jax.grad` and `jax.vmap`.
  """

  network: Network
  data_config: ml_collections.FrozenConfigDict
  precision: str

  @property
  def end_points(self) -> tuple[str, ...]:
    """The names of all end points."""
    return end_point_names(self.network)

  def __call__(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: jax.Array,
    end_points: str | Iterable[str] = (),
    edit: Mapping[str, Edit] | None = None,
    precision: str = '',
  ) -> Outputs:
    """Computes logits and end points; the arguments are as in `make_function`.

    `precision` is 'float32', 'bfloat16' or 'float16'; '': that of the run.

    A program is compiled for each set of end points and edits: define the
    functions of `edit` once, not in each call. They may close over values that
    `jax.jit`, `jax.grad` or `jax.vmap` trace: one function that takes such a
    value, inside `jax.jit`, serves all values with one program.

    Raises:
      UserError: an end point is unknown, or a point that is edited, or the
        precision; the images have another shape, dtype or number of channels;
        or an edit is no function, or gives something of another shape.
    """
    taps.check(
      {} if edit is None else edit
    )  # arrays have no hash, which `_jitted` needs
    if precision not in ('', *NAMES):
      raise UserError(
        f'precision={precision} is not allowed{did_you_mean(precision, NAMES)}'
        f': it takes one of {", ".join(NAMES)}'
      )
    program = _jitted(
      self.network,
      self.data_config,
      precision or self.precision,
      listed(end_points),
      tuple((edit or {}).items()),
    )
    return program(params, network_state, images)


@functools.lru_cache(maxsize=32)
def _jitted(
  network: Network,
  data_config: ml_collections.FrozenConfigDict,
  precision: str,
  end_points: tuple[str, ...],
  edit: tuple[tuple[str, Edit], ...],
) -> Callable[..., Outputs]:
  check_end_points(end_points, network, 'end_points')
  function = make_function(network, data_config, precision)
  jitted = jax.jit(
    functools.partial(function, end_points=end_points, edit=dict(edit))
  )
  compiled = compiled_with(network.kernels.compiler_options, jitted, 'network')
  return _with_what_edits_hold(jitted, compiled) if edit else compiled


def _with_what_edits_hold(
  jitted: Callable[..., Outputs], compiled: Callable[..., Outputs]
) -> Callable[..., Outputs]:
  """Returns the function to call for edits that may close over traced values.

  To a compiled program such values are inputs that nobody gives it. `jax.jit`
  makes them part of the larger program that is traced.
  """
  chosen: list[Callable[..., Outputs]] = []

  def call(*args: Any) -> Outputs:
    if not chosen:
      held = jax.make_jaxpr(jitted)(*args).consts
      chosen.append(jitted if are_traced(held) else compiled)
    return chosen[0](*args)

  return call
