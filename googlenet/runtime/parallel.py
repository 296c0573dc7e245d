"""The devices of this process, and of the others."""

from typing import Any

import jax
import numpy as np

# The pmapped axis: gradients, metrics and batch norm are averaged over it.
PMAP_AXIS = 'batch'


def replicated(tree: Any) -> Any:
  """Puts arrays on every local device, just as `pmap` returns them.

  Anything else would be moved, and the step compiled, a second time.
  """
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (PMAP_AXIS,))
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.device_put(tree, everywhere)


def steps_in_flight() -> int:
  """Returns how many steps to give to the devices ahead of the running one.

  A GPU or TPU should never wait for Python. A CPU does not gain by it:
  it computes on the threads that wait.
  """
  return 0 if jax.default_backend() == 'cpu' else 2
