"""Which examples a training step takes: each once, or each class as often."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from googlenet.data.batches import TrainIndices
from googlenet.data.classes import read_labels
from googlenet.data.sources import Dataset
from googlenet.data.stream import IndexBatch

# Keep these random numbers apart from each other and from those of crops.
_TURNS, _MEMBERS = 1_953_854_067, 1_835_363_698


def train_indices(
  config: ml_collections.FrozenConfigDict,
  dataset: Dataset,
  start: int,
  stop: int,
) -> Sequence[IndexBatch]:
  """Returns the index batches of the steps `start` + 1 to `stop`.

  Args:
    config: resolved; `seed`, `train.batch_size` and `train.sampling` are read.
    dataset: the training images. Balanced sampling needs their labels; a source
      that does not keep them apart (TFDS) is read once for them.
    start: steps made before.
    stop: the last step.
  """
  batch_size = config.train.batch_size
  if config.train.sampling == 'balanced':
    labels = read_labels(dataset)
    return BalancedIndices(config.seed, labels, batch_size, start, stop)
  count = dataset.num_examples
  return TrainIndices(config.seed, count, batch_size, start, stop)


class BalancedIndices(TrainIndices):
  """Index batches that have each class equally often.

  Classes take turns: K examples in a row are of K classes, in a random order.
  At the end of each epoch no class has come more than once more often than
  another. An epoch has as many steps as without balancing. The members of a
  class come in a random order, all of them before any comes again, then in
  another order.

  Like `TrainIndices`, a function of the seed and the step alone. Examples come
  several times in an epoch, so `IndexBatch.epoch` is, for each example, how
  often it has come before: random crops and flips differ from time to time.
  """

  def __init__(
    self, seed: int, labels: np.ndarray, batch_size: int, start: int, stop: int
  ):
    """Covers the steps start to stop - 1, counted from 0.

    Args:
      seed: of the run.
      labels: int [N], of all training examples; classes without any are left
        out.
      batch_size: examples per step.
      start: the first step.
      stop: the step after the last.
    """
    super().__init__(seed, len(labels), batch_size, start, stop)
    order = np.argsort(labels, kind='stable').astype(np.int32)
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    self._members = np.split(order, ends)  # indices by class

  def order(self, epoch: int) -> IndexBatch:
    """Returns the examples of an epoch: both arrays int32, as long as it."""
    num_classes = len(self._members)
    length = self._num_examples // self._batch_size * self._batch_size
    places = np.arange(length)
    # Shuffled within each K in a row.
    rng = np.random.default_rng([_TURNS, self._seed, epoch])
    places = np.lexsort((rng.random(length), places // num_classes))
    turns, classes = np.divmod(epoch * length + places, num_classes)
    indices, passes = np.empty((2, length), np.int32)
    by_class = np.split(
      np.argsort(classes, kind='stable'),
      np.cumsum(np.bincount(classes, minlength=num_classes))[:-1],
    )
    for k, (members, taken) in enumerate(
      zip(self._members, by_class, strict=True)
    ):
      passes[taken], ranks = np.divmod(turns[taken], len(members))
      for number in np.unique(passes[taken]):
        rng = np.random.default_rng([_MEMBERS, self._seed, k, int(number)])
        now = passes[taken] == number
        indices[taken[now]] = rng.permutation(members)[ranks[now]]
    return IndexBatch(indices, passes)
