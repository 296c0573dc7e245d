"""A network as a pair of pure functions, made from its rows.

Images and end points are [B, H, W, C]. Parameters are named after the paper:

  conv_1/conv_7x7                  stage 1
  conv_2/conv_3x3_reduce, conv_3x3 stage 2
  inception_3a/conv_1x1            first branch
  inception_3a/conv_3x3_reduce, conv_3x3
  inception_3a/conv_5x5_reduce, conv_5x5
  inception_3a/pool_proj           last branch
  ... inception_3b, 4a to 4e, 5a, 5b
  aux_1/conv_1x1, fc, logits       heads, where there are some
  logits                           w [1024, num_classes], b [num_classes]

The names are stable: checkpoints and weight import rely on them. convolution.py
and heads.py say what each of these holds; modules.py joins them to blocks,
regularization.py drops some of it in training, setting.py is what all have in
common. initializers.py are the distributions that parameters begin with,
initialization.py draws them.
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
from googlenet.model import rows, variants
from googlenet.model.context import Setting, is_within
from googlenet.model.heads import AuxHead, apply_head, dense
from googlenet.model.modules import apply_row

Edit = Callable[[str, jax.Array], jax.Array]


class Outputs(NamedTuple):
  """What every network returns, in training and evaluation alike."""

  logits: jax.Array  # [B, num_classes]
  aux_logits: dict[str, jax.Array]  # by head name; empty without heads
  end_points: dict[str, jax.Array]  # by layer and stage name, on request


class Network(NamedTuple):
  """A pair of pure functions, and what they were made from.

  Attributes:
    init: (rng, images [B, H, W, C]) -> (params, network_state), of the graph of
      training.
    apply: (params, network_state, keys, images, is_training,
      with_end_points=False, axis_name=None, edit=None) -> (Outputs,
      network_state): keys [B], one for each image, are needed where something
      is random, so in training with dropout; axis_name is the pmapped axis over
      which batch norm averages in training; edit(name, map [B, H, W, C])
      returns what the network goes on with in place of what a row put out.
    architecture: rows of data, nothing left open.
    num_classes: outputs of each head.
    setting: what its layers have in common.
  """

  init: Callable[..., tuple[hk.Params, hk.State]]
  apply: Callable[..., tuple[Outputs, hk.State]]
  architecture: variants.Architecture
  num_classes: int
  setting: Setting

  @property
  def kernels(self) -> Kernels:
    """The implementation of the primitive operations."""
    return self.setting.kernels


def pair_with_pools(
  rows_of_stage: Sequence[rows.Row], join: bool
) -> list[tuple[rows.Row, rows.MaxPool | None]]:
  """Returns each row, and the pooling that is computed together with it.

  Args:
    rows_of_stage: in order.
    join: whether convolutions take the pooling that follows them: first that,
      then bias and ReLU, which gives the same numbers for less work.
  """
  pairs = []
  for row in rows_of_stage:
    if join and isinstance(row, rows.MaxPool) and pairs:
      before, pool = pairs[-1]
      if isinstance(before, rows.ConvLayer) and pool is None:
        pairs[-1] = (before, row)
        continue
    pairs.append((row, None))
  return pairs


def make_network(
  model_config: ml_collections.ConfigDict,
  dtype: jnp.dtype = jnp.float32,
  frozen: Sequence[str] = (),
) -> Network:
  """Makes the network of the `model` section.

  Args:
    model_config: the section.
    dtype: what the network will compute in, to choose its kernels.
    frozen: parts whose parameters get no gradient and whose batch norm is that
      of evaluation.

  Raises:
    UserError: a network that cannot be had like that, or `model.kernels` names
      no implementation or one that cannot be had here.
  """
  architecture = variants.resolve(model_config)
  num_classes = model_config.num_classes
  common = Setting(
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
    setting = common._replace(
      is_training=is_training, keys=keys, axis_name=axis_name
    )
    end_points, aux_logits = _stages(
      architecture, num_classes, images, setting, not with_end_points, edit
    )
    last = architecture.stages[-1].name
    features, named = apply_head(
      architecture.head, end_points[last], 0, setting
    )
    chex.assert_shape(features, (images.shape[0], None))
    logits = features
    if architecture.has_logits:
      logits = dense('logits', num_classes, features)
    chex.assert_shape(logits, (images.shape[0], num_classes))
    if not with_end_points:
      return Outputs(logits, aux_logits, {})
    kernels, pooled = setting.kernels, {}
    if isinstance(architecture.head[0], rows.GlobalMean):
      # The last stage ends in the global average pool, as in Table 1.
      pooled = {last: kernels.global_mean(end_points[last])}
    end_points = {name: kernels.leave(y) for name, y in end_points.items()}
    end_points |= pooled | named | {'logits': logits}
    return Outputs(logits, aux_logits, end_points)

  transformed = hk.transform_with_state(forward)

  def init(rng: jax.Array, images: jax.Array) -> tuple[hk.Params, hk.State]:
    return transformed.init(rng, None, images, is_training=True)

  def apply(params, network_state, keys, images, *args, **kwargs):
    # So XLA leaves out the way back through a frozen first part.
    params = {
      module: jax.lax.stop_gradient(leaves)
      if is_within(module, common.frozen)
      else leaves
      for module, leaves in params.items()
    }
    return transformed.apply(
      params, network_state, None, keys, images, *args, **kwargs
    )

  return Network(init, apply, architecture, num_classes, common)


def _stages(
  architecture: variants.Architecture,
  num_classes: int,
  images: jax.Array,
  setting: Setting,
  join_pools: bool,
  edit: Edit | None,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  """Applies all stages to images [B, H, W, C].

  Returns:
    The maps of rows and stages by name, in the layout of the kernels, and the
    logits of auxiliary heads by name.
  """
  end_points, aux_logits = {}, {}
  heads = {
    head.after: (place, head)
    for place, head in enumerate(architecture.aux_heads, start=1)
  }
  x = setting.kernels.enter(images)
  for stage in architecture.stages:
    # As an end point the larger map is asked for.
    join = join_pools and setting.is_fused and edit is None
    for row, pool in pair_with_pools(stage.rows, join):
      x = apply_row(row, pool, x, setting)
      name = getattr(row, 'name', None)
      if name and edit is not None:
        kernels = setting.kernels
        x = kernels.enter(edit(name, kernels.leave(x)))
      if name:
        end_points[name] = x
      if name in heads:
        place, head = heads[name]
        aux_logits[head.name] = AuxHead(head, place, setting)(x, num_classes)
    end_points[stage.name] = x
  return end_points, aux_logits


def from_config(config: ml_collections.FrozenConfigDict) -> Network:
  """Returns the network of a config, on the kernels that suit its precision."""
  policy = jmp.get_policy(config.train.precision)
  return make_network(
    config.model, policy.compute_dtype, config.finetune.frozen
  )
