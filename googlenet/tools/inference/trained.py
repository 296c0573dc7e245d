"""A trained network, ready to use: what every mode but training starts from.

net = googlenet.load('runs/trial')
probabilities = net.predict(net.read(['photo.jpg']))
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.data import files, images
from googlenet.errors import UserError
from googlenet.input.preprocess import num_channels
from googlenet.io import array_files as weight_files
from googlenet.io import checkpoint, pretrained
from googlenet.io.workdir import read_classes
from googlenet.model import graph
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init
from googlenet.runtime.parallel import replicated
from googlenet.runtime.terminal import warn
from googlenet.tools import inference


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
    stored_shape: (H, W, C) of the images of its training set on their way to
      the device; `image_shape` where that is not known (imported weights).
    apply: (params, network_state, images, end_points=()) -> Outputs, jitted and
      pure, for images uint8 [B, H, W, C] of any H and W as a set stores them;
      see `inference.Apply`.
  """

  path: pathlib.Path
  config: ml_collections.FrozenConfigDict
  network: network_lib.Network
  step: int
  params: hk.Params
  network_state: hk.State
  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  stored_shape: tuple[int, int, int] = (0, 0, 0)
  apply: inference.Apply | None = None

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Returns the probabilities of images on all devices, in batches.

    Args:
      images: uint8 [N, H, W, C], as `read` returns them or a set stores them.

    Returns:
      float32 [N, num_classes].
    """
    (probabilities,) = self.features(images, [inference.PROBABILITIES]).values()
    return probabilities

  def features(
    self, images: np.ndarray, end_points: Sequence[str]
  ) -> dict[str, np.ndarray]:
    """Returns end points of images, computed likewise.

    Args:
      images: as for `predict`.
      end_points: names of `net.apply.end_points`.

    Returns:
      float32 [N, ...] by name.

    Raises:
      UserError: there is no such end point.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8:
      raise UserError(
        f'images are {images.dtype} {images.shape}; allowed is uint8 '
        '[N, H, W, C], as net.read(paths) returns it'
      )
    stored, seen = images.shape[-1], self.image_shape[-1]
    if num_channels(self.config.data, stored) != seen or not len(images):
      raise UserError(
        f'images are {images.shape}; the network takes 1 or more of {seen} '
        'channel(s): [N, H, W, C], as net.read(paths) returns it'
      )
    size = self.program_size(len(images))
    batches = ((i, images[i : i + size]) for i in range(0, len(images), size))
    parts = [
      part
      for _, part in inference.run_batches(
        self.apply.step(end_points),
        self.params,
        self.network_state,
        batches,
        size,
      )
    ]
    return {
      name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }

  def program_size(self, count: int) -> int:
    """Returns the images of a batch when there are `count` in all."""
    return inference.padded_size(
      count, self.config.eval.batch_size, jax.local_device_count()
    )

  def reader(self) -> files.Reader:
    """Returns what makes of a file what training made of its images.

    Raises:
      UserError: the network takes images that are not read from files.
    """
    *_, num_channels = self.stored_shape
    files.check_channels(num_channels)
    return files.make_reader(
      images.make_transform(
        self.config.data, self.config.augment, 0, is_training=False
      ),
      self.stored_shape,
    )

  def read(self, paths: Iterable[str | os.PathLike[str]]) -> np.ndarray:
    """Reads image files of any size, mode and orientation.

    Returns:
      uint8 [N, H, W, C], of the size that the training set had.

    Raises:
      UserError: one cannot be read.
    """
    found = []
    reader = self.reader()
    with contextlib.closing(files.read_ahead(paths, reader, 64)) as items:
      for item in items:
        if item.image is None:
          raise UserError(f'{item.path} cannot be read: {item.problem}')
        found.append(item.image)
    return np.stack(found) if found else np.zeros((0, *reader.shape), np.uint8)


def make_trained(
  path: pathlib.Path,
  config: ml_collections.FrozenConfigDict,
  network: network_lib.Network,
  restored: checkpoint.Checkpoint,
  class_names: tuple[str, ...],
  image_shape: tuple[int, int, int],
  stored_shape: tuple[int, int, int] | None,
) -> Trained:
  """Makes a `Trained` of what was read from a file."""
  return Trained(
    path,
    config,
    network,
    restored.step,
    replicated(restored.params),
    replicated(restored.network_state),
    image_shape,
    class_names,
    stored_shape or image_shape,
    inference.Apply(network, config),
  )


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
  network = network_lib.from_config(config)
  use_ema = bool(config.train.ema_decay)
  size = config.data.image_size

  def read(path: pathlib.Path) -> tuple[int, checkpoint.Checkpoint]:
    seen = channels or stored_channels(path, network, use_ema)
    shapes = abstract_init(network, (size, size, seen))
    return seen, checkpoint.restore(path, *shapes, use_ema)

  if path is not None:
    seen, restored = read(path)
  else:
    path, (seen, restored) = checkpoint.newest_whole(workdir, read, warn)
  return make_trained(
    path,
    config,
    network,
    restored,
    class_names,
    (size, size, seen),
    stored_shape(path),
  )


def stored_shape(path: pathlib.Path) -> tuple[int, int, int] | None:
  """Returns the shape of the training set's images that a checkpoint tells.

  None where it was not trained here.
  """
  about = weight_files.read(path).get('about')
  if about is None:
    return None
  try:
    shape = json.loads(about.read().tobytes())['data']['image_shape']
    height, width, channels = (int(side) for side in shape)
  except (ValueError, TypeError, KeyError, RecursionError):
    return None
  return height, width, channels


def stored_channels(
  path: pathlib.Path, network: network_lib.Network, use_ema: bool = False
) -> int:
  """Returns the input channels of the network in a checkpoint.

  Raises:
    UserError: it is damaged, or of another network.
  """
  trees = pretrained.stored_shapes(path)
  first = graph.first_convolution(network.architecture)
  try:
    return trees['ema_params' if use_ema else 'params'][first]['w'].shape[2]
  except (KeyError, IndexError) as error:
    raise UserError(
      f'checkpoint {path} is of another network than config.model: it has no '
      f'convolution {first}/w'
    ) from error
