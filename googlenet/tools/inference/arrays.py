"""Writes and reads .safetensors files with parameters and config."""

import json
import os
import pathlib

import jax
import numpy as np

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import array_files, checkpoint, pretrained
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init
from googlenet.tools.inference import trained
from googlenet.tools.inference.about import about

_KEY = 'googlenet'
_TREES = ('params', 'network_state')


def write(path: str | os.PathLike[str], net: trained.Trained) -> None:
  """Writes a network; arrays have their checkpoint names, `params/conv_1/...`.

  Raises:
    OSError: the file cannot be written.
  """
  arrays = {
    f'{tree}/{module}/{name}': np.asarray(leaf)
    for tree in _TREES
    for module, leaves in jax.device_get(getattr(net, tree)).items()
    for name, leaf in leaves.items()
  }
  metadata = {'format': 'np', _KEY: json.dumps(about(net))}
  array_files.write(path, arrays, metadata)


def read(path: str | os.PathLike[str]) -> trained.Trained:
  """Reads a network that `write` has written.

  Raises:
    UserError: the file is missing, damaged, or was not written by `write`.
  """
  path = pathlib.Path(path)
  arrays = array_files.read(path)
  try:
    stored = json.loads(array_files.read_metadata(path)[_KEY])
    config = config_lib.from_json(
      json.dumps(stored['config']), str(path), with_local=False
    )
    class_names = tuple(map(str, stored['class_names']))
    stored_shape = pretrained.image_shape_of(stored['image_shape'])
    step = int(stored['step'])
  except (
    *(ValueError, TypeError, KeyError, AttributeError, RecursionError),
    OverflowError,
  ):
    raise UserError(
      f'{path} does not describe its network: allowed is a file that '
      '--mode=export has written'
    ) from None
  config = config_lib.resolve(config)
  if len(class_names) != config.model.num_classes:
    raise UserError(
      f'{path} names {len(class_names)} classes, but its network has '
      f'{config.model.num_classes}: export it again'
    )
  size = config.data.image_size
  image_shape = (size, size, config.data.channels or stored_shape[-1])
  network = network_lib.from_config(config)
  shapes = dict(zip(_TREES, abstract_init(network, image_shape), strict=True))

  def tree_of(tree_name: str) -> dict[str, dict[str, np.ndarray]]:
    tree = {}
    for module, leaves in shapes[tree_name].items():
      for name, leaf in leaves.items():
        key = f'{tree_name}/{module}/{name}'
        stored = arrays.pop(key, None)
        if stored is None or (stored.shape, stored.dtype) != (
          leaf.shape,
          leaf.dtype.name,
        ):
          raise UserError(
            f'{path}: {key} is '
            + (f'{stored.dtype} {stored.shape}' if stored else 'missing')
            + f', but its config needs {leaf.dtype.name} {leaf.shape}'
          )
        tree.setdefault(module, {})[name] = stored.read()
    return tree

  params, state = (tree_of(name) for name in _TREES)
  if arrays:
    raise UserError(
      f'{path} holds {array_files.printable(min(arrays))}, which its network '
      'does not have'
    )
  return trained.make_trained(
    path,
    config,
    network,
    checkpoint.Checkpoint(step, params, state),
    class_names,
    stored_shape,
  )
