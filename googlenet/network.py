"""GoogLeNet as pure functions: Inception block, stages, classifier.

Images and end points are [B, H, W, C]. Parameters are named after the paper,
`<layer>/<convolution>/{w,b}`, with w [kh, kw, C_in, C_out] and b [C_out]:

  conv_1/conv_7x7                  stage 1
  conv_2/conv_3x3_reduce, conv_3x3 stage 2
  inception_3a/conv_1x1            first branch
  inception_3a/conv_3x3_reduce, conv_3x3
  inception_3a/conv_5x5_reduce, conv_5x5
  inception_3a/pool_proj           last branch
  ... inception_3b, 4a to 4e, 5a, 5b
  logits                           w [1024, num_classes], b [num_classes]

The names are stable: checkpoints and weight import rely on them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet import architectures
from googlenet.layers import Kernels, select_kernels

# Arguments of hk.initializers.VarianceScaling for convolutions.
INITIALIZERS: dict[str, tuple[float, str, str]] = {
  # He et al., 2015, arXiv 1502.01852, for ReLU.
  'he': (2.0, 'fan_in', 'truncated_normal'),
  # Glorot and Bengio, 2010.
  'xavier': (1.0, 'fan_avg', 'uniform'),
}
# No ReLU follows the classifier, so its inputs keep their variance.
LOGITS_INITIALIZER = (1.0, 'fan_in', 'truncated_normal')


class Outputs(NamedTuple):
  """What every network returns, in training and evaluation alike."""

  logits: jax.Array  # [B, num_classes]
  aux_logits: dict[str, jax.Array]  # by head name; empty without heads
  end_points: dict[str, jax.Array]  # by layer and stage name, on request


class Network(NamedTuple):
  """A pair of pure functions, and what they were made from.

  Attributes:
    init: (rng, images [B, H, W, C]) -> (params, network_state).
    apply: (params, network_state, rng, images, is_training,
      with_end_points=False) -> (Outputs, network_state).
    architecture: the rows of widths.
    kernels: the implementation of the primitive operations.
  """

  init: Callable[..., tuple[hk.Params, hk.State]]
  apply: Callable[..., tuple[Outputs, hk.State]]
  architecture: architectures.Architecture
  kernels: Kernels


class Conv(hk.Module):
  """The weight and bias of one convolution; `Kernels` applies them.

  Parallel convolutions can so be computed as one, whatever their names.
  """

  def __init__(
    self,
    width: int,
    kernel_size: int,
    w_init: hk.initializers.Initializer,
    name: str,
  ):
    super().__init__(name=name)
    self._shape = (kernel_size, kernel_size)
    self._width = width
    self._w_init = w_init

  def __call__(self, in_channels: int) -> tuple[jax.Array, jax.Array]:
    """Returns w [kh, kw, in_channels, width] and b [width]."""
    shape = (*self._shape, in_channels, self._width)
    w = hk.get_parameter('w', shape, init=self._w_init)
    b = hk.get_parameter('b', (self._width,), init=jnp.zeros)
    return w, b


class ConvLayer(hk.Module):
  """Convolutions in sequence, each with bias and ReLU."""

  def __init__(
    self,
    row: architectures.ConvLayer,
    kernels: Kernels,
    w_init: hk.initializers.Initializer,
  ):
    super().__init__(name=row.name)
    self._row, self._kernels, self._w_init = row, kernels, w_init

  def __call__(
    self, x: jax.Array, pool: architectures.MaxPool | None = None
  ) -> jax.Array:
    """Applies the row, and the pooling that follows it if one is given."""
    for conv in self._row.convs:
      w, b = Conv(conv.width, conv.kernel_size, self._w_init, conv.name)(
        x.shape[-1]
      )
      if pool and conv is self._row.convs[-1]:
        return self._kernels.conv_bias_relu_max_pool(
          x, w, b, conv.stride, tuple(pool)
        )
      x = self._kernels.conv_bias_relu(x, w, b, conv.stride)
    return x


class Inception(hk.Module):
  """The block of Figure 2b: four parallel branches joined on channels."""

  def __init__(
    self,
    row: architectures.Inception,
    kernels: Kernels,
    w_init: hk.initializers.Initializer,
  ):
    super().__init__(name=row.name)
    self._row, self._kernels, self._w_init = row, kernels, w_init

  def __call__(self, x: jax.Array) -> jax.Array:
    row, kernels = self._row, self._kernels

    def conv(name: str, kernel_size: int, in_channels: int):
      width = getattr(row, name)
      return Conv(width, kernel_size, self._w_init, name)(in_channels)

    channels = x.shape[-1]
    w_1, b_1 = conv('conv_1x1', 1, channels)
    w_3r, b_3r = conv('conv_3x3_reduce', 1, channels)
    w_3, b_3 = conv('conv_3x3', 3, row.conv_3x3_reduce)
    w_5r, b_5r = conv('conv_5x5_reduce', 1, channels)
    w_5, b_5 = conv('conv_5x5', 5, row.conv_5x5_reduce)
    w_p, b_p = conv('pool_proj', 1, channels)

    branch_1, reduced_3, reduced_5 = kernels.conv_1x1s_bias_relu(
      x, [w_1, w_3r, w_5r], [b_1, b_3r, b_5r]
    )
    branch_3 = kernels.conv_bias_relu(reduced_3, w_3, b_3)
    branch_5 = kernels.conv_bias_relu(reduced_5, w_5, b_5)
    pooled = kernels.max_pool(x, window=3, stride=1)
    branch_p = kernels.conv_bias_relu(pooled, w_p, b_p)
    return jnp.concatenate([branch_1, branch_3, branch_5, branch_p], axis=-1)


def pair_with_pools(
  rows: Sequence[architectures.Row], join: bool
) -> list[tuple[architectures.Row, architectures.MaxPool | None]]:
  """Returns each row, and the pooling that is computed together with it.

  Args:
    rows: of a stage.
    join: whether convolutions take the pooling that follows them: first that,
      then bias and ReLU, which gives the same numbers for less work.
  """
  pairs = []
  for row in rows:
    is_pool = isinstance(row, architectures.MaxPool)
    if join and is_pool and pairs:
      before, pool = pairs[-1]
      if isinstance(before, architectures.ConvLayer) and pool is None:
        pairs[-1] = (before, row)
        continue
    pairs.append((row, None))
  return pairs


def apply_row(
  row: architectures.Row,
  pool: architectures.MaxPool | None,
  x: jax.Array,
  kernels: Kernels,
  w_init: hk.initializers.Initializer,
) -> jax.Array:
  """Applies a row, and the pooling paired with it; both in `kernels` layout."""
  if isinstance(row, architectures.MaxPool):
    return kernels.max_pool(x, *row)
  if isinstance(row, architectures.ConvLayer):
    return ConvLayer(row, kernels, w_init)(x, pool)
  return Inception(row, kernels, w_init)(x)


def classify(features: jax.Array, num_classes: int) -> jax.Array:
  """Returns the logits [B, num_classes] of features [B, C]."""
  w_init = hk.initializers.VarianceScaling(*LOGITS_INITIALIZER)
  return hk.Linear(num_classes, w_init=w_init, name='logits')(features)


def make_network(
  model_config: ml_collections.ConfigDict, dtype: jnp.dtype = jnp.float32
) -> Network:
  """Makes the network of the `model` section.

  Args:
    model_config: the section.
    dtype: what the network will compute in, to choose its kernels.

  Raises:
    UserError: `model.kernels` names no implementation, or one that cannot be
      had here.
  """
  architecture = architectures.ARCHITECTURES[model_config.variant]
  kernels = select_kernels(model_config.kernels, jax.default_backend(), dtype)
  num_classes = model_config.num_classes
  conv_init = hk.initializers.VarianceScaling(
    *INITIALIZERS[model_config.initializer]
  )

  def forward(
    images: jax.Array, is_training: bool, with_end_points: bool = False
  ) -> Outputs:
    del is_training  # nothing here is stochastic
    chex.assert_rank(images, 4)
    end_points = {}
    x = kernels.enter(images)
    for stage in architecture:
      # As an end point the larger map is asked for.
      for row, pool in pair_with_pools(stage.rows, join=not with_end_points):
        x = apply_row(row, pool, x, kernels, conv_init)
        if not isinstance(row, architectures.MaxPool):
          end_points[row.name] = x
      end_points[stage.name] = x
    if with_end_points:
      end_points = {name: kernels.leave(y) for name, y in end_points.items()}
    else:
      end_points = {}
    features = kernels.global_mean(x)
    chex.assert_shape(features, (images.shape[0], None))
    logits = classify(features, num_classes)
    if with_end_points:
      # The last stage ends in the global average pool, as in Table 1.
      end_points |= {architecture[-1].name: features, 'logits': logits}
    return Outputs(logits, {}, end_points)

  transformed = hk.transform_with_state(forward)

  def init(rng: jax.Array, images: jax.Array) -> tuple[hk.Params, hk.State]:
    return transformed.init(rng, images, is_training=True)

  return Network(init, transformed.apply, architecture, kernels)


def abstract_init(
  network: Network, image_shape: tuple[int, int, int]
) -> tuple[hk.Params, hk.State]:
  """Returns shapes and dtypes of what `network.init` makes; computes nothing.

  Args:
    network: as made by `make_network`.
    image_shape: (H, W, C) of the images that the network will see.
  """
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(network.init, key, image)


def init_from_numpy(
  network: Network,
  model_config: ml_collections.ConfigDict,
  image_shape: tuple[int, int, int],
  seed: int,
) -> tuple[hk.Params, hk.State]:
  """Draws initial parameters from the distributions of `network.init`.

  XLA compiles a random draw anew for each of the 60 shapes, which takes a
  minute; here shapes come from an abstract run and numbers from NumPy.

  Args:
    network: as made by `make_network`.
    model_config: the `model` section.
    image_shape: (H, W, C) of the images that the network will see.
    seed: fixes every number, on every backend.

  Returns:
    params and network_state, float32 NumPy arrays.
  """
  params, network_state = abstract_init(network, image_shape)
  rng = np.random.default_rng(seed)
  scheme = INITIALIZERS[model_config.initializer]

  def draw(path, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    module, name = path[0].key, path[-1].key
    if name == 'b':
      return np.zeros(leaf.shape, np.float32)
    is_logits = module == 'logits'
    return variance_scaling(
      rng, leaf.shape, *(LOGITS_INITIALIZER if is_logits else scheme)
    )

  params = jax.tree_util.tree_map_with_path(draw, params)
  network_state = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype), network_state
  )
  return params, network_state


def variance_scaling(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  scale: float,
  mode: str,
  distribution: str,
) -> np.ndarray:
  """Draws float32 weights [..., C_in, C_out] like hk's VarianceScaling."""
  receptive_field = int(np.prod(shape[:-2]))
  fan_in, fan_out = receptive_field * shape[-2], receptive_field * shape[-1]
  fan = {'fan_in': fan_in, 'fan_avg': (fan_in + fan_out) / 2}[mode]
  variance = scale / fan
  if distribution == 'uniform':
    limit = np.sqrt(3 * variance)
    return rng.uniform(-limit, limit, shape).astype(np.float32)
  # A normal cut at two standard deviations has 0.8796 of its deviation.
  draws = rng.standard_normal(shape, np.float32)
  while (outside := np.abs(draws) > 2).any():
    draws[outside] = rng.standard_normal(int(outside.sum()), np.float32)
  return draws * np.float32(np.sqrt(variance) / 0.87962566103423978)


def count_parameters(params: hk.Params) -> int:
  """Returns the number of scalars in all parameters."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
