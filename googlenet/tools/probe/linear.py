"""Linear probes: multinomial logistic regression on fixed features.

Alain and Bengio, 2016 (arXiv 1610.01644). The strength of L2 is chosen on
held-out training features, as by Radford et al., 2021 (arXiv 2103.00020),
appendix A.3.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from googlenet.runtime.parallel import PMAP_AXIS, parallelize
from googlenet.runtime.progress import counted

# From strong to weak: each fit starts where the one before ended.
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_GRADIENT = 1e-4  # largest element of the gradient where a fit ends
_STEPS, _MAX_CALLS = 50, 40  # of the solver in a call, and calls of a fit
_SOLVER = optax.lbfgs(memory_size=10)
_CHUNK = 4096  # images that are predicted at the same time
_PATIENCE = 2  # weaker fits after the best one that are tried


class Probe(NamedTuple):
  """A linear classifier: argmax of (x - mean) / deviation @ weights + bias.

  Attributes:
    mean: float64 [C], of the training features.
    deviation: float64 [C], their standard deviation; infinite where they are
      constant, so that such features do not count.
    weights: float64 [C, K].
    bias: float64 [K].
    strength: of L2.
    has_converged: whether it is the optimum, up to the rounding of float32.
  """

  mean: np.ndarray
  deviation: np.ndarray
  weights: np.ndarray
  bias: np.ndarray
  strength: float
  has_converged: bool

  def predict(self, features: np.ndarray) -> np.ndarray:
    """Returns the classes of features [M, C], int64 [M]."""
    found = []
    for start in range(0, len(features), _CHUNK):
      scaled = (features[start : start + _CHUNK] - self.mean) / self.deviation
      found.append((scaled @ self.weights + self.bias).argmax(-1))
    return np.concatenate(found)


def fit(
  features: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  seed: int = 0,
  strengths: tuple[float, ...] = STRENGTHS,
  what: str = 'probe    linear',
) -> Probe:
  """Fits a probe; chooses L2 on a fifth of the images, then fits to all.

  The objective is the mean cross-entropy plus half the strength times the sum
  of squared weights, without the bias, for standardized features. It is
  computed on all devices in float32, and minimized by optax's L-BFGS. The
  strength has the best accuracy on held-out images, the stronger of equals;
  after two that are worse no weaker ones are tried.

  Args:
    features: float32 [N, C], with N at least 2.
    labels: int [N], each in range(num_classes).
    num_classes: K.
    seed: of the held-out images.
    strengths: of L2 to choose from, from strong to weak.
    what: the work, for the progress.
  """
  mean, deviation = standardization(features)
  minimize = _make_minimize(features, labels, num_classes, mean, deviation)
  start = np.zeros((features.shape[1] + 1, num_classes), np.float32)
  is_held = held_out(labels, seed)
  best = (-1.0, strengths[0], start)
  worse = 0
  for strength in counted(strengths, len(strengths), what, 'strengths'):
    start, is_done = minimize(start, strength, ~is_held)
    probe = _probe(start, is_done, strength, mean, deviation)
    right = (probe.predict(features[is_held]) == labels[is_held]).mean()
    worse = worse + 1 if right < best[0] else 0
    if right > best[0]:
      best = right, strength, start
    if worse == _PATIENCE:
      break
  _, strength, start = best
  every = np.ones(len(labels), bool)
  found, is_done = minimize(start, strength, every)
  return _probe(found, is_done, strength, mean, deviation)


def standardization(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation, see `Probe`, of float32 [N, C]."""
  mean = features.mean(0, dtype=np.float64)
  deviation = features.std(0, dtype=np.float64)
  noise = 1e-6 * np.abs(features).max(0)  # of rounding, in what is constant
  return mean, np.where(deviation > noise, deviation, np.inf)


