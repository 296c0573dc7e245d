"""Muon: Jordan et al., 2024, kellerjordan.github.io/posts/muon.

Update rule and state are the same as in `optax.contrib.muon`, which processes
matrices one by one. On a GPU or TPU, where each matrix product adds autotuning
and launch time, matrices of similar sizes are stacked here.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array
Orthogonalize = Callable[[Sequence[Array], Array, int], list[Array]]

# Coefficients of the iterated quintic polynomial, from the post.
_COEFFICIENTS = (3.4445, -4.775, 2.0315)
_EPSILON = 1e-8


def _iterate(x: Array, coefficients: Array, steps: int) -> Array:
  """Runs Newton-Schulz steps on wide matrices [..., M, N] of norm <= 1."""
  for _ in range(steps):
    a = x @ x.mT
    b = coefficients[1] * a + coefficients[2] * a @ a
    x = coefficients[0] * x + b @ x
  return x


def _wide(matrix: Array) -> Array:
  """Transposes a matrix if it has more rows than columns."""
  return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _normalized(matrix: Array) -> Array:
  return matrix / (jnp.linalg.norm(matrix) + _EPSILON)


def _padded(matrix: Array, rows: int, columns: int) -> Array:
  """Pads a matrix with zeros to [rows, columns]."""
  height, width = matrix.shape
  return jnp.pad(matrix, ((0, rows - height), (0, columns - width)))


def orthogonalize_each(
  matrices: Sequence[Array], coefficients: Array, steps: int
) -> list[Array]:
  """Moves singular values of matrices towards 1, one matrix after another.

  Args:
    matrices: float32 [rows, columns] each.
    coefficients: float32 [3], coefficients of x, x^3 and x^5.
    steps: number of iterations.

  Returns:
    Matrices of the same shapes.
  """
  results = []
  for matrix in matrices:
    x = _iterate(_normalized(_wide(matrix)), coefficients, steps)
    results.append(x if x.shape == matrix.shape else x.T)
  return results


def orthogonalize_stacked(
  matrices: Sequence[Array], coefficients: Array, steps: int
) -> list[Array]:
  """Computes `orthogonalize_each` on stacks of zero-padded matrices.

  Rows and columns of zeros stay zero and change no product. Matrices are
  stacked together if their smaller sides lie between the same powers of 2.
  """
  wide = [_normalized(_wide(matrix)) for matrix in matrices]
  stacks = collections.defaultdict(list)
  for place, x in enumerate(wide):
    stacks[(x.shape[0] - 1).bit_length()].append(place)
  results: list[Any] = [None] * len(matrices)
  for places in stacks.values():
    rows, columns = np.max([wide[place].shape for place in places], axis=0)
    stack = jnp.stack([_padded(wide[place], rows, columns) for place in places])
    stack = _iterate(stack, coefficients, steps)
    for place, x in zip(places, stack, strict=True):
      height, width = wide[place].shape
      x = x[:height, :width]
      results[place] = x if x.shape == matrices[place].shape else x.T
  return results


def scale_by_muon(
  beta: float, steps: int, nesterov: bool, orthogonalize: Orthogonalize
) -> optax.GradientTransformation:
  """Returns `optax.contrib.scale_by_muon` for convolution weights.

  Args:
    beta: decay of the running mean of gradients.
    steps: Newton-Schulz iterations.
    nesterov: whether to use Nesterov momentum.
    orthogonalize: (matrices, coefficients, steps) -> matrices.
  """

  def init(params):
    return optax.contrib.MuonState(
      count=jnp.zeros([], jnp.int32),
      mu=optax.tree.zeros_like(params),
      ns_coeffs=jnp.asarray(_COEFFICIENTS),
    )

  def update(updates, state, params=None):
    del params
    mean = optax.tree.update_moment(updates, state.mu, beta, 1)
    count = optax.safe_increment(state.count)
    if nesterov:
      ahead = jax.tree.map(
        lambda m, g: beta * m + (1 - beta) * g,
        optax.tree.bias_correction(mean, beta, optax.safe_increment(count)),
        optax.tree.bias_correction(updates, beta, count),
      )
    else:
      ahead = optax.tree.bias_correction(mean, beta, count)
    leaves, structure = jax.tree.flatten(ahead)
    # [kh, kw, C_in, C_out] -> [kh * kw * C_in, C_out].
    matrices = [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves]
    matrices = orthogonalize(matrices, state.ns_coeffs, steps)
    scaled = [
      jnp.sqrt(jnp.maximum(1, x.shape[1] / x.shape[0])) * x.reshape(leaf.shape)
      for x, leaf in zip(matrices, leaves, strict=True)
    ]
    return structure.unflatten(scaled), optax.contrib.MuonState(
      count=count, mu=mean, ns_coeffs=state.ns_coeffs
    )

  return optax.GradientTransformation(init, update)


def muon(
  learning_rate: optax.Schedule,
  beta: float,
  steps: int,
  nesterov: bool,
  weight_decay: float,
  mask: Any,
  is_stacked: bool | None = None,
) -> optax.GradientTransformation:
  """Returns `optax.contrib.muon` for convolution weights only.

  Args:
    learning_rate: step -> rate.
    beta: decay of the running mean of gradients.
    steps: Newton-Schulz iterations.
    nesterov: whether to use Nesterov momentum.
    weight_decay: decoupled: multiplied by the learning rate.
    mask: optax mask of the weights that decay; None: all.
    is_stacked: whether to stack matrices of similar sizes; None: yes, except on
      a CPU, where the padding costs more time than stacking saves.
  """
  if is_stacked is None:
    is_stacked = jax.default_backend() != 'cpu'
  rule = optax.chain(
    scale_by_muon(
      beta,
      steps,
      nesterov,
      orthogonalize_stacked if is_stacked else orthogonalize_each,
    ),
    optax.identity(),  # keeps the state structure of optax.contrib.muon
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )
  # optax.contrib.muon uses Adam for all but matrices. Here all are matrices,
  # but Adam stays so that the optimizer state in checkpoints is the same.
  return optax.multi_transform(
    {'muon': rule, 'adam': optax.adamw(learning_rate, nesterov=nesterov)},
    lambda params: jax.tree.map(lambda _: 'muon', params),
  )
