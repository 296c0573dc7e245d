"""Settings shared by all layers of a network."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from googlenet.kernels import Kernels
from googlenet.model.taps import Taps

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': jax.nn.relu,
  'leaky_relu': jax.nn.leaky_relu,
  'elu': jax.nn.elu,
  'gelu': jax.nn.gelu,
  'silu': jax.nn.silu,
  'sigmoid': jax.nn.sigmoid,  # Ioffe and Szegedy, 2015, section 4.2.2
  'tanh': jnp.tanh,
}


def is_within(module: str, parts: Sequence[str]) -> bool:
  """Whether a module path equals one of `parts` or lies below it."""
  return any(f'{module}/'.startswith(f'{part}/') for part in parts)


class Context(NamedTuple):
  """Settings shared by all layers of a network.

  Attributes:
    kernels: kernel set of the primitive operations.
    normalization: 'batch': convolutions have batch norm; otherwise a bias.
    activation: a key of `ACTIVATIONS`.
    initializer: a key of `INITIALIZERS`.
    batch_norm_decay: decay of the running statistics per training step.
    is_training: whether dropout is on and batch norm uses batch statistics.
    drops: whether dropout and stochastic depth are on in training.
    keys: [B] random keys, one per image; None if nothing is random.
    axis_name: mapped axis over which batch norm averages, or None.
    frozen: modules whose batch norm always uses running statistics.
    taps: points of the network that are read or replaced.
    path: what the names of points start with: a row, a stage or 'head'.
  """

  kernels: Kernels
  normalization: str
  activation: str
  initializer: str = 'he'
  batch_norm_decay: float = 0.9
  is_training: bool = False
  drops: bool = True
  keys: jax.Array | None = None
  axis_name: str | None = None
  frozen: tuple[str, ...] = ()
  taps: Taps = Taps()
  path: str = ''

  @property
  def has_batch_norm(self) -> bool:
    """Whether convolutions have batch norm instead of a bias."""
    return self.normalization == 'batch'

  @property
  def fuses_relu(self) -> bool:
    """Whether bias and ReLU are fused into convolutions."""
    return not self.has_batch_norm and self.activation == 'relu'

  def tap(self, kind: str, x: jax.Array) -> jax.Array:
    """Taps the output of an operation that has no name of its own."""
    return self.taps.unnamed(self.path, kind, x)

  def activate(self, x: jax.Array) -> jax.Array:
    """Applies the activation."""
    return ACTIVATIONS[self.activation](x)