def held_out(labels: np.ndarray, seed: int) -> np.ndarray:
  """Returns which images are held out: a fifth of them, alike in all classes.

  Args:
    labels: int [N].
    seed: of the choice.

  Returns:
    bool [N].
  """
  chance = np.random.default_rng(seed).permutation(len(labels))
  chosen = np.zeros(len(labels), bool)
  chosen[np.lexsort((chance, labels))[1::5]] = True
  return chosen


def _probe(
  found: np.ndarray,
  is_done: bool,
  strength: float,
  mean: np.ndarray,
  deviation: np.ndarray,
) -> Probe:
  found = found.astype(np.float64)
  return Probe(mean, deviation, found[:-1], found[-1], strength, is_done)


def _make_minimize(
  features: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  mean: np.ndarray,
  deviation: np.ndarray,
) -> Callable[..., tuple[np.ndarray, bool]]:
  """Puts standardized features on the devices, and makes the solver.

  Returns:
    (start float32 [C + 1, K], strength, which images count: bool [N]) ->
    weights, with the bias as last row, and whether they are the optimum.
  """
  devices, padding = (
    jax.local_device_count(),
    -len(labels) % jax.local_device_count(),
  )

  def split(x: np.ndarray) -> np.ndarray:
    x = np.concatenate([x, np.zeros((padding, *x.shape[1:]), x.dtype)])
    return x.reshape(devices, -1, *x.shape[1:])

  to_devices, advance = _programs()
  scale = (1 / deviation).astype(np.float32)
  x = to_devices(split(features), mean.astype(np.float32), scale)
  answers = split(labels.astype(np.int32))

  def minimize(start, strength, counts):
    weights = split((counts / counts.sum()).astype(np.float32))
    carry = start, _SOLVER.init(jnp.asarray(start))
    before = np.inf
    for _ in range(_MAX_CALLS):
      carry, *now = advance(carry, x, answers, weights, np.float32(strength))
      value, gradient = map(float, now)
      # Below this the losses are noise of float32.
      is_done = gradient <= _GRADIENT or before - value <= 1e-6 * value
      if is_done:
        break
      before = value
    return np.asarray(carry[0]), is_done

  return minimize


@functools.cache
def _programs() -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns the programs that standardize features, and that solve."""
  standardize = parallelize(
    lambda x, mean, scale: (x - mean) * scale, in_axes=(0, None, None)
  )
  advance = parallelize(
    _advance, in_axes=(None, 0, 0, 0, None), out_axes=(None, None, None)
  )
  return standardize, advance


def _advance(carry, x, labels, weights, strength):
  """Makes some steps of the solver on one device's part of the images."""

  def of_part(found):
    logits = jnp.matmul(x, found[:-1], precision='highest') + found[-1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * weights).sum()

  def of_all(found):
    value, gradient = jax.lax.psum(
      jax.value_and_grad(of_part)(found), PMAP_AXIS
    )
    shrunk = found.at[-1].set(0)  # without the bias
    value += strength / 2 * (shrunk**2).sum()
    return value, gradient + strength * shrunk

  # Gradients are summed over devices: they are not derived through the sum.
  objective = jax.custom_vjp(lambda found: of_all(found)[0])
  objective.defvjp(of_all, lambda gradient, factor: (factor * gradient,))
  derive = optax.value_and_grad_from_state(objective)

  def is_going(carry):
    i, _, state = carry
    gradient = optax.tree.get(state, 'grad')
    return (i < _STEPS) & ((i == 0) | (jnp.abs(gradient).max() > _GRADIENT))

  def step(carry):
    i, found, state = carry
    value, gradient = derive(found, state=state)
    updates, state = _SOLVER.update(
      gradient, state, found, value=value, grad=gradient, value_fn=objective
    )
    return i + 1, optax.apply_updates(found, updates), state

  _, *carry = jax.lax.while_loop(is_going, step, (0, *carry))
  value, gradient = (optax.tree.get(carry[1], x) for x in ('value', 'grad'))
  return tuple(carry), value, jnp.abs(gradient).max()
