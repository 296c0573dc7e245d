"""Parses a command line into a mode, its flags and a checked config."""

import difflib
import importlib
import importlib.util
import os
import pathlib
import sys
import time
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from googlenet import config as config_lib
from googlenet.cli.flag_texts import check_path, check_texts
from googlenet.cli.modes import (
  FLAGS,
  MODES,
  modes_of,
  parse_flags,
  unknown_mode,
)
from googlenet.cli.overrides import set_fields, split_flags
from googlenet.data import auto
from googlenet.errors import UserError, did_you_mean
from googlenet.fields import FIELDS, LOCAL
from googlenet.io import checkpoint, compare, named
from googlenet.model.architecture_text import has_operations
from googlenet.runtime import distributed, places
from googlenet.runtime.terminal import warn

# Flags to suggest for a mistyped flag.
_OURS = (
  *('config', 'workdir', 'operations', 'mode', 'help', 'version', *FLAGS),
  *('coordinator_address', 'num_processes', 'process_id'),
)

_MODULE = '_config_file'  # the name under which a config file is imported


class Arguments(NamedTuple):
  """A parsed and checked command line."""

  mode: str
  workdir: str
  config: ml_collections.FrozenConfigDict  # resolved
  options: dict[str, Any]  # other keyword arguments of the mode's function
  address: distributed.Address
  heartbeat_timeout_seconds: int


def parse(values: flags.FlagValues, argv: Sequence[str]) -> Arguments:
  """Parses and checks a command line.

  Args:
    values: the defined flags.
    argv: the name of the program, then its arguments.

  Raises:
    UserError: something is wrong with the command line or with the config.
  """
  rest = parse_flags(values, argv)
  check_texts(values)
  if values.mode not in MODES:
    raise unknown_mode(values.mode)
  mode = MODES[values.mode]
  options = _options(values)
  address = distributed.Address(
    values.coordinator_address, values.num_processes, values.process_id
  )
  distributed.check_address(address, os.environ)
  for name in _OURS:
    if name in values and values[name].present > 1:
      warn(f'--{name} is given more than once: {values[name].value!r} counts')
  if values.operations:
    import_file('--operations', os.path.expanduser(values.operations))
  file, others = config_of(values.config), []
  workdir = os.path.expanduser(values.workdir or mode.default_workdir)
  if mode.workdir == 'reads' and not workdir:
    raise UserError(f'--workdir is missing: --mode={values.mode} reads a run')
  if mode.takes_several and not os.path.isdir(workdir):
    workdir, *others = _split_workdirs(workdir)
  for folder in (workdir, *others):
    check_path('workdir', folder)
  if mode.workdir in ('reads', 'optional'):
    workdir, *others = map(_run_of, [workdir, *others])
  if file and mode.compares:
    options['baseline'] = file, config_lib.resolve(load_config_file(file))
    file = ''
  if not file and (not workdir or mode.workdir == 'makes'):
    if rest and not rest[0].startswith('-'):  # perhaps the missing config
      raise _stray(rest[0])
    raise UserError(
      '--config is missing: give a config file, like '
      '--config=configs/fmnist96.py'
    )
  config = read_config(file, workdir, rest, values.mode)
  code = values.operations  # each process that a mode starts registers it
  if has_operations(config.model.architecture):
    code = code or file.partition(':')[0]
  if code and values.mode in ('sweep', 'benchmark'):
    options['operations'] = os.path.abspath(os.path.expanduser(code))
  if not mode.completes:
    options['given'] = frozenset(split_flags(rest)[0])
  if others:
    options['others'] = tuple(
      (other, read_config(file, other, rest, values.mode)) for other in others
    )
  if mode.workdir == 'continues' and not checkpoint.paths(workdir):
    _run_of(config.finetune.from_workdir)
  if mode.workdir == 'continues':
    for name in config.train.teacher:
      _run_of(name)
  return Arguments(
    values.mode,
    workdir or _fresh_workdir(file),
    config,
    options,
    address,
    values.heartbeat_timeout_seconds,
  )


def _run_of(name: str) -> str:
  """Returns the folder of a run that a name stands for, see `named.find`.

  Raises:
    UserError: the run has to be downloaded first and cannot be.
  """
  if not named.is_remote(name):
    return named.find(name)
  return importlib.import_module('googlenet.tools.hub').run_of(name)


