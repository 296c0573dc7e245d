"""The config: checks, run lengths derived from it, reading and writing JSON.

The network, the augmentation and the optimizer get only their section, already
checked by `resolve`; the steps and loss of training get the whole config.
"""

import functools
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from googlenet import contradictions
from googlenet.errors import UserError, shown
from googlenet.fields import FIELDS, LOCAL, suggest_field
from googlenet.input import mixing
from googlenet.runtime import files, places
from googlenet.runtime.terminal import warn


def resolve(
  config: ml_collections.ConfigDict,
) -> ml_collections.FrozenConfigDict:
  """Checks all fields and their combinations; makes the config immutable.

  Args:
    config: loaded from a config file, with overrides applied.

  Returns:
    The same values, immutable.

  Raises:
    UserError: a field is unknown, missing or not allowed, or two fields
      contradict each other.
  """
  check_fields(config)
  config = ml_collections.ConfigDict(config.to_dict())
  values = flatten(config)
  with config.ignore_type():
    for name, field in FIELDS.items():
      value = field.current(values[name])
      if not field.is_valid(value):
        raise invalid(name, value)
      _set(config, name, value)
  contradictions.check(config)
  return ml_collections.FrozenConfigDict(config)


def check_fields(config: ml_collections.ConfigDict) -> None:
  """Checks that a config has all fields and no unknown ones.

  Raises:
    UserError: it is no config, or a field is unknown or missing.
  """
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f'config is a {type(config).__name__}; allowed is a ConfigDict, as '
      'googlenet.get_config(name) returns it'
    )
  names = flatten(config)
  for name in names:
    if name not in FIELDS:
      raise unknown_field(name)
  for name, field in FIELDS.items():
    if name not in names:
      raise UserError(
        f'config.{name} is missing; allowed is {field.allowed}. Start a '
        'config file from configs/fmnist96.py and change some fields',
        name,
      )


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
  """Flattens a config to {'train.epochs': 10, ...}."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, (Mapping, ml_collections.ConfigDict)) and value:
      flat |= {f'{key}.{name}': v for name, v in flatten(value).items()}
    else:
      flat[key] = value
  return flat


def unknown_field(name: str) -> UserError:
  """Returns the error for a field that does not exist."""
  name = name if len(name) <= 60 else name[:60] + '...'
  return UserError(
    f'config.{name} is not a field{suggest_field(name)} (all fields, '
    'with comments: configs/fmnist96.py)',
    name,
  )


def invalid(name: str, value: Any) -> UserError:
  """Returns the error for a value that its field does not allow."""
  field = FIELDS[name]
  return UserError(
    f'config.{name}={shown(value)} is not allowed{field.suggest(value)}: it '
    f'takes {field.allowed}',
    name,
  )


class Durations(NamedTuple):
  """Lengths of a run in steps."""

  steps_per_epoch: int
  total_steps: int  # of the whole schedule: epochs * steps_per_epoch
  num_steps: int  # of this run: train.max_steps, at most total_steps


def durations(
  train_config: ml_collections.ConfigDict,
  num_examples: int,
  num_devices: int,
) -> Durations:
  """Computes the steps of a run and checks the batch size.

  Each epoch drops its last incomplete batch. The order differs in each epoch,
  so different images are dropped.

  Raises:
    UserError: the batch size is not a multiple of devices x microbatches or
      larger than the training set, or there are too many steps.
  """
  batch = train_config.batch_size
  parts = num_devices * train_config.microbatches
  below = min(batch, num_examples) // parts * parts
  if batch % parts:
    each = train_config.microbatches
    options = [f'{n}' for n in (below, below + parts) if 0 < n <= num_examples]
    fewer = [n for n in range(1, num_devices) if batch % (n * each) == 0]
    options += [f'{n} device(s)' for n in fewer[-2:]]
    raise UserError(
      f'config.train.batch_size={batch} does not divide by {num_devices} '
      f'devices x {each} microbatches: choose '
      f'{" or ".join(options) or "fewer microbatches"} (a run that is '
      'continued keeps its batch size)',
      'train.batch_size',
    )
  if batch > num_examples:
    raise UserError(
      f'config.train.batch_size={batch} is larger than the training data '
      f'({num_examples} images): choose '
      + (f'at most {below}' if below else 'fewer devices or microbatches'),
      'train.batch_size',
    )
  steps_per_epoch = num_examples // batch
  total_steps = train_config.epochs * steps_per_epoch
  if total_steps >= 2**31:
    most = (2**31 - 1) // steps_per_epoch
    raise UserError(
      f'config.train.epochs={train_config.epochs} makes {total_steps} steps, '
      f'which are counted in 31 bits: choose at most {most}',
      'train.epochs',
    )
  return Durations(
    steps_per_epoch,
    total_steps,
    min(total_steps, train_config.max_steps or total_steps),
  )


def check_pairs(config: ml_collections.ConfigDict, num_devices: int) -> None:
  """Checks that images can be mixed in pairs on each device.

  Raises:
    UserError: a device's part of a (micro)batch has an odd number of images.
  """
  train = config.train
  parts = num_devices * train.microbatches
  if mixing.is_on(config.augment) and train.batch_size // parts % 2:
    raise UserError(
      f'config.train.batch_size={train.batch_size} on {num_devices} devices x '
      f'{train.microbatches} microbatches gives parts of '
      f'{train.batch_size // parts} images, and mixup and CutMix take pairs: '
      f'choose a multiple of {2 * parts}, or fewer devices or microbatches',
      'train.batch_size',
    )


def to_json(config: ml_collections.ConfigDict) -> str:
  """Returns the config as indented JSON with sorted keys."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(
  text: str, source: str = 'the config', with_local: bool = True
) -> ml_collections.ConfigDict:
  """Reads a config from the JSON of `to_json`; lists become tuples.

  Fields that an older config lacks get their current default, with a warning.
  Field types come from the default config, so overrides are parsed the same way
  for a config file and for the config of a run.

  Args:
    text: JSON.
    source: name of the config in the warning.
    with_local: whether to read the `LOCAL` fields, which else take defaults.

  Raises:
    UserError: a field is unknown or has the wrong type, or model.variant is
      missing.
    ValueError, TypeError, AttributeError, RecursionError: the text is not a
      JSON object.
  """
  stored = flatten(json.loads(text))
  for name in stored:
    if name not in FIELDS:
      raise unknown_field(name)
  missing = [name for name in FIELDS if name not in stored]
  if 'model.variant' in missing:
    raise UserError('config.model.variant is missing', 'model.variant')
  config = default_config()
  for name, value in stored.items():
    if name in LOCAL and not with_local:
      continue
    value = FIELDS[name].current(_as_tuple(value))
    try:
      _set(config, name, value)
    except TypeError as error:
      raise invalid(name, value) from error
  if missing:
    defaults = flatten(config)
    values = ', '.join(f'{name}={defaults[name]!r}' for name in missing)
    _warn_once(f'{source} lacks newer fields, which take defaults: {values}')
  return config


