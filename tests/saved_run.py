"""A run without training: drawn weights, written as training writes them."""

import pathlib

import jax
import numpy as np

from googlenet import config as config_lib
from googlenet.io import checkpoint, workdir
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy

CLASS_NAMES = tuple(f'class "{i}", é' for i in range(10))


def save_run(
  folder: pathlib.Path,
  config,
  stored_shape: tuple[int, int, int] = (28, 28, 1),
  seed: int = 0,
  class_names: tuple[str, ...] = CLASS_NAMES,
) -> pathlib.Path:
  """Writes config.json, classes.txt and a checkpoint; returns the folder."""
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  size = config.data.image_size
  channels = config.data.channels or stored_shape[-1]
  params, state = init_from_numpy(network, (size, size, channels), seed)
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    """Statistics and biases that are not those of the start."""
    name = path[-1].key
    if name == 'w':
      # Predictions that differ from image to image.
      return 3 * leaf if 'logits' in path[-2].key else leaf
    noise = rng.normal(0, 0.1, leaf.shape).astype(np.float32)
    return np.exp(noise) if name in ('variance', 'scale') else noise

  params, state = jax.tree_util.tree_map_with_path(draw, (params, state))
  checkpoint.folder_of(folder).mkdir(parents=True)
  about = {
    'data': {'name': config.data.name, 'image_shape': list(stored_shape)}
  }
  checkpoint.save(
    folder,
    checkpoint.Snapshot(7, {'params': params, 'network_state': state}, about),
  )
  (folder / 'config.json').write_text(config_lib.to_json(config))
  workdir.write_classes(folder, class_names)
  return folder
