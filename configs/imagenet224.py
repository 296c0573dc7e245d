"""The GoogLeNet of 2014 on ImageNet at 224x224, as BVLC trained it for Caffe.

  python launch.py --config=configs/imagenet224.py

docs/imagenet.md explains how to prepare the data. The recipe follows the
quick_solver of bvlc_googlenet (batch 32, rate 0.01 times the square root of the
remaining fraction of 60 epochs, no clipping), which reached 68.7 % top-1 and
88.9 % top-5 with one centre crop. We do not scale it to larger batches: we know
no evidence that this network trains with them without batch norm. Differences:
crops of random area and shape as in the paper (Caffe crops 224 from 256); 1,000
warm-up steps, because without them the loss of auxiliary heads stayed at 6.9 in
tests; biases have the learning rate of weights (Caffe: twice that); classifiers
start from normal weights with the variance of Caffe's uniform ones.
Cost: 2,402,160 steps, 76.9 million images; 21 hours at 1,000 images/s
(--mode=benchmark). It has not been run, because we lack the data.
"""

import ml_collections

from configs import fmnist96


def get_config() -> ml_collections.ConfigDict:
  """Returns the default configuration with some fields changed."""
  config = fmnist96.get_config().unlock()
  config.model.variant = 'paper'
  config.model.num_classes = 1000

  config.data.source = 'tfds'
  config.data.name = 'imagenet2012'
  config.data.eval_split = 'validation'
  config.data.image_size = 224
  config.data.resize = 256
  # Caffe subtracts a mean colour from pixels in 0..255 and does not divide.
  # Biases of 0.2 and local response normalization are tuned to that range.
  config.data.mean = (123 / 255, 117 / 255, 104 / 255)
  config.data.std = (1 / 255,)
  config.data.workers = 16
  config.augment.random_resized_crop = True
  config.augment.flip = 'random'

  config.optimizer.learning_rate = 0.01
  config.optimizer.nesterov = False
  config.optimizer.weight_decay = 0.0002
  config.optimizer.grad_clip_norm = 0.0
  config.optimizer.schedule = 'poly'
  config.optimizer.poly_power = 0.5
  config.optimizer.warmup_steps = 1000
  config.train.epochs = 60
  config.train.batch_size = 32
  config.train.precision = 'float32'  # as in 2014
  config.logging.every_steps = 500
  return config.lock()
