"""Weighted nearest neighbours by cosine similarity.

Wu et al., 2018 (arXiv 1805.01978), section 3.4; with 20 neighbours as in DINO,
Caron et al., 2021 (arXiv 2104.14294).
"""

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.runtime.parallel import parallelize, replicated
from googlenet.runtime.progress import counted

TEMPERATURE = 0.07
_MAX_SIMILARITIES = 2**25  # numbers on a device at once


def predict(
  train: np.ndarray,
  labels: np.ndarray,
  test: np.ndarray,
  num_classes: int,
  k: int,
  what: str = 'probe    kNN',
) -> np.ndarray:
  """Predicts classes by the votes of the nearest training images.

  A neighbour of cosine similarity s votes for its class with the weight
  exp(s / 0.07). A vector of zeros is similar to none: 0. Of equally similar
  images the first ones count, of classes with equal votes the first one.

  Args:
    train: float32 [N, C].
    labels: int [N], each in range(num_classes).
    test: float32 [M, C].
    num_classes: K.
    k: number of neighbours, at most N.
    what: the work, for the progress.

  Returns:
    int32 [M].
  """
  devices = jax.local_device_count()
  rows = max(1, _MAX_SIMILARITIES // len(train))
  rows = min(rows, 1024, -(-len(test) // devices))

  def vote(train, labels, test):
    similarity = jnp.matmul(_unit(test), train.T, precision='highest')
    values, index = jax.lax.top_k(similarity, k)
    weights = jnp.exp(values / TEMPERATURE)
    votes = jax.nn.one_hot(labels[index], num_classes) * weights[..., None]
    return votes.sum(1).argmax(-1).astype(jnp.int32)

  program = parallelize(vote, in_axes=(None, None, 0))
  unit = replicated(jax.jit(_unit)(train))
  answers = replicated(labels.astype(np.int32))
  size, found = rows * devices, []
  starts = range(0, len(test), size)
  for start in counted(starts, len(starts), what, f'x {size:,} images'):
    part = test[start : start + size]
    padding = np.zeros((size - len(part), part.shape[1]), part.dtype)
    given = np.concatenate([part, padding]).reshape(devices, rows, -1)
    out = np.asarray(program(unit, answers, given))
    found.append(out.reshape(-1)[: len(part)])
  return np.concatenate(found)


def _unit(x: jax.Array) -> jax.Array:
  """Divides the rows of a matrix by their lengths."""
  # By the largest number first: squares of small features would be 0.
  x = x / jnp.maximum(jnp.abs(x).max(-1, keepdims=True), 1e-30)
  return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-30)
