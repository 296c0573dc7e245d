"""Plain GoogLeNet on Fashion-MNIST at 96x96: all fields, with comments.

  python launch.py --config=configs/fmnist96.py

GoogLeNet without auxiliary heads, dropout and local response normalization.
Test accuracy 0.9317 +- 0.0002 after ten epochs, 0.902 after three: mean and
deviation of seeds 0 and 1; 36 minutes on two cores of an AMD EPYC (JAX 0.12).
A flag overrides any field: --config.train.epochs=2.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Returns the default configuration; other config files start from it."""
  config = ml_collections.ConfigDict()
  # Determines initial weights, data order, augmentation and dropout.
  config.seed = 0

  config.model = model = ml_collections.ConfigDict()
  # The network, from googlenet/model/variants.py; own: that of `architecture`.
  model.variant = 'plain'
  model.architecture = ''  # text of to_text(...): docs/own_network.md
  # Labels are 0 to num_classes - 1; 0: as many classes as the data set has.
  model.num_classes = 0
  model.width_multiplier = 1.0  # factor for all widths except classifiers
  # Normalization layers: none | lrn | batch; auto: those of the variant.
  model.normalization = 'auto'
  model.batch_norm_decay = 0.9  # decay of running statistics per (micro)batch
  model.activation = 'relu'  # a function in googlenet/model/context.py
  # Dropout rate before the classifier; None: that of the variant.
  model.dropout = config_dict.placeholder(float)
  model.stochastic_depth = 0.0  # drop rate of the last residual block; 0: off
  model.aux_heads = 'auto'  # auxiliary classifiers: on | off | auto
  # Initial weights: he | xavier | caffe (bias 0.2); auto: those of the variant.
  model.initializer = 'auto'
  # Ablations: see docs/ablations.md; (): none.
  model.drop_branches = ()  # branches of blocks: ('5x5', 'inception_3a/pool')
  model.block_pool = 'auto'  # pooling in blocks: max | average | none | auto
  model.kernel_sizes = ()  # of branches or layers: ('5x5=3', 'conv_1=5')
  model.stage_widths = ()  # factors for widths by stage: ('3=0.5', '5=2')
  model.stage_depths = ()  # number of blocks by stage: ('4=3',)
  model.stage_blocks = ()  # kind of block by stage: ('4=inception_v2',)
  model.aux_after = ()  # rows with an auxiliary head: ('inception_4b',)
  # Code that computes layers: auto | xla (plain jax.lax) | gpu | onednn | cpu.
  model.kernels = 'auto'

  config.data = data = ml_collections.ConfigDict()
  # bundled | idx (a folder) | tfds | own: folder | csv | parquet | arrays
  data.source = 'bundled'
  # Data set: fashion_mnist; with idx also mnist, kmnist or any; with tfds any.
  data.name = 'fashion_mnist'
  data.data_dir = ''  # folder or file of the data set; '': where it usually is
  # Own images: file with a class per line, in the order of labels; '': classes
  # of the training split in natural order.
  data.classes = ''
  data.on_bad_image = 'stop'  # own images that cannot be read: stop | skip
  data.per_class = 0  # training images of each class, the first ones; 0: all
  # Training images; or slices, as train[:50000] or train[:10%]+train[20%:].
  data.train_split = 'train'
  data.eval_split = 'test'  # evaluation images; or slices: train[90%:]
  data.image_size = 96  # side in pixels; images are resized on the device
  # Channels that the network sees: 1 (grey) | 3 (colour) | 0: as stored.
  data.channels = 0
  # Subtracted from pixels in 0..1: 1 number or 1 per channel. ('auto',):
  # measured on the training images, for std too.
  data.mean = (0.2860,)
  data.std = (0.3530,)  # pixels are divided by it; 1 number or 1 per channel
  data.resize = 0  # short side in pixels before a centre crop; 0: no crop
  data.interpolation = 'bilinear'  # with `resize`: bilinear | bicubic
  data.squeeze = False  # whether the long side becomes `resize` pixels too
  data.on_device_mb = 2048  # MiB; larger data sets are streamed from the host
  data.workers = 0  # processes that read streamed data; 0: one thread

  config.augment = augment = ml_collections.ConfigDict()
  # Mirrored images: none | random (half of them) | alternating (every image
  # in every other epoch).
  augment.flip = 'none'
  # Border in stored pixels that is added before a random crop; 0: off.
  augment.crop_padding = 0
  # Whether the host crops a random area of each image (data is then streamed).
  augment.random_resized_crop = False
  augment.crop_area = (0.08, 1.0)  # cropped / image area, min and max
  augment.crop_aspect = (0.75, 1.3333)  # width / height of the crop, min, max
  # Strengths of random changes of brightness, contrast, saturation and hue:
  # (0.4, 0.4, 0.4, 0.1); grey images: (0.4, 0.4, 0.0, 0.0); (): none.
  augment.colour_jitter = ()
  augment.rand_augment_ops = 0  # RandAugment operations per image; 0: off
  augment.rand_augment_magnitude = 9.0  # strength of RandAugment, 0 to 10
  augment.erase_probability = 0.0  # probability to erase a random rectangle
  augment.erase_area = (0.02, 0.4)  # erased / image area, min and max
  augment.erase_aspect = (0.3, 3.3333)  # erased height / width, min and max
  augment.cutout_size = 0  # side of a cut-out square in stored pixels; 0: off
  # What fills erased and cut-out areas: black | mean | random (per pixel).
  augment.fill = 'random'
  # alpha of the distribution Beta(alpha, alpha) of mixing shares in mixup;
  # 0: off. If mixup and CutMix are both on, each image gets one of them.
  augment.mixup_alpha = 0.0
  augment.cutmix_alpha = 0.0  # alpha of CutMix's Beta(alpha, alpha); 0: off
  augment.mix_probability = 1.0  # probability that an image is mixed

  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.name = 'sgd'  # update rule, a name in googlenet/optimizer
  optimizer.learning_rate = 0.05  # peak rate of the schedule (global batch)
  optimizer.momentum = 0.9  # its decay; used by sgd, rmsprop, lars, muon
  optimizer.nesterov = True  # Nesterov momentum; used by sgd, lars, muon
  optimizer.weight_decay = 0.0002  # of weights, not of biases: see decays
  optimizer.grad_clip_norm = 1.0  # largest global norm of gradients; 0: off
  # Learning rate after the warm-up: constant | cosine | step | poly |
  # exponential | staircase | one_cycle | wsd (warm-up, stable, decay).
  optimizer.schedule = 'cosine'
  optimizer.warmup_steps = 100  # steps of linear rise from 0 to learning_rate
  optimizer.step_epochs = (3.0, 6.0, 8.0)  # schedule step: epochs of its drops
  optimizer.step_factor = 0.1  # schedule step: factor of each drop
  # Schedule poly: the rate is learning_rate * (1 - progress) ** poly_power.
  optimizer.poly_power = 0.5
  # Schedules exponential (smooth) and staircase: epochs per factor decay_rate.
  optimizer.decay_epochs = 2.0
  optimizer.decay_rate = 0.94  # schedules exponential, staircase: their factor
  # Schedule wsd: last part of the schedule, where the rate falls evenly to 0.
  optimizer.decay_fraction = 0.2
  # Muon: rule for all other parameters than convolution weights, sgd | adamw.
  optimizer.muon_rest = 'sgd'
  optimizer.muon_steps = 5  # Muon: Newton-Schulz iterations; fewer are faster
  # Learning-rate factors by group of parameters. A group is a part of the
  # network or a kind, */w */b */scale */offset: ('*/b=2', 'logits=0.1').
  optimizer.rates = ()
  # Factors for weight_decay by group of parameters: ('*/scale=1', 'logits=0').
  optimizer.decays = ()
  # Lookahead: steps between updates of the slow weights; 0: off.
  optimizer.lookahead_period = 0
  # Lookahead: step of the slow weights towards the parameters, 0 to 1.
  optimizer.lookahead_rate = 0.5
  # SAM: distance at which gradients are taken uphill, over all parameters, such
  # as 0.05; each step takes twice the time. 0: off.
  optimizer.sam_rho = 0.0
  # Schedule-free sgd, adam or adamw: momentum is the share of an average over
  # the steps, which is evaluated; with schedule constant.
  optimizer.schedule_free = False

  # Parts of the network are prefixes of parameter names: inception_3a/conv_1x1.
  config.finetune = finetune = ml_collections.ConfigDict()
  finetune.from_workdir = ''  # start from the parameters of this run; '': off
  finetune.frozen = ()  # parts that are not trained: ('conv_1', 'conv_2')
  # Learning-rate factors by group, multiplied with optimizer.rates.
  finetune.learning_rates = ()

  config.train = train = ml_collections.ConfigDict()
  train.epochs = 10  # length of the schedule and of the run
  train.max_steps = 0  # stop early after this many steps; 0: no limit
  train.batch_size = 128  # images per step, over all devices
  train.microbatches = 1  # parts of a batch computed in turn, to save memory
  # Image sizes in pixels, each with the fraction of the schedule where it
  # starts: ('64@0', '96@0.6'); (): always data.image_size.
  train.image_sizes = ()
  train.label_smoothing = 0.0  # share of a target spread over all classes
  # Distillation: runs whose predictions are targets too, averaged: folders or
  # names, ('fmnist28_best',); (): none.
  train.teacher = ()
  train.teacher_weight = 0.9  # share of the teachers in the loss, 0 to 1
  train.teacher_temperature = 4.0  # divides logits; more: softer targets
  train.aux_loss_weight = 0.3  # factor for the loss of each auxiliary head
  # Factors for the loss by class: one number each | ('balanced',): each class
  # counts as much, whatever its number of training images; (): 1.
  train.class_weights = ()
  # Images of an epoch: natural, each once | balanced, classes take turns.
  train.sampling = 'natural'
  # Of computation: float32 | bfloat16 | float16; parameters stay float32.
  train.precision = 'bfloat16'
  # Loss scale, so that float16 gradients do not underflow: a number, or
  # 'dynamic' (adapted to the gradients).
  train.loss_scale = config_dict.FieldReference(1.0, field_type=object)
  train.on_nonfinite = 'stop'  # at an infinite or NaN gradient: stop | skip
  train.max_nonfinite = 10  # with skip: skipped steps in a row that end the run
  train.ema_decay = 0.0  # decay of averaged parameters for evaluation; 0: off
  # Evaluations in a row without a better checkpoint.best_metric that end the
  # run; 0: off.
  train.early_stopping = 0
  # How a step runs on all devices, with the same results: pmap (jax.pmap) |
  # shard_map (jax.jit of jax.shard_map, which JAX recommends for new code).
  train.parallel = 'pmap'
  # Folder that caches compiled programs; '': no cache.
  train.compilation_cache = '~/.cache/googlenet-haiku'

  config.eval = evaluation = ml_collections.ConfigDict()
  evaluation.every_epochs = 1  # epochs between evaluations; always at the end
  evaluation.batch_size = 250  # images per step; rounded up to the devices
  # Training batches, at most one epoch, that re-estimate batch-norm statistics
  # before evaluation (precise BN); 0: off.
  evaluation.batch_norm_batches = 0
  # Whether predictions are averaged over each image and its mirror image.
  evaluation.flip = False
  # Average predictions over shifts by this many stored pixels; 0: off.
  evaluation.shift = 0
  # Number of crops to average over, not used during training: 1 | 10 | 144.
  evaluation.crops = 1

  # At the end of a run there is always a checkpoint.
  config.checkpoint = checkpoint = ml_collections.ConfigDict()
  checkpoint.every_epochs = 1  # epochs between checkpoints; 0: off
  checkpoint.every_steps = 0  # steps between checkpoints; 0: off
  checkpoint.every_seconds = 0.0  # seconds between checkpoints; 0: off
  checkpoint.keep = 2  # number of newest checkpoints to keep
  # Also keep the best checkpoint by this metric: eval/accuracy | eval/top_5 |
  # eval/loss; '': none.
  checkpoint.best_metric = ''

  config.logging = logging = ml_collections.ConfigDict()
  logging.every_steps = 50  # steps per line in metrics.jsonl
  logging.tensorboard = True  # whether TensorBoard files are written too
  # TensorBoard: augmented training images shown per epoch; 0: none.
  logging.images = 16
  # TensorBoard: epochs between histograms of each layer; 0: none.
  logging.histograms = 0
  logging.profile_steps = 0  # steps to trace, from the third on; 0: none

  config.benchmark = benchmark = ml_collections.ConfigDict()
  # Images per step, over all devices. (): on a CPU 32, 128 and
  # train.batch_size, elsewhere 1024.
  benchmark.batch_sizes = ()
  # Precisions to measure, in this order, instead of train.precision.
  benchmark.precisions = ('bfloat16', 'float32')
  # Steps timed per round; up to 200 if these take less than 1 s.
  benchmark.steps = 5
  benchmark.rounds = 3  # starts of every process; the median is reported
  # Time limit of a process in a round, in seconds, with start and compilation.
  # A slower process is killed; its measurements up to then are used.
  benchmark.seconds = 300.0
  benchmark.torch_python = ''  # Python with torch; '': this Python | none
  return config.lock()
