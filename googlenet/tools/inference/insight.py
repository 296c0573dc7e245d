"""Feature maps, class activation maps and branch contributions of a network.

Everything is computed in float32, whatever the precision of the run, since
contributions are small differences of logits.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.input.preprocess import preprocess
from googlenet.model import graph
from googlenet.model.network import Network
from googlenet.runtime.compilation import compiled_with
from googlenet.tools.inference.trained import Trained


class ClassMaps(NamedTuple):
  """Class activation maps: the mean of a map plus the bias is the logit.

  Attributes:
    maps: float32 [B, K, h, w], one per class.
    bias: float32 [K].
    logits: float32 [B, K], computed by the network.
  """

  maps: np.ndarray
  bias: np.ndarray
  logits: np.ndarray


def seen(trained: Trained, images: np.ndarray) -> np.ndarray:
  """Returns the preprocessed images, float32 [B, S, S, C].

  Args:
    trained: a run.
    images: uint8 [B, H, W, C] before resizing, as in all functions here.
  """
  return np.asarray(preprocess(jnp.asarray(images), trained.config.data))


def first_filters(trained: Trained) -> np.ndarray:
  """Returns the first convolution, float32 [kh, kw, C_in, C_out]."""
  first = graph.first_convolution(trained.network.architecture)
  return _host(trained.params[first]['w'])


def stages(network: Network) -> dict[str, str]:
  """Returns the name of the end point that is the last map of each stage.

  If a stage ends in a global mean, its end point is a vector; its last map is
  then the output of the row before. Stages without a map are left out.
  """
  found, last = {}, ''
  for layer in graph.graph(network.architecture):
    if layer.stage and not layer.is_side:
      is_map = len(layer.shape) == 3
      found[layer.stage] = layer.stage if is_map else last
      last = layer.row or layer.name
  return {stage: name for stage, name in found.items() if name}


def block_names(network: Network) -> tuple[str, ...]:
  """Returns the names of the blocks that concatenate their branches."""
  return tuple(_blocks(network))


def branch_channels(network: Network, block: str) -> dict[str, slice]:
  """Returns the channels of each branch in the output of a block.

  A branch is named after its last layer that has a name; without one it is
  `pool`.

  Args:
    network: any.
    block: one of `block_names`.

  Raises:
    UserError: the network has no such block.
  """
  known = _blocks(network)
  if block not in known:
    allowed = ', '.join(known) or 'none: this network has no such blocks'
    raise UserError(
      f'--block={block} is no block that concatenates branches'
      f'{did_you_mean(block, known)}; allowed is one of {allowed}'
    )
  found, start = {}, 0
  for name, width in known[block].items():
    found[name] = slice(start, start + width)
    start += width
  return found


def maps(
  trained: Trained, images: np.ndarray, wanted: tuple[str, ...]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Returns logits [B, K] and end points by name, [B, h, w, C]; float32.

  Raises:
    UserError: the network lacks one of these points.
  """
  program = _program(trained.network, trained.config.data, tuple(wanted))
  logits, found = program(
    trained.params, trained.network_state, jnp.asarray(images), {}
  )
  return _host(logits), {name: _host(y) for name, y in found.items()}


