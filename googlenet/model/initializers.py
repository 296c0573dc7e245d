"""Distributions of initial weights, for Haiku and for NumPy."""

from typing import NamedTuple

import haiku as hk
import numpy as np


class Scheme(NamedTuple):
  """How weights of convolutions and hidden layers are drawn.

  Attributes:
    scale: of the variance, which is scale / fan.
    fan: 'fan_in' or 'fan_avg'.
    distribution: 'normal', cut at two deviations, or 'uniform'.
    bias: of the same layers.
  """

  scale: float
  fan: str
  distribution: str
  bias: float


INITIALIZERS: dict[str, Scheme] = {
  # He et al., 2015, arXiv 1502.01852, for ReLU.
  'he': Scheme(2.0, 'fan_in', 'normal', 0.0),
  # Glorot and Bengio, 2010.
  'xavier': Scheme(1.0, 'fan_avg', 'uniform', 0.0),
  # Caffe's 'xavier' filler and biases, as its bvlc_googlenet has them.
  'caffe': Scheme(1.0, 'fan_in', 'uniform', 0.2),
}
# No activation follows the classifiers, so their inputs keep their variance.
LOGITS = Scheme(1.0, 'fan_in', 'normal', 0.0)


def of_haiku(scheme: Scheme) -> hk.initializers.Initializer:
  """Returns the initializer of Haiku that draws from a scheme."""
  distributions = {'normal': 'truncated_normal', 'uniform': 'uniform'}
  return hk.initializers.VarianceScaling(
    scheme.scale, scheme.fan, distributions[scheme.distribution]
  )


def variance_scaling(
  rng: np.random.Generator, shape: tuple[int, ...], scheme: Scheme
) -> np.ndarray:
  """Draws float32 weights [..., C_in, C_out] like hk's VarianceScaling."""
  receptive_field = int(np.prod(shape[:-2]))
  fan_in, fan_out = receptive_field * shape[-2], receptive_field * shape[-1]
  fan = {'fan_in': fan_in, 'fan_avg': (fan_in + fan_out) / 2}[scheme.fan]
  variance = scheme.scale / fan
  if scheme.distribution == 'uniform':
    limit = np.sqrt(3 * variance)
    return rng.uniform(-limit, limit, shape).astype(np.float32)
  # A normal cut at two standard deviations has 0.8796 of its deviation.
  draws = rng.standard_normal(shape, np.float32)
  while (outside := np.abs(draws) > 2).any():
    draws[outside] = rng.standard_normal(int(outside.sum()), np.float32)
  return draws * np.float32(np.sqrt(variance) / 0.87962566103423978)
