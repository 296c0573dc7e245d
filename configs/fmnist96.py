"""Plain GoogLeNet on Fashion-MNIST at 96x96: every field, with its unit.

  python launch.py --config=configs/fmnist96.py

The network of 2014 without auxiliary heads, dropout and response normalisation.
Test accuracy with bfloat16 activations
(--config.train.precision=params=float32,compute=bfloat16,output=float32):
0.9317 +- 0.0002 after the ten epochs, 0.902 after three: mean and deviation of
seeds 0 and 1; 36 minutes on two cores of an AMD EPYC (JAX 0.12).
Any field is overridden by a flag: --config.train.epochs=2.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Returns the default configuration; other config files start from it."""
  config = ml_collections.ConfigDict()
  # Fixes weights, order of the data and augmentation.
  config.seed = 0

  config.model = model = ml_collections.ConfigDict()
  model.variant = 'plain'  # a network of googlenet/model/variants
  model.num_classes = 10  # labels are 0 to num_classes - 1
  model.width_multiplier = 1.0  # of all layers but the classifiers
  # 'auto' and None below: as the network is defined.
  model.normalization = 'auto'  # auto | none | lrn | batch
  model.batch_norm_decay = 0.9  # of the running statistics, a (micro)batch
  model.activation = 'relu'  # a name in googlenet/model/context.py
  model.dropout = config_dict.placeholder(float)  # rate before the classifier
  model.stochastic_depth = 0.0  # rate of the last residual block; 0: none
  model.aux_heads = 'auto'  # auto | on | off: auxiliary classifiers
  model.initializer = 'auto'  # auto | he | xavier | caffe (bias 0.2)
  model.kernels = 'auto'  # auto | xla (plain lax) | gpu, onednn, cpu (fast)

  config.data = data = ml_collections.ConfigDict()
  data.source = 'bundled'  # bundled (Fashion-MNIST) | tfds
  data.name = 'fashion_mnist'  # for tfds any of its names, e.g. cifar10
  data.data_dir = ''  # '': the source's own place
  data.train_split = 'train'  # may be sliced: train[:50000], train[:90%]
  data.eval_split = 'test'  # likewise
  data.image_size = 96  # pixels; images are resized on the device
  data.channels = 0  # 1 | 3: grey made colour or colour grey; 0: as stored
  data.mean = (0.2860,)  # of pixels in 0..1; one number, or one a channel
  data.std = (0.3530,)  # likewise
  data.resize = 0  # short side before a centre crop; 0: images as they are
  data.on_device_mb = 2048  # MiB; a larger set is streamed from the host
  data.workers = 0  # processes that read a streamed set; 0: a thread

  config.augment = augment = ml_collections.ConfigDict()
  # none | random (half of the images) | alternating (each every other epoch)
  augment.flip = config_dict.FieldReference('none', field_type=object)
  augment.crop_padding = 0  # pixels at native size; random crop of the padded
  augment.random_resized_crop = False  # by the host; the set is streamed
  augment.crop_area = (0.08, 1.0)  # its part of the image, smallest and largest
  augment.crop_aspect = (0.75, 1.3333)  # its width / height, likewise
  augment.rand_augment_ops = 0  # random operations an image; 0: none
  augment.rand_augment_magnitude = 9.0  # their strength, to 10
  augment.erase_probability = 0.0  # random erasing of a rectangle
  augment.erase_area = (0.02, 0.4)  # its part of the image
  augment.erase_aspect = (0.3, 3.3333)  # its height / width
  augment.cutout_size = 0  # side of a square that is cut out, native pixels
  augment.fill = 'random'  # of both: black | mean | random (each pixel)
  augment.mixup_alpha = 0.0  # of mixup's Beta(alpha, alpha); 0: none
  augment.cutmix_alpha = 0.0  # of CutMix, likewise; both: one or the other
  augment.mix_probability = 1.0  # that an image is mixed

  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.name = 'sgd'  # a name in googlenet/optimizer
  optimizer.learning_rate = 0.05  # peak, for the global batch
  optimizer.momentum = 0.9  # sgd, rmsprop, lars, muon
  optimizer.nesterov = True  # sgd, lars, muon
  optimizer.weight_decay = 0.0002  # of weights, not of biases: see decays
  optimizer.grad_clip_norm = 1.0  # global norm; 0: off
  optimizer.schedule = 'cosine'  # constant | cosine | step | poly
  optimizer.warmup_steps = 100  # linear, from 0
  optimizer.step_epochs = (3.0, 6.0, 8.0)  # step: where the rate falls ...
  optimizer.step_factor = 0.1  # ... and by what
  optimizer.poly_power = 0.5  # poly: (1 - progress) ** power
  optimizer.muon_rest = 'sgd'  # muon: sgd | adamw for all but convolutions
  optimizer.muon_steps = 5  # Newton-Schulz iterations, each a cost
  # Factors of groups: parts, or kinds */w */b */scale */offset.
  optimizer.rates = ()  # of the learning rate: ('*/b=2', 'logits=0.1')
  optimizer.decays = ()  # of weight_decay: ('*/scale=1', 'logits=0')
  optimizer.lookahead_period = 0  # steps between moves of slow weights; 0: none
  optimizer.lookahead_rate = 0.5  # part of the way that they move

  # Parts are names of parameters up to any /: inception_3a/conv_1x1.
  config.finetune = finetune = ml_collections.ConfigDict()
  finetune.from_workdir = ''  # a run whose parameters to start from; '': none
  finetune.frozen = ()  # parts that stay as they are: ('conv_1', 'conv_2')
  finetune.learning_rates = ()  # factors of it: ('logits=10', 'conv_1=0.1')

  config.train = train = ml_collections.ConfigDict()
  train.epochs = 10  # the schedule ends here
  train.max_steps = 0  # stop early, for trials; 0: no limit
  train.batch_size = 128  # images a step, over all devices
  train.microbatches = 1  # of a batch, one after another, to save memory
  # Sizes and from which part of the schedule: ('64@0', '96@0.6'); (): the same.
  train.image_sizes = ()
  train.label_smoothing = 0.0  # part of a target spread over all classes
  train.aux_loss_weight = 0.3  # of the loss of each auxiliary head
  train.precision = 'float32'  # a jmp policy: params=float32,compute=bfloat16
  # Multiplies the loss of float16 gradients: a number, or dynamic (adapted).
  train.loss_scale = config_dict.FieldReference(1.0, field_type=object)
  train.on_nonfinite = 'stop'  # loss or gradient infinite or NaN: stop | skip
  train.max_nonfinite = 10  # skip: so many steps in a row end the run
  train.ema_decay = 0.0  # average of the parameters, evaluated; 0: none
  train.compilation_cache = '~/.cache/googlenet-haiku'  # '': compile anew

  config.eval = evaluation = ml_collections.ConfigDict()
  evaluation.every_epochs = 1  # and always at the end
  evaluation.batch_size = 250  # images a step; rounded up to the devices
  # Of training, at most an epoch's: batch norm is estimated anew; 0: as it ran.
  evaluation.batch_norm_batches = 0
  evaluation.flip = False  # averages predictions with the mirrored image
  evaluation.shift = 0  # ... with it moved so many stored pixels; 0: not
  evaluation.crops = 1  # 1 | 10 | 144 of an image; not during training

  config.checkpoint = checkpoint = ml_collections.ConfigDict()
  checkpoint.every_epochs = 1  # 0: not by epochs; always at the end
  checkpoint.every_steps = 0  # likewise
  checkpoint.every_seconds = 0.0  # likewise; checked between steps
  checkpoint.keep = 2  # the last ones; a damaged one needs another before it
  # eval/accuracy | eval/top_5 | eval/loss: the best is kept too; '': none is.
  checkpoint.best_metric = ''

  config.logging = logging = ml_collections.ConfigDict()
  logging.every_steps = 50  # a line in metrics.jsonl
  logging.tensorboard = True  # event files beside metrics.jsonl
  # For TensorBoard, beside scalars:
  logging.images = 16  # inputs as the network sees them, at the start of epochs
  logging.histograms = 0  # epochs from one to the next, of each layer; 0: none
  logging.profile_steps = 0  # steps to trace, from the third on; 0: none

  config.benchmark = benchmark = ml_collections.ConfigDict()
  # Images a step, over all devices. (): on a CPU 32, 128 and train.batch_size,
  # elsewhere 1024.
  benchmark.batch_sizes = ()
  # Each is measured, in this order, whatever train.precision is.
  benchmark.precisions = (
    'params=float32,compute=bfloat16,output=float32',
    'float32',
  )
  # Timed steps a round; more of them, up to 200, where they take less than 1 s.
  benchmark.steps = 5
  benchmark.rounds = 3  # every process is started once in each; medians count
  # Time limit of a process in a round, in seconds, start and compilation
  # included. One that needs longer is killed; what it had measured stays.
  benchmark.seconds = 300.0
  benchmark.torch_python = ''  # a Python with torch; '': this one | none
  return config.lock()
