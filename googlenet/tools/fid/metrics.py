"""FID, KID and the Inception Score of features: NumPy in float64."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from googlenet.errors import UserError

SPLITS = 10  # Salimans et al., 2016, as their code has it
SUBSETS, SUBSET_SIZE = 100, 1000  # Binkowski et al., 2018, as others have them
# A covariance in float32 has eigenvalues as negative as this, by rounding.
_ROUNDING = 1e-4


class Statistics(NamedTuple):
  """The first two moments of features.

  Attributes:
    mean: float64 [d].
    covariance: float64 [d, d], of the sample: divided by N - 1.
    count: N, the number of images; 0: not known.
  """

  mean: np.ndarray
  covariance: np.ndarray
  count: int = 0


class Score(NamedTuple):
  """A mean over parts of the images, and its spread.

  Attributes:
    mean: over the parts.
    std: of the parts, divided by their number (NumPy's default).
    parts: how many there are.
    size: images of each (of the smallest, if they differ).
  """

  mean: float
  std: float
  parts: int
  size: int


def _check(features: np.ndarray, what: str) -> np.ndarray:
  features = np.asarray(features)
  if features.ndim != 2 or not features.shape[1]:
    raise UserError(f'{what} are {features.shape}; allowed is [N, d]')
  if not np.isfinite(features).all():
    raise UserError(f'{what} are not finite: the network gives NaN or infinity')
  return features


def statistics(features: np.ndarray | Iterable[np.ndarray]) -> Statistics:
  """Returns mean and covariance of features, read once, part by part.

  The parts are merged by the formulas of Chan, Golub and LeVeque (1979), which
  do not subtract large sums from each other. Memory is that of the covariance,
  however many features there are.

  Args:
    features: [N, d], or several such arrays in sequence; at least two rows.

  Raises:
    UserError: there are fewer than two rows, or values that are not finite, or
      the parts differ in d.
  """
  parts = [features] if isinstance(features, np.ndarray) else features
  count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
  for part in parts:
    rows = _check(part, 'features').astype(np.float64)
    if not len(rows):
      continue
    if not count:
      mean = np.zeros(rows.shape[1])
      scatter = np.zeros((rows.shape[1], rows.shape[1]))
    if rows.shape[1] != len(mean):
      raise UserError(
        f'features have {len(mean)} and then {rows.shape[1]} columns'
      )
    here = rows.mean(0)
    step, total = here - mean, count + len(rows)
    # The last row is what the distance of the two means adds to the scatter.
    between = np.sqrt(count * len(rows) / total) * step
    rows = np.concatenate([rows - here, between[np.newaxis]])
    scatter += rows.T @ rows
    mean = mean + step * (len(rows) - 1) / total
    count = total
  if count < 2:
    raise UserError(f'{count} images have no covariance: give two or more')
  return Statistics(mean, scatter / (count - 1), count)


def _root(covariance: np.ndarray) -> np.ndarray:
  """Returns F [d, r] with F F^T = covariance, where r is its rank.

  Raises:
    UserError: it is no covariance: an eigenvalue is negative.
  """
  values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
  largest = max(values[-1], 0.0)
  if values[0] < -_ROUNDING * largest or (not largest and values[0] < 0):
    raise UserError(
      f'the covariance is none: its smallest eigenvalue is {values[0]:.3g}, '
      f'its largest {values[-1]:.3g}'
    )
  # What rounding leaves of zeros would count by its square root.
  is_real = values > len(values) * np.finfo(np.float64).eps * largest
  return vectors[:, is_real] * np.sqrt(values[is_real])


def frechet_distance(
  a: Statistics | np.ndarray, b: Statistics | np.ndarray
) -> float:
  """Returns the Frechet distance of two Gaussians; FID of Inception features.

  |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)): Dowson and Landau (1982),
  Heusel et al. (2017, arXiv 1706.08500). With A = F F^T and B = G G^T the trace
  of the root is the sum of the singular values of F^T G, which needs no root of
  a matrix that is not symmetric, and is exact if A or B is singular, as with
  fewer images than features.

  Args:
    a: features [N, d], or their `statistics`.
    b: features [M, d], or their `statistics`.

  Raises:
    UserError: the numbers of features differ, values are not finite, there are
      fewer than two rows, or a covariance has a negative eigenvalue.
  """
  a, b = (
    x if isinstance(x, Statistics) else statistics(np.asarray(x))
    for x in (a, b)
  )
  for x in (a, b):
    size = len(x.mean)
    if x.mean.ndim != 1 or x.covariance.shape != (size, size):
      raise UserError(
        f'statistics have a mean of {x.mean.shape} and a covariance of '
        f'{x.covariance.shape}; allowed are [d] and [d, d]'
      )
    if not (np.isfinite(x.mean).all() and np.isfinite(x.covariance).all()):
      raise UserError('statistics are not finite: they hold NaN or infinity')
  if a.mean.shape != b.mean.shape:
    raise UserError(
      f'the sets have {len(a.mean):,} and {len(b.mean):,} features: compare '
      'features of one and the same layer'
    )
  product = _root(a.covariance).T @ _root(b.covariance)
  root = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
  apart = np.square(a.mean - b.mean).sum()
  traces = np.trace(a.covariance) + np.trace(b.covariance)
  return max(float(apart + traces - 2 * root), 0.0)


def kernel_distance(
  a: np.ndarray,
  b: np.ndarray,
  subsets: int = SUBSETS,
  subset_size: int = SUBSET_SIZE,
  seed: int = 0,
) -> Score:
  """Returns the kernel distance of two sets; KID of Inception features.

  The unbiased estimate of the squared maximum mean discrepancy with the kernel
  (x y / d + 1)^3, as the mean over random subsets: Binkowski et al. (2018,
  arXiv 1801.01401). It may be a little below 0.

  Args:
    a: features [N, d].
    b: features [M, d].
    subsets: how many pairs of subsets are drawn; one if it would be all images
      each time.
    subset_size: images of each, drawn without replacement; of smaller sets, as
      many as the smaller one has.
    seed: of the draw.

  Raises:
    UserError: a set has fewer than two images, the numbers of features differ,
      or values are not finite.
  """
  a, b = _check(a, 'features'), _check(b, 'features')
  if a.shape[1] != b.shape[1]:
    raise UserError(
      f'the sets have {a.shape[1]:,} and {b.shape[1]:,} features: compare '
      'features of one and the same layer'
    )
  size = min(len(a), len(b), subset_size)
  if size < 2 or subsets < 1:
    raise UserError(
      f'{subsets} subsets of {size} images: there have to be 1 or more of 2 or '
      'more'
    )
  if size == len(a) == len(b):
    subsets = 1  # each would be all images
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(subsets):
    x = a[rng.choice(len(a), size, replace=False)].astype(np.float64)
    y = b[rng.choice(len(b), size, replace=False)].astype(np.float64)
    within = _kernel(x, x) + _kernel(y, y)
    others = within.sum() - np.trace(within)
    across = _kernel(x, y).sum()
    found.append(others / (size * (size - 1)) - 2 * across / size**2)
  return Score(float(np.mean(found)), float(np.std(found)), subsets, size)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return (x @ y.T / x.shape[1] + 1) ** 3


def inception_score(
  logits: np.ndarray, splits: int = SPLITS, seed: int | None = 0
) -> Score:
  """Returns exp(E KL(p(y|x) || p(y))), as the mean over parts of the images.

  Salimans et al. (2016, arXiv 1606.03498).

  Args:
    logits: [N, classes]; theirs have no bias.
    splits: number of parts, which differ in size by one image at most.
    seed: of the order of the images, as a folder may be sorted by class; None:
      the order in which they are given, as in the authors' code.

  Raises:
    UserError: there are fewer images than parts, or values are not finite.
  """
  logits = _check(logits, 'logits')
  count = len(logits)
  if not 1 <= splits <= count:
    raise UserError(
      f'{count} images cannot be split into {splits} parts: give more images, '
      'or fewer splits'
    )
  if seed is not None:
    logits = logits[np.random.default_rng(seed).permutation(count)]
  scores = []
  for i in range(splits):
    part = logits[i * count // splits : (i + 1) * count // splits]
    part = part - part.max(1, keepdims=True).astype(np.float64)
    log_p = part - np.log(np.exp(part).sum(1, keepdims=True))
    p = np.exp(log_p)
    mean = p.mean(0)
    # Of a class that no image has, both terms are 0.
    log_mean = np.log(np.where(mean > 0, mean, 1))
    scores.append(np.exp((p * (log_p - log_mean)).sum(1).mean()))
  return Score(
    float(np.mean(scores)), float(np.std(scores)), splits, count // splits
  )
