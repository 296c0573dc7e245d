"""Finds the layer where NaN or infinity came from, on the batch that failed."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from googlenet.data.stream import IndexBatch
from googlenet.io.metrics import NonFiniteError
from googlenet.model import graph
from googlenet.model.precision import get_policy
from googlenet.model.rows import Architecture
from googlenet.runtime.parallel import PMAP_AXIS, parallelize
from googlenet.train import loss as loss_lib
from googlenet.train import step as step_lib
from googlenet.train.setup import Run
from googlenet.train.state import TrainState


def layer_names(architecture: Architecture) -> list[str]:
  """Returns the names of rows and heads in forward order, 'logits' last."""
  rows = (layer.row for layer in graph.graph(architecture))
  return list(dict.fromkeys([*filter(None, rows), 'logits']))


def first_bad(order: list[str], bad: set[str]) -> str:
  """Returns the first bad layer in `order`, else the first by name, or ''."""
  rest = sorted(bad - set(order))
  return next((name for name in [*order, *rest] if name in bad), '')


def _bad_layers(tree: Any) -> set[str]:
  """Returns the layers with an array that is not finite."""
  return {
    module.split('/')[0]
    for module, leaves in jax.device_get(tree).items()
    for leaf in leaves.values()
    if not _is_finite(leaf)
  }


def located(
  error: NonFiniteError, run: Run, state: TrainState
) -> NonFiniteError:
  """Returns the error with the first non-finite layer added, if found."""
  try:
    where = find(
      run,
      state,
      error.step,
      run.indices(error.step - 1, error.step),
      run.image_size(error.step),
    )
  except jax.errors.JaxRuntimeError:  # the search needs more memory than a step
    where = ''
  if not where:
    return error
  return NonFiniteError(error.step, error.name, error.value, f' ({where})')


def find(
  run: Any,
  state: TrainState,
  step: int,
  indices: Sequence[IndexBatch],
  image_size: int | None = None,
) -> str:
  """Returns a phrase that names the first layer with a non-finite value.

  Args:
    run: a `setup.Run`.
    state: the state before the step.
    step: number of the failed step; the first step is 1.
    indices: the images of its batch.
    image_size: image size of this step; None: `data.image_size`.

  Returns:
    The phrase; '' if all is finite in this process's part of the batch. That
    part is computed as one batch, without microbatches and the second pass of
    SAM.
  """
  order = layer_names(run.network.architecture)
  for what, tree in (
    ('a parameter', state.params),
    ('a running statistic', state.network_state),
  ):
    if name := first_bad(order, _bad_layers(tree)):
      return f'first {what} of {name}'
  if int(state.step) != step - 1:
    return ''  # the state belongs to another step and explains nothing
  (batch,) = run.train.batches(indices)
  if run.soft_targets:
    batch = run.soft_targets(
      *jax.device_get((batch, np.uint32(run.config.seed), state.step)),
      image_size,
      is_local=True,
    )
  outputs, grads = _outputs_and_gradients(run, state, batch, image_size)
  bad = {name for name in outputs if not _is_finite(outputs[name])}
  if name := first_bad(order, bad & set(order)):
    return f'first the output of {name}'
  # Backpropagation runs from the last layer to the first.
  if name := first_bad(order[::-1], _bad_layers(grads)):
    return f'every output is finite, first the gradient of {name} is not'
  return ''


def _is_finite(array: Any) -> bool:
  # np.isfinite does not support bfloat16.
  return bool(np.isfinite(np.asarray(array, np.float32)).all())


def _outputs_and_gradients(
  run: Any, state: TrainState, batch: step_lib.Batch, image_size: int | None
) -> tuple[dict[str, jax.Array], Any]:
  """Returns end points and scaled gradients [D, ...] for the local devices."""
  config = run.config
  policy = get_policy(config.train.precision)
  loss_fn = loss_lib.make_loss_fn(run.network, config, image_size)
  names = tuple(graph.end_points(graph.graph(run.network.architecture)))

  def compute(params, network_state, loss_scale, step, batch):
    batch, keys = step_lib.drawn(
      batch,
      step_lib.positions(batch, is_local=True),
      np.uint32(config.seed),
      step,
      config.augment.flip,
    )

    def loss(params):
      value, _ = loss_fn(params, network_state, batch, keys)
      return value * loss_scale

    grads = jax.grad(loss)(params)
    images, _ = loss_lib.make_inputs(batch, keys[0], config, image_size)
    params, images = policy.cast_to_compute((params, images))
    outputs, _ = run.network.apply(
      params,
      network_state,
      keys[1],
      images,
      is_training=True,
      axis_name=PMAP_AXIS,
      end_points=names,
    )
    return {
      **outputs.end_points,
      **outputs.aux_logits,
      'logits': outputs.logits,
    }, grads

  # Other processes may have ended: use only the devices of this process, and
  # copy arrays that span all processes to the host first.
  step = parallelize(
    compute,
    in_axes=(None, None, None, None, 0),
    how=config.train.parallel,
    is_local=True,
  )
  return jax.device_get(
    step(
      *jax.device_get(
        (
          state.params,
          state.network_state,
          state.finite_check.loss_scale,
          state.step,
          batch,
        )
      )
    )
  )
