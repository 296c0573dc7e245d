"""Predictions of trained networks for a whole split."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from googlenet import config as config_lib
from googlenet.data import batches, classes, images, pipeline, sources
from googlenet.data.splits import resolve_split, split_names, trained_on
from googlenet.io import pretrained
from googlenet.runtime.terminal import warn
from googlenet.tools.inference import predict
from googlenet.tools.inference.apply import PROBABILITIES
from googlenet.tools.inference.trained import Trained
from googlenet.train import precise_bn

Config = ml_collections.FrozenConfigDict


class Predictions(NamedTuple):
  """Predicted probabilities of a whole split, and its labels.

  Attributes:
    dataset: the split.
    probabilities: float32 [N, K], in the order of the split.
    labels: int32 [N].
  """

  dataset: sources.Dataset
  probabilities: np.ndarray
  labels: np.ndarray


def predict_split(config: Config, members: list[Trained]) -> Predictions:
  """Predicts `data.eval_split`, averaged over views and networks.

  The data is read once for each size of crops (`eval.crops`). The
  probabilities of all examples stay in memory: 4 bytes x examples x classes.

  Args:
    config: its `data` and `eval` sections are used for all members.
    members: networks that take the same images.

  Returns:
    The predictions, the same in every process.

  Raises:
    UserError: the data is missing or does not fit the config.
  """
  views = predict.views_of(config.eval)
  passes = views.inputs(config.data.image_size)
  steps = [member.step_of(views) for member in members]

  def step(images: jax.Array) -> list[jax.Array]:
    return [of_member(images)[PROBABILITIES] for of_member in steps]

  total, labels = 0.0, None
  for squares in passes:
    dataset = load_split(config, members[0], squares)
    inputs = pipeline.make_pipeline(config, dataset)
    parts, answers = [], []
    for batch, found in predict.run_batches(
      step,
      (
        predict.Batch(batch, batch['image'])
        for batch in batches.eval_batches(inputs, config.eval.batch_size)
      ),
    ):
      is_real, label = (
        np.asarray(batch[name]).reshape(-1) for name in ('mask', 'label')
      )
      is_real, label, probabilities = everywhere(is_real, label, sum(found))
      parts.append(probabilities[is_real > 0])
      answers.append(label[is_real > 0])
    total = total + np.concatenate(parts)
    labels = np.concatenate(answers)
  count = np.float32(len(passes) * len(members))
  return Predictions(load_split(config, members[0]), total / count, labels)


def load_split(
  config: Config, member: Trained, squares: images.Squares | None = None
) -> sources.Dataset:
  """Opens `data.eval_split`, with the labels of a network.

  Raises:
    UserError: the data cannot be read, or has classes that the network does
      not know.
  """
  dataset = pipeline.load_split(config, 'eval_split', squares)
  is_checkpoint = os.path.isfile(member.path)
  stored = pretrained.stored_data(member.path) if is_checkpoint else {}
  if dataset.identity is None and stored.get('name') == dataset.name:
    return dataset  # classes.txt may have other names for them
  names = tuple(stored.get('classes', ()))
  if set(dataset.class_names) <= set(names):
    return classes.with_classes(dataset, names)
  return classes.with_classes(dataset, member.class_names)


def warn_of_training_images(
  config: Config, dataset: sources.Dataset, paths: Sequence[os.PathLike[str]]
) -> None:
  """Warns if networks were trained on images that they are scored on.

  Other data, and a run that does not tell its data, cause no warning.

  Args:
    config: that `dataset` was opened with.
    dataset: `data.eval_split`.
    paths: of the networks' checkpoints.
  """
  _, source = sources.open_source(config.data)
  for stored in map(pretrained.stored_data, paths):
    split = stored.get('split', '')  # parameters that were imported lack it
    is_there = set(split_names(split)) <= source.split_sizes.keys()
    if not is_there or not _is_of(dataset, stored):
      continue
    called = f'config.data.eval_split={dataset.split!r}'
    trained = resolve_split(split, source.split_sizes)
    if told := trained_on(dataset.parts, called, trained, split):
      warn(told)
      return


def _is_of(dataset: sources.Dataset, stored: Mapping[str, Any]) -> bool:
  """Whether a split is of the data set that `stored_data` describes."""
  if dataset.identity:
    return stored.get('files') == dataset.identity.sha256
  return stored.get('name') == dataset.name


def everywhere(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
  """Gathers arrays of P processes: [B / P, ...] become [B, ...]."""
  if jax.process_count() == 1:
    return arrays
  gathered = multihost_utils.process_allgather(arrays)
  return tuple(np.asarray(x).reshape(-1, *x.shape[2:]) for x in gathered)


def with_statistics(member: Trained) -> Trained:
  """Applies precise BN if the config asks for it, as in training.

  Raises:
    UserError: the training data cannot be read or does not fit the config.
  """
  config = member.config
  step, inputs = precise_bn.make_statistics(config)
  if step is None:
    return member
  num_examples = inputs.dataset.num_examples
  config_lib.durations(config.train, num_examples, jax.device_count())
  network_state = precise_bn.estimate(
    step, member.params, member.network_state, inputs, config
  )
  return member._replace(network_state=network_state)
