"""One training step on all devices.

`make_train_step` returns `train_step`, which on each device runs
`gradient_step` and then `update_step`; the latter calls `optimizer.update`. The
state is the same on every device and has no device axis. A batch has one,
[D, B, ...] for the D devices of this process; the code on a device sees only
its own part, [B, ...].
"""

import functools
from collections.abc import Callable

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import ml_collections
import optax

from googlenet.input.augment import alternating_flips
from googlenet.model.network import Network
from googlenet.runtime.parallel import PMAP_AXIS, parallelize
from googlenet.train import finite
from googlenet.train.loss import (
  Metrics,
  make_gradient_fn,
  make_loss_fn,
)
from googlenet.train.state import TrainState, is_schedule_free, update_ema

Batch = dict[str, jax.Array]


def positions(batch: Batch, is_local: bool = False) -> jax.Array:
  """Returns where this device's images are in the global batch: int32 [B].

  Args:
    batch: this device's part, [B, ...].
    is_local: whether only the devices of this process take part.
  """
  batch_size, device = batch['label'].shape[0], jax.lax.axis_index(PMAP_AXIS)
  if is_local:
    device += jax.process_index() * jax.local_device_count()
  return device * batch_size + jnp.arange(batch_size)


def drawn_from(flip: str) -> list[str]:
  """Returns the entries of a batch that `drawn` needs, by `augment.flip`."""
  numbers = ['index', 'epoch'] if flip == 'alternating' else []
  return ['image', 'label', *numbers]


def drawn(
  batch: Batch,
  positions: jax.Array,
  seed: jax.Array,
  step: jax.Array,
  flip: str,
) -> tuple[Batch, tuple[jax.Array, jax.Array]]:
  """Draws the random numbers of a step.

  They follow from the seed, the step and an image's position in the global
  batch, so they do not depend on the number of devices.

  Args:
    batch: this device's part, [B, ...].
    positions: int32 [B], places of its images in the global batch.
    seed: uint32 [], seed of the run.
    step: int32 [], steps made before this one.
    flip: `augment.flip`.

  Returns:
    The batch, with `flip` bool [B] added for alternating flips, and two arrays
    of random keys [B]: for augmentation and for dropout.
  """
  if flip == 'alternating':
    flips = alternating_flips(seed, batch['index'], batch['epoch'])
    batch = {**batch, 'flip': flips}
  step_key = jax.random.fold_in(jax.random.key(seed), step)
  augment_keys, dropout_keys = (
    jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
    for key in jax.random.split(step_key)
  )
  return batch, (augment_keys, dropout_keys)


def make_gradient_step(
  network: Network,
  config: ml_collections.ConfigDict,
  image_size: int | None = None,
) -> Callable[..., tuple[hk.Params, hk.State, Metrics]]:
  """Makes the first half of a training step, for one device.

  Args:
    network: the network of `config.model`.
    config: `optimizer.sam_rho` and the `train`, `augment` and `data` sections
      are read.
    image_size: replaces `data.image_size` if given, in pixels.

  Returns:
    (state, batch, seed) -> (gradients times the loss scale, network_state,
    metrics). All but the metrics are averaged over all devices. With SAM, only
    the gradients are those of the second pass.
  """
  loss_fn = make_loss_fn(network, config, image_size)
  distance = config.optimizer.sam_rho
  if distance:
    from googlenet.optimizer import sam  # which few runs need

  def gradient_step(state: TrainState, batch: Batch, seed: jax.Array):
    def scaled_loss_fn(*args):
      loss, auxiliary = loss_fn(*args)
      return loss * state.finite_check.loss_scale, auxiliary

    gradient_fn = make_gradient_fn(scaled_loss_fn, config.train.microbatches)
    chex.assert_rank([batch['image'], batch['label']], [4, 1])
    batch, keys = drawn(
      batch, positions(batch), seed, state.step, config.augment.flip
    )

    def gradients_at(params: hk.Params):
      network_state, (grads, metrics) = gradient_fn(
        params, state.network_state, batch, keys
      )
      grads, network_state = jax.lax.pmean((grads, network_state), PMAP_AXIS)
      return grads, network_state, metrics

    grads, *others = gradients_at(state.params)
    if distance:
      grads, *_ = gradients_at(sam.uphill(state.params, grads, distance))
    return grads, *others

  return gradient_step


