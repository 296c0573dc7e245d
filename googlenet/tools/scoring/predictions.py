"""Predictions of trained networks for a whole split."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from googlenet.data import batches, images, pipeline, sources
from googlenet.tools.inference.trained import Trained
from googlenet.tools.scoring import multi_crop

Config = ml_collections.FrozenConfigDict


class Predictions(NamedTuple):
  """What networks say of a split.

  Attributes:
    dataset: the split.
    probabilities: float32 [N, K], in the order of the split.
    labels: int32 [N].
  """

  dataset: sources.Dataset
  probabilities: np.ndarray
  labels: np.ndarray


def predict_split(
  config: Config,
  members: list[Trained],
  after_batch: Callable[[int], None] = lambda count: None,
) -> Predictions:
  """Predicts `data.eval_split`, averaged over crops and networks.

  The data is read once for each size of `eval.crops`. The probabilities of all
  examples stay in memory: 4 bytes x examples x classes.

  Args:
    config: its `data` and `eval` sections count for all members.
    members: that see the same images.
    after_batch: is told how many images are done, of all sizes together.

  Returns:
    The same in every process.

  Raises:
    UserError: the data is not usable.
  """
  protocol = multi_crop.PROTOCOLS.get(config.eval.crops)
  transforms = [None]
  if protocol:
    sides = multi_crop.square_sides(protocol, config.data.image_size)
    transforms = [images.Squares(s, protocol.num_squares) for s in sides]
  # Members of one network share the program: parameters are its arguments.
  steps = {
    id(member.network): multi_crop.make_predict_step(
      member.network, member.config, config.eval, protocol
    )
    for member in members
  }
  total, labels, done = 0.0, None, 0
  for transform in transforms:
    dataset = pipeline.load_split(config, 'eval_split', transform)
    feed = pipeline.make_feed(config, dataset)
    parts, answers = [], []
    for batch in batches.eval_batches(feed, config.eval.batch_size):
      probabilities = sum(
        np.asarray(
          steps[id(member.network)](
            member.params, member.network_state, batch['image']
          )
        )
        for member in members
      )
      is_real, probabilities, label = _everywhere(
        batch['mask'], probabilities, batch['label']
      )
      parts.append(probabilities[is_real > 0])
      answers.append(label[is_real > 0])
      done += len(answers[-1])
      after_batch(done)
    total = total + np.concatenate(parts)
    labels = np.concatenate(answers)
  count = np.float32(len(transforms) * len(members))
  return Predictions(
    pipeline.load_split(config, 'eval_split'), total / count, labels
  )


def _everywhere(*arrays: jax.Array) -> Iterator[np.ndarray]:
  """Yields [B, ...] of all devices and processes for [D, B / D, ...] here."""
  if jax.process_count() > 1:
    arrays = multihost_utils.process_allgather(arrays)
    arrays = [x.reshape(-1, *x.shape[2:]) for x in arrays]
  for x in arrays:
    yield np.asarray(x).reshape(-1, *x.shape[2:])
