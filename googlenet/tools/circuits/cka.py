"""Similarity of layers: linear centred kernel alignment, over minibatches.

Kornblith et al., 2019 (arXiv 1905.00414): two layers are similar if the same
pairs of images are similar in both. Linear CKA is

  HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),   K = X X^T, L = Y Y^T

for features X [n, p] and Y [n, q]; maps are flattened. It does not change when
features are rotated or scaled, or get an offset. HSIC is estimated as by Nguyen
et al., 2021 (arXiv 2010.15327, equations 3 and 4): the mean over minibatches of
the unbiased estimator of Song et al., 2012. So a split of any size is read
once, independent features give 0 on average, and a result can be slightly
below 0.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MIN_IMAGES = 4  # of a batch: the estimator divides by n - 3


def grams(points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns the Gram matrix of each point over a batch, float32 [N, N].

  Features are centred, which changes no result but saves digits.

  Args:
    points: float32 [D, B, ...] by name, with D * B = N.
  """
  return {name: _gram(x) for name, x in points.items()}


@jax.jit
def _gram(x: jax.Array) -> jax.Array:
  x = x.reshape(x.shape[0] * x.shape[1], -1).astype(jnp.float32)
  x = x - x.mean(0)
  return jnp.matmul(x, x.T, precision=lax.Precision.HIGHEST)


def hsic(ks: np.ndarray, ls: np.ndarray) -> np.ndarray:
  """Returns the unbiased estimates of HSIC, float64 [A, B].

  Args:
    ks: Gram matrices [A, n, n] of n images, n >= 4.
    ls: Gram matrices [B, n, n] of the same images.

  Raises:
    ValueError: there are fewer than 4 images.
  """
  n = ks.shape[-1]
  if n < MIN_IMAGES:
    raise ValueError(f'{n} images: the estimator needs {MIN_IMAGES} or more')
  ks, ls = (np.array(x, np.float64) for x in (ks, ls))
  for x in (ks, ls):
    x[:, range(n), range(n)] = 0
  rows_k, rows_l = ks.sum(-1), ls.sum(-1)
  sums = np.outer(rows_k.sum(-1), rows_l.sum(-1)) / ((n - 1) * (n - 2))
  traces = ks.reshape(len(ks), -1) @ ls.reshape(len(ls), -1).T
  return (traces + sums - 2 / (n - 2) * rows_k @ rows_l.T) / (n * (n - 3))


class Sums(NamedTuple):
  """Sums over batches; each counts by its number of images.

  Attributes:
    pairs: HSIC of each point of one network with each of another, [A, B].
    firsts: of each point of the first network with itself, [A].
    seconds: of each point of the second network with itself, [B].
    images: number of images.
  """

  pairs: np.ndarray
  firsts: np.ndarray
  seconds: np.ndarray
  images: int = 0


def no_sums(num_firsts: int, num_seconds: int) -> Sums:
  """Returns the sums over no batch."""
  return Sums(
    np.zeros((num_firsts, num_seconds)),
    np.zeros(num_firsts),
    np.zeros(num_seconds),
  )


def add(
  sums: Sums,
  firsts: Sequence[np.ndarray],
  seconds: Sequence[np.ndarray],
  is_real: np.ndarray,
) -> Sums:
  """Adds a batch; one of fewer than `MIN_IMAGES` images is left out.

  Args:
    sums: over the batches before.
    firsts: Gram matrices [N, N] of the first network's points.
    seconds: ... of the second network's points.
    is_real: bool [N], False for padding.
  """
  count = int(is_real.sum())
  if count < MIN_IMAGES:
    return sums
  ks, ls = (
    np.stack([np.asarray(x)[is_real][:, is_real] for x in xs])
    for xs in (firsts, seconds)
  )
  return Sums(
    sums.pairs + count * hsic(ks, ls),
    sums.firsts + count * _with_itself(ks),
    sums.seconds + count * _with_itself(ls),
    sums.images + count,
  )


def _with_itself(ks: np.ndarray) -> np.ndarray:
  return np.array([hsic(k[None], k[None])[0, 0] for k in ks])


def similarity(sums: Sums) -> np.ndarray:
  """Returns linear CKA, float64 [A, B].

  NaN where a point tells images apart no better than by chance, such as a layer
  of dead units.
  """
  with np.errstate(invalid='ignore', divide='ignore'):
    scale = np.sqrt(np.outer(sums.firsts, sums.seconds))
    is_known = np.outer(sums.firsts > 0, sums.seconds > 0)
    return np.where(is_known, sums.pairs / scale, np.nan)
