"""Muon: Jordan et al., 2024, kellerjordan.github.io/posts/muon.

Rule and state are those of `optax.contrib.muon`, which iterates on the matrices
one by one. On a GPU or TPU, where each product costs time to tune and to start,
matrices of similar sizes are stacked here.
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

# Of the quintic polynomial that is iterated, as in the post.
_COEFFICIENTS = (3.4445, -4.775, 2.0315)
_EPSILON = 1e-8


def _iterate(x: Array, coefficients: Array, steps: int) -> Array:
  """Newton-Schulz steps on wide matrices [..., rows, columns] of norm <= 1."""
  for _ in range(steps):
    a = x @ x.mT
    b = coefficients[1] * a + coefficients[2] * a @ a
    x = coefficients[0] * x + b @ x
  return x


def _wide(matrix: Array) -> Array:
  """Returns a matrix or its transpose, with no more rows than columns."""
  return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _normalized(matrix: Array) -> Array:
  return matrix / (jnp.linalg.norm(matrix) + _EPSILON)


def _padded(matrix: Array, rows: int, columns: int) -> Array:
  """Fills a matrix up with zeros to [rows, columns]."""
  height, width = matrix.shape
  return jnp.pad(matrix, ((0, rows - height), (0, columns - width)))


def orthogonalize_each(
  matrices: Sequence[Array], coefficients: Array, steps: int
) -> list[Array]:
  """Moves the singular values of matrices towards 1, one after another.

  Args:
    matrices: float32 [rows, columns] each.
    coefficients: float32 [3], of x, x^3 and x^5.
    steps: of the iteration.

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
  """Returns what `orthogonalize_each` does, from stacks padded with zeros.

  Rows and columns of zeros stay zero and change no product. A stack holds the
  matrices whose smaller sides lie between the same powers of 2.
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
  """Returns `optax.contrib.scale_by_muon` for weights of convolutions.

  Args:
    beta: decay of the mean of gradients.
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
    # [kh, kw, C_in, C_out] as the matrix [kh * kw * C_in, C_out].
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
  """Returns `optax.contrib.muon` for weights of convolutions alone.

  Args:
    learning_rate: step -> rate.
    beta: decay of the mean of gradients.
    steps: Newton-Schulz iterations.
    nesterov: whether to use Nesterov momentum.
    weight_decay: decoupled: multiplied by the learning rate.
    mask: which weights decay, as optax takes it; None: all.
    is_stacked: whether to stack matrices of similar sizes; None: everywhere but
      on a CPU, where the zeros cost more than they save.
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
    optax.identity(),  # in optax the scale by shape has a state of its own
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )
  # Optax uses Adam for all but matrices. There is nothing else here, but Adam's
  # counters are a part of the state, and so of every checkpoint.
  return optax.multi_transform(
    {'muon': rule, 'adam': optax.adamw(learning_rate, nesterov=nesterov)},
    lambda params: jax.tree.map(lambda _: 'muon', params),
  )