def stage_maps(trained: Trained, images: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the map of each stage, float32 [B, h, w, C]."""
  by_stage = stages(trained.network)
  _, found = maps(trained, images, tuple(by_stage.values()))
  return {stage: found[name] for stage, name in by_stage.items()}


def branch_maps(
  trained: Trained, images: np.ndarray, block: str
) -> dict[str, np.ndarray]:
  """Returns the output of each branch of a block, float32 [B, h, w, C].

  Raises:
    UserError: the network has no such block.
  """
  channels = branch_channels(trained.network, block)
  _, found = maps(trained, images, (block,))
  return {name: found[block][..., part] for name, part in channels.items()}


def has_class_maps(network: Network) -> bool:
  """Whether the logits are linear in the global mean of the last map."""
  return _last_map(network) is not None


def class_activation_maps(trained: Trained, images: np.ndarray) -> ClassMaps:
  """Returns the map sum_k w_kc f_k of each class c, where f is the last map.

  Zhou et al., 2016 (arXiv 1512.04150). The maps are exact because only a global
  mean and a linear layer follow f. Without the linear layer (NiN) the channels
  of f are the maps.

  Raises:
    UserError: the network does not end like that.
  """
  last = _last_map(trained.network)
  if last is None:
    raise UserError(
      f'config.model.variant={trained.config.model.variant!r}: this network '
      'has no global mean before its logits, so no class activation maps'
    )
  logits, found = maps(trained, images, (last,))
  return _class_maps(trained, found[last], logits)


def contrast(maps: np.ndarray) -> np.ndarray:
  """Subtracts from each map [..., h, w] its mean.

  A class that a network is sure of has a large map everywhere: what differs
  from position to position is seen without the mean, which is in the logit.
  """
  return maps - maps.mean((-2, -1), keepdims=True)


def _class_maps(
  trained: Trained, last_map: np.ndarray, logits: np.ndarray
) -> ClassMaps:
  weights, bias = _classifier(trained, logits.shape[-1])
  return ClassMaps(np.einsum('bhwc,ck->bkhw', last_map, weights), bias, logits)


def branch_contributions(
  trained: Trained, images: np.ndarray, block: str
) -> dict[str, np.ndarray]:
  """Returns the contribution of each branch of a block to the logits, [B, K].

  A branch's contribution is the drop of the logits when the branch's output is
  set to zero. For the last block before a global mean the contributions and the
  bias add up to the logits; for earlier ones they do not, as the layers in
  between are not linear.

  Raises:
    UserError: the network has no such block.
  """
  channels = branch_channels(trained.network, block)
  width = max(part.stop for part in channels.values())
  program = _program(trained.network, trained.config.data, ())

  def logits_with(mask: np.ndarray) -> np.ndarray:
    logits, _ = program(
      trained.params, trained.network_state, jnp.asarray(images), {block: mask}
    )
    return _host(logits)

  whole, found = logits_with(np.ones(width, np.float32)), {}
  for name, part in channels.items():
    mask = np.ones(width, np.float32)
    mask[part] = 0
    found[name] = whole - logits_with(mask)
  return found


class Inside(NamedTuple):
  """Logits, maps and contributions for one image.

  Attributes:
    logits: float32 [K].
    stages: the last map of each stage, float32 [h, w, C].
    class_maps: as `class_activation_maps`, for a batch of one; None if the
      network has none.
    contributions: as `branch_contributions`, float32 [K], by block and branch.
  """

  logits: np.ndarray
  stages: dict[str, np.ndarray]
  class_maps: ClassMaps | None
  contributions: dict[str, dict[str, np.ndarray]]


def inside(trained: Trained, image: np.ndarray) -> Inside:
  """Looks into the network for one image, uint8 [H, W, C].

  One batch holds the image once for the whole network and once for each branch
  that is set to zero.
  """
  network, last = trained.network, _last_map(trained.network)
  by_stage = stages(network)
  channels = {
    block: branch_channels(network, block) for block in block_names(network)
  }
  branches = [
    (block, name, part)
    for block, parts in channels.items()
    for name, part in parts.items()
  ]
  masks = {}
  for block, parts in channels.items():
    width = max(part.stop for part in parts.values())
    masks[block] = np.ones((1 + len(branches), 1, 1, width), np.float32)
  for row, (block, _, part) in enumerate(branches, start=1):
    masks[block][row, ..., part] = 0
  wanted = tuple(dict.fromkeys([*by_stage.values(), *([last] if last else [])]))
  program = _program(network, trained.config.data, wanted)
  batch = np.repeat(image[None], 1 + len(branches), axis=0)
  logits, found = program(
    trained.params, trained.network_state, jnp.asarray(batch), masks
  )
  logits = _host(logits)
  found = {name: _host(y[:1]) for name, y in found.items()}
  class_maps = _class_maps(trained, found[last], logits[:1]) if last else None
  contributions: dict[str, dict[str, np.ndarray]] = {}
  for row, (block, name, _) in enumerate(branches, start=1):
    contributions.setdefault(block, {})[name] = logits[0] - logits[row]
  return Inside(
    logits[0],
    {stage: found[name][0] for stage, name in by_stage.items()},
    class_maps,
    contributions,
  )


def _blocks(network: Network) -> dict[str, dict[str, int]]:
  """Returns the width of each branch, by block and branch.

  Only blocks count that concatenate their branches, and after that at most
  scale the channels.
  """
  layers = {layer.name: layer for layer in graph.graph(network.architecture)}
  # The last layer of each row.
  rows = {layer.row: layer for layer in layers.values() if not layer.is_side}
  found = {}
  for row, layer in rows.items():
    while layer.kind == 'multiply':
      layer = layers[layer.inputs[0]]
    if row and layer.kind == 'concat':
      found[row] = {}
      for branch in (layers[name] for name in layer.inputs):
        name = branch_name(branch, layers)
        names = (f'{name}_{i}' if i > 1 else name for i in itertools.count(1))
        name = next(name for name in names if name not in found[row])
        found[row][name] = branch.shape[-1]
  return found


def branch_name(last: graph.Layer, layers: Mapping[str, graph.Layer]) -> str:
  """Returns the name of a branch: that of its last named layer, or 'pool'.

  Args:
    last: the layer that the branch ends with; a fork has the names of all its
      branches.
    layers: of the network, by name.
  """
  if last.kind == 'concat':
    names = (branch_name(layers[name], layers) for name in last.inputs)
    return ' + '.join(names)
  layer = last
  while layer and layer.row == last.row:
    if name := getattr(layer.op, 'name', ''):
      return name
    layer = layers.get(layer.inputs[0])
  return 'pool'


def _last_map(network: Network) -> str | None:
  """Returns the point in whose global mean the logits are linear, or None."""
  layers = {layer.name: layer for layer in graph.graph(network.architecture)}
  *_, layer = layers.values()
  if layer.kind == 'dense' and layer.op.is_linear:
    layer = layers[layer.inputs[0]]
  while layer.kind == 'dropout':
    layer = layers[layer.inputs[0]]
  if layer.kind != 'global_mean':
    return None
  last = layers[layer.inputs[0]]
  return last.row or last.name


def _classifier(
  trained: Trained, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns weights [C, K] and bias [K] of the layer after the global mean."""
  if 'logits' not in trained.params:
    return np.eye(num_classes, dtype=np.float32), np.zeros(
      num_classes, np.float32
    )
  leaves = trained.params['logits']
  return _host(leaves['w']), _host(leaves['b'])


def _host(x: jax.Array) -> np.ndarray:
  return np.asarray(jax.device_get(x), np.float32)


@functools.lru_cache(maxsize=16)
def _program(
  network: Network,
  data_config: ml_collections.FrozenConfigDict,
  wanted: tuple[str, ...],
) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
  """Makes (params, network_state, images, masks) -> (logits, end points)."""

  def forward(params, network_state, images, masks):
    edit = {
      name: lambda x, mask=mask: x * mask.astype(x.dtype)
      for name, mask in masks.items()
    }
    outputs, _ = network.apply(
      params,
      network_state,
      None,
      preprocess(images, data_config),
      is_training=False,
      end_points=wanted,
      edit=edit,
    )
    return outputs.logits, {name: outputs.end_points[name] for name in wanted}

  return compiled_with(
    network.kernels.compiler_options, jax.jit(forward), 'maps of the network'
  )
