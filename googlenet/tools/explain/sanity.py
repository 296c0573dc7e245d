"""Sanity check of attributions by randomized parameters.

Adebayo et al., 2018 (arXiv 1810.03292): a map that stays the same when the
parameters of the network are randomized, does not explain what was learnt. The
cascade randomizes one layer after another, from the logits down to the first.
"""

from collections.abc import Callable

import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.model import graph
from googlenet.model.context import is_within
from googlenet.model.initialization import init_from_numpy
from googlenet.model.network import Network
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference.trained import Trained


def layers(network: Network) -> tuple[str, ...]:
  """Returns the rows of a network that have parameters, from the top down."""
  rows = dict.fromkeys(
    layer.row
    for layer in graph.graph(network.architecture)
    if layer.parameters and not layer.is_side
  )
  return tuple(reversed(rows))


def randomized(net: Trained, upto: str, seed: int = 0) -> Trained:
  """Returns a network whose upper layers have their initial parameters.

  Args:
    net: a trained network.
    upto: one of `layers`: the lowest row that is randomized. All rows above are
      randomized too; their batch norm starts with mean 0 and variance 1.
    seed: determines the parameters. Layers that are randomized for two values
      of `upto` get the same ones.

  Raises:
    UserError: the network has no such layer.
  """
  known = layers(net.network)
  if upto not in known:
    raise UserError(
      f'upto={upto} is no layer with parameters{did_you_mean(upto, known)}; '
      f'allowed is one of {", ".join(known)}'
    )
  chosen = known[: known.index(upto) + 1]
  drawn = init_from_numpy(net.network, net.image_shape, seed)
  params, network_state = (
    {
      module: new[module] if is_within(module, chosen) else leaves
      for module, leaves in old.items()
    }
    for old, new in zip((net.params, net.network_state), drawn, strict=True)
  )
  return net._replace(
    params=replicated(params), network_state=replicated(network_state)
  )


def rank_correlation(
  a: np.ndarray, b: np.ndarray, magnitude: bool = False
) -> np.ndarray:
  """Returns Spearman's rank correlation of maps, float64 [N] in -1..1.

  Args:
    a: maps [N, ...].
    b: maps of the same shape.
    magnitude: whether to compare magnitudes. A map and its negative are then
      the same.

  A map without any differences gets 0.
  """
  a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
  if magnitude:
    a, b = np.abs(a), np.abs(b)
  a, b = (np.stack([_ranks(row) for row in x]) for x in (a, b))
  a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
  scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
  return np.divide((a * b).sum(-1), scale, np.zeros(len(a)), where=scale > 0)


def _ranks(values: np.ndarray) -> np.ndarray:
  """Returns ranks [n] from 1; equal values share their mean rank."""
  _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[place.reshape(-1)]


def cascade(
  net: Trained,
  explain: Callable[[Trained], np.ndarray],
  seed: int = 0,
  magnitude: bool = False,
) -> dict[str, np.ndarray]:
  """Compares maps with those of networks that are more and more randomized.

  Args:
    net: a trained network.
    explain: net -> maps [N, ...], always of the same class: the predicted class
      would change with the parameters.
    seed: determines the parameters.
    magnitude: see `rank_correlation`.

  Returns:
    The rank correlation of each image, float64 [N], for each of `layers`, down
    to which the network was randomized.
  """
  before = explain(net)
  return {
    layer: rank_correlation(
      before, explain(randomized(net, layer, seed)), magnitude
    )
    for layer in layers(net.network)
  }
