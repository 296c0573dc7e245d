"""Gradients by the image are finite differences, pixel by pixel, in float64.

Each kernel set has gradients of its own. In float64 their rounding is far below
the tolerance; steps are so small that no activation and no maximum changes
sides. float32 has other code than float64 in places, so it is compared too.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, load_config
from networks import (
  FAST_TO_COMPILE,
  SMALL,
  make,
)

from googlenet.kernels import KERNELS, onednn
from googlenet.runtime.compilation import compile_with
from googlenet.tools.inference.apply import make_function

FLOAT64 = 'params=float64,compute=float64,output=float64'
SIDES = 17, 14  # height, width of the image
STEP = 1e-4  # of 255 grey levels
# More than 8 channels everywhere: fast forms leave narrow layers to XLA.
WIDE = {'variant': 'tiny', 'width_multiplier': 2.5}


@pytest.fixture(autouse=True)
def _all_kernels_in_float64(monkeypatch):
  """Lets 'onednn' run where XLA computes its convolutions by itself."""
  monkeypatch.setattr(onednn, 'is_available', lambda dtype: True)
  with jax.enable_x64(True):
    yield


def random_network(size, **changes):
  """Returns a network, parameters and state, no bias or statistic 0 or 1."""
  network, params, state = make((size, size, 1), **changes)
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    name = path[-1].key
    if name in ('scale', 'variance'):
      return rng.uniform(0.5, 2, leaf.shape)
    if name in ('b', 'offset', 'mean'):
      return rng.normal(0.1, 0.3, leaf.shape)
    return np.float64(leaf)

  params, state = jax.tree_util.tree_map_with_path(draw, (params, state))
  return network, params, state


def photo(seed=0):
  return np.random.default_rng(seed).uniform(0, 255, (*SIDES, 1))


def compiled(function, *args):
  lowered = jax.jit(function).lower(*args)
  return compile_with(FAST_TO_COMPILE, lowered)(*args)


def check(scores, x, step):
  """Returns the gradient of a score, once its differences by pixels are it.

  Args:
    scores: function from images [B, H, W, C] to a number for each, [B].
    x: an image, float64 [H, W, C].
    step: how far a pixel is moved to each side.
  """
  gradient = compiled(jax.grad(lambda x: scores(x).sum()), x[None])[0]
  moves = step * np.eye(x.size).reshape(x.size, *x.shape)
  ends = compiled(scores, np.concatenate([x + moves, x - moves]))
  differences = (ends[: x.size] - ends[x.size :]).reshape(x.shape) / (2 * step)
  scale = np.abs(differences).max()
  assert scale > 1e-5
  assert (np.abs(differences) > 1e-3 * scale).mean() > 0.9
  np.testing.assert_allclose(
    gradient / scale, differences / scale, rtol=1e-5, atol=1e-6
  )
  return gradient


@pytest.mark.parametrize(
  ('normalization', 'kernels'),
  [
    ('lrn', 'xla'),
    ('batch', 'xla'),
    # The next test has all kernels.
    *(
      pytest.param(*pair, marks=pytest.mark.slow)
      for pair in itertools.product(('lrn', 'batch'), KERNELS)
      if pair[1] != 'xla'
    ),
  ],
)
def test_of_the_logits_through_preprocessing(normalization, kernels):
  """Images of 0 to 255, which are normalized and resized to 12x12."""
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.data.image_size = 12
  network, params, state = random_network(
    12, normalization=normalization, kernels=kernels, **WIDE
  )
  function = make_function(network, config.data, FLOAT64)
  weights = jnp.asarray(np.random.default_rng(2).normal(size=10))
  check(lambda x: function(params, state, x).logits @ weights, photo(), STEP)


@pytest.mark.parametrize('kernels', KERNELS)
def test_of_points_within_the_network(kernels):
  """Where reading a point takes fused kernels apart, before activations too."""
  network, params, state = random_network(17, kernels=kernels, **WIDE)
  names = (
    *('conv_1/conv_7x7:pre', 'stage_1/max_pool'),
    *('inception_2a/conv_3x3_reduce', 'inception_2a:pre', 'logits'),
  )

  def scores(x, dtype=np.float64):
    values = jax.tree.map(dtype, (params, state))
    outputs, _ = network.apply(*values, None, x, False, end_points=names)
    # Squares: a number that changes with the place.
    return sum(
      (outputs.end_points[name] ** 2).reshape(len(x), -1).mean(1)
      for name in names
    )

  x = photo() / 100 - 1
  gradient = check(scores, x, STEP / 100)
  in_float32 = compiled(
    jax.grad(lambda x: scores(x, np.float32).sum()), x[None].astype(np.float32)
  )
  assert in_float32.dtype == np.float32
  error = np.linalg.norm(in_float32[0] - gradient)
  assert error <= 1e-5 * np.linalg.norm(gradient)


@pytest.mark.slow
@pytest.mark.parametrize('kernels', [name for name in KERNELS if name != 'xla'])
@pytest.mark.parametrize('variant', ['bn', 'factorized', 'residual'])
def test_of_other_blocks(variant, kernels):
  """At a tenth of their width, along a direction that all pixels move in."""
  size = SMALL[variant]
  network, params, state = random_network(
    size,
    variant=variant,
    width_multiplier=0.1,
    kernels=kernels,
    aux_heads='off',
  )
  rng = np.random.default_rng(3)
  x = rng.normal(size=(1, size, size, 1))
  direction, step = rng.normal(size=x.shape), 1e-7

  def score(x):
    outputs, _ = network.apply(params, state, None, x, False)
    return outputs.logits[:, 3].sum()

  ends = [
    float(compiled(score, x + sign * step * direction)) for sign in (1, -1)
  ]
  slope = float((compiled(jax.grad(score), x) * direction).sum())
  assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)
