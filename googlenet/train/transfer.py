"""Parameters of another run in place of newly drawn ones.

What cannot be taken over is named: classifiers for other classes, a first
convolution for other images.

finetune.py adds parts that are frozen or have rates of their own; pretrained.py
reads what a run holds, and writes a run of parameters from elsewhere.
"""

import pathlib
from typing import Any

import haiku as hk
import numpy as np

from googlenet.errors import UserError
from googlenet.io import checkpoint, pretrained
from googlenet.model import graph
from googlenet.model.network import Network

_SHOWN = 20


def load(
  workdir: str,
  network: Network,
  params: hk.Params,
  network_state: hk.State,
) -> tuple[hk.Params, hk.State, tuple[str, ...]]:
  """Takes over the parameters and running statistics of another run.

  Classifiers and auxiliary heads that are of another shape, or that the other
  run has not, stay as they are. A first convolution for another number of
  channels is `convert_channels` of the other's.

  Args:
    workdir: of the other run.
    network: of this run.
    params: newly drawn.
    network_state: likewise.

  Returns:
    params, network_state, and lines that tell what was not taken over.

  Raises:
    UserError: there is no such run, or it is of another network.
  """
  path, other = _read(workdir)
  ours = {'params': params, 'network_state': network_state}
  theirs = {'params': other.params, 'network_state': other.network_state}
  theirs['params'], lines = _fit_channels(
    graph.first_convolution(network.architecture), params, other.params
  )
  taken, new, problems = _take_over(ours, theirs, _heads(network))
  known = {module for modules in ours.values() for module in modules}
  left = [
    module
    for module in {**other.params, **other.network_state}
    if module not in known
  ]
  problems += [
    f'{module} is not in this one'
    for module in left
    if not module.startswith('aux_')
  ]
  problems += _nonfinite(taken)
  if problems:
    more = len(problems) - _SHOWN
    raise UserError(
      f'config.finetune.from_workdir={workdir!r} is of another network than '
      f'config.model: {"; ".join(problems[:_SHOWN])}'
      + (f' and {more} more' if more > 0 else '')
    )
  images = pretrained.describe_images(workdir)
  its_images = f'; its images: {images}' if images else ''
  lines.insert(0, f'from     {path}: step {other.step:,}{its_images}')
  if new:
    lines.append(f'new      {", ".join(new)}: newly initialised')
  if left:
    lines.append(f'left out {", ".join(left)}: not in this network')
  return taken['params'], taken['network_state'], tuple(lines)


def _read(workdir: str) -> tuple[pathlib.Path, checkpoint.Checkpoint]:
  try:
    return pretrained.read_run(workdir)
  except UserError as error:
    text = str(error).replace(
      f'--workdir={workdir}', f'config.finetune.from_workdir={workdir!r}'
    )
    raise UserError(text) from error


def _fit_channels(
  first: str, params: hk.Params, other: hk.Params
) -> tuple[hk.Params, list[str]]:
  """Adapts the first convolution of the other run to other images.

  Args:
    first: its name.
    params: of this run.
    other: those of the other run.

  Returns:
    The parameters of the other run, and a line if any of them changed.
  """
  old, want = other.get(first, {}).get('w'), params[first]['w'].shape
  if not _differ_in_channels(old, want):
    return other, []
  line = (
    f'channels {first}: {old.shape[2]} -> {want[2]}, the sum over the old ones '
    'in equal parts'
  )
  fitted = other[first] | {'w': convert_channels(old, want[2])}
  return {**other, first: fitted}, [line]


def _take_over(
  ours: dict[str, hk.Params],
  theirs: dict[str, hk.Params],
  replaceable: set[str],
) -> tuple[dict[str, hk.Params], tuple[str, ...], list[str]]:
  """Returns the trees of this run with the arrays of the other.

  Args:
    ours: newly drawn, 'params' and 'network_state'.
    theirs: likewise, read.
    replaceable: modules that stay as they are where the other has none of
      their shape.

  Returns:
    The trees; the modules that stayed; and, in words, what does not fit.
  """
  new: dict[str, None] = {}  # in order
  problems = []
  for tree, modules in ours.items():
    for module, leaves in modules.items():
      found = theirs[tree].get(module, {})
      if _shapes(found) == _shapes(leaves):
        continue
      if module in replaceable:
        new[module] = None
      else:
        problems += _differences(module, found, leaves)
  # The two parts of a classifier belong together: both are new, or none.
  taken = {
    tree: {
      module: leaves if module in new else theirs[tree].get(module, leaves)
      for module, leaves in modules.items()
    }
    for tree, modules in ours.items()
  }
  return taken, tuple(new), problems


def _nonfinite(trees: dict[str, hk.Params]) -> list[str]:
  return [
    f'{module}/{leaf} is not finite'
    for modules in trees.values()
    for module, leaves in modules.items()
    for leaf, array in leaves.items()
    if not np.isfinite(array).all()
  ]


def convert_channels(w: np.ndarray, channels: int) -> np.ndarray:
  """Adapts a first convolution [kh, kw, C, width] to other images.

  Each new channel gets the sum over the old ones divided by the number of new
  ones: what comes out for a grey image stays the same, be it in one channel or
  repeated in three.
  """
  total = w.sum(axis=2, keepdims=True, dtype=np.float64) / channels
  return np.repeat(total, channels, axis=2).astype(w.dtype)


def _differ_in_channels(w: Any, shape: tuple[int, ...]) -> bool:
  """Whether weights have another number of input channels and no more."""
  if w is None or w.ndim != 4 or w.shape == shape:
    return False
  return (*w.shape[:2], w.shape[3]) == (*shape[:2], shape[3])


def _shapes(leaves: dict[str, Any]) -> dict[str, tuple[int, ...]]:
  return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def _differences(
  module: str, found: dict[str, Any], wanted: dict[str, Any]
) -> list[str]:
  have, want = _shapes(found), _shapes(wanted)
  return [
    f'{module}/{name} has {have.get(name, "nothing")} in place of '
    f'{want.get(name, "nothing")}'
    for name in sorted(have.keys() | want.keys())
    if have.get(name) != want.get(name)
  ]


def _heads(network: Network) -> set[str]:
  """Returns the modules of classifiers and auxiliary heads."""
  layers = [
    layer for layer in graph.graph(network.architecture) if layer.weights
  ]
  # Where no fully connected layer ends the network, the convolutions of the
  # last row are as wide as there are classes.
  last = layers[-1].row
  return {
    layer.name
    for layer in layers
    if layer.is_side or not layer.stage or layer.row == last
  }
