"""The allowed values of every config field.

Defaults and comments are in configs/fmnist96.py, kinds of values in kinds.py.
Optimizers are listed here by name only, so code that just uses a trained
network need not import them.
"""

import math
from typing import Any

from googlenet import kernels
from googlenet.errors import did_you_mean
from googlenet.fields.kinds import (
  SYNONYMS,
  Field,
  boolean,
  choice,
  factors,
  fraction,
  integer,
  is_number,
  matching,
  number,
  one_of,
  optional,
  or_auto,
  parsed,
  parts,
  path,
  positive,
  span,
  text,
  tuple_of,
)
from googlenet.input import augment, image_sizes, rand_augment
from googlenet.model import ablations, architecture_text, variants
from googlenet.model.context import ACTIVATIONS
from googlenet.model.initialization import INITIALIZERS
from googlenet.model.precision import NAMES, name_of
from googlenet.runtime.parallel import FORMS

_READ_DATA = (
  *('train', 'sweep', 'benchmark', 'evaluate', 'report', 'demo', 'features'),
  *('examples', 'explain', 'similarity', 'atlas', 'probe'),
)
# Fields that name a folder, file or program of this machine, and the modes that
# use them. They count where the user gives them, on the command line or in a
# config file of Python; from a config.json, which somebody else may have
# written, they are never taken.
LOCAL = {
  'data.data_dir': _READ_DATA,
  'data.classes': _READ_DATA,
  'finetune.from_workdir': ('train', 'sweep'),
  'train.teacher': ('train', 'sweep', 'benchmark'),
  'train.compilation_cache': (),  # changes no result, so nobody need know
  'benchmark.torch_python': ('benchmark',),
}

_NAME = '[a-z0-9_]+(/[a-z0-9_]+)?'


def _flip(value: Any) -> Any:
  old = {True: 'random', 'true': 'random', False: 'none', 'false': 'none'}
  return old.get(value, value) if isinstance(value, (bool, str)) else value


# Older configs have a boolean here.
_FLIP = choice(*augment.FLIPS)._replace(current=_flip)

_METRICS = ('eval/accuracy', 'eval/top_5', 'eval/loss')

_PRECISION = Field(
  lambda v: name_of(v) in NAMES,
  'float32, bfloat16 or float16 (of computation; parameters and output are '
  'float32), or that as a jmp policy, like '
  'params=float32,compute=bfloat16,output=float32',
  NAMES,
  name_of,
)

# Update rules, in the order of `OPTIMIZERS` in googlenet/optimizer.
_OPTIMIZERS = (
  *('sgd', 'rmsprop', 'lars', 'sign_sgd', 'adam', 'adabelief', 'adadelta'),
  *('nadam', 'adamax', 'adagrad', 'amsgrad', 'novograd', 'radam', 'yogi'),
  *('adamw', 'adan', 'ademamix', 'nadamw', 'adamaxw', 'lamb', 'lion', 'muon'),
)

