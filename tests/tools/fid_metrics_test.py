"""FID, KID, Inception Score and ways to resize, against NumPy and SciPy."""

import itertools

import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from googlenet.errors import UserError
from googlenet.tools import fid
from googlenet.tools.fid import resize

RNG = np.random.default_rng(0)
# As of a network: dependent, not negative, of different scales.
MIX = RNG.normal(size=(12, 12))
A = np.maximum(RNG.normal(size=(200, 12)) @ MIX, 0).astype(np.float32)
B = np.maximum(RNG.normal(0.3, 1.2, (150, 12)) @ MIX, 0).astype(np.float32)


def moments(x):
  x = x.astype(np.float64)
  return x.mean(0), np.cov(x, rowvar=False)


def by_sqrtm(a, b):
  """The formula as it is written, by a root of a matrix not symmetric."""
  (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
  root = scipy.linalg.sqrtm(cov_a @ cov_b).real
  return np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root)


def by_images(a, b):
  """The same from the N x M products of images, without a covariance.

  The eigenvalues of A B that are not 0 are the squares of the singular values
  of X Y^T, where X and Y are the images less their mean, scaled.
  """
  x, y = (
    (z - z.mean(0)) / np.sqrt(len(z) - 1) for z in map(np.float64, (a, b))
  )
  root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
  apart = np.sum((a.mean(0, np.float64) - b.mean(0, np.float64)) ** 2)
  return apart + np.sum(x**2) + np.sum(y**2) - 2 * root


def distance(a, b):
  return fid.frechet_distance(fid.statistics(a), fid.statistics(b))


@pytest.mark.parametrize('sizes', [(200,), (1, 199), (7,) * 28 + (0, 4)])
@pytest.mark.parametrize('offset', [0, 1e6])
def test_statistics_are_those_of_numpy_however_they_are_read(sizes, offset):
  x = A.astype(np.float64) + offset
  parts = np.split(x, np.cumsum(sizes)[:-1])
  found = fid.statistics(iter(parts))
  mean, covariance = moments(x)
  assert found.count == 200
  np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
  # A sum of squares less a square would have lost all digits at 1e6.
  np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_fid_is_that_of_scipy():
  assert distance(A, B) == pytest.approx(by_sqrtm(A, B), rel=1e-9)
  assert distance(A, B) == pytest.approx(by_images(A, B), rel=1e-9)
  assert distance(B, A) == pytest.approx(distance(A, B), rel=1e-9)


def test_fid_takes_features_or_their_statistics():
  expected = distance(A, B)
  assert fid.frechet_distance(A, B) == expected
  assert fid.frechet_distance(A, fid.statistics(B)) == expected


def test_fid_of_gaussians_that_have_a_formula():
  """Diagonal ones: the squares of the differences of means and deviations."""
  means, deviations = RNG.normal(size=(2, 5)), RNG.uniform(0.1, 3, (2, 5))
  sides = [
    fid.Statistics(mean, np.diag(deviation**2))
    for mean, deviation in zip(means, deviations, strict=True)
  ]
  expected = np.sum(
    np.diff(means, axis=0) ** 2 + np.diff(deviations, axis=0) ** 2
  )
  assert fid.frechet_distance(*sides) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(('n', 'm'), [(8, 9), (8, 300), (2, 2)])
def test_fid_of_fewer_images_than_features(n, m):
  """Singular covariances: to 1e-9, and nothing complex or negative."""
  rng = np.random.default_rng(1)
  a = rng.gamma(0.3, 1, (n, 64)).astype(np.float32)
  b = rng.gamma(0.4, 1, (m, 64)).astype(np.float32)
  found = distance(a, b)
  assert isinstance(found, float)
  assert found == pytest.approx(by_images(a, b), rel=1e-9)


@pytest.mark.parametrize('count', [2, 40, 500])
def test_fid_of_equal_sets_is_nothing(count):
  x = np.random.default_rng(2).gamma(0.3, 1, (count, 64)).astype(np.float32)
  order = np.random.default_rng(3).permutation(count)
  assert 0 <= distance(x, x[order]) < 1e-6


def kid_by_loops(x, y):
  """Gretton et al. (2012), equation 3, term by term."""
  x, y = x.astype(np.float64), y.astype(np.float64)

  def k(u, v):
    return (sum(u * v) / len(u) + 1) ** 3

  n = len(x)
  within = sum(
    k(z[i], z[j])
    for z in (x, y)
    for i, j in itertools.permutations(range(n), 2)
  )
  across = sum(k(u, v) for u in x for v in y)
  return within / (n * (n - 1)) - 2 * across / n**2


def test_kid_is_the_mean_of_the_unbiased_estimate():
  x, y = A[:20], B[:20]
  whole = fid.kernel_distance(x, y)
  assert whole == (pytest.approx(kid_by_loops(x, y), rel=1e-9), 0, 1, 20)
  found = fid.kernel_distance(A, B, subsets=5, subset_size=15, seed=3)
  rng = np.random.default_rng(3)
  values = [
    kid_by_loops(
      A[rng.choice(200, 15, replace=False)],
      B[rng.choice(150, 15, replace=False)],
    )
    for _ in range(5)
  ]
  assert found.mean == pytest.approx(np.mean(values), rel=1e-9)
  assert found.std == pytest.approx(np.std(values), rel=1e-9)
  assert (found.parts, found.size) == (5, 15)
  assert fid.kernel_distance(A, B, 5, 15, seed=3) == found
  assert fid.kernel_distance(A, B, 5, 15, seed=4) != found


def test_kid_has_no_bias():
  """Of two halves of one set it is 0 within its spread, FID never is."""
  x = np.random.default_rng(5).normal(size=(2000, 12))
  found = fid.kernel_distance(x[:1000], x[1000:], 50, 100)
  assert abs(found.mean) < found.std / 3
  assert distance(x[:50], x[50:100]) > distance(x[:1000], x[1000:]) > 0.01


