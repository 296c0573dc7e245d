"""One training step and one evaluation step, on every device.

The state has no device axis: it enters and leaves `jax.pmap` on `None` axes.
A batch has one, of this process's devices: [D, B / D, ...].
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import ml_collections
import optax

from googlenet.input import views
from googlenet.input.augment import alternating_flips
from googlenet.input.preprocess import preprocess
from googlenet.model.network import Network
from googlenet.runtime.compilation import Options, compiled_with
from googlenet.runtime.parallel import PMAP_AXIS
from googlenet.train import finite as guard_lib
from googlenet.train import loss as loss_lib
from googlenet.train.loss import Metrics, cross_entropy, make_loss_fn
from googlenet.train.state import TrainState, update_ema

Batch = dict[str, jax.Array]


def places(batch: Batch) -> jax.Array:
  """Returns the places [B] in the global batch of what this device has."""
  batch_size = batch['label'].shape[0]
  return jax.lax.axis_index(PMAP_AXIS) * batch_size + jnp.arange(batch_size)


def drawn(
  batch: Batch,
  places: jax.Array,
  seed: jax.Array,
  step: jax.Array,
  flip: str,
) -> tuple[Batch, tuple[jax.Array, jax.Array]]:
  """Returns what is random about a step.

  Args:
    batch: a part of it, [B, ...].
    places: int [B], of its examples in the global batch: what happens to an
      image does not depend on the number of devices.
    seed: uint32 [], of the run.
    step: int32 [], steps made before this one.
    flip: of the `augment` section.

  Returns:
    The batch, with `flip` where flips alternate, and the keys [B] of
    augmentation and of dropout.
  """
  if flip == 'alternating':
    flips = alternating_flips(seed, batch['index'], batch['epoch'])
    batch = {**batch, 'flip': flips}
  step_key = jax.random.fold_in(jax.random.key(seed), step)
  augment_keys, dropout_keys = (
    jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    for key in jax.random.split(step_key)
  )
  return batch, (augment_keys, dropout_keys)


def make_gradient_step(
  network: Network,
  config: ml_collections.ConfigDict,
  image_size: int | None = None,
) -> Callable[..., tuple[hk.Params, hk.State, Metrics]]:
  """Makes the first half of a training step, for a device within a `pmap`.

  Args:
    network: the network of `config.model`.
    config: the `train`, `augment` and `data` sections are read.
    image_size: takes the place of `data.image_size`.

  Returns:
    (params, network_state, step, batch, seed, loss_scale) -> (gradients times
    loss_scale, network_state, metrics): the metrics of this device, the rest
    averaged over all of them.
  """
  loss_fn = make_loss_fn(network, config, image_size)

  def gradient_step(params, network_state, step, batch, seed, loss_scale):
    def scaled_loss_fn(*args):
      loss, auxiliary = loss_fn(*args)
      return loss * loss_scale, auxiliary

    gradients = loss_lib.make_gradient_fn(
      scaled_loss_fn, config.train.microbatches
    )
    chex.assert_rank([batch['image'], batch['label']], [4, 1])
    batch, keys = drawn(batch, places(batch), seed, step, config.augment.flip)
    network_state, (grads, metrics) = gradients(
      params, network_state, batch, keys
    )
    grads, network_state = jax.lax.pmean((grads, network_state), PMAP_AXIS)
    return grads, network_state, metrics

  return gradient_step


def make_update_step(
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  train_config: ml_collections.ConfigDict,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Makes the second half of a training step, for a device within a `pmap`.

  Returns:
    (state, *what the gradient step returns) -> (state, metrics).
  """
  policy = guard_lib.make_policy(train_config)

  def update_step(state: TrainState, grads, network_state, metrics):
    metrics = jax.lax.pmean(metrics, PMAP_AXIS)
    grads = jax.tree.map(lambda g: g / state.guard.loss_scale, grads)
    grad_norm = optax.global_norm(grads)
    losses = [value for key, value in metrics.items() if key.endswith('loss')]
    is_loss_finite = jmp.all_finite((losses, network_state))
    guard, is_applied, is_stopped = guard_lib.check_step(
      state.guard, policy, is_loss_finite, jnp.isfinite(grad_norm)
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # An update that is left out is none for the schedule either.
    num_updates = state.step - state.guard.skipped
    new = params, network_state, opt_state
    old = state.params, state.network_state, state.opt_state
    params, network_state, opt_state = jmp.select_tree(is_applied, new, old)
    metrics |= {
      'learning_rate': jnp.asarray(schedule(num_updates), jnp.float32),
      'grad_norm': grad_norm,
      'nonfinite_in_row': guard.nonfinite_in_row,
    }
    if not policy.is_default:
      metrics['skipped_steps'] = guard.skipped
    if policy.is_dynamic:
      metrics['loss_scale'] = state.guard.loss_scale
    averages = state.ema_params, state.ema_network_state
    new_averages = tuple(
      update_ema(average, new, num_updates, train_config.ema_decay)
      for average, new in zip(averages, (params, network_state), strict=True)
    )
    return TrainState(
      state.step + jnp.where(is_stopped, 0, 1),
      params,
      network_state,
      opt_state,
      guard,
      *jmp.select_tree(is_applied, new_averages, averages),
    ), metrics

  return update_step


def _as_two_programs(
  gradient_step: Callable[..., Any],
  update_step: Callable[..., Any],
  options: Options,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns (state, batch, seed) -> (state, metrics), as two programs.

  For CPUs: XLA keeps none in the compilation cache that calls oneDNN, and the
  update, with nothing of that sort, is half of the time to compile.
  """
  pmapped_gradient_step = compiled_with(
    options,
    jax.pmap(
      gradient_step,
      axis_name=PMAP_AXIS,
      in_axes=(None, None, None, 0, None, None),
      out_axes=(None, None, 0),
    ),
  )
  pmapped_update_step = compiled_with(
    (),
    jax.pmap(
      update_step,
      axis_name=PMAP_AXIS,
      in_axes=(None, None, None, 0),
      out_axes=None,
      donate_argnums=0,
    ),
  )

  def step(state: TrainState, batch: Batch, seed: jax.Array):
    gradients = pmapped_gradient_step(
      state.params,
      state.network_state,
      state.step,
      batch,
      seed,
      state.guard.loss_scale,
    )
    # Started before the gradients are there, the update makes XLA keep all
    # activations until it ends, and the next step finds no place but another.
    jax.block_until_ready(gradients)
    return pmapped_update_step(state, *gradients)

  return step


def _as_one_program(
  gradient_step: Callable[..., Any],
  update_step: Callable[..., Any],
  options: Options,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns (state, batch, seed) -> (state, metrics), as one program.

  On a GPU the state that goes in is not used up: XLA would copy each parameter
  before the update takes its place, which are a hundred kernels more. It costs
  the memory of another state for each step in flight.
  """

  def step(state: TrainState, batch: Batch, seed: jax.Array):
    gradients = gradient_step(
      state.params,
      state.network_state,
      state.step,
      batch,
      seed,
      state.guard.loss_scale,
    )
    return update_step(state, *gradients)

  pmapped = jax.pmap(
    step,
    axis_name=PMAP_AXIS,
    in_axes=(None, 0, None),
    out_axes=None,
    donate_argnums=() if jax.default_backend() == 'gpu' else 0,
  )
  return compiled_with(options, pmapped)


def make_train_step(
  network: Network,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  config: ml_collections.ConfigDict,
  is_one_program: bool | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Makes the pmapped training step.

  Args:
    network: the network of `config.model`.
    optimizer: the optimizer of `config.optimizer`.
    schedule: its learning rate, to report it.
    config: the `train`, `augment` and `data` sections are read.
    is_one_program: whether gradient and update are compiled together; None:
      yes, except on a CPU.

  Returns:
    (state, batch, seed, image_size=None) -> (state, metrics): batch holds
    `image` uint8 [D, B, H, W, C] and `label` int32 [D, B] with D local devices,
    and for flips that alternate `index` and `epoch` int32 [D, B]; seed is
    uint32 []; metrics are float32 scalars, averaged over all devices of all
    processes. The state that goes in may be used up (donated). With
    `train.on_nonfinite` 'skip' or a dynamic `train.loss_scale` they tell
    `skipped_steps` too. An image_size takes the place of `data.image_size`;
    each is compiled when it first comes.
  """
  if is_one_program is None:
    is_one_program = jax.default_backend() != 'cpu'
  assemble = _as_one_program if is_one_program else _as_two_programs
  update_step = make_update_step(optimizer, schedule, config.train)

  @functools.cache
  def step_of(image_size: int | None):
    return assemble(
      make_gradient_step(network, config, image_size),
      update_step,
      network.kernels.compiler_options,
    )

  inputs = ['image', 'label']
  if config.augment.flip == 'alternating':
    inputs += ['index', 'epoch']

  def train_step(
    state: TrainState,
    batch: Batch,
    seed: jax.Array,
    image_size: int | None = None,
  ) -> tuple[TrainState, Metrics]:
    batch = {name: batch[name] for name in inputs}
    return step_of(image_size)(state, batch, seed)

  return train_step


def score(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Metrics:
  """Returns the sums of `make_eval_step` over one device's part of a batch.

  Args:
    logits: float32 [B, K].
    labels: int32 [B].
    mask: float32 [B], 0 for padding.
  """
  # How many classes the network puts above the true one; as for argmax, the
  # lower of two classes with equal logits comes first.
  true_logit = jnp.take_along_axis(logits, labels[:, None], -1)
  is_lower = jnp.arange(logits.shape[-1]) < labels[:, None]
  above = (logits > true_logit) | ((logits == true_logit) & is_lower)
  # Nothing compares with NaN: it would rank first.
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
  """Makes the pmapped evaluation step, over the views of the `eval` section.

  Returns:
    (params, network_state, batch) -> sums over the batch of all devices:
    batch holds `image` and `label` as in training and `mask` float32 [D, B],
    0 for padding; the sums `loss`, `top_1`, `top_5` and `count` are float32
    scalars over unmasked examples. top_5 is top_K with fewer than 5 classes.
  """
  policy = jmp.get_policy(config.train.precision)

  def eval_step(params, network_state, batch):
    params = policy.cast_to_compute(params)

    def logits_of(images):
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

  pmapped = jax.pmap(
    eval_step, axis_name=PMAP_AXIS, in_axes=(None, None, 0), out_axes=None
  )
  return compiled_with(network.kernels.compiler_options, pmapped)
