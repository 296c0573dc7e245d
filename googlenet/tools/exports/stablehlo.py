"""A program of StableHLO with its parameters, for JAX and what else runs it."""

from typing import Any

import jax
import ml_collections
import numpy as np
from jax import export as jax_export

from googlenet.errors import UserError
from googlenet.model import network as network_lib
from googlenet.runtime import compilation
from googlenet.tools import inference
from googlenet.tools.inference.trained import Trained

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export(net: Trained) -> bytes:
  """Returns what `jax.export.deserialize` takes, for any number of images.

  Computes with plain operations, the same for all platforms: what calls oneDNN
  or has a layout of its own is of this machine.

  Raises:
    UserError: a library is missing.
  """
  try:
    import flatbuffers  # noqa: F401
  except ImportError as error:
    raise UserError(
      'StableHLO takes the package flatbuffers: pip install flatbuffers'
    ) from error
  model_config = ml_collections.ConfigDict(net.config.model.to_dict())
  model_config.kernels = 'xla'
  function = inference.make_function(
    network_lib.make_network(model_config), net.config
  )
  params, state = jax.device_get((net.params, net.network_state))

  def program(images: jax.Array) -> dict[str, Any]:
    outputs = function(params, state, images, (inference.PROBABILITIES,))
    return {'logits': outputs.logits, **outputs.end_points}

  (batch,) = jax_export.symbolic_shape('batch')
  images = jax.ShapeDtypeStruct((batch, *net.stored_shape), np.uint8)
  with compilation.shown('network: lowered to StableHLO'):
    exported = jax_export.export(jax.jit(program), platforms=PLATFORMS)(images)
  return bytes(exported.serialize())