_warn_once = functools.cache(warn)


def default_config() -> ml_collections.ConfigDict:
  """Returns the config of configs/fmnist96.py, unlocked."""
  return _read_defaults().get_config().unlock()


@functools.cache
def _read_defaults() -> ModuleType:
  """Imports configs/fmnist96.py, independent of the current folder."""
  spec = importlib.util.spec_from_file_location('_defaults', places.DEFAULTS)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses look their module up there
  spec.loader.exec_module(module)
  return module


def _as_tuple(value: Any) -> Any:
  return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _set(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
  section, _, key = name.rpartition('.')
  (config[section] if section else config)[key] = value


def load(
  path: str | os.PathLike[str], with_local: bool = False
) -> ml_collections.ConfigDict:
  """Reads a config.json; lists become tuples.

  Args:
    path: of the file.
    with_local: see `from_json`; they are only compared or shown.

  Raises:
    UserError: the file is missing or damaged.
    OSError: it is there, but cannot be read.
  """
  try:
    return from_json(files.read_text(path), str(path), with_local)
  except UserError as error:
    raise UserError(f'{path}: {error}', error.field) from error
  except PermissionError:
    raise
  except OSError as error:
    folder = os.path.dirname(path)
    near = files.near_run(folder)
    raise UserError(
      f'--workdir={folder} holds no run: there is no {path}{near}'
    ) from error
  # Errors of JSON parsing and of ConfigDict for bad keys or nesting.
  except (ValueError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(f'{path} is damaged: {type(error).__name__}') from error
