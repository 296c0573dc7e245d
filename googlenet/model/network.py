"""A network as a pair of pure functions, made from layer specs.

Images and end points are [B, H, W, C]. Parameters are named after the paper:

  conv_1/conv_7x7                  stage 1
  conv_2/conv_3x3_reduce, conv_3x3 stage 2
  inception_3a/conv_1x1            first branch
  inception_3a/conv_3x3_reduce, conv_3x3
  inception_3a/conv_5x5_reduce, conv_5x5
  inception_3a/pool_proj           last branch
  ... inception_3b, 4a to 4e, 5a, 5b
  aux_1/conv_1x1, fc, logits       auxiliary heads, if any
  logits                           w [1024, num_classes], b [num_classes]

The names are stable: checkpoints and weight import rely on them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections

from googlenet.kernels import Kernels, select_kernels
from googlenet.model import modules, points, rows, variants
from googlenet.model.context import Context, is_within
from googlenet.model.precision import get_policy
from googlenet.model.taps import Edit


class Outputs(NamedTuple):
  """The outputs of a network, the same type in training and evaluation."""

  logits: jax.Array  # [B, num_classes]
  aux_logits: dict[str, jax.Array]  # by head name; empty without heads
  end_points: dict[str, jax.Array]  # those that were asked for, by name


class Network(NamedTuple):
  """A network: two pure functions, and what they were made from.

  Attributes:
    init: (rng, float images [B, H, W, C]) -> (params, network_state), including
      auxiliary heads.
    apply: (params, network_state, keys, images, is_training,
      end_points=(), axis_name=None, edit=None) -> (Outputs, network_state).
      `keys` [B], one per image, are needed for training with dropout or
      stochastic depth. `end_points` are names of `points`, and `edit` maps such
      names to functions whose result replaces the map [B, H, W, C] of that
      point. `axis_name` is the mapped axis over which batch norm averages in
      training.
    architecture: the layer specs, returned by `variants.resolve`.
    num_classes: number of logits of each head.
    context: settings shared by its layers.
  """

  init: Callable[..., tuple[hk.Params, hk.State]]
  apply: Callable[..., tuple[Outputs, hk.State]]
  architecture: rows.Architecture
  num_classes: int
  context: Context

  @property
  def kernels(self) -> Kernels:
    """The kernel set of the primitive operations."""
    return self.context.kernels


def make_network(
  model_config: ml_collections.ConfigDict,
  dtype: jnp.dtype = jnp.float32,
  frozen: Sequence[str] = (),
  drops: bool = True,
) -> Network:
  """Makes the network of the `model` section.

  Args:
    model_config: the section.
    dtype: compute dtype, to choose the kernels.
    frozen: modules whose parameters get no gradient and whose batch norm always
      uses running statistics.
    drops: whether dropout and stochastic depth are on in training.

  Raises:
    UserError: the model section is inconsistent, or `model.kernels` is unknown
      or unavailable on this backend.
  """
  architecture = variants.resolve(model_config)
  num_classes = model_config.num_classes
  common = Context(
    select_kernels(model_config.kernels, jax.default_backend(), dtype),
    architecture.normalization,
    model_config.activation,
    architecture.initializer,
    model_config.batch_norm_decay,
    drops=drops,
    frozen=tuple(frozen),
  )

  def forward(
    keys: jax.Array | None,
    images: jax.Array,
    is_training: bool,
    end_points: Sequence[str] = (),
    axis_name: str | None = None,
    edit: Mapping[str, Edit] | None = None,
  ) -> Outputs:
    chex.assert_rank(images, 4)
    chex.assert_type(images, float)  # weights would be cast to uint8, to zeros
    taps, collect = points.plan(architecture, common.kernels, end_points, edit)
    context = common._replace(
      is_training=is_training, keys=keys, axis_name=axis_name, taps=taps
    )
    logits, aux_logits = _forward(architecture, images, context)
    chex.assert_shape(logits, (images.shape[0], num_classes))
    return Outputs(logits, aux_logits, collect(taps.found))

  transformed = hk.transform_with_state(forward)

  def init(rng: jax.Array, images: jax.Array) -> tuple[hk.Params, hk.State]:
    return transformed.init(rng, None, images, is_training=True)

  def apply(params, network_state, keys, images, *args, **kwargs):
    # With this, XLA skips the backward pass through frozen first layers.
    params = {
      module: jax.lax.stop_gradient(leaves)
      if is_within(module, common.frozen)
      else leaves
      for module, leaves in params.items()
    }
    # Haiku's rng is None: random layers use `keys`, one per image.
    return transformed.apply(
      params, network_state, None, keys, images, *args, **kwargs
    )

  return Network(init, apply, architecture, num_classes, common)


def _forward(
  architecture: rows.Architecture, images: jax.Array, context: Context
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Applies stages and heads to images [B, H, W, C].

  Returns logits, and those of auxiliary heads by name.
  """
  taps, aux_logits = context.taps, {}
  heads = {head.after: head for head in architecture.aux_heads}
  # A map that somebody reads or replaces is computed before pooling.
  fuse = context.fuses_relu and not taps
  last = points.stage_of_mean(architecture)
  x = taps('images', context.kernels.to_layout(images))
  for stage in architecture.stages:
    context = context._replace(path=stage.name)
    for row in modules.fuse_pools(stage.rows) if fuse else stage.rows:
      x = modules.apply(row, x, context)
      if name := getattr(row, 'name', ''):
        x = taps(name, x)
      if name in heads:
        head = heads[name]
        aux_logits[head.name] = modules.apply(head, x, context)
    if stage.name != last:
      x = taps(stage.name, x)
  for i, op in enumerate(architecture.head):
    is_last = last and i == 0
    x = modules.apply(op, x, context._replace(path=last if is_last else 'head'))
    if is_last:
      x = taps(last, x)
  has_layer = getattr(architecture.head[-1], 'name', '') == 'logits'
  return x if has_layer else taps('logits', x), aux_logits


def from_config(config: ml_collections.FrozenConfigDict) -> Network:
  """Makes the network of a config, with kernels for its compute dtype."""
  policy = get_policy(config.train.precision)
  return make_network(
    config.model, policy.compute_dtype, config.finetune.frozen
  )
