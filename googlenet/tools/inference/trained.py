"""A trained network, ready to predict.

net = googlenet.load('runs/trial')
probabilities = net.predict(net.read(['photo.jpg']))
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, NoReturn

import haiku as hk
import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.data import constants, files, images
from googlenet.errors import UserError
from googlenet.input.preprocess import num_channels
from googlenet.io import checkpoint, compare, pretrained
from googlenet.io.workdir import read_classes
from googlenet.model import network as network_lib
from googlenet.runtime.parallel import replicated
from googlenet.runtime.terminal import warn
from googlenet.tools.inference import predict as predict_lib
from googlenet.tools.inference.apply import (
  PROBABILITIES,
  Apply,
  check_end_points,
  listed,
  listed_paths,
)
from googlenet.tools.inference.predict import Views


def refuse(item: files.Item) -> NoReturn:
  """Raises UserError for a file that cannot be read."""
  raise UserError(f'{item.path} cannot be read: {item.problem}')


class Trained(NamedTuple):
  """The network of a run with the parameters of one checkpoint.

  Attributes:
    path: of the checkpoint.
    config: of the run, resolved.
    network: made from `config`.
    step: number of training steps so far.
    params: on every local device, as used in evaluation: averaged parameters if
      the run keeps them.
    network_state: statistics of these parameters, on every local device.
    image_shape: (S, S, C) of the network's input.
    class_names: of all classes; a number if a name is not known.
    stored_shape: (H, W, C) of the training images before preprocessing;
      `image_shape` if it is not known (imported weights).
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

  @property
  def apply(self) -> Apply:
    """The network as a jitted pure function of unchanged images (one view).

    (params, network_state, images, end_points=(), edit=None, precision='') ->
    Outputs, for images uint8 or float in 0..255, [B, H, W, C] of any H and W;
    `net.apply.end_points` lists all end points. It computes in the precision of
    the run unless another is given. It differentiates by `params`,
    and by `images` if they are floats.
    """
    config = self.config
    return Apply(self.network, config.data, config.train.precision)

  @property
  def views(self) -> Views:
    """The views with which the run is evaluated."""
    return predict_lib.views_of(self.config.eval)

  def predict(
    self,
    images: np.ndarray
    | str
    | os.PathLike[str]
    | Iterable[str | os.PathLike[str]],
    views: bool | Views = True,
  ) -> np.ndarray:
    """Returns the probabilities of images, in batches on all devices.

    Args:
      images: uint8 [N, H, W, C], as `read` returns them or a data set stores
        them; or paths of image files, or one path.
      views: True averages over the views with which the run is evaluated
        (`eval.flip`, `eval.shift`, `eval.crops`) and takes `net.views.count`
        times as long; False computes each image once; `Views(...)` averages
        over other views.

    Returns:
      float32 [N, num_classes].

    Raises:
      UserError: the images have another shape or dtype, a file cannot be read,
        the views are none, or arrays are given although `eval.crops` needs
        files.
    """
    chosen = predict_lib.chosen_views(self.config.eval, views)
    if not isinstance(images, np.ndarray | jax.Array):
      paths = listed_paths(images)
      parts = [part for _, part in self.predict_files(paths, chosen, refuse)]
      empty = np.zeros((0, self.network.num_classes), np.float32)
      return np.concatenate([empty, *parts])
    if chosen.crops > 1:
      raise UserError(
        f'config.eval.crops={chosen.crops} cuts crops out of whole files: give '
        'net.predict the paths of files, or views=False'
      )
    return self._run(images, chosen)[PROBABILITIES]

  def features(
    self, images: np.ndarray, end_points: str | Sequence[str]
  ) -> dict[str, np.ndarray]:
    """Returns end points of unchanged images, in batches on all devices.

    Args:
      images: uint8 [N, H, W, C], as `read` returns them or a data set stores
        them.
      end_points: some of `net.apply.end_points`, or one.

    Returns:
      float32 [N, ...] by name.

    Raises:
      UserError: an end point is unknown, or the images have another shape or
        dtype.
    """
    wanted = listed(end_points)
    check_end_points(wanted, self.network, 'end_points')
    return self._run(images, wanted)

  def _run(
    self, images: np.ndarray, wanted: Views | tuple[str, ...]
  ) -> dict[str, np.ndarray]:
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8:
      raise UserError(
        f'images are {images.dtype} {images.shape}; allowed is uint8 '
        '[N, H, W, C], as net.read(paths) returns it'
      )
    stored, seen = images.shape[-1], self.image_shape[-1]
    if num_channels(self.config.data, stored) != seen or not images.size:
      raise UserError(
        f'images are {images.shape}; the network takes 1 or more of {seen} '
        'channel(s): [N, H, W, C], as net.read(paths) returns it'
      )
    size = self.program_size(len(images))
    parts = ((i, images[i : i + size]) for i in range(0, len(images), size))
    found = [
      out
      for _, out in predict_lib.run_batches(
        self.step_of(wanted), predict_lib.padded(parts, size)
      )
    ]
    return {name: np.concatenate([x[name] for x in found]) for name in found[0]}

  def step_of(
    self, wanted: Views | tuple[str, ...]
  ) -> Callable[[np.ndarray], dict[str, jax.Array]]:
    """Returns `predict.make_step` with these parameters."""
    step = predict_lib.make_step(
      self.network, self.config.data, self.config.train, wanted
    )
    return lambda images: step(self.params, self.network_state, images)

  def program_size(self, count: int) -> int:
    """Returns the batch size for `count` images, see `predict.padded_size`."""
    return predict_lib.padded_size(
      count, self.config.eval.batch_size, jax.local_device_count()
    )

  def predict_files(
    self,
    paths: Sequence[str],
    views: Views,
    on_problem: Callable[[files.Item], None],
  ) -> Iterator[tuple[list[str], np.ndarray]]:
    """Predicts image files, batch by batch.

    Args:
      paths: of the files.
      views: over which views to average.
      on_problem: called with each file that cannot be read and is left out.

    Yields:
      Paths, and their probabilities, float32 [n, num_classes].
    """
    step = self.step_of(views)
    passes = [
      predict_lib.run_batches(
        step,
        self.read_batches(
          paths, (lambda item: None) if i else on_problem, squares
        ),
      )
      for i, squares in enumerate(views.inputs(self.image_shape[0]))
    ]
    for parts in zip(*passes, strict=True):
      names, _ = parts[0]
      total = sum(out[PROBABILITIES] for _, out in parts)
      yield names, total / np.float32(len(parts))

  def read_batches(
    self,
    paths: Sequence[str],
    on_problem: Callable[[files.Item], None],
    squares: images.Squares | None = None,
  ) -> Iterator[predict_lib.Batch]:
    """Reads image files in threads; `of` of each batch holds its paths.

    Args:
      paths: of the files.
      on_problem: called with each file that cannot be read and is left out.
      squares: transform of each image; None: that of the training set.
    """
    size = self.program_size(len(paths))
    items = files.read_ahead(paths, self.reader(squares), 2 * size)
    with contextlib.closing(items):
      parts = files.batches(items, size, on_problem)
      yield from predict_lib.padded(parts, size)

  def reader(self, squares: images.Squares | None = None) -> files.Reader:
    """Returns a function that reads a file and transforms it as in training.

    Args:
      squares: used instead of the transform of training.

    Raises:
      UserError: image files cannot have the channels that the network takes.
    """
    files.check_channels(self.stored_shape[-1])
    transform = squares or images.make_transform(
      self.config.data, self.config.augment, 0, is_training=False
    )
    return files.make_reader(transform, self.stored_shape)

  def read(
    self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
  ) -> np.ndarray:
    """Reads image files of any size, mode and orientation.

    Args:
      paths: of the files; one alone is read as one image, N = 1.

    Returns:
      uint8 [N, H, W, C], of the size of the training images.

    Raises:
      UserError: one is no path, or a file cannot be read.
    """
    paths = listed_paths(paths)
    items = files.read_ahead(paths, self.reader(), 64)
    with contextlib.closing(items):
      parts = [x for _, x in files.batches(items, len(paths) or 1, refuse)]
    return np.concatenate([np.zeros((0, *self.stored_shape), np.uint8), *parts])


