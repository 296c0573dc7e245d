"""What a trained network does inside: maps, branches, classes. Arrays only.

All of it is computed in float32, whatever the precision of the run: effects on
logits are small differences.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.input.preprocess import preprocess
from googlenet.model import graph, rows
from googlenet.model.network import Network
from googlenet.runtime.compilation import compiled_with
from googlenet.tools.inference.trained import Trained


class ClassMaps(NamedTuple):
  """Class activation maps; mean over height and width plus bias is the logit.

  Attributes:
    maps: float32 [B, K, h, w], one a class.
    bias: float32 [K] of the logits.
    logits: float32 [B, K] as the network computes them.
  """

  maps: np.ndarray
  bias: np.ndarray
  logits: np.ndarray


def seen(trained: Trained, images: np.ndarray) -> np.ndarray:
  """Returns what the network sees of images: float32 [B, S, S, C].

  Args:
    trained: a run.
    images: uint8 [B, H, W, C] at their native size, as everywhere here.
  """
  return np.asarray(preprocess(jnp.asarray(images), trained.config.data))


def first_filters(trained: Trained) -> np.ndarray:
  """Returns the first convolution, float32 [kh, kw, C_in, C_out]."""
  first = graph.first_convolution(trained.network.architecture)
  return _host(trained.params[first]['w'])


def stages(network: Network) -> dict[str, str]:
  """Returns the name of the end point that is the map of each stage.

  The last stage of a network with a global mean has a vector for an end point:
  there it is that of its last row. What has no map is left out.
  """
  architecture = network.architecture
  found = {stage.name: stage.name for stage in architecture.stages}
  if isinstance(architecture.head[0], rows.GlobalMean):
    last = architecture.stages[-1]
    found[last.name] = getattr(last.rows[-1], 'name', '')
  return {stage: name for stage, name in found.items() if name}


def block_names(network: Network) -> tuple[str, ...]:
  """Returns the blocks whose output is their branches side by side."""
  return tuple(_blocks(network))


def branch_channels(network: Network, block: str) -> dict[str, slice]:
  """Returns the channels of each branch in the output of a block.

  A branch is called after its last convolution, or `pool` without one.

  Args:
    network: any.
    block: one of `block_names`.

  Raises:
    UserError: it is none.
  """
  known = _blocks(network)
  if block not in known:
    allowed = ', '.join(known) or 'none: this network has no such blocks'
    raise UserError(
      f'--block={block} is no block with branches side by side'
      f'{did_you_mean(block, known)}; allowed is one of {allowed}'
    )
  widths = [_width(branch) for branch in known[block].branches]
  if None in widths:
    # A branch of pooling alone keeps the channels of its input.
    widths[widths.index(None)] = known[block].inputs
  found, start = {}, 0
  for branch, width in zip(known[block].branches, widths, strict=True):
    found[_branch_name(branch)] = slice(start, start + width)
    start += width
  return found


def maps(
  trained: Trained, images: np.ndarray, wanted: tuple[str, ...]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Returns logits [B, K] and end points by name, [B, h, w, C]; float32.

  Raises:
    UserError: there is no end point of such a name.
  """
  known = [
    name
    for stage in trained.network.architecture.stages
    for name in (*(getattr(row, 'name', '') for row in stage.rows), stage.name)
    if name
  ]
  for name in wanted:
    if name not in known:
      raise UserError(
        f'{name!r} is no end point of the network'
        f'{did_you_mean(name, known)}; allowed is one of {", ".join(known)}'
      )
  program = _program(trained.network, trained.config.data, tuple(wanted), ())
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
    UserError: as `branch_channels`.
  """
  channels = branch_channels(trained.network, block)
  _, found = maps(trained, images, (block,))
  return {name: found[block][..., part] for name, part in channels.items()}


def has_class_maps(network: Network) -> bool:
  """Whether the logits are linear in the mean of a last map."""
  return _last_map(network) is not None


def class_activation_maps(trained: Trained, images: np.ndarray) -> ClassMaps:
  """Returns sum_k w_kc f_k of each class c, where f are the last maps.

  Zhou et al., 2016 (arXiv 1512.04150): exact where the network is a global mean
  and a linear layer after f. Without that layer (NiN) f are the maps.

  Raises:
    UserError: the network has no such head.
  """
  last = _last_map(trained.network)
  if last is None:
    raise UserError(
      f'config.model.variant={trained.config.model.variant!r}: this network '
      'has no global mean before its logits, so no class activation maps'
    )
  logits, found = maps(trained, images, (last,))
  weights, bias = _classifier(trained, logits.shape[-1])
  return ClassMaps(
    np.einsum('bhwc,ck->bkhw', found[last], weights), bias, logits
  )


def branch_contributions(
  trained: Trained, images: np.ndarray, block: str
) -> dict[str, np.ndarray]:
  """Returns by how much each branch of a block raises the logits, [B, K].

  That is what the logits lose when the channels of the branch are zero. For the
  last block before a global mean these, and the bias, add up to the logits; for
  an earlier one they do not, as what follows is not linear.

  Raises:
    UserError: as `branch_channels`.
  """
  channels = branch_channels(trained.network, block)
  width = max(part.stop for part in channels.values())
  program = _program(trained.network, trained.config.data, (), (block,))

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
  """All of the above for one image, from one compiled program.

  Attributes:
    logits: float32 [K].
    stages: the map of each stage, float32 [h, w, C].
    class_maps: as `class_activation_maps`, of a batch of one; None where the
      network has none.
    contributions: as `branch_contributions`, float32 [K], by block and branch.
  """

  logits: np.ndarray
  stages: dict[str, np.ndarray]
  class_maps: ClassMaps | None
  contributions: dict[str, dict[str, np.ndarray]]


def inside(trained: Trained, image: np.ndarray) -> Inside:
  """Returns what the network does with one image, uint8 [H, W, C].

  The image is computed once as it is and once without each branch, in one
  batch.
  """
  network, last = trained.network, _last_map(trained.network)
  by_stage = stages(network)
  branches = [
    (block, name, part)
    for block in block_names(network)
    for name, part in branch_channels(network, block).items()
  ]
  masks = {}
  for block in block_names(network):
    parts = branch_channels(network, block).values()
    width = max(part.stop for part in parts)
    masks[block] = np.ones((1 + len(branches), 1, 1, width), np.float32)
  for row, (block, _, part) in enumerate(branches, start=1):
    masks[block][row, ..., part] = 0
  wanted = tuple(dict.fromkeys([*by_stage.values(), *([last] if last else [])]))
  program = _program(network, trained.config.data, wanted, tuple(masks))
  batch = np.repeat(image[None], 1 + len(branches), axis=0)
  logits, found = program(
    trained.params, trained.network_state, jnp.asarray(batch), masks
  )
  logits = _host(logits)
  found = {name: _host(y[:1]) for name, y in found.items()}
  class_maps = None
  if last:
    weights, bias = _classifier(trained, logits.shape[-1])
    maps_ = np.einsum('bhwc,ck->bkhw', found[last], weights)
    class_maps = ClassMaps(maps_, bias, logits[:1])
  contributions: dict[str, dict[str, np.ndarray]] = {}
  for row, (block, name, _) in enumerate(branches, start=1):
    contributions.setdefault(block, {})[name] = logits[0] - logits[row]
  return Inside(
    logits[0],
    {stage: found[name][0] for stage, name in by_stage.items()},
    class_maps,
    contributions,
  )


class _Block(NamedTuple):
  branches: tuple[rows.Branch, ...]
  inputs: int | None  # channels


def _blocks(network: Network) -> dict[str, _Block]:
  """Returns the blocks that join their branches on channels and do no more."""
  found, width = {}, None
  for stage in network.architecture.stages:
    for row in stage.rows:
      if isinstance(row, rows.ConvLayer):
        width = row.convs[-1].width
      elif isinstance(row, rows.Block) and row.residual:
        width = row.residual.width
      elif isinstance(row, rows.Block):
        found[row.name] = _Block(row.branches, width)
        width = sum(_width(branch) or width for branch in row.branches)
  return found


def _width(branch: rows.Branch) -> int | None:
  """Returns the channels that a branch puts out; None: those it takes."""
  for op in reversed(branch):
    if isinstance(op, rows.Conv):
      return op.width
    if isinstance(op, rows.Fork):
      return sum(_width(part) for part in op.branches)
  return None


def _branch_name(branch: rows.Branch) -> str:
  for op in reversed(branch):
    if isinstance(op, rows.Conv):
      return op.name
    if isinstance(op, rows.Fork):
      return ' + '.join(_branch_name(part) for part in op.branches)
  return 'pool'


def _last_map(network: Network) -> str | None:
  """Returns the end point whose mean is what the logits are linear in."""
  first, *rest = network.architecture.head
  is_linear = isinstance(first, rows.GlobalMean) and all(
    isinstance(op, rows.Dropout) for op in rest
  )
  last = network.architecture.stages[-1].rows[-1]
  return getattr(last, 'name', None) if is_linear else None


def _classifier(
  trained: Trained, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns weights [C, K] and bias [K] after the global mean."""
  if not trained.network.architecture.has_logits:
    return np.eye(num_classes, dtype=np.float32), np.zeros(
      num_classes, np.float32
    )
  leaves = trained.params['logits']
  return _host(leaves['w']), _host(leaves['b'])


def _host(x: jax.Array) -> np.ndarray:
  return np.asarray(jax.device_get(x), np.float32)


# A compiled program for each, as long as it is among the last that were used.
@functools.lru_cache(maxsize=16)
def _program(
  network: Network,
  data_config: ml_collections.FrozenConfigDict,
  wanted: tuple[str, ...],
  masked: tuple[str, ...],
) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
  """Makes (params, network_state, images, masks) -> (logits, end points)."""

  def forward(params, network_state, images, masks):
    def edit(name: str, x: jax.Array) -> jax.Array:
      return x * masks[name].astype(x.dtype) if name in masks else x

    outputs, _ = network.apply(
      params,
      network_state,
      None,
      preprocess(images, data_config),
      is_training=False,
      with_end_points=bool(wanted),
      edit=edit if masked else None,
    )
    return outputs.logits, {name: outputs.end_points[name] for name in wanted}

  return compiled_with(
    network.kernels.compiler_options, jax.jit(forward), 'maps of the network'
  )
