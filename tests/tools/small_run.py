"""A run of the smallest network, in this process."""

import pathlib

import jax
import numpy as np
from conftest import ROOT, load_config

from googlenet import config as config_lib
from googlenet.io import checkpoint
from googlenet.io.workdir import write_text
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.train import loop


def small_config(**fields):
  """Returns the default config, three epochs of two steps; a__b sets a.b."""
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.variant, config.data.image_size = 'tiny', 28
  config.model.kernels = 'xla'
  config.data.train_split, config.data.eval_split = 'train[:128]', 'test[:300]'
  config.train.batch_size, config.train.epochs = 64, 3
  config.train.precision = 'float32'
  config.logging.tensorboard = False
  config.logging.every_steps = 1
  for name, value in fields.items():
    section, field = name.split('__')
    config[section][field] = value
  return config_lib.resolve(config)


def train(workdir: pathlib.Path, **fields) -> pathlib.Path:
  """Trains; checkpoints of steps 2, 4 and 6 stay, the best is known."""
  kept = {'checkpoint__keep': 3, 'checkpoint__best_metric': 'eval/loss'}
  loop.train_and_evaluate(small_config(**kept | fields), workdir)
  return workdir


def untrained(
  workdir: pathlib.Path, channels: int = 1, **fields
) -> pathlib.Path:
  """Writes a config and parameters, and the name of the data, no more."""
  config = small_config(**fields)
  network = network_lib.from_config(config)
  size = config.data.image_size
  params, state = init_from_numpy(network, (size, size, channels), 0)
  trees = {'params': params, 'network_state': state}
  workdir.mkdir()
  write_text(workdir / 'config.json', config_lib.to_json(config))
  (workdir / 'checkpoints').mkdir()
  trees = jax.tree.map(np.asarray, trees)
  about = {'data': {'name': config.data.name}}
  snapshot = checkpoint.Snapshot(0, trees, about)
  checkpoint.save(workdir, snapshot)
  return workdir