def config_of(file: str) -> str:
  """Returns the config file that --config means: a run stands for its own.

  Args:
    file: path of a file, or the name of one in configs/; or a run, by its
      folder or its name. A name of both means the file in configs/.

  Raises:
    UserError: as `_run_of`.
  """
  file = os.path.expanduser(file)
  found = places.find_config(file)
  if os.path.isdir(file) or named.is_remote(file):
    return os.path.join(_run_of(file), 'config.json')
  if file and found == file and named.find(file) != file:
    return os.path.join(_run_of(file), 'config.json')
  return found


def _split_workdirs(text: str) -> list[str]:
  """Splits a,b,c at commas, but for those in the name of a folder."""
  parts, found = text.split(','), []
  while parts:
    count = next(
      (
        n
        for n in range(len(parts), 1, -1)
        if os.path.isdir(os.path.expanduser(','.join(parts[:n])))
      ),
      1,
    )
    found.append(os.path.expanduser(','.join(parts[:count])))
    parts = parts[count:]
  return found


def read_config(
  file: str, workdir: str, arguments: Sequence[str], mode: str = ''
) -> ml_collections.FrozenConfigDict:
  """Reads a config and applies overrides from the command line.

  Of a config.json, the fields `LOCAL` are left out, with a warning if the mode
  uses them. `finetune.from_workdir` stays where the run has checkpoints: it
  only tells then where the run comes from.

  Args:
    file: config file; '': use the config of the run in the workdir.
    workdir: folder of a run.
    arguments: flags like --config.FIELD=VALUE.
    mode: name of the mode; '': none, so that nothing is told.

  Raises:
    UserError: the config, a field or its value is wrong, or an argument is not
      such a flag.
  """
  path = file or str(pathlib.Path(workdir) / 'config.json')
  config = load_config_file(path) if file else config_lib.load(path)
  texts, others = split_flags(arguments)
  stored = {}
  if path.endswith('.json'):
    stored = config_lib.flatten(config_lib.load(path, with_local=True))
    if not file and checkpoint.paths(workdir):
      config.finetune.from_workdir = stored['finetune.from_workdir']
  set_fields(config, texts)
  if others:
    raise _stray(others[0])
  completes = not mode or MODES[mode].completes
  resolved = config_lib.resolve(config) if completes else config
  for name, here in config_lib.flatten(resolved).items():
    is_used = mode in LOCAL.get(name, ()) and name not in texts
    if stored and is_used and stored[name] != here:
      warn(
        f'config.{name}={stored[name]!r} of {path} is left out, as only your '
        'own command line or config file names folders and programs: to use '
        f'it, give --config.{name}=... yourself'
      )
  if not completes:
    return ml_collections.FrozenConfigDict(config)
  return resolved


def completed(arguments: Arguments) -> Arguments:
  """Fills in what the data sets decide (`data.auto`), alike in all processes.

  A run that goes on keeps its values, unless its config may change.

  Raises:
    UserError: a data set cannot be read, or the processes of a run have
      different configs or numbers of devices.
  """
  if distributed.is_one_of_several():  # before they wait for each other
    distributed.check_devices()
    compare.check_processes(arguments.config)
  may_change = arguments.options.get('allow_config_change')
  options = dict(arguments.options)
  if MODES[arguments.mode].compares and 'baseline' in options:
    file, config = options['baseline']
    options['baseline'] = file, auto.complete(config)
  if 'others' in options:
    options['others'] = tuple(
      (folder, auto.complete_run(config, folder))
      for folder, config in options['others']
    )
  workdir = '' if may_change else arguments.workdir
  config = auto.complete_run(arguments.config, workdir)
  return arguments._replace(config=config, options=options)


def _options(values: flags.FlagValues) -> dict[str, Any]:
  """Returns the values of the mode's own flags.

  Raises:
    UserError: a flag of another mode is given, or --shard without --workdir.
  """
  for name in FLAGS:
    if values[name].present and values.mode not in modes_of(name):
      raise UserError(
        f'--{name} is a flag of --mode={" and ".join(modes_of(name))}, not of '
        f'--mode={values.mode}'
        f'{did_you_mean(name, MODES[values.mode].flags, cutoff=0.7)}'
      )
  if values.shard and not values.workdir:  # all shards need the same workdir
    raise UserError('--shard is given without --workdir: give that as well')
  options = {name: values[name].value for name in MODES[values.mode].flags}
  for name in ('output', 'weights'):
    check_path(name, options.get(name) or '')
  return {
    name: os.path.expanduser(value) if isinstance(value, str) else value
    for name, value in options.items()
  }


