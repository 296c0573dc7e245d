"""From a command line to a mode, its flags and a config, all of it checked."""

import difflib
import importlib.util
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from googlenet import config as config_lib
from googlenet.cli.help import unknown_mode
from googlenet.cli.modes import FLAGS, MODES, modes_of
from googlenet.cli.overrides import StrayArgument, set_fields
from googlenet.errors import UserError, did_you_mean
from googlenet.fields import FIELDS
from googlenet.runtime import distributed

_RUN_OF_SEVERAL = ('coordinator_address', 'num_processes', 'process_id')


class Arguments(NamedTuple):
  """A command line, checked."""

  mode: str
  workdir: str
  config: ml_collections.FrozenConfigDict
  options: dict[str, Any]  # of the mode alone
  address: distributed.Address
  heartbeat_timeout_seconds: int


def parse(argv: Sequence[str]) -> Arguments:
  """Parses a command line in two passes: our flags, then fields of the config.

  Args:
    argv: the name of the program, then its arguments.

  Raises:
    UserError: whatever is wrong with it, or with the config.
  """
  ours = _define_flags()
  try:
    argv = ours.read_flags_from_files(argv, force_gnu=False)
    rest = ours(argv, known_only=True)[1:]
  except flags.Error as error:
    raise UserError(str(error)) from error
  if ours.mode not in MODES:
    raise unknown_mode(ours.mode)
  mode = MODES[ours.mode]
  options = _options(ours)
  address = distributed.Address(
    ours.coordinator_address, ours.num_processes, ours.process_id
  )
  distributed.check_address(address)
  workdir, others = os.path.expanduser(ours.workdir), []
  if mode.workdir == 'reads' and not workdir:
    raise UserError(f'--workdir is missing: --mode={ours.mode} reads a run')
  if mode.takes_several and not os.path.isdir(workdir):
    workdir, *others = map(os.path.expanduser, workdir.split(','))
  if ours.config and mode.compares:
    baseline = config_lib.resolve(load_config_file(ours.config))
    options['baseline'], ours.config = (ours.config, baseline), ''
  if ours.config:
    config = load_config_file(ours.config)
  elif workdir and mode.workdir != 'makes':
    config = config_lib.load(pathlib.Path(workdir) / 'config.json')
  elif rest and not rest[0].startswith('-'):  # perhaps it is what is missing
    raise _stray(StrayArgument(rest[0]))
  else:
    raise UserError(
      '--config is missing: give a config file, like '
      '--config=configs/fmnist96.py'
    )
  _override(config, rest)
  resolved = config_lib.resolve(config)
  if others:
    options['others'] = tuple(
      (other, _config_of(other, config, ours.config, rest)) for other in others
    )
  return Arguments(
    ours.mode,
    workdir or _fresh_workdir(ours.config),
    resolved,
    options,
    address,
    ours.heartbeat_timeout_seconds,
  )


def read_config(argv: Sequence[str]) -> ml_collections.FrozenConfigDict:
  """Returns the config of a command line with --config, whatever its mode.

  Raises:
    UserError: there is none, or something is wrong with it.
  """
  ours = _define_flags()
  try:
    rest = ours([*argv], known_only=True)[1:]
  except flags.Error as error:
    raise UserError(str(error)) from error
  config = load_config_file(ours.config)
  _override(config, rest)
  return config_lib.resolve(config)


def _define_flags() -> flags.FlagValues:
  """Returns our own flags, without those of the config's fields."""
  ours = flags.FlagValues()
  define = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
  }
  for name, default in {'config': '', 'mode': 'train', 'workdir': ''}.items():
    flags.DEFINE_string(name, default, '', flag_values=ours)
  for name, flag in FLAGS.items():
    define[type(flag.default)](name, flag.default, flag.help, flag_values=ours)
  flags.DEFINE_string('coordinator_address', None, '', flag_values=ours)
  flags.DEFINE_integer('num_processes', None, '', flag_values=ours)
  flags.DEFINE_integer('process_id', None, '', flag_values=ours)
  flags.DEFINE_integer(
    'heartbeat_timeout_seconds',
    distributed.HEARTBEAT_TIMEOUT_SECONDS,
    '',
    lower_bound=1,
    upper_bound=3600,
    flag_values=ours,
  )
  return ours


