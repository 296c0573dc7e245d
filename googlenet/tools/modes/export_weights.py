"""--mode=export_weights: writes a run's weights for another framework."""

import pathlib

import jax
import ml_collections

from googlenet.errors import UserError
from googlenet.io import array_files
from googlenet.kernels.padding import placement
from googlenet.model import graph, variants
from googlenet.model.initialization import count_parameters
from googlenet.model.rows import Architecture
from googlenet.tools.inference import outputs, trained
from googlenet.tools.weights import convert, names

Config = ml_collections.FrozenConfigDict
_NOT_STRICT = ', which it does not have: load_state_dict(..., strict=False)'


def run(
  config: Config, workdir: str, started: float, weights: str = ''
) -> None:
  """Writes the newest checkpoint with the array names of another framework.

  Args:
    config: of the run.
    workdir: of the run; nothing is written there.
    started: unused.
    weights: path of a new file.

  Raises:
    UserError: no other framework has the network, or the file cannot be
      written; nothing is written then.
  """
  del started
  outputs.check_one_process('export_weights', jax.process_count())
  scheme = names.scheme_of(config.model)
  check_target(weights, scheme)
  saved = trained.load_run(workdir, config)
  path, architecture = saved.path, saved.network.architecture
  channels = saved.image_shape[-1]
  check_heads(config, architecture, scheme, channels)
  trees = {
    name: jax.device_get(getattr(saved, name))
    for name in ('params', 'network_state')
  }
  entries = names.make_entries(scheme, architecture, *trees.values())
  arrays = convert.to_theirs(scheme, entries, trees, saved.step)
  array_files.write(weights, arrays)
  print(
    f'weights  {weights}: {scheme.network} of {scheme.framework}, '
    f'{len(arrays)} arrays, {count_parameters(saved.params):,} parameters, '
    f'{config.model.num_classes} classes' + _heads(config, scheme)
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


def _heads(config: Config, scheme: names.Scheme) -> str:
  """Says whether the file holds auxiliary heads, if the network may have some.

  Without them torchvision's network has to be made without them, too; with them
  a network that has no heads has to leave them out.
  """
  if not variants.architecture_of(config.model).aux_heads:
    return ''
  if variants.resolve(config.model).aux_heads:
    return ', with auxiliary heads' + ('' if scheme.has_heads else _NOT_STRICT)
  is_optional = scheme.framework == 'PyTorch' and scheme.has_heads
  how = ' (aux_logits=False)' if is_optional else ''
  return f', without auxiliary heads{how}'


def check_target(weights: str, scheme: names.Scheme) -> None:
  """Checks that the weights can be written to a file.

  Raises:
    UserError: the ending belongs to another format, the file exists, or its
      folder does not exist or is not writable.
  """
  allowed = ', '.join(scheme.suffixes)
  if not weights:
    raise UserError(
      f'--weights is missing: give the name of a new file, ending in {allowed}'
    )
  if pathlib.Path(weights).suffix not in scheme.suffixes:
    raise UserError(
      f'--weights={weights}: {scheme.framework} reads {scheme.network} from a '
      f'file ending in {allowed}'
    )
  outputs.check_new(weights, '--weights')


def check_heads(
  config: Config,
  architecture: Architecture,
  scheme: names.Scheme,
  channels: int,
) -> None:
  """Checks that auxiliary heads see maps of the same size in Caffe.

  The paper does not specify the padding of their pooling; Caffe rounds the
  output size up.

  Raises:
    UserError: the maps have another size in Caffe.
  """
  if scheme.framework != 'Caffe':
    return
  size = config.data.image_size
  for layer in graph.graph(architecture, (size, size, channels)):
    if layer.is_side and layer.kind == 'avg_pool':
      side, here = layer.input_shape[0], layer.shape[0]
      window, stride = layer.op.window, layer.op.stride
      there = placement(side, window, stride, 'CEIL').out
      if here != there:
        raise UserError(
          f'config.data.image_size={size}: the auxiliary heads pool maps of '
          f'{side}x{side} to {here}x{here}, those of Caffe to {there}x'
          f"{there}: give config.model.aux_heads='off' or train at 224"
        )
