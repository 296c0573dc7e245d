"""What all layers of a network have in common."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from googlenet.kernels import Kernels

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
  """Whether a path of parameters is one of some parts or lies within it."""
  return any(f'{module}/'.startswith(f'{part}/') for part in parts)


class Setting(NamedTuple):
  """What all layers of a network have in common.

  Attributes:
    kernels: the implementation of the primitive operations.
    normalization: 'batch', or anything else for none in the convolutions.
    activation: a key of `ACTIVATIONS`.
    initializer: a key of `INITIALIZERS`.
    decay: of the running statistics of batch norm, a call in training.
    is_training: dropout is on, batch norm takes the statistics of the batch.
    keys: [B] random keys, one an image; None where nothing is random.
    axis_name: the pmapped axis over which batch norm averages, or None.
    frozen: parts in which batch norm takes and keeps its running statistics in
      training, too.
  """

  kernels: Kernels
  normalization: str
  activation: str
  initializer: str = 'he'
  decay: float = 0.9
  is_training: bool = False
  keys: jax.Array | None = None
  axis_name: str | None = None
  frozen: tuple[str, ...] = ()

  @property
  def is_fused(self) -> bool:
    """Whether bias and ReLU follow a convolution at once."""
    return self.normalization != 'batch' and self.activation == 'relu'

  def activate(self, x: jax.Array) -> jax.Array:
    """Applies the activation."""
    return ACTIVATIONS[self.activation](x)
