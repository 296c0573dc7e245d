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

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import ml_collections

from googlenet.kernels import Kernels, select_kernels
from googlenet.model import modules, rows, variants
from googlenet.model.context import Context, is_within

Edit = Callable[[str, jax.Array], jax.Array]


class Outputs(NamedTuple):
  """The outputs of a network, the same type in training and evaluation."""

  logits: jax.Array  # [B, num_classes]
  aux_logits: dict[str, jax.Array]  # by head name; empty without heads
  end_points: dict[str, jax.Array]  # by layer and stage name, if requested


class Network(NamedTuple):
  """A network: two pure functions, and what they were made from.

  Attributes:
    init: (rng, images [B, H, W, C]) -> (params, network_state), including
      auxiliary heads.
    apply: (params, network_state, keys, images, is_training,
      with_end_points=False, axis_name=None, edit=None) -> (Outputs,
      network_state). `keys` [B], one per image, are needed for training with
      dropout or stochastic depth. `axis_name` is the mapped axis over which
      batch norm averages in training. `edit(name, map [B, H, W, C])` returns a
      map that replaces the output of the row of that name.
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
) -> Network:
  """Makes the network of the `model` section.

  Args:
    model_config: the section.
    dtype: compute dtype, to choose the kernels.
    frozen: modules whose parameters get no gradient and whose batch norm always
      uses running statistics.

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
    frozen=tuple(frozen),
  )

  def forward(
    keys: jax.Array | None,
    images: jax.Array,
    is_training: bool,
    with_end_points: bool = False,
    axis_name: str | None = None,
    edit: Edit | None = None,
  ) -> Outputs:
    chex.assert_rank(images, 4)
    context = common._replace(
      is_training=is_training, keys=keys, axis_name=axis_name
    )
    # End points are taken before pooling, so the pool cannot be fused.
    fuse = context.fuses_relu and not with_end_points and edit is None
    outputs = _forward(architecture, images, context, fuse, edit)
    chex.assert_shape(outputs.logits, (images.shape[0], num_classes))
    end_points = {}
    if with_end_points:
      end_points = {
        name: y if y.ndim == 2 else common.kernels.from_layout(y)
        for name, y in outputs.end_points.items()
      }
    return outputs._replace(end_points=end_points)

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
  architecture: rows.Architecture,
  images: jax.Array,
  context: Context,
  fuse_pools: bool,
  edit: Edit | None,
) -> Outputs:
  """Applies stages, auxiliary heads and head to images [B, H, W, C].

  Returns end points in the kernels' layout.
  """
  kernels = context.kernels
  end_points, aux_logits = {}, {}
  heads = {head.after: head for head in architecture.aux_heads}
  x = kernels.to_layout(images)
  for stage in architecture.stages:
    stage_rows = modules.fuse_pools(stage.rows) if fuse_pools else stage.rows
    for row in stage_rows:
      x = modules.apply(row, x, context)
      name = getattr(row, 'name', None)
      if name and edit:
        x = kernels.to_layout(edit(name, kernels.from_layout(x)))
      if name:
        end_points[name] = x
      if name in heads:
        head = heads[name]
        aux_logits[head.name] = modules.apply(head, x, context)
    end_points[stage.name] = x
  for i, op in enumerate(architecture.head):
    x = modules.apply(op, x, context)
    if i == 0 and type(op) is rows.GlobalMean:
      # The last stage ends in the global average pool, as in Table 1.
      end_points[architecture.stages[-1].name] = x
    elif hasattr(op, 'name'):
      end_points[op.name] = x
  return Outputs(x, aux_logits, end_points | {'logits': x})


def from_config(config: ml_collections.FrozenConfigDict) -> Network:
  """Makes the network of a config, with kernels for its compute dtype."""
  policy = jmp.get_policy(config.train.precision)
  return make_network(
    config.model, policy.compute_dtype, config.finetune.frozen
  )
