"""The whole config: what every field may hold, and what follows from it.

Parts of the program are handed their own section (`config.model`, ...) and
never import this file; `resolve` has checked the values by then.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import jmp
import ml_collections

from googlenet import (
  architectures,
  initializers,
  layers,
  modules,
  optimizer,
)
from googlenet.architectures import analysis
from googlenet.errors import UserError, did_you_mean


class Field(NamedTuple):
  """What a field may hold: a test, and the same in words."""

  is_valid: Callable[[Any], bool]
  allowed: str


# Larger numbers are infinite on the device.
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
    lambda v: isinstance(v, str) and v in names, 'one of ' + ', '.join(names)
  )


def _optional(field: Field) -> Field:
  return Field(
    lambda v: v is None or field.is_valid(v), f'{field.allowed}, or None'
  )


def _boolean() -> Field:
  return Field(lambda v: isinstance(v, bool), 'true or false')


def _text(empty: bool = False) -> Field:
  return Field(
    lambda v: isinstance(v, str) and (empty or v != ''),
    'a text' + ('' if empty else ' that is not empty'),
  )


def _channels() -> Field:
  return Field(lambda v: type(v) is int and v in (0, 1, 3), '0, 1 or 3')


def _tuple_of(element: Field, words: str, example: str = '(0.5,)') -> Field:
  return Field(
    lambda v: (
      isinstance(v, (tuple, list))
      and len(v) > 0
      and all(element.is_valid(x) for x in v)
    ),
    f'a tuple of {words}, like {example}',
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


def _are_rates(value: Any) -> bool:
  try:
    optimizer.parse_rates(value)
  except (ValueError, TypeError, AttributeError):
    return False
  return isinstance(value, (tuple, list))


def _is_policy(value: Any) -> bool:
  try:
    policy = jmp.get_policy(value)
  except Exception:  # jmp raises whatever its parsing meets
    return False
  return (
    policy.param_dtype == policy.output_dtype == jnp.float32
    and policy.compute_dtype in (jnp.float32, jnp.bfloat16, jnp.float16)
  )


_METRICS = ('eval/accuracy', 'eval/top_5', 'eval/loss')

_POLICY = Field(
  _is_policy,
  'float32, or a jmp policy with float32 parameters and output and compute '
  'in float32, bfloat16 or float16, like '
  'params=float32,compute=bfloat16,output=float32',
)

FIELDS: dict[str, Field] = {
  'seed': _integer(0),
  'model.variant': _choice(*architectures.ARCHITECTURES),
  'model.num_classes': _integer(1, 100_000),
  'model.width_multiplier': _positive(100),
  'model.normalization': _choice('auto', *architectures.NORMALIZATIONS),
  'model.batch_norm_decay': _fraction(),
  'model.activation': _choice(*modules.ACTIVATIONS),
  'model.dropout': _optional(_fraction()),
  'model.aux_heads': _choice('auto', 'on', 'off'),
  'model.initializer': _choice('auto', *initializers.INITIALIZERS),
  'model.kernels': _choice('auto', *layers.KERNELS),
  'data.source': _choice('bundled', 'tfds'),
  'data.name': _text(),
  'data.data_dir': _text(empty=True),
  'data.train_split': _text(),
  'data.eval_split': _text(),
  'data.image_size': _integer(1, 4096),
  'data.channels': _channels(),
  'data.mean': _tuple_of(_number(-math.inf), 'numbers'),
  'data.std': _tuple_of(_positive(), 'numbers > 0'),
  'data.resize': _integer(0, 4096),
  'data.on_device_mb': _integer(0),
  'data.workers': _integer(0, 1024),
  'augment.flip': _boolean(),
  'augment.crop_padding': _integer(0, 1024),
  'augment.random_resized_crop': _boolean(),
  'augment.crop_area': _range(
    Field(lambda v: _is_number(v) and 0 < v <= 1, ''),
    'parts of 1',
    '(0.08, 1.0)',
  ),
  'augment.crop_aspect': _range(_positive(), 'numbers > 0', '(0.75, 1.3333)'),
  'optimizer.name': _choice(*optimizer.OPTIMIZERS),
  'optimizer.learning_rate': _positive(),
  'optimizer.momentum': _fraction(),
  'optimizer.nesterov': _boolean(),
  'optimizer.weight_decay': _number(0),
  'optimizer.grad_clip_norm': _number(0),
  'optimizer.schedule': _choice(*optimizer.SCHEDULES),
  'optimizer.warmup_steps': _integer(0),
  'optimizer.step_epochs': _tuple_of(_positive(), 'numbers > 0'),
  'optimizer.step_factor': _positive(),
  'optimizer.poly_power': _positive(),
  'finetune.from_workdir': _text(empty=True),
  'finetune.frozen': _parts(),
  'finetune.learning_rates': Field(
    _are_rates,
    'a tuple of part=factor, each factor > 0, no part twice, like '
    "('logits=10', 'conv_1=0.1'), or ()",
  ),
  'train.epochs': _integer(1),
  'train.max_steps': _integer(0),
  'train.batch_size': _integer(1),
  'train.microbatches': _integer(1),
  'train.label_smoothing': _fraction(),
  'train.aux_loss_weight': _number(0),
  'train.precision': _POLICY,
  'train.loss_scale': Field(
    lambda v: v == 'dynamic' if isinstance(v, str) else _positive().is_valid(v),
    'a number > 0 or dynamic',
  ),
  'train.on_nonfinite': _choice('stop', 'skip'),
  'train.max_nonfinite': _integer(1),
  'train.ema_decay': _fraction(),
  'train.compilation_cache': _text(empty=True),
  'eval.every_epochs': _integer(1),
  'eval.batch_size': _integer(1),
  'eval.crops': Field(lambda v: v in (1, 10, 144), 'one of 1, 10, 144'),
  'checkpoint.every_epochs': _integer(0),
  'checkpoint.every_steps': _integer(0),
  'checkpoint.every_seconds': _number(0),
  'checkpoint.keep': _integer(1),
  'checkpoint.best_metric': Field(
    lambda v: isinstance(v, str) and v in ('', *_METRICS),
    "'' or one of " + ', '.join(_METRICS),
  ),
  'logging.every_steps': _integer(1),
  'logging.tensorboard': _boolean(),
  'logging.profile_steps': _integer(0, 1000),
  'benchmark.batch_sizes': _tuple_of(
    _integer(1), 'whole numbers from 1', '(32, 128)'
  ),
  'benchmark.precisions': _tuple_of(
    _POLICY,
    'jmp policies as train.precision takes them',
    "('params=float32,compute=bfloat16,output=float32',)",
  ),
  'benchmark.steps': _integer(1, 100_000),
  'benchmark.rounds': _integer(1, 1000),
  'benchmark.torch_python': _text(empty=True),
}

# Values of fields that are younger than some config.json, with which a run
# goes on as it did before there was the field.
ADDED = {
  'model.width_multiplier': 1.0,
  'model.normalization': 'auto',
  'model.batch_norm_decay': 0.9,
  'model.activation': 'relu',
  'model.dropout': None,
  'model.aux_heads': 'auto',
  'data.channels': 0,
  'data.resize': 0,
  'data.workers': 0,
  'augment.random_resized_crop': False,
  'augment.crop_area': (0.08, 1.0),
  'augment.crop_aspect': (0.75, 1.3333),
  'train.aux_loss_weight': 0.3,
  'eval.crops': 1,
  'logging.profile_steps': 0,
  'benchmark.batch_sizes': (32, 128),
  'benchmark.precisions': (
    'float32',
    'params=float32,compute=bfloat16,output=float32',
  ),
  'benchmark.steps': 5,
  'benchmark.rounds': 3,
  'benchmark.torch_python': '',
  'finetune.from_workdir': '',
  'finetune.frozen': (),
  'finetune.learning_rates': (),
  'train.on_nonfinite': 'stop',
  'train.max_nonfinite': 10,
  'train.ema_decay': 0.0,
  'checkpoint.every_steps': 0,
  'checkpoint.every_seconds': 0.0,
  'checkpoint.keep': 2,
  'checkpoint.best_metric': '',
}


def resolve(
  config: ml_collections.ConfigDict,
) -> ml_collections.FrozenConfigDict:
  """Checks every field and what one field asks of another.

  Args:
    config: as loaded from a config file, overrides applied.

  Returns:
    The same values, immutable.

  Raises:
    UserError: a field is unknown, missing, of the wrong type or out of range.
  """
  check_fields(config)
  values = flatten(config)
  for name, field in FIELDS.items():
    if not field.is_valid(values[name]):
      raise invalid(name, values[name])
  _check_combinations(config)
  return ml_collections.FrozenConfigDict(config)


def check_fields(config: ml_collections.ConfigDict) -> None:
  """Checks that a config has every field and no other.

  Raises:
    UserError: a field is unknown or missing.
  """
  names = flatten(config)
  for name in names:
    if name not in FIELDS:
      raise unknown_field(name)
  for name, field in FIELDS.items():
    if name not in names:
      raise UserError(
        f'config.{name} is missing; allowed is {field.allowed}. Start a '
        'config file from configs/fmnist96.py and change some fields'
      )


def _check_combinations(config: ml_collections.ConfigDict) -> None:
  size = config.data.image_size
  architecture = architectures.resolve(config.model)
  smallest = analysis.smallest_image(architecture)
  if size < smallest:
    heads = ' with auxiliary heads' if architecture.uses_aux_heads else ''
    raise UserError(
      f'config.data.image_size={size} is too small for the network '
      f'{config.model.variant!r}{heads}: the smallest size that works is '
      f'{smallest}'
    )
  if 0 < config.data.resize < size:
    raise UserError(
      f'config.data.resize={config.data.resize} is smaller than '
      f'config.data.image_size={size}, the square that is cut from it: choose '
      f'0 or at least {size}'
    )
  epochs = config.optimizer.step_epochs
  if list(epochs) != sorted(epochs):
    raise UserError(f'config.optimizer.step_epochs={tuple(epochs)} must rise')
  if config.train.batch_size % config.train.microbatches:
    raise UserError(
      f'config.train.batch_size={config.train.batch_size} does not divide '
      f'into config.train.microbatches={config.train.microbatches} parts: '
      'choose a multiple'
    )


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {'train.epochs': 10, ...}, sections joined by dots."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, (Mapping, ml_collections.ConfigDict)) and value:
      flat |= {f'{key}.{name}': v for name, v in flatten(value).items()}
    else:
      flat[key] = value
  return flat


def unknown_field(name: str) -> UserError:
  """Returns the error for a field that no config has."""
  name = name if len(name) <= 60 else name[:60] + '...'
  return UserError(
    f'config.{name} is not a field{did_you_mean(name, FIELDS)} (all fields, '
    'with comments: configs/fmnist96.py)'
  )


def invalid(name: str, value: Any) -> UserError:
  """Returns the error for a value that its field does not allow."""
  field = FIELDS[name]
  near = ''
  if isinstance(value, str) and field.allowed.startswith('one of '):
    near = did_you_mean(
      value, field.allowed.removeprefix('one of ').split(', ')
    )
  return UserError(
    f'config.{name}={value!r} is not allowed{near}: it takes {field.allowed}'
  )


class Durations(NamedTuple):
  """Numbers derived from config, data and devices, once."""

  steps_per_epoch: int
  total_steps: int  # of the whole schedule: epochs * steps_per_epoch
  num_steps: int  # that this run makes: total_steps, or train.max_steps


def durations(
  train_config: ml_collections.ConfigDict,
  num_examples: int,
  num_devices: int,
) -> Durations:
  """Derives the steps of a run and checks that the batch fits.

  A last batch that would not be full is left out of its epoch; each epoch has
  an order of its own, so it leaves out other images.

  Raises:
    UserError: the batch does not divide by the devices and microbatches, or
      is larger than the data.
  """
  batch = train_config.batch_size
  parts = num_devices * train_config.microbatches
  if batch % parts:
    below = batch - batch % parts
    raise UserError(
      f'config.train.batch_size={batch} does not divide by {num_devices} '
      f'devices x {train_config.microbatches} microbatches: choose '
      + (f'{below} or {below + parts}' if below else f'{parts}')
    )
  if batch > num_examples:
    raise UserError(
      f'config.train.batch_size={batch} is larger than the training data '
      f'({num_examples} images): choose at most {num_examples}'
    )
  steps_per_epoch = num_examples // batch
  total_steps = train_config.epochs * steps_per_epoch
  if total_steps >= 2**31:
    raise UserError(
      f'config.train.epochs={train_config.epochs} makes {total_steps} steps, '
      f'which are counted in 31 bits: choose at most {2**31 // steps_per_epoch}'
    )
  return Durations(
    steps_per_epoch,
    total_steps,
    min(total_steps, train_config.max_steps or total_steps),
  )


def to_json(config: ml_collections.ConfigDict) -> str:
  """Returns the config as indented JSON, keys in a fixed order."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ml_collections.ConfigDict:
  """Reads what `to_json` wrote, also before a field of `ADDED`; lists become
  tuples.

  Raises:
    UserError: a field is unknown or missing.
    ValueError, TypeError, AttributeError, RecursionError: it is no JSON, or
      none of a config.
  """

  def tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {key: tuples(v) for key, v in value.items()}
    return tuple(value) if isinstance(value, list) else value

  values = tuples(json.loads(text))
  for name, value in ADDED.items():
    section, _, field = name.partition('.')
    if isinstance(values, dict):
      fields = values.setdefault(section, {})
      if isinstance(fields, dict):
        fields.setdefault(field, value)
  config = ml_collections.ConfigDict(values)
  check_fields(config)
  return config


def load(path: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """Reads a config.json; lists become tuples.

  Raises:
    UserError: the file is missing or damaged.
  """
  if not os.path.isfile(path):
    raise UserError(
      f'--workdir={os.path.dirname(path)} holds no run: there is no {path}'
    )
  try:
    with open(path, encoding='utf-8') as file:
      return from_json(file.read())
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  # What parsing and ConfigDict raise on keys and nesting of any kind.
  except (ValueError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(f'{path} is damaged: {type(error).__name__}') from error
