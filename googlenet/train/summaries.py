"""Input images and parameter histograms for TensorBoard.

Both depend only on the training state and the step number.
"""

import contextlib
import functools
import math
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
import optax
from tensorboardX import summary
from tensorboardX.proto import summary_pb2

from googlenet.data import batches, sources, stream
from googlenet.errors import UserError
from googlenet.io import checkpoint
from googlenet.train.hooks import Metrics, Session
from googlenet.train.loss import make_inputs
from googlenet.train.state import TrainState
from googlenet.train.step import drawn

_NUM_BINS = 60  # TensorBoard shows 30
_BORDER = 2  # pixels between images
# Names of the running means of gradients in optax states.
_MOMENTA = ('trace', 'mu', 'm', 'm1')


def make_show_inputs(
  config: ml_collections.FrozenConfigDict, dataset: sources.Dataset
) -> Callable[[batches.IndexBatch, int], summary_pb2.Summary]:
  """Makes the function that renders the input images of a step.

  They are augmented and preprocessed as in training; then the normalization is
  undone.

  Args:
    config: resolved; `logging.images` is the number of images.
    dataset: the training set.

  Returns:
    (indices of the step's global batch, steps made before it, its image size
    or None for `data.image_size`) -> a summary 'inputs': a grid of the first
    images of the batch.
  """
  read = stream.ReadPart(dataset)

  @functools.partial(jax.jit, static_argnames='image_size')
  def as_seen(batch, seed, step, image_size):
    positions = jax.numpy.arange(len(batch['image']))
    batch, (keys, _) = drawn(batch, positions, seed, step, config.augment.flip)
    return make_inputs(batch, keys, config, image_size)[0]

  def show_inputs(
    batch: batches.IndexBatch, step: int, image_size: int | None
  ) -> summary_pb2.Summary:
    count = config.logging.images
    part = batch.part(0, count + count % 2)  # mixing takes pairs
    images, labels = read(part)
    first = {
      'image': images,
      'label': labels,
      'index': part.indices.astype(np.int32),
      'epoch': np.full(len(part.indices), part.epoch, np.int32),
    }
    seen = as_seen(first, np.uint32(config.seed), np.int32(step), image_size)
    seen = seen[:count]
    pixels = np.asarray(seen) * np.float32(config.data.std)
    return image('inputs', grid(pixels + np.float32(config.data.mean)))

  return show_inputs


def grid(images: np.ndarray) -> np.ndarray:
  """Puts images side by side, in rows, with white lines between them.

  Args:
    images: float [N, H, W, C], black 0 and white 1.

  Returns:
    uint8 [rows * (H + 2) + 2, columns * (W + 2) + 2, C], where `columns` is
    the square root of N, rounded up. Empty places are white.
  """
  count, height, width, channels = images.shape
  columns = math.isqrt(count - 1) + 1
  rows = -(-count // columns)
  height, width = height + _BORDER, width + _BORDER
  page = np.full(
    (rows * height + _BORDER, columns * width + _BORDER, channels),
    255,
    np.uint8,
  )
  pixels = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
  for place, one in enumerate(pixels):
    row, column = divmod(place, columns)
    top, left = row * height + _BORDER, column * width + _BORDER
    page[top : top + one.shape[0], left : left + one.shape[1]] = one
  return page


def image(tag: str, pixels: np.ndarray) -> summary_pb2.Summary:
  """Returns pixels uint8 [H, W, C] as a PNG for TensorBoard."""
  return summary.image(tag, pixels, dataformats='HWC')


def histograms(state: TrainState) -> summary_pb2.Summary:
  """Returns histograms of each parameter and of its momentum.

  Names are like `parameters/inception_3a/conv_3x3/w` and
  `momentum/inception_3a/conv_3x3/w`. Momentum is the optimizer's running mean
  or sum of gradients, if it has one. Non-finite numbers are left out.

  Args:
    state: NumPy arrays.
  """
  trees = [('parameters', state.params)]
  for name in _MOMENTA:
    found = optax.tree_utils.tree_get_all_with_path(state.opt_state, name)
    trees += [('momentum', tree) for _, tree in found]
  values = []
  for name, tree in trees:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for path, leaf in leaves:
      tag = '/'.join([name, *(str(part.key) for part in path)])
      finite = leaf[np.isfinite(leaf)]
      if finite.size:
        values += summary.histogram(tag, finite, _NUM_BINS).value
  return summary_pb2.Summary(value=values)


class Show:
  """A hook that writes images of inputs and histograms for TensorBoard."""

  def __init__(self, session: Session):
    self._session, config = session, session.run.config
    self._show_inputs = None
    if config.logging.images and session.writer.has_tensorboard:
      self._show_inputs = make_show_inputs(config, session.run.train.dataset)

  def __call__(
    self, step: int, state: TrainState, metrics: Metrics
  ) -> TrainState:
    """Writes the images and histograms that are due at the end of an epoch."""
    del metrics
    session, run = self._session, self._session.run
    if not run.is_epoch_end(step) or session.progress.is_epoch_pending:
      return state
    with session.stopwatch.paused():
      self.inputs(step)
      is_due = run.ends_epochs(step, run.config.logging.histograms)
      if is_due and session.writer.has_tensorboard:
        shown = histograms(checkpoint.to_host(state))
        session.writer.write_summary(step, shown)
    return state

  def inputs(self, step: int) -> None:
    """Writes the input images of the next step, if they can be read."""
    run = self._session.run
    if self._show_inputs and step < run.durations.num_steps:
      (batch,) = run.indices(step, step + 1)
      # The step will tell which image cannot be read, after the checkpoint of
      # this one.
      with contextlib.suppress(UserError):
        shown = self._show_inputs(batch, step, run.image_size(step + 1))
        self._session.writer.write_summary(step, shown)
