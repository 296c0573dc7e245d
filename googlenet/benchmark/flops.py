"""Operations of the network, and what the machine reaches at best."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet import architectures
from googlenet.architectures import analysis
from googlenet.benchmark.clock import median_seconds
from googlenet.runtime.devices import PMAP_AXIS, replicated

# Side of the matrices whose product is timed.
_PRODUCT_SIZE = {'cpu': 2048}
_PRODUCT_SIZE_ELSEWHERE = 8192


def product_flop_per_s(dtype: jnp.dtype, count: int) -> float:
  """Returns what all devices reach together on a product of matrices."""
  n = _PRODUCT_SIZE.get(jax.default_backend(), _PRODUCT_SIZE_ELSEWHERE)
  rng = np.random.default_rng(0)
  a, b = replicated(
    [jnp.asarray(rng.standard_normal((n, n), np.float32), dtype)] * 2
  )
  product = jax.pmap(
    lambda a, b, _: a @ b,
    axis_name=PMAP_AXIS,
    in_axes=(None, None, 0),
  )
  num_devices = jax.local_device_count()
  places = np.zeros(num_devices, np.float32)
  return (
    num_devices
    * 2
    * n**3
    / median_seconds(lambda: product(a, b, places), count)
  )


def flop_per_image(
  model_config: ml_collections.ConfigDict, image_shape: tuple[int, int, int]
) -> dict[str, int]:
  """Returns the operations of convolutions and classifier, by use.

  Two for each multiply-add. Training makes three times as many, for the
  gradients of inputs and weights; the images need no gradient.
  """
  architecture = architectures.resolve(model_config)
  num_classes = model_config.num_classes
  infer, train = (
    analysis.walk(network, image_shape, num_classes).operations
    for network in (architecture._replace(aux_heads=()), architecture)
  )
  total = sum(operation.multiply_adds for operation in train)
  image_gradient = train[0].multiply_adds
  return {
    'train': 2 * (3 * total - image_gradient),
    'infer': 2 * sum(operation.multiply_adds for operation in infer),
  }