def make_update_step(
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  train_config: ml_collections.ConfigDict,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Makes the second half of a training step, for one device.

  Args:
    optimizer: takes gradients averaged over devices, without the loss scale.
    schedule: its learning rate after a number of updates, for the metrics.
    train_config: the `train` section.

  Returns:
    (state, gradients, network_state, metrics) -> (state, metrics), the same on
    every device; the arguments after `state` come from the gradient step.
  """
  finite_policy = finite.make_policy(train_config)

  def update_step(state: TrainState, grads, network_state, metrics):
    metrics = jax.lax.pmean(metrics, PMAP_AXIS)
    # Divided exactly; jmp would multiply by a rounded inverse.
    grads = jax.tree.map(lambda g: g / state.finite_check.loss_scale, grads)
    grad_norm = optax.tree.norm(grads)
    losses = [value for key, value in metrics.items() if key.endswith('loss')]
    is_loss_finite = jmp.all_finite((losses, network_state))
    finite_check, is_applied, is_stopped = finite.check_step(
      state.finite_check,
      finite_policy,
      is_loss_finite,
      jnp.isfinite(grad_norm),
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Skipped updates do not advance the schedule.
    num_updates = state.step - state.finite_check.skipped
    new = params, network_state, opt_state
    old = state.params, state.network_state, state.opt_state
    params, network_state, opt_state = jmp.select_tree(is_applied, new, old)
    metrics |= {
      'learning_rate': jnp.asarray(schedule(num_updates), jnp.float32),
      'grad_norm': grad_norm,
      'nonfinite_in_row': finite_check.nonfinite_in_row,
    }
    if not finite_policy.is_default:
      metrics['skipped_steps'] = finite_check.skipped
    if finite_policy.is_dynamic:
      metrics['loss_scale'] = state.finite_check.loss_scale
    averages = state.ema_params, state.ema_network_state
    new_averages = tuple(
      update_ema(average, new, num_updates, train_config.ema_decay)
      for average, new in zip(averages, (params, network_state), strict=True)
    )
    if is_schedule_free(opt_state):
      average = optax.contrib.schedule_free_eval_params(opt_state, params)
      new_averages = average, network_state
    return TrainState(
      state.step + jnp.where(is_stopped, 0, 1),
      params,
      network_state,
      opt_state,
      finite_check,
      *jmp.select_tree(is_applied, new_averages, averages),
    ), metrics

  return update_step


def make_train_step(
  network: Network,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  config: ml_collections.ConfigDict,
  is_one_program: bool | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Makes the training step for all devices.

  On a CPU it is two programs: XLA does not cache compiled programs that call
  oneDNN, so the update, half of the compile time, is kept apart to be cached.
  On other devices it is one program.

  Args:
    network: the network of `config.model`.
    optimizer: the optimizer of `config.optimizer`.
    schedule: its learning rate, for the metrics.
    config: as for `make_gradient_step`.
    is_one_program: whether gradient and update are compiled together; None:
      yes, except on a CPU.

  Returns:
    (state, batch, seed, image_size=None) -> (state, metrics). `batch` has
    `image` uint8 [D, B, H, W, C] and `label` int32 [D, B] for D local devices,
    and for alternating flips `index` and `epoch` int32 [D, B]. `seed` is
    uint32 []. With `train.teacher` the batch has `soft_targets` too, float32
    [D, B, K]. Metrics are scalars, the same on every device: float32, loss and
    accuracy averaged over all devices of all processes, but int32
    `nonfinite_in_row` and, with `train.on_nonfinite` 'skip' or a dynamic
    `train.loss_scale`, `skipped_steps`. The input state may be donated.
    `image_size` replaces `data.image_size`; each size is compiled at its first
    use.
  """
  if is_one_program is None:
    is_one_program = jax.default_backend() != 'cpu'
  how = config.train.parallel
  update_step = make_update_step(optimizer, schedule, config.train)
  update = parallelize(
    update_step,
    in_axes=(None, None, None, 0),
    out_axes=None,
    donate_argnums=0,
    what='update of the parameters',
    how=how,
  )

  @functools.cache
  def program_for(image_size: int | None):
    """Returns the gradient step, or the whole step if it is one program."""
    gradient_step = make_gradient_step(network, config, image_size)
    pixels = f' for {image_size} pixels' if image_size else ''
    common = {
      'in_axes': (None, 0, None),
      'options': network.kernels.compiler_options,
      'what': f'training step{pixels}',
      'how': how,
    }
    if not is_one_program:
      return parallelize(gradient_step, out_axes=(None, None, 0), **common)

    def whole_step(state: TrainState, batch: Batch, seed: jax.Array):
      return update_step(state, *gradient_step(state, batch, seed))

    # On a GPU the input state is not donated: XLA would copy each parameter
    # before overwriting it, a hundred more kernels. The cost is the memory of
    # another state for each step in flight.
    donated = () if jax.default_backend() == 'gpu' else 0
    return parallelize(
      whole_step, out_axes=None, donate_argnums=donated, **common
    )

  inputs = drawn_from(config.augment.flip)
  inputs += ['soft_targets'] if config.train.teacher else []

  def train_step(
    state: TrainState,
    batch: Batch,
    seed: jax.Array,
    image_size: int | None = None,
  ) -> tuple[TrainState, Metrics]:
    batch = {name: batch[name] for name in inputs}
    out = program_for(image_size)(state, batch, seed)
    if is_one_program:
      return out
    # If the update starts before the gradients are ready, XLA keeps all
    # activations until it ends, and the next step allocates memory for its own.
    jax.block_until_ready(out)
    return update(state, *out)

  return train_step