FIELDS: dict[str, Field] = {
  'seed': integer(0),
  'model.variant': choice(*variants.ARCHITECTURES, architecture_text.OWN),
  'model.architecture': text(empty=True),
  'model.num_classes': integer(0, 100_000),
  'model.width_multiplier': positive(100),
  'model.normalization': choice('auto', *variants.NORMALIZATIONS),
  'model.batch_norm_decay': fraction(),
  'model.activation': choice(*ACTIVATIONS),
  'model.dropout': optional(fraction()),
  'model.stochastic_depth': fraction(),
  'model.aux_heads': choice('auto', 'on', 'off'),
  'model.initializer': choice('auto', *INITIALIZERS),
  'model.drop_branches': matching(
    _NAME, 'different branches of blocks', "('5x5', 'inception_3a/pool')"
  ),
  'model.block_pool': choice('auto', 'max', 'average', 'none'),
  'model.kernel_sizes': matching(
    f'{_NAME}=[0-9]{{1,4}}',
    'name=size, no name twice',
    "('5x5=3', 'conv_1=5')",
  ),
  'model.stage_widths': matching(
    r'[a-z0-9_]+=[0-9]{1,4}(\.[0-9]{1,8})?',
    'stage=factor, no stage twice',
    "('3=0.5', '5=2')",
  ),
  'model.stage_depths': matching(
    '[a-z0-9_]+=[0-9]{1,4}',
    'stage=number, no stage twice',
    "('4=3',)",
  ),
  'model.stage_blocks': matching(
    f'[a-z0-9_]+=({"|".join(ablations.KINDS)})',
    f'stage=kind, kinds {", ".join(ablations.KINDS)}, no stage twice',
    "('4=inception_v2',)",
  ),
  'model.aux_after': matching(
    '[a-z][a-z0-9_]*', 'different rows of the network', "('inception_4b',)"
  ),
  'model.kernels': choice('auto', *kernels.KERNELS),
  'data.source': choice(
    'bundled', 'idx', 'folder', 'csv', 'parquet', 'arrays', 'tfds'
  ),
  'data.name': text(),
  'data.data_dir': path(empty=True),
  'data.train_split': text(),
  'data.eval_split': text(),
  'data.classes': path(empty=True),
  'data.on_bad_image': choice('stop', 'skip'),
  'data.per_class': integer(0),
  'data.image_size': integer(1, 4096),
  'data.channels': one_of(0, 1, 3),
  'data.mean': or_auto(tuple_of(number(-math.inf), 'numbers')),
  # A smaller one would make infinite inputs.
  'data.std': or_auto(tuple_of(number(1e-6), 'numbers >= 1e-06')),
  'data.resize': integer(0, 4096),
  'data.interpolation': choice('bilinear', 'bicubic'),
  'data.squeeze': boolean(),
  'data.on_device_mb': integer(0),
  'data.workers': integer(0, 1024),
  'augment.flip': _FLIP,
  'augment.crop_padding': integer(0, 1024),
  'augment.random_resized_crop': boolean(),
  'augment.crop_area': span(
    Field(lambda v: is_number(v) and 0 < v <= 1, ''),
    'parts of 1',
    '(0.08, 1.0)',
  ),
  'augment.crop_aspect': span(positive(), 'numbers > 0', '(0.75, 1.3333)'),
  'augment.colour_jitter': Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and len(v) in (0, 4)
      and all(number(0).is_valid(x) for x in v[:3])
      and all(number(0, 0.5).is_valid(x) for x in v[3:])
    ),
    'strengths of brightness, contrast, saturation (>= 0) and hue (0 to 0.5), '
    'like (0.4, 0.4, 0.4, 0.1), or ()',
  ),
  'augment.rand_augment_ops': integer(0, 100),
  'augment.rand_augment_magnitude': number(0, rand_augment.MAX_MAGNITUDE),
  'augment.erase_probability': number(0, 1),
  'augment.erase_area': span(
    Field(lambda v: is_number(v) and 0 < v < 1, ''),
    'parts of 1',
    '(0.02, 0.4)',
  ),
  'augment.erase_aspect': span(positive(), 'numbers > 0', '(0.3, 3.3333)'),
  'augment.cutout_size': integer(0, 4096),
  'augment.fill': choice(*augment.FILLS),
  'augment.mixup_alpha': number(0, 100),
  'augment.cutmix_alpha': number(0, 100),
  'augment.mix_probability': number(0, 1),
  'optimizer.name': choice(*_OPTIMIZERS),
  'optimizer.learning_rate': positive(),
  'optimizer.momentum': fraction(),
  'optimizer.nesterov': boolean(),
  'optimizer.weight_decay': number(0),
  'optimizer.grad_clip_norm': number(0),
  'optimizer.schedule': choice(
    *('constant', 'cosine', 'step', 'poly', 'exponential', 'staircase'),
    *('one_cycle', 'wsd'),
  ),
  'optimizer.warmup_steps': integer(0),
  'optimizer.step_epochs': tuple_of(positive(), 'numbers > 0'),
  'optimizer.step_factor': positive(),
  'optimizer.poly_power': positive(),
  'optimizer.decay_epochs': positive(),
  'optimizer.decay_rate': positive(1),
  'optimizer.decay_fraction': positive(1),
  'optimizer.muon_rest': choice('sgd', 'adamw'),
  'optimizer.muon_steps': integer(1, 100),
  'optimizer.rates': factors("('*/b=2', 'logits=0.1')"),
  'optimizer.decays': factors("('*/scale=1', 'logits=0')", True),
  'optimizer.lookahead_period': integer(0),
  'optimizer.lookahead_rate': positive(1),
  'optimizer.sam_rho': number(0),
  'optimizer.schedule_free': boolean(),
  'finetune.from_workdir': path(empty=True),
  'finetune.frozen': parts(),
  'finetune.learning_rates': factors("('logits=10', 'conv_1=0.1')"),
  'train.epochs': integer(1),
  'train.max_steps': integer(0),
  'train.batch_size': integer(1),
  'train.microbatches': integer(1),
  'train.image_sizes': parsed(
    image_sizes.parse_sizes,
    'a tuple of size@part, parts of the schedule that rise from 0, like '
    "('64@0', '96@0.6'), or ()",
  ),
  'train.label_smoothing': fraction(),
  'train.teacher': tuple_of(
    path(),
    'folders or names of runs, paths with names of at most 255 bytes',
    "('fmnist28_best',)",
    may_be_empty=True,
  ),
  'train.teacher_weight': number(0, 1),
  'train.teacher_temperature': positive(),
  'train.aux_loss_weight': number(0),
  'train.class_weights': Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and (list(v) == ['balanced'] or all(number(0).is_valid(x) for x in v))
      and (not v or any(v))  # only zeros would train nothing
    ),
    'balanced, or a tuple of a number >= 0 per class, one of them > 0, or ()',
  ),
  'train.sampling': choice('natural', 'balanced'),
  'train.precision': _PRECISION,
  'train.loss_scale': Field(
    lambda v: v == 'dynamic' if isinstance(v, str) else positive().is_valid(v),
    'a number > 0 or dynamic',
  ),
  'train.on_nonfinite': choice('stop', 'skip'),
  'train.max_nonfinite': integer(1),
  'train.ema_decay': fraction(),
  'train.early_stopping': integer(0),
  'train.parallel': choice(*FORMS),
  'train.compilation_cache': path(empty=True),
  'eval.every_epochs': integer(1),
  'eval.batch_size': integer(1),
  'eval.batch_norm_batches': integer(0),
  'eval.flip': boolean(),
  'eval.shift': integer(0, 1024),
  'eval.crops': one_of(1, 10, 144),
  'checkpoint.every_epochs': integer(0),
  'checkpoint.every_steps': integer(0),
  'checkpoint.every_seconds': number(0),
  'checkpoint.keep': integer(1),
  'checkpoint.best_metric': Field(
    lambda v: isinstance(v, str) and v in ('', *_METRICS),
    "'' or one of " + ', '.join(_METRICS),
    _METRICS,
  ),
  'logging.every_steps': integer(1),
  'logging.tensorboard': boolean(),
  'logging.images': integer(0, 256),
  'logging.histograms': integer(0),
  'logging.profile_steps': integer(0, 1000),
  'benchmark.batch_sizes': tuple_of(
    integer(1), 'whole numbers from 1', '(32, 128)', may_be_empty=True
  ),
  'benchmark.precisions': tuple_of(
    _PRECISION,
    'precisions as train.precision takes them',
    "('bfloat16', 'float32')",
  )._replace(
    current=lambda v: (
      tuple(map(name_of, v)) if isinstance(v, (tuple, list)) else v
    )
  ),
  'benchmark.steps': integer(1, 100_000),
  'benchmark.rounds': integer(1, 1000),
  'benchmark.seconds': positive(86_400),
  'benchmark.torch_python': path(empty=True),
}


def suggest_field(name: str) -> str:
  """Returns ', did you mean ...?' for the name of no field, or ''."""
  for known in SYNONYMS.get(name.rpartition('.')[2], ()):
    if known in FIELDS:
      return f', did you mean {known!r}?'
  return did_you_mean(name, FIELDS)
