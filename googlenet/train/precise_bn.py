"""Precise BN: re-estimates batch-norm statistics for the current parameters.

Running statistics mix those of many past steps, and no step ever ran with the
averaged (EMA) parameters: Izmailov et al., 2018, arXiv 1803.05407, section 3.2;
Wu and Johnson, 2021, arXiv 2105.07576, section 3.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections

from googlenet.data import pipeline
from googlenet.data.batches import Pipeline, TrainIndices
from googlenet.input.preprocess import preprocess
from googlenet.model.network import make_network
from googlenet.model.precision import get_policy
from googlenet.runtime.parallel import PMAP_AXIS, parallelize
from googlenet.runtime.progress import counted
from googlenet.train.step import Batch


def make_statistics_step(
  config: ml_collections.ConfigDict,
) -> Callable[[hk.Params, hk.State, Batch, jax.Array], hk.State]:
  """Makes the step that adds the statistics of one batch to a running mean.

  Images are not augmented, and dropout and stochastic depth are off, as in
  evaluation.

  Args:
    config: the `model`, `finetune`, `train` and `data` sections are read.

  Returns:
    (params, mean, batch, count) -> the mean over `count` + 1 batches.
    Variances are unbiased. `batch` has `image` uint8 [D, B, H, W, C] for D
    local devices; `count` is float32 []. Frozen layers keep their statistics.
  """
  policy = get_policy(config.train.precision)
  model = ml_collections.ConfigDict(config.model.to_dict())
  # With decay 0 the new statistics are those of this batch alone.
  model.batch_norm_decay = 0.0
  network = make_network(
    model, policy.compute_dtype, config.finetune.frozen, drops=False
  )

  def statistics_step(params, mean, batch, count):
    images = preprocess(batch['image'], config.data)
    params, images = policy.cast_to_compute((params, images))
    _, new = network.apply(
      params, mean, None, images, is_training=True, axis_name=PMAP_AXIS
    )
    new = jax.lax.pmean(new, PMAP_AXIS)

    def mean_of(old: jax.Array, new: jax.Array) -> jax.Array:
      # The first batch replaces the mean exactly, without rounding.
      return jnp.where(count == 0, new, old + (new - old) / (count + 1))

    return jax.tree.map(mean_of, mean, new)

  return parallelize(
    statistics_step,
    in_axes=(None, None, 0, None),
    out_axes=None,
    options=network.kernels.compiler_options,
    what='batch-norm statistics',
    how=config.train.parallel,
  )


def estimate(
  statistics_step: Callable[..., hk.State],
  params: hk.Params,
  network_state: hk.State,
  feed: Pipeline,
  config: ml_collections.ConfigDict,
) -> hk.State:
  """Returns batch-norm statistics over `eval.batch_norm_batches` batches.

  These are always the first batches of epoch 0 (at most all of them), so the
  result does not depend on when and how often it is computed.

  Args:
    statistics_step: made by `make_statistics_step`.
    params: on every local device.
    network_state: on every local device; the statistics of frozen layers stay.
    feed: input pipeline of the training data without augmentation.
    config: `eval.batch_norm_batches`, `train.batch_size` and `seed` are read.
  """
  num_examples, size = feed.dataset.num_examples, config.train.batch_size
  num_batches = min(config.eval.batch_norm_batches, num_examples // size)
  indices = TrainIndices(config.seed, num_examples, size, 0, num_batches)
  with contextlib.closing(feed.batches(indices)) as batches:
    shown = counted(batches, num_batches, 'batch-norm statistics', 'batches')
    for count, batch in enumerate(shown):
      network_state = jax.block_until_ready(
        statistics_step(
          params, network_state, {'image': batch['image']}, jnp.float32(count)
        )
      )
  return network_state


def make_statistics(
  config: ml_collections.FrozenConfigDict, train: Pipeline | None = None
) -> tuple[Any, Pipeline | None]:
  """Makes the step of precise BN and its input pipeline.

  Args:
    config: resolved.
    train: input pipeline of the training data, if already loaded.

  Returns:
    The step, and a pipeline of training images without random crops; or
    (None, None) if `eval.batch_norm_batches` is 0.
  """
  if not config.eval.batch_norm_batches:
    return None, None
  # With random crops, the images are read again without them, and streamed:
  # storing the whole set on the devices does not pay for a few batches.
  is_cropped = config.augment.random_resized_crop
  if train is None or is_cropped:
    split = pipeline.load_split(config, 'train_split', is_augmented=False)
    train = pipeline.make_pipeline(
      config, split, on_device_mb=0 if is_cropped else None
    )
  return make_statistics_step(config), train
