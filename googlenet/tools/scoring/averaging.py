"""Averages the parameters of several networks."""

import jax
import numpy as np

from googlenet.errors import UserError
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference.trained import Trained


def average_weights(members: list[Trained]) -> Trained:
  """Returns a network with the mean of the parameters of several networks.

  Izmailov et al., 2018 (arXiv 1803.05407). Running statistics of batch norm are
  averaged too, which is only correct for similar checkpoints, like the last
  ones of a run. For others use precise BN (`eval.batch_norm_batches`).

  Raises:
    UserError: the networks differ in architecture or input.
  """
  first = members[0]
  for other in members[1:]:
    for name, get in _MUST_EQUAL.items():
      if get(first) != get(other):
        raise UserError(
          f'--average=weights: {first.path} and {other.path} differ in {name}: '
          'give checkpoints of one network, or --average=predictions'
        )

  def mean(*leaves: jax.Array) -> np.ndarray:
    total = sum(np.asarray(jax.device_get(x), np.float64) for x in leaves)
    return (total / len(leaves)).astype(leaves[0].dtype)

  params, network_state = (
    replicated(
      jax.tree.map(mean, *(getattr(member, name) for member in members))
    )
    for name in ('params', 'network_state')
  )
  return first._replace(params=params, network_state=network_state)


_MUST_EQUAL = {
  'config.model, the layers': lambda one: one.network.architecture,
  'config.model.num_classes': lambda one: one.network.num_classes,
  'config.model.activation': lambda one: one.config.model.activation,
  'the number of image channels': lambda one: one.image_shape[-1],
  'config.data.mean': lambda one: tuple(one.config.data.mean),
  'config.data.std': lambda one: tuple(one.config.data.std),
}