def make_trained(
  path: pathlib.Path,
  config: ml_collections.FrozenConfigDict,
  network: network_lib.Network,
  restored: checkpoint.Checkpoint,
  class_names: tuple[str, ...],
  stored_shape: tuple[int, int, int] | None,
) -> Trained:
  """Makes a `Trained` from a checkpoint; see the attributes of `Trained`.

  Raises:
    UserError: mean or deviation do not fit the channels of the network.
  """
  size = config.data.image_size
  image_shape = (size, size, pretrained.channels_of(network, restored.params))
  constants.check_counts(config.data, image_shape[-1])
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
  )


# Checkpoints of one run share their network and its compiled programs.
_network_of = functools.lru_cache(maxsize=8)(network_lib.from_config)


def load_run(
  workdir: str | os.PathLike[str],
  config: ml_collections.FrozenConfigDict | None = None,
  channels: int | None = None,
  path: pathlib.Path | None = None,
) -> Trained:
  """Makes the network of a run and reads one of its checkpoints.

  Args:
    workdir: of the run; nothing is written there.
    config: resolved, used instead of config.json.
    channels: of the images to predict, checked against the checkpoint; None:
      they are those of training.
    path: of a checkpoint, used instead of the newest complete one.

  Raises:
    UserError: the folder holds no run or no complete checkpoint, or the
      checkpoint belongs to another network than the config.
  """
  workdir = pathlib.Path(workdir)
  if config is None:
    config = config_lib.resolve(config_lib.load(workdir / 'config.json'))
  class_names = read_classes(workdir, config.model.num_classes)
  network = _network_of(config)
  path, restored = pretrained.read_for(network, workdir, config, path)
  seen = pretrained.channels_of(network, restored.params)
  if channels not in (None, seen):
    raise UserError(
      f'config.data.channels={config.data.channels}: the data set has '
      f'images of {channels} channel(s), and the network in {path} takes {seen}'
      f': give --config.data.channels={seen}, which converts the images'
    )
  stored = pretrained.stored_image_shape(path)
  of_files = num_channels(config.data, (stored or (seen,))[-1])
  if channels is None and of_files != seen:
    raise UserError(
      f'config.data.channels={config.data.channels} gives images of {of_files} '
      f'channel(s), and the network in {path} takes {seen}: give '
      f'--config.data.channels={seen}'
    )
  for line in compare.edited(workdir, path):
    warn(line)
  return make_trained(
    path,
    config,
    network,
    restored,
    class_names,
    stored,
  )
