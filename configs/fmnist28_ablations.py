"""A small network for comparisons of blocks: docs/ablations.md.

  python -m googlenet.tools.ablations --workdir=runs/ablations

`fmnist28` with a quarter of the widths and five of the nine blocks, trained
with plain SGD for three epochs on 30,000 training images and scored on 10,000
others, so that a run takes a minute or two of one core. The recipe is that of
fmnist96, at a higher rate; nothing in it was tuned for one of the blocks.
"""

import ml_collections

from configs import fmnist96


def get_config() -> ml_collections.ConfigDict:
  """Returns the default configuration with some fields changed."""
  config = fmnist96.get_config().unlock()
  config.model.variant = 'fmnist28'
  config.model.width_multiplier = 0.25
  config.model.stage_depths = ('4=2', '5=1')
  config.model.kernels = 'xla'  # its programs are compiled once for all seeds
  config.data.image_size = 28
  config.data.train_split = 'train[:30000]'
  config.data.eval_split = 'train[50000:]'

  config.optimizer.learning_rate = 0.1
  config.train.epochs = 3
  config.train.batch_size = 128

  config.eval.every_epochs = 3
  config.checkpoint.every_epochs = 0
  config.logging.tensorboard = False
  config.logging.images = 0
  return config.lock()
