"""GoogLeNet with batch normalization on ImageNet at 224x224, a modern recipe.

  python launch.py --config=configs/imagenet224_bn.py

docs/imagenet.md explains how to prepare the data. Batches of 1,024 with a
learning rate of 0.1 per 256 images, five epochs of warm-up, cosine schedule,
label smoothing, parameters averaged over about eight epochs, bfloat16.
Cost: 112,590 steps, 115.3 million images; 32 hours at 1,000 images/s
(--mode=benchmark). It has not been run, because we lack the data. Published
results with batch normalization: 69.8 % top-1 (TF-slim), 74.8 % (Ioffe and
Szegedy 2015, a larger network).
"""

import ml_collections

from configs import imagenet224


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration of imagenet224 with some fields changed."""
  config = imagenet224.get_config().unlock()
  config.model.variant = 'bn'

  config.data.mean = (0.485, 0.456, 0.406)
  config.data.std = (0.229, 0.224, 0.225)

  config.optimizer.learning_rate = 0.4
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 0.00005
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 6255  # five epochs
  config.train.epochs = 90
  config.train.batch_size = 1024
  config.train.label_smoothing = 0.1
  config.train.ema_decay = 0.9999
  config.train.precision = 'bfloat16'
  config.eval.batch_size = 1000
  config.logging.every_steps = 100
  return config.lock()
