"""A trained network, ready to use: what every mode but training starts from.

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
from googlenet.data import files, images
from googlenet.errors import UserError
from googlenet.input.preprocess import num_channels
from googlenet.io import checkpoint, pretrained
from googlenet.io.workdir import read_classes
from googlenet.model import graph
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference import predict as predict_lib
from googlenet.tools.inference.apply import (
  PROBABILITIES,
  Apply,
  check_end_points,
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
    network: made from it.
    step: steps of training behind it.
    params: on every local device; those that evaluation takes, so the average
      where the run keeps one.
    network_state: statistics that belong to them, on every local device.
    image_shape: (S, S, C) of what the network sees.
    class_names: of all its classes; a number where no name is known.
    stored_shape: (H, W, C) of the images of its training set on their way to
      the device; `image_shape` where that is not known (imported weights).
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
    """The jitted pure function, of each image as it is (one view).

    (params, network_state, images, end_points=()) -> Outputs, for images uint8
    [B, H, W, C] of any H and W; `net.apply.end_points` are all names.
    """
    config = self.config
    return Apply(self.network, config.data, config.train.precision)

  @property
  def views(self) -> Views:
    """The views of an image that the run is evaluated with."""
    return predict_lib.views_of(self.config.eval)

  def predict(
    self,
    images: np.ndarray | Sequence[str | os.PathLike[str]],
    views: bool | Views = True,
  ) -> np.ndarray:
    """Returns the probabilities of images on all devices, in batches.

    Args:
      images: uint8 [N, H, W, C], as `read` returns them or a set stores them;
        or paths of image files.
      views: averages over the views that the run is evaluated with
        (`eval.flip`, `eval.shift`, `eval.crops`), so that accuracy is that of
        evaluation; an image then takes `net.views.count` times as long. False:
        computes each image once. `Views(...)`: averages over others.

    Returns:
      float32 [N, num_classes].

    Raises:
      UserError: the images have another shape or dtype, a file cannot be read,
        or arrays are given where `eval.crops` needs whole files.
    """
    chosen = views
    if not isinstance(views, Views):
      chosen = predict_lib.views_of(self.config.eval, views)
    if not isinstance(images, np.ndarray | jax.Array):
      paths = list(map(os.fspath, images))
      parts = [part for _, part in self.predict_files(paths, chosen, refuse)]
      empty = np.zeros((0, self.network.num_classes), np.float32)
      return np.concatenate([empty, *parts])
    if chosen.crops > 1:
      raise UserError(
        f'config.eval.crops={chosen.crops} cuts its crops out of whole files: '
        'give net.predict their paths, or views=False'
      )
    return self._run(images, chosen)[PROBABILITIES]

  def features(
    self, images: np.ndarray, end_points: Sequence[str]
  ) -> dict[str, np.ndarray]:
    """Returns end points of images as they are, on all devices, in batches.

    Args:
      images: uint8 [N, H, W, C], as `read` returns them or a set stores them.
      end_points: names of `net.apply.end_points`.

    Returns:
      float32 [N, ...] by name.

    Raises:
      UserError: an end point is unknown, or the images have another shape or
        dtype.
    """
    check_end_points(end_points, self.apply.end_points, 'end_points')
    return self._run(images, tuple(end_points))

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
    if num_channels(self.config.data, stored) != seen or not len(images):
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
    """Returns what all devices compute: see `predict.make_step`."""
    step = predict_lib.make_step(
      self.network, self.config.data, self.config.train, wanted
    )
    return lambda images: step(self.params, self.network_state, images)

  def program_size(self, count: int) -> int:
    """Returns the images of a batch when there are `count` in all."""
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
      on_problem: takes a file that cannot be read and is left out.

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
    """Reads image files in threads; yields batches of their paths.

    Args:
      paths: of the files.
      on_problem: takes a file that cannot be read and is left out.
      squares: what to make of each image; None: what training made of its own.
    """
    size = self.program_size(len(paths))
    items = files.read_ahead(paths, self.reader(squares), 2 * size)
    with contextlib.closing(items):
      parts = files.batches(items, size, on_problem)
      yield from predict_lib.padded(parts, size)

  def reader(self, squares: images.Squares | None = None) -> files.Reader:
    """Returns a function that makes of a file what training made of its images.

    Args:
      squares: makes these instead.

    Raises:
      UserError: the network takes images that are not read from files.
    """
    files.check_channels(self.stored_shape[-1])
    transform = squares or images.make_transform(
      self.config.data, self.config.augment, 0, is_training=False
    )
    return files.make_reader(transform, self.stored_shape)

  def read(self, paths: Iterable[str | os.PathLike[str]]) -> np.ndarray:
    """Reads image files of any size, mode and orientation.

    Returns:
      uint8 [N, H, W, C], of the size that the training set had.

    Raises:
      UserError: a file cannot be read.
    """
    paths = list(paths)
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
  """Makes a `Trained` of what was read from a file, see there."""
  size = config.data.image_size
  image_shape = (size, size, channels_of(network, restored.params))
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


def channels_of(network: network_lib.Network, params: hk.Params) -> int:
  """Returns the channels of the images that parameters were made for."""
  first = graph.first_convolution(network.architecture)
  return params[first]['w'].shape[2]


# Checkpoints of one run share their network, and what is compiled for it.
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
    config: resolved, in place of its config.json.
    channels: of the images that the network will see, to be checked; None: as
      many as it was trained with.
    path: of a checkpoint, in place of the newest whole one.

  Raises:
    UserError: the folder holds no run or no whole checkpoint, or that is of
      another network than the config's.
  """
  workdir = pathlib.Path(workdir)
  if config is None:
    config = config_lib.resolve(config_lib.load(workdir / 'config.json'))
  class_names = read_classes(workdir, config.model.num_classes)
  network = _network_of(config)
  size = config.data.image_size

  def expected(path: pathlib.Path, params: pretrained.Tree) -> tuple:
    try:
      seen = channels or channels_of(network, params)
    except (KeyError, IndexError) as error:
      first = graph.first_convolution(network.architecture)
      raise UserError(
        f'checkpoint {path} is of another network than config.model: it has no '
        f'convolution {first}/w'
      ) from error
    return abstract_init(network, (size, size, seen))

  path, restored = pretrained.read_run(workdir, config, path, expected)
  return make_trained(
    path,
    config,
    network,
    restored,
    class_names,
    pretrained.stored_image_shape(path),
  )
