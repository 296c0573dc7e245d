"""Test-time augmentation: averages predictions over views of an image.

The views are the image itself; with `eval.shift` also the image moved up and
left, and down and right; with `eval.flip` also the mirror image of each (after
Jordan, 2024, arXiv 2404.00498, section 3.5). All views have equal weight.
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
  """Moves images [B, H, W, C] down and right; new pixels are black."""
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
    uint8 [V, B, H, W, C]; view 0 is the images themselves.
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
    logits_fn: maps uint8 [B, H, W, C] to logits [B, K].
    images: uint8 [B, H, W, C].
    eval_config: the `eval` section.

  Returns:
    float32 [B, K].
  """
  return mean_over([make_views(images, eval_config)], logits_fn)


def mean_over(stacks: Sequence[jax.Array], logits_fn: LogitsFn) -> jax.Array:
  """Averages probabilities over given views.

  Args:
    stacks: uint8 [V, B, H, W, C] each; their sizes may differ.
    logits_fn: maps uint8 [B, H, W, C] to logits [B, K].

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
  """Returns finite logits whose softmax is the given probabilities."""
  tiny = jnp.finfo(jnp.float32).tiny
  return jnp.log(jnp.maximum(probabilities, tiny))
