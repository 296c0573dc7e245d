"""The whole config: checks of its fields, what follows from them, its file.

What computes (network, data, augmentation, loss, optimizer, steps) is handed
its section and never imports this file; `resolve` has checked it by then.
"""

import difflib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
from ml_collections import config_dict

from googlenet.errors import UserError, did_you_mean
from googlenet.fields import ADDED, FIELDS, RENAMED, SEVERAL_TYPES
from googlenet.input import image_sizes, mixing
from googlenet.model import graph, variants


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
  config = ml_collections.ConfigDict(_renamed(config.to_dict()))
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
  architecture = variants.resolve(config.model)
  smallest = graph.smallest_image(architecture)
  for train_size, _ in image_sizes.parse_sizes(config.train.image_sizes):
    if train_size < smallest:
      raise UserError(
        f'config.train.image_sizes={tuple(config.train.image_sizes)}: '
        f'{train_size} is too small for the network {config.model.variant!r}: '
        f'the smallest size that works is {smallest}'
      )
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
  count = config.eval.batch_norm_batches
  if count and architecture.normalization != 'batch':
    raise UserError(
      f'config.eval.batch_norm_batches={count}: the network '
      f'{config.model.variant!r} has no batch norm; allowed is 0, or '
      "config.model.normalization='batch'"
    )
  if config.eval.crops > 1 and (config.eval.flip or config.eval.shift):
    raise UserError(
      f'config.eval.crops={config.eval.crops} has views of its own: leave out '
      'config.eval.flip and config.eval.shift, or give config.eval.crops=1'
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
  near = did_you_mean(value, field.choices) if isinstance(value, str) else ''
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


def check_pairs(config: ml_collections.ConfigDict, num_devices: int) -> None:
  """Checks that images can be mixed in pairs on each device.

  Raises:
    UserError: a device's part of a batch, or of a microbatch, is odd.
  """
  train = config.train
  parts = num_devices * train.microbatches
  if mixing.is_on(config.augment) and train.batch_size // parts % 2:
    raise UserError(
      f'config.train.batch_size={train.batch_size} on {num_devices} devices x '
      f'{train.microbatches} microbatches gives parts of '
      f'{train.batch_size // parts} images, and mixup and CutMix take pairs: '
      f'choose a multiple of {2 * parts}'
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
  for name, kind in SEVERAL_TYPES.items():
    section, _, field = name.partition('.')
    if isinstance(values, dict) and isinstance(values.get(section), dict):
      value = values[section].get(field)
      if value is None or kind is object:
        values[section][field] = config_dict.FieldReference(
          value, field_type=kind
        )
  config = ml_collections.ConfigDict(values)
  check_fields(config)
  return config


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
  """Puts the values of today in place of those that older configs give."""
  for name, now in RENAMED.items():
    section, _, field = name.partition('.')
    value = values[section][field]
    if isinstance(value, (bool, str)):
      values[section][field] = now.get(value, value)
  return values


def load(path: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """Reads a config.json; lists become tuples.

  Raises:
    UserError: the file is missing or damaged.
  """
  if not os.path.isfile(path):
    folder = os.path.dirname(path)
    raise UserError(
      f'--workdir={folder} holds no run: there is no {path}{near_run(folder)}'
    )
  try:
    with open(path, encoding='utf-8') as file:
      return from_json(file.read())
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  # What parsing and ConfigDict raise on keys and nesting of any kind.
  except (ValueError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(f'{path} is damaged: {type(error).__name__}') from error


def near_run(workdir: str | os.PathLike[str]) -> str:
  """Returns ', did you mean ...?' for a folder beside it that holds a run."""
  path = pathlib.Path(workdir)
  try:
    runs = {
      other.name: str(other)
      for other in sorted(path.parent.iterdir())
      if other != path and (other / 'config.json').exists()
    }
  except OSError:
    return ''
  near = difflib.get_close_matches(path.name, runs, n=1)
  return f', did you mean {runs[near[0]]!r}?' if near else ''
