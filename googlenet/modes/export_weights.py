"""--mode=export_weights: a run becomes a file for another framework."""

import os
import pathlib
from typing import Any

import ml_collections

from googlenet import architectures, pretrained
from googlenet import network as network_lib
from googlenet.architectures import analysis
from googlenet.architectures.rows import AvgPool
from googlenet.errors import UserError
from googlenet.initialization import abstract_init, count_parameters
from googlenet.padding import placement
from googlenet.weights import convert, files, names

Config = ml_collections.FrozenConfigDict


def run(
  config: Config, workdir: str, started: float, weights: str = ''
) -> None:
  """Writes the newest checkpoint of a run under the names of its framework.

  Args:
    config: of the run.
    workdir: of the run; nothing is written there.
    started: unused.
    weights: path of the file, which must not be there yet.

  Raises:
    UserError: no other framework has that network, or the file cannot be
      written: nothing is.
  """
  del started
  scheme = names.scheme_of(config.model)
  check_target(weights, scheme)
  path, saved = pretrained.read_run(workdir)
  architecture = architectures.resolve(config.model)
  channels = stored_channels(path, saved.params, architecture)
  check_heads(config, architecture, scheme, channels)
  network = network_lib.make_network(config.model)
  size = config.data.image_size
  shapes = abstract_init(network, (size, size, channels))
  check_shapes(path, (saved.params, saved.network_state), shapes)
  entries = names.make_entries(scheme, architecture, *shapes)
  arrays = convert.to_theirs(scheme, entries, saved._asdict(), saved.step)
  files.write(weights, arrays)
  print(
    f'weights  {weights}: {scheme.network} of {scheme.framework}, '
    f'{len(arrays)} arrays, {count_parameters(saved.params):,} parameters, '
    f'{config.model.num_classes} classes'
    + (', with auxiliary heads' if architecture.aux_heads else '')
  )
  order = 'BGR' if scheme.is_bgr else 'RGB'
  mean, std = tuple(config.data.mean), tuple(config.data.std)
  if scheme.is_bgr and channels == 3:
    mean, std = mean[::-1], std[::-1]
  print(
    f'images   {channels} channel(s){f", {order}" if channels == 3 else ""}: '
    f'in 0..1, minus {mean}, divided by {std}'
  )
  print(f'from     {path}: step {saved.step:,}')


def stored_channels(
  path: pathlib.Path,
  params: pretrained.Tree,
  architecture: architectures.Architecture,
) -> int:
  """Returns the input channels of the network in a checkpoint.

  Raises:
    UserError: it is of another network.
  """
  first = names.first_convolution(architecture)
  try:
    return params[first]['w'].shape[2]
  except (KeyError, IndexError) as error:
    raise UserError(
      f'checkpoint {path} is of another network than config.model: it has no '
      f'convolution {first}/w'
    ) from error


def check_shapes(path: pathlib.Path, trees: Any, shapes: Any) -> None:
  """Checks that a checkpoint is of the network.

  Args:
    path: of the checkpoint, for messages.
    trees: its parameters and state.
    shapes: those of the network.

  Raises:
    UserError: an array is missing, unknown or of another shape.
  """

  def kinds(trees: Any) -> dict[str, tuple[int, ...]]:
    return {
      f'{module}/{leaf}': tuple(array.shape)
      for tree in trees
      for module, leaves in tree.items()
      for leaf, array in leaves.items()
    }

  have, want = kinds(trees), kinds(shapes)
  for name in sorted(have.keys() | want.keys()):
    if have.get(name) != want.get(name):
      raise UserError(
        f'checkpoint {path} is of another network than config.model: at {name} '
        f'it holds {have.get(name, "nothing")}, the config asks for '
        f'{want.get(name, "nothing")}'
      )


def check_target(weights: str, scheme: names.Scheme) -> None:
  """Checks that a file can be written.

  Raises:
    UserError: of another kind, there already, or in no folder.
  """
  allowed = ', '.join(scheme.suffixes)
  if not weights:
    raise UserError(
      '--weights is missing: --mode=export_weights writes the file that it '
      f'names, ending in {allowed}'
    )
  path = pathlib.Path(weights)
  if path.suffix not in scheme.suffixes:
    raise UserError(
      f'--weights={weights}: {scheme.framework} takes {scheme.network} from a '
      f'file ending in {allowed}'
    )
  if path.exists():
    raise UserError(
      f'--weights={weights} is there already and is never overwritten: give '
      'another name'
    )
  if not os.access(path.parent, os.W_OK | os.X_OK):
    raise UserError(
      f'--weights={weights}: no folder {path.parent} that can be written to'
    )


def check_heads(
  config: Config,
  architecture: architectures.Architecture,
  scheme: names.Scheme,
  channels: int,
) -> None:
  """Checks that the auxiliary heads see maps of the same size there.

  The paper gives no padding for their pooling; Caffe pools into it.

  Raises:
    UserError: the maps differ in size.
  """
  if scheme.framework != 'Caffe' or not architecture.aux_heads:
    return
  size = config.data.image_size
  walk = analysis.walk(
    architecture, (size, size, channels), config.model.num_classes
  )
  for head in architecture.aux_heads:
    side = walk.shapes[head.after][0]
    for op in head.ops:
      if isinstance(op, AvgPool):
        here, there = (
          placement(side, op.window, op.stride, padding).out
          for padding in (op.padding, 'CEIL')
        )
        if here != there:
          raise UserError(
            f'config.data.image_size={size}: the auxiliary heads pool maps of '
            f'{side}x{side} to {here}x{here}, those of Caffe to {there}x'
            f"{there}; give config.model.aux_heads='off' or train at 224"
          )
