"""A trained network, ready to use: what every mode but training starts from."""

import os
import pathlib
from typing import NamedTuple

import haiku as hk
import ml_collections

from googlenet import checkpoint, loop, pretrained
from googlenet import config as config_lib
from googlenet import network as network_lib
from googlenet import train_step as step_lib
from googlenet.errors import UserError
from googlenet.initialization import abstract_init
from googlenet.weights import names
from googlenet.workdir import read_classes


class Trained(NamedTuple):
  """The network of a run with the parameters of its newest whole checkpoint.

  Attributes:
    path: of the checkpoint.
    config: of the run, resolved.
    network: made from it.
    step: steps of training behind it.
    params: on every local device; the average where the run keeps one.
    network_state: likewise.
    image_shape: (S, S, C) of what the network sees.
    class_names: of all its classes; a number where no name is known.
  """

  path: pathlib.Path
  config: ml_collections.FrozenConfigDict
  network: network_lib.Network
  step: int
  params: hk.Params
  network_state: hk.State
  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]


def load_run(
  workdir: str | os.PathLike[str],
  config: ml_collections.FrozenConfigDict | None = None,
  channels: int | None = None,
  path: pathlib.Path | None = None,
) -> Trained:
  """Makes the network of a run and reads its newest whole checkpoint.

  Args:
    workdir: of the run; nothing is written there.
    config: resolved, in place of its config.json.
    channels: of the images that the network will see, to be checked; None: as
      many as it was trained with.
    path: of a checkpoint, in place of the newest whole one.

  Raises:
    UserError: no run, no checkpoint that is whole, or one of another network.
  """
  workdir = pathlib.Path(workdir)
  if config is None:
    config = config_lib.resolve(config_lib.load(workdir / 'config.json'))
  class_names = read_classes(workdir, config.model.num_classes)
  network = loop.make_network(config)
  use_ema = bool(config.train.ema_decay)
  size = config.data.image_size

  def read(path: pathlib.Path) -> tuple[int, checkpoint.Checkpoint]:
    seen = channels or stored_channels(path, network, use_ema)
    shapes = abstract_init(network, (size, size, seen))
    return seen, checkpoint.restore(path, *shapes, use_ema)

  if path is not None:
    seen, restored = read(path)
  else:
    path, (seen, restored) = checkpoint.newest_whole(workdir, read, loop.warn)
  return Trained(
    path,
    config,
    network,
    restored.step,
    step_lib.replicated(restored.params),
    step_lib.replicated(restored.network_state),
    (size, size, seen),
    class_names,
  )


def stored_channels(
  path: pathlib.Path, network: network_lib.Network, use_ema: bool = False
) -> int:
  """Returns the input channels of the network in a checkpoint.

  Raises:
    UserError: it is damaged, or of another network.
  """
  trees = pretrained.stored_shapes(path)
  first = names.first_convolution(network.architecture)
  try:
    return trees['ema_params' if use_ema else 'params'][first]['w'].shape[2]
  except (KeyError, IndexError) as error:
    raise UserError(
      f'checkpoint {path} is of another network than config.model: it has no '
      f'convolution {first}/w'
    ) from error
