"""The allowed values of every config field.

Defaults and comments are in configs/fmnist96.py. Optimizers are listed here by
name only, so code that just uses a trained network need not import them.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from googlenet import kernels
from googlenet.errors import did_you_mean
from googlenet.input import augment, image_sizes, rand_augment
from googlenet.model import ablations, architecture_text, groups, variants
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


class Field(NamedTuple):
  """The allowed values of a config field.

  Attributes:
    is_valid: value -> whether it is allowed.
    allowed: description of the allowed values, for error messages and help.
    choices: the allowed names, if the field takes one of a few.
    current: value -> the name of today, if an older config has another one.
  """

  is_valid: Callable[[Any], bool]
  allowed: str
  choices: tuple[str, ...] = ()
  current: Callable[[Any], Any] = lambda value: value

  def suggest(self, value: Any) -> str:
    """Returns ', did you mean ...?' for a wrong value, or ''."""
    if not isinstance(value, str):
      return ''
    names = [n for n in SYNONYMS.get(value.lower(), ()) if n in self.choices]
    if names:
      return f', did you mean {" or ".join(map(repr, names))}?'
    return did_you_mean(value, self.choices, 0.7)


# What others call our choices and fields, where the spelling would suggest a
# wrong one.
_GOOGLENET = ('plain', 'paper', 'torchvision')
SYNONYMS = {
  'googlenet': _GOOGLENET,
  'inception': _GOOGLENET,
  'inception_v1': _GOOGLENET,
  'inceptionv1': _GOOGLENET,
  'batch_norm': ('batch', 'bn'),
  'bn': ('batch',),
  'momentum': ('sgd',),
  'nesterov': ('sgd',),
  'swish': ('silu',),
  'linear': ('poly',),
  'polynomial': ('poly',),
  'onecycle': ('one_cycle',),
  'multistep': ('step',),
  'trapezoidal': ('wsd',),
  'cuda': ('gpu',),
  'bf16': ('bfloat16',),
  'fp16': ('float16',),
  'fp32': ('float32',),
  'mkl': ('onednn',),
  'dnnl': ('onednn',),
  'lr': ('optimizer.learning_rate',),
  'wd': ('optimizer.weight_decay',),
  'num_epochs': ('train.epochs',),
  'patience': ('train.early_stopping',),
}


# Larger numbers would be infinite in float32.
_FLOAT32_MAX = 3.4e38


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and abs(value) <= _FLOAT32_MAX


def _integer(low: int, high: int = 2**31 - 1) -> Field:
  return Field(
    lambda v: type(v) is int and low <= v <= high,
    f'a whole number from {low} to {high}',
  )


def _number(low: float, high: float = math.inf) -> Field:
  words = f'from {low:g} to {high:g}' if high < math.inf else f'>= {low:g}'
  return Field(
    lambda v: _is_number(v) and low <= v <= high, f'a number {words}'
  )


def _positive(high: float = math.inf) -> Field:
  words = f'a number > 0 and <= {high:g}' if high < math.inf else 'a number > 0'
  return Field(lambda v: _is_number(v) and 0 < v <= high, words)


def _fraction() -> Field:
  return Field(
    lambda v: _is_number(v) and 0 <= v < 1, 'a number from 0 to below 1'
  )


def _choice(*names: str) -> Field:
  return Field(
    lambda v: isinstance(v, str) and v in names,
    'one of ' + ', '.join(names),
    names,
  )


def _optional(field: Field) -> Field:
  return Field(
    lambda v: v is None or field.is_valid(v), f'{field.allowed}, or None'
  )


def _or_auto(field: Field) -> Field:
  return Field(
    lambda v: v in (('auto',), ['auto']) or field.is_valid(v),
    f'{field.allowed}, or auto',
  )


def _boolean() -> Field:
  return Field(lambda v: isinstance(v, bool), 'true or false')


def _text(empty: bool = False) -> Field:
  return Field(
    lambda v: isinstance(v, str) and (empty or v != ''),
    'a text' + ('' if empty else ' that is not empty'),
  )


def _one_of(*numbers: int) -> Field:
  return Field(
    lambda v: type(v) is int and v in numbers,
    'one of ' + ', '.join(map(str, numbers)),
  )


def _tuple_of(
  element: Field,
  words: str,
  example: str = '(0.5,)',
  may_be_empty: bool = False,
) -> Field:
  return Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and (may_be_empty or len(v) > 0)
      and all(element.is_valid(x) for x in v)
    ),
    f'a tuple of {words}, like {example}' + (', or ()' if may_be_empty else ''),
  )


def _range(element: Field, words: str, example: str) -> Field:
  return Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and len(v) == 2
      and all(element.is_valid(x) for x in v)
      and v[0] <= v[1]
    ),
    f'the smallest and the largest of {words}, like {example}',
  )


def _parts() -> Field:
  return Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and all(isinstance(part, str) and part for part in v)
      and len(set(v)) == len(v)
    ),
    "a tuple of different parts of the network, like ('conv_1', "
    "'inception_3a'), or ()",
  )


def _parsed(parse: Callable[[Any], Any], allowed: str) -> Field:
  """Returns a field for a tuple of texts that `parse` accepts."""

  def is_valid(value: Any) -> bool:
    try:
      parse(value)
    except (ValueError, TypeError, AttributeError):
      return False
    return isinstance(value, (tuple, list))

  return Field(is_valid, allowed)


def _factors(example: str, may_be_zero: bool = False) -> Field:
  low = '>= 0' if may_be_zero else '> 0'
  return _parsed(
    functools.partial(groups.parse_factors, may_be_zero=may_be_zero),
    f'a tuple of group=factor, each factor {low}, no group twice, like '
    f'{example}, or ()',
  )


def _matching(pattern: str, words: str, example: str) -> Field:
  """Returns a field for a tuple of texts, no two with the same name."""

  def is_valid(value: Any) -> bool:
    return (
      isinstance(value, (tuple, list))
      and all(isinstance(x, str) and re.fullmatch(pattern, x) for x in value)
      and len({x.partition('=')[0] for x in value}) == len(value)
    )

  return Field(is_valid, f'a tuple of {words}, like {example}, or ()')


_NAME = '[a-z0-9_]+(/[a-z0-9_]+)?'


def _flip(value: Any) -> Any:
  old = {True: 'random', 'true': 'random', False: 'none', 'false': 'none'}
  return old.get(value, value) if isinstance(value, (bool, str)) else value


# Older configs have a boolean here.
_FLIP = _choice(*augment.FLIPS)._replace(current=_flip)

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
  'seed': _integer(0),
  'model.variant': _choice(*variants.ARCHITECTURES, architecture_text.OWN),
  'model.architecture': _text(empty=True),
  'model.num_classes': _integer(0, 100_000),
  'model.width_multiplier': _positive(100),
  'model.normalization': _choice('auto', *variants.NORMALIZATIONS),
  'model.batch_norm_decay': _fraction(),
  'model.activation': _choice(*ACTIVATIONS),
  'model.dropout': _optional(_fraction()),
  'model.stochastic_depth': _fraction(),
  'model.aux_heads': _choice('auto', 'on', 'off'),
  'model.initializer': _choice('auto', *INITIALIZERS),
  'model.drop_branches': _matching(
    _NAME, 'different branches of blocks', "('5x5', 'inception_3a/pool')"
  ),
  'model.block_pool': _choice('auto', 'max', 'average', 'none'),
  'model.kernel_sizes': _matching(
    f'{_NAME}=[0-9]{{1,4}}',
    'name=size, no name twice',
    "('5x5=3', 'conv_1=5')",
  ),
  'model.stage_widths': _matching(
    r'[a-z0-9_]+=[0-9]{1,4}(\.[0-9]{1,8})?',
    'stage=factor, no stage twice',
    "('3=0.5', '5=2')",
  ),
  'model.stage_depths': _matching(
    '[a-z0-9_]+=[0-9]{1,4}',
    'stage=number, no stage twice',
    "('4=3',)",
  ),
  'model.stage_blocks': _matching(
    f'[a-z0-9_]+=({"|".join(ablations.KINDS)})',
    f'stage=kind, kinds {", ".join(ablations.KINDS)}, no stage twice',
    "('4=inception_v2',)",
  ),
  'model.aux_after': _matching(
    '[a-z][a-z0-9_]*', 'different rows of the network', "('inception_4b',)"
  ),
  'model.kernels': _choice('auto', *kernels.KERNELS),
  'data.source': _choice(
    'bundled', 'idx', 'folder', 'csv', 'parquet', 'arrays', 'tfds'
  ),
  'data.name': _text(),
  'data.data_dir': _text(empty=True),
  'data.train_split': _text(),
  'data.eval_split': _text(),
  'data.classes': _text(empty=True),
  'data.on_bad_image': _choice('stop', 'skip'),
  'data.per_class': _integer(0),
  'data.image_size': _integer(1, 4096),
  'data.channels': _one_of(0, 1, 3),
  'data.mean': _or_auto(_tuple_of(_number(-math.inf), 'numbers')),
  'data.std': _or_auto(_tuple_of(_positive(), 'numbers > 0')),
  'data.resize': _integer(0, 4096),
  'data.interpolation': _choice('bilinear', 'bicubic'),
  'data.squeeze': _boolean(),
  'data.on_device_mb': _integer(0),
  'data.workers': _integer(0, 1024),
  'augment.flip': _FLIP,
  'augment.crop_padding': _integer(0, 1024),
  'augment.random_resized_crop': _boolean(),
  'augment.crop_area': _range(
    Field(lambda v: _is_number(v) and 0 < v <= 1, ''),
    'parts of 1',
    '(0.08, 1.0)',
  ),
  'augment.crop_aspect': _range(_positive(), 'numbers > 0', '(0.75, 1.3333)'),
  'augment.colour_jitter': Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and len(v) in (0, 4)
      and all(_number(0).is_valid(x) for x in v[:3])
      and all(_number(0, 0.5).is_valid(x) for x in v[3:])
    ),
    'strengths of brightness, contrast, saturation (>= 0) and hue (0 to 0.5), '
    'like (0.4, 0.4, 0.4, 0.1), or ()',
  ),
  'augment.rand_augment_ops': _integer(0, 100),
  'augment.rand_augment_magnitude': _number(0, rand_augment.MAX_MAGNITUDE),
  'augment.erase_probability': _number(0, 1),
  'augment.erase_area': _range(
    Field(lambda v: _is_number(v) and 0 < v < 1, ''),
    'parts of 1',
    '(0.02, 0.4)',
  ),
  'augment.erase_aspect': _range(_positive(), 'numbers > 0', '(0.3, 3.3333)'),
  'augment.cutout_size': _integer(0, 4096),
  'augment.fill': _choice(*augment.FILLS),
  'augment.mixup_alpha': _number(0, 100),
  'augment.cutmix_alpha': _number(0, 100),
  'augment.mix_probability': _number(0, 1),
  'optimizer.name': _choice(*_OPTIMIZERS),
  'optimizer.learning_rate': _positive(),
  'optimizer.momentum': _fraction(),
  'optimizer.nesterov': _boolean(),
  'optimizer.weight_decay': _number(0),
  'optimizer.grad_clip_norm': _number(0),
  'optimizer.schedule': _choice(
    *('constant', 'cosine', 'step', 'poly', 'exponential', 'staircase'),
    *('one_cycle', 'wsd'),
  ),
  'optimizer.warmup_steps': _integer(0),
  'optimizer.step_epochs': _tuple_of(_positive(), 'numbers > 0'),
  'optimizer.step_factor': _positive(),
  'optimizer.poly_power': _positive(),
  'optimizer.decay_epochs': _positive(),
  'optimizer.decay_rate': _positive(1),
  'optimizer.decay_fraction': _positive(1),
  'optimizer.muon_rest': _choice('sgd', 'adamw'),
  'optimizer.muon_steps': _integer(1, 100),
  'optimizer.rates': _factors("('*/b=2', 'logits=0.1')"),
  'optimizer.decays': _factors("('*/scale=1', 'logits=0')", True),
  'optimizer.lookahead_period': _integer(0),
  'optimizer.lookahead_rate': _positive(1),
  'optimizer.sam_rho': _number(0),
  'optimizer.schedule_free': _boolean(),
  'finetune.from_workdir': _text(empty=True),
  'finetune.frozen': _parts(),
  'finetune.learning_rates': _factors("('logits=10', 'conv_1=0.1')"),
  'train.epochs': _integer(1),
  'train.max_steps': _integer(0),
  'train.batch_size': _integer(1),
  'train.microbatches': _integer(1),
  'train.image_sizes': _parsed(
    image_sizes.parse_sizes,
    'a tuple of size@part, parts of the schedule that rise from 0, like '
    "('64@0', '96@0.6'), or ()",
  ),
  'train.label_smoothing': _fraction(),
  'train.teacher': _tuple_of(
    _text(), 'folders or names of runs', "('fmnist28_best',)", may_be_empty=True
  ),
  'train.teacher_weight': _number(0, 1),
  'train.teacher_temperature': _positive(),
  'train.aux_loss_weight': _number(0),
  'train.class_weights': Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and (list(v) == ['balanced'] or all(_number(0).is_valid(x) for x in v))
    ),
    'balanced, or a tuple of a number >= 0 per class, or ()',
  ),
  'train.sampling': _choice('natural', 'balanced'),
  'train.precision': _PRECISION,
  'train.loss_scale': Field(
    lambda v: v == 'dynamic' if isinstance(v, str) else _positive().is_valid(v),
    'a number > 0 or dynamic',
  ),
  'train.on_nonfinite': _choice('stop', 'skip'),
  'train.max_nonfinite': _integer(1),
  'train.ema_decay': _fraction(),
  'train.early_stopping': _integer(0),
  'train.parallel': _choice(*FORMS),
  'train.compilation_cache': _text(empty=True),
  'eval.every_epochs': _integer(1),
  'eval.batch_size': _integer(1),
  'eval.batch_norm_batches': _integer(0),
  'eval.flip': _boolean(),
  'eval.shift': _integer(0, 1024),
  'eval.crops': _one_of(1, 10, 144),
  'checkpoint.every_epochs': _integer(0),
  'checkpoint.every_steps': _integer(0),
  'checkpoint.every_seconds': _number(0),
  'checkpoint.keep': _integer(1),
  'checkpoint.best_metric': Field(
    lambda v: isinstance(v, str) and v in ('', *_METRICS),
    "'' or one of " + ', '.join(_METRICS),
    _METRICS,
  ),
  'logging.every_steps': _integer(1),
  'logging.tensorboard': _boolean(),
  'logging.images': _integer(0, 256),
  'logging.histograms': _integer(0),
  'logging.profile_steps': _integer(0, 1000),
  'benchmark.batch_sizes': _tuple_of(
    _integer(1), 'whole numbers from 1', '(32, 128)', may_be_empty=True
  ),
  'benchmark.precisions': _tuple_of(
    _PRECISION,
    'precisions as train.precision takes them',
    "('bfloat16', 'float32')",
  )._replace(
    current=lambda v: (
      tuple(map(name_of, v)) if isinstance(v, (tuple, list)) else v
    )
  ),
  'benchmark.steps': _integer(1, 100_000),
  'benchmark.rounds': _integer(1, 1000),
  'benchmark.seconds': _positive(86_400),
  'benchmark.torch_python': _text(empty=True),
}


def suggest_field(name: str) -> str:
  """Returns ', did you mean ...?' for the name of no field, or ''."""
  for known in SYNONYMS.get(name.rpartition('.')[2], ()):
    if known in FIELDS:
      return f', did you mean {known!r}?'
  return did_you_mean(name, FIELDS)
