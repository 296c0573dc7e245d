"""Functions shared by several kernel sets. Channels are the last axis."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from googlenet.kernels.padding import Padding

Array = jax.Array
Pads = list[tuple[int, int]]  # (before, after) of height and width
Pool = tuple[int, int, Padding]  # window, stride and padding of max pooling


def convolve(
  x: Array, w: Array, stride: int, pads: Pads, layout: str = 'NHWC'
) -> Array:
  """XLA's own convolution, for weights `w` [kh, kw, C_in, C_out].

  Args:
    x: [B, H, W, C_in], or its axes in the order of `layout`.
    w: of any float dtype; cast to the dtype of x.
    stride: along both axes.
    pads: pixels of padding.
    layout: 'N', 'H', 'W' in any order, then 'C'.
  """
  return lax.conv_general_dilated(
    x,
    w.astype(x.dtype),
    window_strides=(stride, stride),
    padding=pads,
    dimension_numbers=(layout, 'HWIO', layout),
  )


def flip(w: Array) -> Array:
  """Returns weights for the input gradient: taps reversed, channels swapped."""
  return w[::-1, ::-1].transpose(0, 1, 3, 2)


def flipped_pads(kernel: Sequence[int], pads: Pads) -> Pads:
  """Returns the padding of the convolution for the input gradient, stride 1."""
  return [
    (k - 1 - low, k - 1 - high)
    for k, (low, high) in zip(kernel, pads, strict=True)
  ]


def to_rows(x: Array) -> Array:
  """[..., C] -> [rows, C]."""
  return x.reshape(-1, x.shape[-1])


def add_bias_and_relu(y: Array, b: Array | None, relu: bool) -> Array:
  """Adds the bias `b` [C] if not None, and applies ReLU if `relu`."""
  if b is not None:
    y = y + b.astype(y.dtype)
  return jax.nn.relu(y) if relu else y


def split(y: Array, ws: Sequence[Array]) -> list[Array]:
  """Splits the output channels of convolutions with joined weights `ws`."""
  ends = [sum(w.shape[-1] for w in ws[:i]) for i in range(1, len(ws))]
  return jnp.split(y, ends, axis=-1)


def joined_1x1s(
  conv: Callable[..., Array],
  x: Array,
  ws: Sequence[Array],
  bs: Sequence[Array] | None,
  relu: bool,
) -> list[Array]:
  """Computes several 1x1 convolutions of one input as one call of `conv`.

  The input is read once per pass, and one large matrix product is faster than
  several small ones.
  """
  w = jnp.concatenate(ws, axis=-1)
  if relu and bs is not None:
    return split(conv(x, w, jnp.concatenate(bs), relu=True), ws)
  ys = split(conv(x, w), ws)
  bs = bs or [None] * len(ws)
  return [add_bias_and_relu(y, b, relu) for y, b in zip(ys, bs, strict=True)]