def test_inception_score_is_that_of_scipy():
  logits = np.random.default_rng(6).normal(0, 30, (47, 9)).astype(np.float32)
  scores = []
  for part in (logits[:15], logits[15:31], logits[31:]):
    p = np.exp(scipy.special.log_softmax(part.astype(np.float64), axis=1))
    kl = [sum(scipy.special.rel_entr(row, p.mean(0))) for row in p]
    scores.append(np.exp(np.mean(kl)))
  found = fid.inception_score(logits, 3, seed=None)
  assert found.mean == pytest.approx(np.mean(scores), rel=1e-9)
  assert found.std == pytest.approx(np.std(scores), rel=1e-9)
  assert (found.parts, found.size) == (3, 15)


def test_inception_score_from_1_to_the_number_of_classes():
  same = np.tile(np.arange(7.0), (20, 1))
  assert fid.inception_score(same).mean == pytest.approx(1)
  sure = 1e4 * np.eye(7)[np.arange(70) % 7]
  assert fid.inception_score(sure, 1).mean == pytest.approx(7)
  # Sorted by class, as folders are: without an order at random each part would
  # have one class, and a score of 1.
  ordered = sure[np.argsort(np.arange(70) % 7)]
  assert fid.inception_score(ordered, 7, seed=None).mean == pytest.approx(1)
  assert fid.inception_score(ordered, 7).mean > 3


NAN = np.full((3, 4), np.nan)


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: fid.statistics(A[:1]), '1 images have no covariance'),
    (lambda: fid.statistics(NAN), 'not finite'),
    (lambda: fid.statistics([A, A[:, :5]]), '12 and then 5 columns'),
    (lambda: fid.statistics(A[0]), r'\(12,\); allowed is \[N, d\]'),
    (lambda: distance(A, B[:, :5]), '12 and 5 features'),
    (lambda: fid.frechet_distance(A[0], B), r'\(12,\); allowed is \[N, d\]'),
    (lambda: fid.kernel_distance(A, B[:, :5]), '12 and 5 features'),
    (lambda: fid.kernel_distance(A[:1], B), '100 subsets of 1 images'),
    (lambda: fid.kernel_distance(A[:3, :4], NAN), 'not finite'),
    (lambda: fid.inception_score(A[:5]), 'split into 10 parts'),
    (lambda: fid.inception_score(NAN, 1), 'not finite'),
    (
      lambda: fid.frechet_distance(
        fid.Statistics(np.zeros(2), np.diag([1.0, -1.0])), fid.statistics(A)
      ),
      '2 and 12 features',
    ),
    (
      lambda: fid.frechet_distance(
        *[fid.Statistics(np.zeros(2), np.diag([1.0, -1.0]))] * 2
      ),
      'smallest eigenvalue is -1',
    ),
    (
      lambda: fid.frechet_distance(
        *[fid.Statistics(np.zeros(2), np.full((2, 2), np.inf))] * 2
      ),
      'not finite',
    ),
  ],
)
def test_what_has_no_distance_is_told(call, words):
  with pytest.raises(UserError, match=words) as error:
    call()
  assert '\n' not in str(error.value)


# ---- Resizing.


def triangle_points(place, old):
  """The two neighbours of a place, and their weights; the border repeats."""
  place = max(place, 0)
  low = int(place)
  return [
    (min(low, old - 1), 1 - place + low),
    (min(low + 1, old - 1), place - low),
  ]


def by_loops(x, sides, points):
  """Interpolates pixel by pixel; `points(new index, old, new)` has weights."""
  y = np.zeros((*sides, x.shape[2]))
  for i, j in np.ndindex(sides):
    for row, a in points(i, x.shape[0], sides[0]):
      for column, b in points(j, x.shape[1], sides[1]):
        y[i, j] += a * b * x[row, column]
  return y


def bicubic(t):
  """Keys' kernel with a = -0.5, as Pillow has it."""
  t = abs(t)
  if t < 1:
    return (1.5 * t - 2.5) * t * t + 1
  return ((-0.5 * t + 2.5) * t - 4) * t + 2 if t < 2 else 0.0


def filtered_points(i, old, new):
  """A filter that is as much wider as the image shrinks, of sum 1."""
  scale = old / new
  wide = max(scale, 1)
  weights = [bicubic((k + 0.5 - (i + 0.5) * scale) / wide) for k in range(old)]
  return [(k, w / sum(weights)) for k, w in enumerate(weights) if w]


POINTS = {
  'clean': filtered_points,
  'legacy_pytorch': lambda i, old, new: triangle_points(
    (i + 0.5) * old / new - 0.5, old
  ),
  'legacy_tensorflow': lambda i, old, new: triangle_points(i * old / new, old),
}


@pytest.mark.parametrize('name', resize.WAYS)
@pytest.mark.parametrize(
  ('shape', 'size'), [((5, 7), 12), ((23, 17), 6), ((9, 9), 9), ((1, 3), 4)]
)
def test_ways_to_resize(name, shape, size):
  """In floats: what follows is not rounded to whole grey levels."""
  rng = np.random.default_rng(7)
  pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
  transform = resize.Resized(size, resize.WAYS[name].resize)
  found = transform(Image.fromarray(pixels), 3, 0, 0)
  expected = by_loops(pixels, (size, size), POINTS[name]).clip(0, 255)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, atol=2e-3)
  if shape == (9, 9):
    np.testing.assert_array_equal(found, pixels)


def test_an_unknown_way_is_told():
  with pytest.raises(UserError, match="did you mean 'legacy_pytorch'"):
    resize.way_of('pytorch')
