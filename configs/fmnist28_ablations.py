"""A small network to compare Inception blocks with: docs/ablations.md.

  python -m googlenet.tools.ablations --workdir=runs/ablations
  python launch.py --config=configs/fmnist28_ablations.py  # its first row alone

`fmnist28` with about a quarter of the widths and five of the nine blocks,
trained with SGD for one epoch of 30,000 training images and scored on 10,000
others: a run takes minutes of one core. Nothing in the recipe was tuned for one
of the blocks.
"""

import ml_collections

from configs import fmnist96


def get_config() -> ml_collections.ConfigDict:
  """Returns the default configuration with some fields changed."""
  config = fmnist96.get_config().unlock()
  config.model.variant = 'fmnist28'
  config.model.width_multiplier = 0.24
  config.model.stage_depths = ('4=2', '5=1')
  config.model.kernels = 'xla'  # its programs are compiled once for all seeds
  config.data.image_size = 28
  config.data.train_split = 'train[:30000]'
  config.data.eval_split = 'train[50000:]'

  config.train.epochs = 1
  config.train.batch_size = 64
  config.train.precision = 'float32'  # faster than bfloat16 without oneDNN

  config.checkpoint.every_epochs = 0
  config.logging.tensorboard = False
  config.logging.images = 0
  return config.lock()
