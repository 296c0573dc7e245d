"""Attribution to pixels by gradients.

The score is a logit or a difference of two, see `target`. Gradients are by
stored pixels in 0..255, through resizing and normalization, so their unit is
logits for each grey level.

ReLU rules such as guided backpropagation are left out: their maps hardly
change when the parameters of the network are randomized (Adebayo et al., 2018,
arXiv 1810.03292), so they show edges of the image, not what was learnt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from googlenet.tools.explain import baselines, engine
from googlenet.tools.explain import target as target_lib
from googlenet.tools.explain.engine import Forward
from googlenet.tools.explain.target import PREDICTED, Given
from googlenet.tools.inference.numbers import (
  MAX_SEED,
  check_from_0,
  check_numbers,
)
from googlenet.tools.inference.trained import Trained


def scored(
  net: Trained, images: np.ndarray, target: Given
) -> tuple[np.ndarray, np.ndarray]:
  """Returns images as float32 and the weights of their logits, [N, K].

  Raises:
    UserError: images or target are not allowed.
  """
  images = engine.as_float(net, images)
  return images, logit_weights(net, images, target)


def logit_weights(
  net: Trained, images: np.ndarray, target: Given
) -> np.ndarray:
  """Returns the weights of the logits of images that are checked, [N, K].

  Raises:
    UserError: the target is not allowed.
  """
  target = target_lib.resolve(target, net.class_names)
  return target_lib.weights(target, engine.logits(net, images))


def _pixel_gradient(forward, params, network_state, images, weights):
  """Returns the gradient of the score of each image by its pixels."""

  def score(x: jax.Array) -> jax.Array:
    # Images do not see each other, so the sum has each one's own gradient.
    return jnp.sum(weights * forward(params, network_state, x).logits)

  return jax.grad(score)(images)


def _gradient(forward: Forward):
  def program(params, network_state, shared, is_real, arrays):
    del shared, is_real
    return _pixel_gradient(forward, params, network_state, *arrays)

  return program


def gradient(
  net: Trained, images: np.ndarray, target: Given = PREDICTED
) -> np.ndarray:
  """Returns the gradient of the score by the pixels, float32 [N, H, W, C].

  Simonyan et al., 2013 (arXiv 1312.6034), who show the largest magnitude of a
  pixel's channels as its saliency.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.

  Raises:
    UserError: images or target are not allowed.
  """
  return engine.run(net, _gradient, (), scored(net, images, target))


def input_x_gradient(
  net: Trained, images: np.ndarray, target: Given = PREDICTED
) -> np.ndarray:
  """Returns pixels times their gradient, in logits, float32 [N, H, W, C].

  Shrikumar et al., 2016 (arXiv 1605.01713). It is integrated gradients from
  black in a single step, at the image itself: black pixels get zero.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.

  Raises:
    UserError: images or target are not allowed.
  """
  images, weights = scored(net, images, target)
  return images * engine.run(net, _gradient, (), (images, weights))


def _smoothgrad(forward: Forward):
  def program(params, network_state, shared, is_real, arrays):
    seed, num_samples, noise = shared
    images, weights = arrays
    key = jax.random.key(seed)
    spread = jnp.ptp(images, axis=(1, 2, 3), keepdims=True)

    def rows(image: jax.Array, sample: jax.Array) -> jax.Array:
      keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(sample)
      draws = jax.vmap(lambda k: jax.random.normal(k, images.shape[1:]))(keys)
      x = images[image] + noise * spread[image] * draws
      return _pixel_gradient(forward, params, network_state, x, weights[image])

    return engine.sum_over_pairs(is_real, num_samples, rows) / num_samples

  return program


def smoothgrad(
  net: Trained,
  images: np.ndarray,
  target: Given = PREDICTED,
  samples: int = 64,
  noise: float = 0.15,
  seed: int = 0,
) -> np.ndarray:
  """Returns the mean gradient of noisy copies of an image, [N, H, W, C].

  Smilkov et al., 2017 (arXiv 1706.03825), who recommend 10 % to 20 % of noise
  and 50 samples.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`.
    samples: number of noisy copies.
    noise: standard deviation of the noise, as a part of the range of the
      image's pixels.
    seed: determines the noise, which is the same for every image.

  Raises:
    UserError: images, target, samples, noise or seed are not allowed.
  """
  check_numbers(samples=(samples, 1), seed=(seed, 0, MAX_SEED))
  check_from_0(noise=noise)
  shared = np.uint32(seed), np.int32(samples), np.float32(noise)
  return engine.run(net, _smoothgrad, (), scored(net, images, target), shared)


class Integrated(NamedTuple):
  """Integrated gradients of images.

  Attributes:
    maps: float32 [N, H, W, C], in logits.
    difference: float32 [N]: score of the image minus score of the baseline.
    residual: float32 [N]: sum of the map minus `difference`; 0 for the exact
      integral.
    steps: int [N], the number of gradients that were averaged.
  """

  maps: np.ndarray
  difference: np.ndarray
  residual: np.ndarray
  steps: np.ndarray


def _integrated(forward: Forward):
  def program(params, network_state, num_steps, is_real, arrays):
    images, starts, weights = arrays

    def rows(image: jax.Array, step: jax.Array) -> jax.Array:
      # The midpoint of each step.
      share = ((step + 0.5) / num_steps).astype(jnp.float32)
      share = share[:, None, None, None]
      x = starts[image] + share * (images[image] - starts[image])
      return _pixel_gradient(forward, params, network_state, x, weights[image])

    total = engine.sum_over_pairs(is_real, num_steps, rows)
    return (images - starts) * total / num_steps

  return program


def integrated_gradients(
  net: Trained,
  images: np.ndarray,
  target: Given = PREDICTED,
  baseline: str | np.ndarray = 'black',
  steps: int = 64,
  tolerance: float = 0.01,
  max_steps: int = 1024,
) -> Integrated:
  """Integrates the gradient along the line from a baseline to the image.

  Sundararajan et al., 2017 (arXiv 1703.01365). The sum of a map is the
  difference of scores, up to the error of the sum over steps (midpoint rule).
  Where that is too large, the image is computed again with twice the steps.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: see `target.resolve`. A class that is left open is the predicted
      class of the image, for the baseline too.
    baseline: see `baselines.make`.
    steps: number of gradients at first.
    tolerance: largest residual, as a part of the difference of scores.
    max_steps: no more gradients than that, even if the residual is larger.

  Raises:
    UserError: images, target, baseline, a number of steps or the tolerance are
      not allowed.
  """
  check_numbers(steps=(steps, 1), max_steps=(max_steps, 1))
  check_from_0(can_be_infinite=True, tolerance=tolerance)
  images, weights = scored(net, images, target)
  starts = baselines.make(net, images, baseline)
  ends = (np.sum(weights * engine.logits(net, x), -1) for x in (images, starts))
  difference = np.subtract(*ends)
  maps = np.zeros_like(images)
  residual = np.full(len(images), np.nan, np.float32)
  used = np.zeros(len(images), int)
  while True:
    left = np.flatnonzero(~(np.abs(residual) <= tolerance * np.abs(difference)))
    if not len(left) or (used.any() and steps > max_steps):
      return Integrated(maps, difference, residual, used)
    arrays = images[left], starts[left], weights[left]
    maps[left] = engine.run(
      net, _integrated, (), arrays, np.int32(steps), len(images)
    )
    residual[left] = maps[left].sum((1, 2, 3)) - difference[left]
    used[left] = steps
    steps *= 2
