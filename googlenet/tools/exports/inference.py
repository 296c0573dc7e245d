"""The network that an export holds: for inference, and how precise."""

import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.errors import UserError, did_you_mean
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init
from googlenet.tools.inference.trained import Trained

# Values of --precision: of every export by default; that of `train.precision`.
FLOAT32, RUN = 'float32', 'run'
_NUM_IMAGES, _NUM_SQUARES = 64, 8


def check_precision(precision: str) -> None:
  """Raises UserError if a value of --precision is not allowed."""
  known = (FLOAT32, RUN)
  if precision not in known:
    near = did_you_mean(precision, known)
    raise UserError(
      f'--precision={precision} is not allowed{near}: it takes one of '
      f'{", ".join(known)}'
    )


def for_inference(net: Trained, precision: str = FLOAT32) -> Trained:
  """Returns a network without auxiliary heads, which only training uses.

  Args:
    net: the network of a run.
    precision: 'float32', which replaces `train.precision`; or 'run', which
      keeps it. Parameters are float32 in any case.
  """
  config = ml_collections.ConfigDict(net.config.to_dict())
  if net.network.architecture.aux_heads:
    config.model.aux_heads = 'off'
  if precision == FLOAT32:
    config.train.precision = FLOAT32
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  needed, _ = abstract_init(network, net.image_shape)
  params = {name: net.params[name] for name in needed}
  state = {k: v for k, v in net.network_state.items() if k in needed}
  return net._replace(
    config=config, network=network, params=params, network_state=state
  )


def difference(one: Trained, other: Trained) -> tuple[float, float]:
  """Compares the logits of two networks on the same images.

  The images are mosaics of random colours, so that no data set is needed.

  Returns:
    The largest difference between two logits, and the largest logit of `other`,
    both without sign.
  """
  height, width, channels = one.stored_shape
  rng = np.random.default_rng(0)
  shape = (_NUM_IMAGES, _NUM_SQUARES, _NUM_SQUARES, channels)
  squares = rng.integers(0, 256, shape, np.uint8)
  rows, columns = (
    np.arange(side) * _NUM_SQUARES // side for side in (height, width)
  )
  images = squares[:, rows][:, :, columns]
  found, expected = (
    net.features(images, ['logits'])['logits'] for net in (one, other)
  )
  return float(np.abs(found - expected).max()), float(np.abs(expected).max())
