"""Exports a network with its parameters as a StableHLO program."""

import jax
import ml_collections
import numpy as np
from jax import export as jax_export

from googlenet.errors import UserError
from googlenet.input.views import to_logits
from googlenet.model import network as network_lib
from googlenet.runtime import progress
from googlenet.tools.inference.apply import PROBABILITIES, make_function
from googlenet.tools.inference.predict import (
  ONE_VIEW,
  Views,
  make_probabilities,
)
from googlenet.tools.inference.trained import Trained

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export(net: Trained, views: Views = ONE_VIEW) -> bytes:
  """Returns the bytes for `jax.export.deserialize`, for any number of images.

  The program uses plain XLA operations on all platforms, since kernels that
  call oneDNN or use their own layout would run only on this machine.

  Args:
    net: the network.
    views: over which probabilities are averaged; with several views, `logits`
      are the logarithms of the mean.

  Raises:
    UserError: the package flatbuffers is missing.
  """
  try:
    import flatbuffers  # noqa: F401
  except ImportError as error:
    raise UserError(
      'StableHLO needs the package flatbuffers: pip install flatbuffers'
    ) from error
  model_config = ml_collections.ConfigDict(net.config.model.to_dict())
  model_config.kernels = 'xla'
  made_from = (
    network_lib.make_network(model_config),
    net.config.data,
    net.config.train.precision,
  )
  function = make_function(*made_from)
  mean = make_probabilities(*made_from, views)
  params, state = jax.device_get((net.params, net.network_state))

  def program(images: jax.Array) -> dict[str, jax.Array]:
    if views.count > 1:
      probabilities = mean(params, state, images)
      logits = to_logits(probabilities)
    else:
      outputs = function(params, state, images, (PROBABILITIES,))
      logits, probabilities = outputs.logits, outputs.end_points[PROBABILITIES]
    return {'logits': logits, PROBABILITIES: probabilities}

  (batch,) = jax_export.symbolic_shape('batch')
  images = jax.ShapeDtypeStruct((batch, *net.stored_shape), np.uint8)
  with progress.working('compile  network: lowered to StableHLO'):
    exported = jax_export.export(jax.jit(program), platforms=PLATFORMS)(images)
  return bytes(exported.serialize())
