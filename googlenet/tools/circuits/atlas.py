"""An activation atlas: a grid over a plane through a layer's activations.

Carter et al., 2019, "Activation Atlas" (Distill). Of each image the activation
at one random place is taken, [C]; all of them are projected onto a plane, which
is divided into cells; a cell stands for the mean activation of its examples.
"""

import importlib.util
from typing import NamedTuple

import numpy as np

from googlenet.errors import UserError

PROJECTIONS = ('pca', 'umap')
# Outermost examples on each side that do not stretch the plane.
_OUTSIDE = 0.005
# Smallest number of examples of a cell that is shown.
MIN_EXAMPLES = 2


class Cells(NamedTuple):
  """The cells of a plane that hold enough examples, row by row from the top.

  Attributes:
    places: int32 [M, 2], row and column of each cell.
    means: float32 [M, C], mean activation.
    members: the examples of each cell, int [n], those nearest to the mean
      first.
  """

  places: np.ndarray
  means: np.ndarray
  members: tuple[np.ndarray, ...]


def check_projection(name: str) -> None:
  """Raises UserError if a projection is unknown or is not installed."""
  if name not in PROJECTIONS:
    raise UserError(
      f'--projection={name} is not allowed: it takes one of '
      f'{", ".join(PROJECTIONS)}'
    )
  if name == 'umap' and importlib.util.find_spec('umap') is None:
    raise UserError(
      '--projection=umap needs the package umap-learn: install it by `pip '
      'install umap-learn`, or choose --projection=pca'
    )


def directions(activations: np.ndarray) -> np.ndarray:
  """Returns activations [N, C] divided by their lengths; zeros stay zeros.

  Without it a few strong activations would stretch the plane.
  """
  lengths = np.linalg.norm(activations, axis=1, keepdims=True)
  return activations / np.maximum(lengths, np.finfo(np.float32).tiny)


def project(activations: np.ndarray, name: str, seed: int) -> np.ndarray:
  """Projects the directions of activations onto a plane.

  Args:
    activations: float [N, C].
    name: one of `PROJECTIONS`.
    seed: of UMAP.

  Returns:
    float32 [N, 2].
  """
  if name == 'pca':
    return principal(directions(activations))
  import umap  # optional, and slow to import

  # The settings of the paper's notebooks.
  reducer = umap.UMAP(
    n_components=2,
    n_neighbors=20,
    min_dist=0.01,
    metric='cosine',
    random_state=seed,
    n_jobs=1,  # the seed fixes the result only with one thread
  )
  return reducer.fit_transform(activations).astype(np.float32)


def principal(x: np.ndarray) -> np.ndarray:
  """Returns the first two principal components of rows, float32 [N, 2].

  Their signs are such that the example furthest out is on the positive side.

  Args:
    x: float [N, C]; with one column the second component is 0.
  """
  x = np.asarray(x, np.float64)
  x = x - x.mean(0)
  _, vectors = np.linalg.eigh(x.T @ x)
  plane = x @ vectors[:, ::-1][:, :2]
  plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
  furthest = plane[np.abs(plane).argmax(0), range(2)]
  return (plane * np.where(furthest < 0, -1, 1)).astype(np.float32)


def assign(plane: np.ndarray, side: int) -> np.ndarray:
  """Returns the row and column of the cell of each example, int32 [N, 2].

  The grid covers the examples but for the outermost of each side, which go
  into the cells at the border. The first axis points right, the second up.

  Args:
    plane: float [N, 2].
    side: number of cells along each side.
  """
  low, high = np.quantile(plane, [_OUTSIDE, 1 - _OUTSIDE], axis=0)
  span = np.where(high > low, high - low, 1)
  x, y = np.clip((plane - low) / span, 0, 1).T
  cells = np.stack([1 - y, x], -1) * side
  return np.clip(cells, 0, side - 1).astype(np.int32)


def make_cells(
  activations: np.ndarray,
  assigned: np.ndarray,
  min_examples: int = MIN_EXAMPLES,
) -> Cells:
  """Collects the examples of each cell.

  Args:
    activations: float [N, C].
    assigned: int [N, 2], of `assign`.
    min_examples: cells with fewer examples are left out.
  """
  places, which, counts = np.unique(
    assigned, axis=0, return_inverse=True, return_counts=True
  )
  which = which.reshape(-1)  # NumPy 2.0 returns [N, 1]
  kept = np.flatnonzero(counts >= min_examples)
  means, members = [], []
  for cell in kept:
    found = np.flatnonzero(which == cell)
    mean = activations[found].mean(0, dtype=np.float64)
    far = np.square(activations[found] - mean).sum(-1)
    means.append(mean)
    members.append(found[np.argsort(far, kind='stable')])
  return Cells(
    places[kept].astype(np.int32),
    np.array(means, np.float32).reshape(len(kept), activations.shape[1]),
    tuple(members),
  )


def draw_places(count: int, height: int, width: int, seed: int) -> np.ndarray:
  """Draws a place of a map for each image of a split, int32 [count, 2].

  Args:
    count: number of images.
    height: of the map.
    width: of the map.
    seed: fixes the place of each image, whatever the size of batches.
  """
  rng = np.random.default_rng([seed, 1])
  return rng.integers((height, width), size=(count, 2), dtype=np.int32)
