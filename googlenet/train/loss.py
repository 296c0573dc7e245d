"""The loss of a batch and its gradient: pure functions on one device."""

from collections.abc import Callable

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import optax

from googlenet.input import mixing
from googlenet.input.augment import augment
from googlenet.input.preprocess import preprocess
from googlenet.model.network import Network
from googlenet.model.precision import get_policy
from googlenet.runtime.parallel import PMAP_AXIS

Metrics = dict[str, jax.Array]


def cross_entropy(
  logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
  """Returns the float32 [B] loss of logits [B, K] against int labels [B]."""
  chex.assert_rank([logits, labels], [2, 1])
  targets = optax.smooth_labels(
    jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing
  )
  return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def make_inputs(
  batch: dict[str, jax.Array],
  keys: jax.Array,
  config: ml_collections.ConfigDict,
  image_size: int | None = None,
) -> tuple[jax.Array, mixing.Mixed | None]:
  """Augments, preprocesses and mixes the images of a training batch.

  `augment` works on stored pixels, uint8 at native size; `mix`, which comes
  after `preprocess`, on normalized images of the network's input size.

  Args:
    batch: as for `make_loss_fn`.
    keys: [B] keys for augmentation.
    config: the `augment` and `data` sections are read.
    image_size: replaces `data.image_size` if given, in pixels.

  Returns:
    Images float32 [B, S, S, C], and how they were mixed; None if not mixed.
  """
  images = augment(
    batch['image'], keys, config.augment, config.data.mean, batch.get('flip')
  )
  images = preprocess(images, config.data, image_size)
  if not mixing.is_on(config.augment):
    return images, None
  mixed = mixing.mix(images, batch['label'], keys, config.augment)
  return mixed.images, mixed


def make_loss_fn(
  network: Network,
  config: ml_collections.ConfigDict,
  image_size: int | None = None,
) -> Callable[..., tuple[jax.Array, tuple[hk.State, Metrics]]]:
  """Returns the loss function for a (micro)batch.

  Args:
    network: the network of `config.model`.
    config: the `train`, `augment` and `data` sections are read.
    image_size: replaces `data.image_size` if given, in pixels.

  Returns:
    (params, network_state, batch, keys) -> (loss, (network_state, metrics)).
    `batch` has `image`, `label` and, for alternating flips, `flip` bool [B].
    `keys` is a pair of [B] keys: for augmentation and for dropout. For mixed
    images, loss and accuracy are averaged over both labels, weighted by share.
    `soft_targets` float32 [B, K], if any, take `train.teacher_weight` of it.
    The loss is that of the logits plus `train.aux_loss_weight` times that of
    each auxiliary head. Metrics are float32 [], over this device's images:
    `loss` (of the logits alone), `accuracy`, and `<head>_loss` of each head.
  """
  policy = get_policy(config.train.precision)
  weights = jnp.asarray(config.train.class_weights, jnp.float32)

  def weigh(losses, labels):
    return losses * weights[labels] if weights.size else losses

  def loss_fn(params, network_state, batch, keys):
    augment_keys, dropout_keys = keys
    labels = batch['label']
    images, mixed = make_inputs(batch, augment_keys, config, image_size)
    params, images = policy.cast_to_compute((params, images))
    outputs, network_state = network.apply(
      params,
      network_state,
      dropout_keys,
      images,
      is_training=True,
      axis_name=PMAP_AXIS,
    )

    def of_labels(function):
      """Applies a function to the labels, averaged over both if mixed."""
      if mixed is None:
        return function(labels)
      return mixed.average(function(labels), function(mixed.partners))

    def mean_loss(logits):
      logits = policy.cast_to_output(logits)
      smoothing = config.train.label_smoothing
      hard = of_labels(
        lambda y: weigh(cross_entropy(logits, y, smoothing), y)
      ).mean()
      if 'soft_targets' not in batch:
        return hard
      # Hinton et al., 2015, section 2: T^2 keeps the size of the gradient.
      share, t = config.train.teacher_weight, config.train.teacher_temperature
      log_p = jax.nn.log_softmax(logits / t)
      soft = optax.losses.kl_divergence(log_p, batch['soft_targets']).mean()
      return (1 - share) * hard + share * t**2 * soft

    loss = mean_loss(outputs.logits)
    predicted = jnp.argmax(outputs.logits, -1)
    hits = of_labels(lambda y: predicted == y)
    metrics = {'loss': loss, 'accuracy': hits.mean()}
    # Szegedy et al., 2014, section 5: each head adds 0.3 times its loss.
    for name, logits in outputs.aux_logits.items():
      metrics[f'{name}_loss'] = aux_loss = mean_loss(logits)
      loss += config.train.aux_loss_weight * aux_loss
    return loss, (network_state, metrics)

  return loss_fn


def make_gradient_fn(
  loss_fn: Callable[..., tuple[jax.Array, tuple[hk.State, Metrics]]],
  num_parts: int,
) -> Callable[..., tuple[hk.State, tuple[hk.Params, Metrics]]]:
  """Returns the gradient function, averaged over microbatches.

  `optax.MultiSteps` would make each microbatch a training step of its own, and
  does not pass the network's state from one to the next.

  Args:
    loss_fn: made by `make_loss_fn`.
    num_parts: microbatches, computed one after another to save memory.

  Returns:
    (params, network_state, batch, keys) -> (network_state, (gradients,
    metrics)).
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

  def part(params, network_state, batch, keys):
    (_, (network_state, metrics)), grads = grad_fn(
      params, network_state, batch, keys
    )
    return network_state, (grads, metrics)

  if num_parts == 1:
    return part

  def parts(params, network_state, batch, keys):
    inputs = jax.tree.map(
      lambda x: x.reshape(num_parts, -1, *x.shape[1:]), (batch, keys)
    )

    def add(carry, inputs):
      network_state, sums = carry
      network_state, new = part(params, network_state, *inputs)
      return (network_state, jax.tree.map(jnp.add, sums, new)), None

    first = jax.tree.map(lambda x: x[0], inputs)
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(part, params, network_state, *first)[1],
    )
    (network_state, sums), _ = jax.lax.scan(add, (network_state, zeros), inputs)
    return network_state, jax.tree.map(lambda x: x / num_parts, sums)

  return parts