def _fresh_workdir(config_file: str) -> str:
  stamp = time.strftime('%Y-%m-%d-%H%M%S')
  name = f'{pathlib.Path(config_file).stem}-{stamp}-{os.getpid()}'
  return os.path.join('runs', name)


def load_config_file(path: str) -> ml_collections.ConfigDict:
  """Loads a config file.

  Args:
    path: a Python file with a function get_config(), or the config.json of a
      run. 'FILE.py:TEXT' passes TEXT to get_config. The file may import its
      neighbours, as a program may.

  Raises:
    UserError: the file is missing or broken (ml_collections would show a long
      traceback).
  """
  path = places.find_config(path)
  file, argument = path, ''
  if not os.path.isfile(path):
    file, _, argument = path.partition(':')
  if os.path.isfile(path) and path.endswith('.json'):
    return config_lib.load(path)
  if not os.path.isfile(file) or not file.endswith('.py'):
    raise UserError(
      f'--config={path}: no such file ending in .py or .json'
      f'{_near_config(path)}'
    )
  module = import_file('--config', file)
  if not hasattr(module, 'get_config'):
    raise UserError(
      f'--config={path} has no get_config(): a config file defines that '
      'function, like configs/fmnist96.py'
    )
  try:
    with places.importing_from(os.path.dirname(os.path.abspath(file))):
      config = module.get_config(*[argument] if argument else [])
    if not isinstance(config, ml_collections.ConfigDict):
      raise UserError(
        f'--config={path}: get_config() returns a {type(config).__name__}; '
        'allowed is an ml_collections.ConfigDict'
      )
    config = ml_collections.ConfigDict(config)
    config_lib.check_fields(config)
  except (UserError, KeyboardInterrupt):
    raise
  except BaseException as error:  # code may raise anything
    raise UserError(
      f'--config={path} cannot be loaded: {type(error).__name__}: {error}'
    ) from error
  return config


def import_file(flag: str, file: str) -> types.ModuleType:
  """Imports a file of Python that a flag names, with its neighbours.

  Raises:
    UserError: the file is missing or broken.
  """
  if not os.path.isfile(file):
    raise UserError(f'{flag}={file}: no such file')
  spec = importlib.util.spec_from_file_location(_MODULE, file)
  if spec is None:
    raise UserError(f'{flag}={file}: allowed is a file ending in .py')
  module = importlib.util.module_from_spec(spec)
  sys.modules[_MODULE] = module  # dataclasses look their module up there
  try:
    with places.importing_from(os.path.dirname(os.path.abspath(file))):
      spec.loader.exec_module(module)
  except (UserError, KeyboardInterrupt):
    raise
  except BaseException as error:  # code may raise anything
    raise UserError(
      f'{flag}={file} cannot be loaded: {type(error).__name__}: {error}'
    ) from error
  return module


def _near_config(path: str) -> str:
  """Suggests a similar file in the same folder or in configs/, or ''."""
  files = {
    file.stem: f'configs/{file.name}' for file in places.CONFIGS.glob('*.py')
  }
  files |= {
    file.stem: str(file)
    for folder in ('configs', os.path.dirname(path) or '.')
    for file in sorted(pathlib.Path(folder).glob('*.py'))
  }
  stem = pathlib.Path(path).stem
  near = difflib.get_close_matches(stem, files, n=1)
  return f', did you mean {files[near[0]]!r}?' if near else ''


def _stray(argument: str) -> UserError:
  """Returns the error for an argument that is not a known flag."""
  if argument.startswith('-'):
    name = argument.lstrip('-').partition('=')[0]
    fields = [f'config.{field}' for field in FIELDS]
    if same := [field for field in fields if field.endswith(f'.{name}')]:
      near = f', did you mean {same[0]!r}?'
    else:
      near = did_you_mean(name, _OURS) or did_you_mean(name, fields)
    return UserError(f'--{name} is not a flag{near}')
  near = ''
  if os.path.isfile(argument) and argument.endswith('.py'):
    near = f", did you mean '--config={argument}'?"
  elif modes := difflib.get_close_matches(argument, MODES, n=1):
    near = f", did you mean '--mode={modes[0]}'?"
  return UserError(
    f'{argument!r} is not a flag: all input is given as --flag=value{near}'
  )
