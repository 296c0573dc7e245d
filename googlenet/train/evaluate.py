"""Evaluation: the step on all devices, and the scores of a data split."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet.data import batches
from googlenet.input import views
from googlenet.input.preprocess import preprocess
from googlenet.model.network import Network
from googlenet.model.precision import get_policy
from googlenet.runtime.parallel import PMAP_AXIS, parallelize, steps_in_flight
from googlenet.train.loss import Metrics, cross_entropy
from googlenet.train.step import Batch


def score(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Metrics:
  """Returns the sums of `make_eval_step` over one device's part of a batch.

  Args:
    logits: float32 [B, K].
    labels: int32 [B].
    mask: float32 [B], 0 for padding.
  """
  # Number of classes ranked above the true one. Like in argmax, the lower of
  # two classes with equal logits ranks first.
  true_logit = jnp.take_along_axis(logits, labels[:, None], -1)
  is_lower = jnp.arange(logits.shape[-1]) < labels[:, None]
  above = (logits > true_logit) | ((logits == true_logit) & is_lower)
  # Comparisons with NaN are false, so a NaN logit would rank first.
  rank = jnp.where(jnp.isfinite(true_logit[:, 0]), above.sum(-1), jnp.inf)
  sums = {
    'loss': cross_entropy(logits, labels),
    'top_1': rank < 1,
    'top_5': rank < 5,
    'count': jnp.ones_like(mask),
  }
  return jax.tree.map(lambda x: jnp.sum(jnp.where(mask > 0, x, 0.0)), sums)


def make_eval_step(
  network: Network, config: ml_collections.ConfigDict
) -> Callable[[hk.Params, hk.State, Batch], Metrics]:
  """Makes the evaluation step, which averages over the views of `eval`.

  Args:
    network: the network of `config.model`.
    config: the `train`, `data` and `eval` sections are read.

  Returns:
    (params, network_state, batch) -> sums over the batch on all devices.
    `batch` has `image` and `label` as in training, and `mask` float32 [D, B],
    0 for padding. The sums `loss`, `top_1`, `top_5` and `count` are float32
    scalars over unmasked examples. With fewer than 5 classes, top_5 counts all.
  """
  policy = get_policy(config.train.precision)

  def eval_step(params: hk.Params, network_state: hk.State, batch: Batch):
    params = policy.cast_to_compute(params)

    def logits_of(images: jax.Array) -> jax.Array:
      images = policy.cast_to_compute(preprocess(images, config.data))
      outputs, _ = network.apply(
        params, network_state, None, images, is_training=False
      )
      return policy.cast_to_output(outputs.logits)

    if views.num_views(config.eval) == 1:
      logits = logits_of(batch['image'])
    else:
      logits = views.to_logits(
        views.mean_probabilities(logits_of, batch['image'], config.eval)
      )
    sums = score(logits, batch['label'], batch['mask'])
    return jax.lax.psum(sums, PMAP_AXIS)

  return parallelize(
    eval_step,
    in_axes=(None, None, 0),
    out_axes=None,
    options=network.kernels.compiler_options,
    what='evaluation step',
    how=config.train.parallel,
  )


def evaluate(
  eval_step: Any,
  params: Any,
  network_state: Any,
  feed: batches.Pipeline,
  batch_size: int,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Scores parameters on a data set; each example counts once.

  Args:
    eval_step: made by `make_eval_step`.
    params: on every local device (see `runtime.parallel.replicated`).
    network_state: on every local device.
    feed: input pipeline of the examples.
    batch_size: images per step, over all devices.
    should_stop: called after each step; True stops the evaluation.

  Returns:
    `loss` (mean cross-entropy), `accuracy`, `top_5` and `count`; None if
    stopped.
  """
  sums, in_flight = [], steps_in_flight()
  for batch in batches.eval_batches(feed, batch_size):
    sums.append(eval_step(params, network_state, batch))
    if len(sums) > in_flight:
      jax.block_until_ready(sums[-1 - in_flight])
    if should_stop():
      return None
  return mean_scores(sums)


def mean_scores(sums: list[dict[str, Any]]) -> dict[str, float]:
  """Returns the scores of `evaluate` from the sums of each batch."""
  totals = {
    # float64, because float32 counts are exact only up to 2**24.
    key: float(np.sum([np.float64(part[key]) for part in jax.device_get(sums)]))
    for key in sums[0]
  }
  count = totals['count']
  return {
    'loss': totals['loss'] / count,
    'accuracy': totals['top_1'] / count,
    'top_5': totals['top_5'] / count,
    'count': int(count),
  }
