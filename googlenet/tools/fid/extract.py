"""Features of images: the network in float32, on all devices, in batches."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from googlenet.data import files
from googlenet.data.images import make_transform
from googlenet.errors import UserError
from googlenet.model.network import Network
from googlenet.runtime.parallel import parallelize, replicated
from googlenet.runtime.progress import Progress
from googlenet.tools.fid import resize as resize_lib
from googlenet.tools.fid.images import Images, Prepare
from googlenet.tools.inference import predict
from googlenet.tools.inference.apply import check_end_points, make_function
from googlenet.tools.inference.trained import Trained

Config = ml_collections.FrozenConfigDict
VARIANT = 'inception_fid'


class Features(NamedTuple):
  """What the network makes of images.

  Attributes:
    pooled: float32 [N, d], a layer averaged over height and width.
    logits: float32 [N, classes]; those of the Inception network are without
      their bias, as in the graph by which the Inception Score is defined.
  """

  pooled: np.ndarray
  logits: np.ndarray


def is_inception(net: Trained) -> bool:
  """Whether a network is the Inception of FID, and sees images as that does.

  The weights are not looked at.
  """
  data, (mean, std) = net.config.data, resize_lib.GRAPH
  return (
    net.config.model.variant == VARIANT
    and np.allclose(data.mean, mean, atol=1e-6)
    and np.allclose(data.std, std, atol=1e-6)
  )


def end_point_of(net: Trained, name: str = '') -> str:
  """Returns the layer whose features are compared; '': the last stage.

  Raises:
    UserError: the network has no such layer.
  """
  name = name or net.network.architecture.stages[-1].name
  check_end_points([name], net.network, '--end_points')
  return name


def prepare_for(net: Trained, resize: str = '') -> tuple[Prepare, Config]:
  """Returns what is done to images, on the host and then on the devices.

  Args:
    net: the network.
    resize: a name in `resize.WAYS`, for the Inception network; '': 'clean'.
      Other networks see images as in their training.

  Raises:
    UserError: there is no such way, or the network is another one.
  """
  config = net.config
  if not is_inception(net):
    if resize:
      raise UserError(
        f'--resize={resize} is for the Inception network of FID: '
        f'{net.path} sees images as in its training (its data section)'
      )
    transform = make_transform(config.data, config.augment, 0, False)
    *sides, channels = net.stored_shape
    transform = transform or files.Squeezed(tuple(sides))
    return Prepare(transform, channels, tells=True), config.data
  way = resize_lib.way_of(resize or resize_lib.CLEAN)
  size, _, channels = net.image_shape
  data = ml_collections.ConfigDict(config.data.to_dict())
  data.mean, data.std = (way.mean,) * channels, (way.std,) * channels
  return (
    Prepare(resize_lib.Resized(size, way.resize), channels),
    ml_collections.FrozenConfigDict(data),
  )


def batches(
  net: Trained,
  images: Images,
  resize: str = '',
  end_point: str = '',
  batch_size: int = 0,
) -> Iterator[Features]:
  """Yields the features of a set of images in order, and shows the progress.

  Args:
    net: what `googlenet.load` returns.
    images: what `open_images` returns.
    resize: as for `prepare_for`.
    end_point: a layer; '': the last stage, after its global mean.
    batch_size: images at a time, over all devices; 0: `eval.batch_size`, less
      for fewer images.

  Raises:
    UserError: an image cannot be read, or a name is unknown.
  """
  name = end_point_of(net, end_point)
  prepare, data = prepare_for(net, resize)
  params = net.params
  if is_inception(net):
    layer = params['logits']
    no_bias = replicated(np.zeros(layer['b'].shape, np.float32))
    params = {**params, 'logits': {**layer, 'b': no_bias}}
  program = _program(net.network, data, net.config.train.parallel, name)
  size = predict.padded_size(
    batch_size or images.count,
    batch_size or net.config.eval.batch_size,
    jax.local_device_count(),
  )
  given = ((None, part) for part in images.batches(prepare, size))
  with Progress(f'features {images.name}', images.count, 'images') as bar:
    for _, found in predict.run_batches(
      lambda x: program(params, net.network_state, x),
      predict.padded(given, size),
    ):
      yield Features(**found)
      bar.update(len(found['pooled']))


def features(
  net: Trained,
  images: Images,
  resize: str = '',
  end_point: str = '',
  batch_size: int = 0,
) -> Features:
  """Returns the features of a set of images; arguments as for `batches`."""
  parts = list(batches(net, images, resize, end_point, batch_size))
  return Features(*map(np.concatenate, zip(*parts, strict=True)))


@functools.lru_cache(maxsize=8)
def _program(
  network: Network, data: Config, how: str, name: str
) -> Callable[..., dict[str, jax.Array]]:
  """Makes the function that computes a batch on all devices.

  It computes in float32, whatever the precision of the run, and without the
  TF32 of GPUs.

  Returns:
    (params, network_state, images [D, B, H, W, C]) -> `Features` as a dict,
    [D, B, ...] each.
  """
  function = make_function(network, data, 'float32')

  def step(params, network_state, images):
    with jax.default_matmul_precision('highest'):
      found = function(params, network_state, images, (name, 'logits'))
    layer = found.end_points[name]
    pooled = layer.mean((1, 2)) if layer.ndim == 4 else layer
    return {'pooled': pooled, 'logits': found.end_points['logits']}

  return parallelize(
    step,
    in_axes=(None, None, 0),
    options=network.kernels.compiler_options,
    what='network',
    how=how,
  )
