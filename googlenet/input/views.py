"""Test-time augmentation: predictions averaged over views of an image.

The image; with `eval.shift` the image moved up and left, and down and right;
with `eval.flip` all of them mirrored too (after Jordan, 2024, arXiv 2404.00498,
section 3.5). All views have the same weight.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections

LogitsFn = Callable[[jax.Array], jax.Array]  # uint8 [B, H, W, C] -> [B, K]


def num_views(eval_config: ml_collections.ConfigDict) -> int:
  """Returns how many views `eval.shift` and `eval.flip` make of an image."""
  return (3 if eval_config.shift else 1) * (2 if eval_config.flip else 1)


def shifted(images: jax.Array, rows: int, columns: int) -> jax.Array:
  """Moves images [B, H, W, C] down and right, with black coming in."""
  _, height, width, _ = images.shape
  pad = max(abs(rows), abs(columns))
  padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  top, left = pad - rows, pad - columns
  return padded[:, top : top + height, left : left + width]


def make_views(
  images: jax.Array, eval_config: ml_collections.ConfigDict
) -> jax.Array:
  """Returns the views of images.

  Args:
    images: uint8 [B, H, W, C].
    eval_config: the `eval` section: `shift` in pixels of the stored image,
      `flip`.

  Returns:
    uint8 [V, B, H, W, C]; the first view is the images themselves.
  """
  views, shift = [images], eval_config.shift
  if shift:
    views += [shifted(images, place, place) for place in (-shift, shift)]
  if eval_config.flip:
    views += [view[:, :, ::-1] for view in views]
  return jnp.stack(views)


def mean_probabilities(
  logits_fn: LogitsFn,
  images: jax.Array,
  eval_config: ml_collections.ConfigDict,
) -> jax.Array:
  """Averages probabilities over the views of images.

  Args:
    logits_fn: uint8 [B, H, W, C] -> logits [B, K].
    images: uint8 [B, H, W, C].
    eval_config: the `eval` section.

  Returns:
    float32 [B, K].
  """
  return mean_over([make_views(images, eval_config)], logits_fn)


def mean_over(stacks: Sequence[jax.Array], logits_fn: LogitsFn) -> jax.Array:
  """Averages probabilities over views that were made already.

  Args:
    stacks: uint8 [V, B, H, W, C] each; their sizes may differ.
    logits_fn: uint8 [B, H, W, C] -> logits [B, K].

  Returns:
    float32 [B, K].
  """

  def probabilities(view: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits_fn(view).astype(jnp.float32))

  # One view after another: together they take no more memory than one.
  sums = [
    probabilities(stack[0])
    if len(stack) == 1
    else jax.lax.map(probabilities, stack).sum(0)
    for stack in stacks
  ]
  return sum(sums) / sum(map(len, stacks))


def to_logits(probabilities: jax.Array) -> jax.Array:
  """Returns finite logarithms: logits whose softmax are the probabilities."""
  tiny = jnp.finfo(jnp.float32).tiny
  return jnp.log(jnp.maximum(probabilities, tiny))