def _options(ours: flags.FlagValues) -> dict[str, Any]:
  """Returns the flags of the mode alone; refuses those of other modes."""
  for name in FLAGS:
    if ours[name].present and ours.mode not in modes_of(name):
      raise UserError(
        f'--{name} is a flag of --mode={" and ".join(modes_of(name))}, not of '
        f'--mode={ours.mode}'
      )
    if ours[name].present and FLAGS[name].needs_workdir and not ours.workdir:
      raise UserError(f'--{name} is given without --workdir: give that as well')
  values = {name: ours[name].value for name in MODES[ours.mode].flags}
  return {
    name: os.path.expanduser(value) if isinstance(value, str) else value
    for name, value in values.items()
  }


def _fresh_workdir(config_file: str) -> str:
  stamp = time.strftime('%Y-%m-%d-%H%M%S')
  name = f'{pathlib.Path(config_file).stem}-{stamp}-{os.getpid()}'
  return os.path.join('runs', name)


def _config_of(
  workdir: str, config: ml_collections.ConfigDict, file: str, rest: list[str]
) -> ml_collections.FrozenConfigDict:
  """The config of a further workdir, unless a config file was given for all."""
  if not file:
    config = config_lib.load(pathlib.Path(workdir) / 'config.json')
    _override(config, rest)
  return config_lib.resolve(config)


def load_config_file(path: str) -> ml_collections.ConfigDict:
  """Returns the config of a file.

  Args:
    path: of Python with a get_config(), to which `path:text` passes a text; or
      of the config.json of a run.

  Raises:
    UserError: it is missing or broken. ml_collections would answer with a page
      of traceback.
  """
  file, _, argument = path.partition(':')
  if os.path.isfile(path) and path.endswith('.json'):
    return config_lib.load(path)
  if not os.path.isfile(file) or not file.endswith('.py'):
    raise UserError(
      f'--config={path}: no such file ending in .py or .json'
      f'{_near_config(path)}'
    )
  try:
    spec = importlib.util.spec_from_file_location('config_file', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, 'get_config'):
      raise UserError(
        f'--config={path} has no get_config(): a config file defines that '
        'function, like configs/fmnist96.py'
      )
    config = module.get_config(*[argument] if argument else [])
    if not isinstance(config, ml_collections.ConfigDict):
      raise UserError(
        f'--config={path}: get_config() returns a {type(config).__name__}; '
        'allowed is an ml_collections.ConfigDict'
      )
    config = ml_collections.ConfigDict(config)
    config_lib.check_fields(config)
  except UserError:
    raise
  except (Exception, SystemExit) as error:  # it is code: it may raise anything
    raise UserError(
      f'--config={path} cannot be loaded: {type(error).__name__}: {error}'
    ) from error
  return config


def _near_config(path: str) -> str:
  """Returns ', did you mean ...?' for a file beside it or in configs/."""
  files = {
    file.stem: str(file)
    for folder in ('configs', os.path.dirname(path) or '.')
    for file in sorted(pathlib.Path(folder).glob('*.py'))
  }
  stem = pathlib.Path(path).stem
  near = difflib.get_close_matches(stem, files, n=1)
  return f', did you mean {files[near[0]]!r}?' if near else ''


def _override(config: ml_collections.ConfigDict, rest: Sequence[str]) -> None:
  """Sets the fields that are given as flags; nothing else may be left."""
  try:
    set_fields(config, rest)
  except StrayArgument as error:
    raise _stray(error) from error


def _stray(error: StrayArgument) -> UserError:
  """Returns an error for what is no flag that says what may be meant."""
  return UserError(f'{error}{_near_argument(error.argument)}')


def _near_argument(argument: str) -> str:
  if argument.startswith('--'):
    ours = ('config', 'workdir', 'mode', 'help', 'version', *FLAGS)
    name = argument.removeprefix('--')
    return did_you_mean(name, [*ours, *_RUN_OF_SEVERAL]) or did_you_mean(
      name, [f'config.{field}' for field in FIELDS]
    )
  if os.path.isfile(argument) and argument.endswith('.py'):
    return f", did you mean '--config={argument}'?"
  near = difflib.get_close_matches(argument, MODES, n=1)
  return f", did you mean '--mode={near[0]}'?" if near else ''
