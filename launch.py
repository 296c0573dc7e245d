"""GoogLeNet on JAX: train, look at and use what a config file says.

  python launch.py --config=configs/fmnist96.py
  python launch.py --config=configs/fmnist96.py --config.train.epochs=2
  python launch.py --mode=evaluate --workdir=runs/...

{modes}
Flags of every mode
  --config    Config file. Any field of it is a flag: --config.seed=1.
              Without it, the config of the run in --workdir.
  --mode      One of the above.
  --workdir   Folder of a run. Where one is made, the default is a fresh dated
              one in runs/. A run that was cut off is continued.

One run of several processes
  --coordinator_address, --num_processes, --process_id
              host:port of process 0, how many there are, which one this is
              (from 0). Under SLURM, Open MPI, Kubernetes and on Cloud TPUs they
              are found without these.
  --heartbeat_timeout_seconds
              A process that is silent for so long ends the others (30).

Exit codes: 0 done, 2 bad input (one line on stderr), 74 what the run makes
cannot be written, 75 ended on request or because another process did: the same
command with that --workdir goes on, 130 interrupted.
"""

import os
import signal
import time

from googlenet import supervisor

# The imports below take seconds: they count as part of the start, and Ctrl-C
# in the midst of them ends the program without a page of traceback.
_STARTED = time.time()
if __name__ == '__main__':
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  # Nothing is begun: the same command starts again.
  signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
  supervisor.supervise()
elif __name__ == '__mp_main__':  # a process that reads data: its parent ends it
  signal.signal(signal.SIGINT, signal.SIG_IGN)

import importlib.util  # noqa: E402
import pathlib  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

import jax  # noqa: E402
import ml_collections  # noqa: E402
from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from googlenet import config as config_lib  # noqa: E402
from googlenet import distributed  # noqa: E402
from googlenet.errors import UserError, did_you_mean  # noqa: E402
from googlenet.fields import FIELDS  # noqa: E402
from googlenet.machine import tune_machine  # noqa: E402
from googlenet.modes import FLAGS, MODES, modes_of  # noqa: E402
from googlenet.stopping import Stopped  # noqa: E402

EXIT_DONE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130
_HELP = {'-h', '--help', '-help', '--helpfull', '--helpshort'}


class Arguments(NamedTuple):
  """A command line, checked."""

  mode: str
  workdir: str
  config: ml_collections.FrozenConfigDict
  options: dict[str, Any]  # of the mode alone
  address: distributed.Address
  heartbeat_timeout_seconds: int


def parse(argv: list[str]) -> Arguments:
  """Parses a command line in two passes: our flags, then fields of the config.

  Raises:
    UserError: whatever is wrong with it, or with the config.
  """
  ours = _define_flags()
  try:
    argv = ours.read_flags_from_files(argv, force_gnu=False)
    rest = ours(argv, known_only=True)
  except flags.Error as error:
    raise UserError(str(error)) from error
  if ours.mode not in MODES:
    raise UserError(
      f'--mode={ours.mode} is not a mode{did_you_mean(ours.mode, MODES)}; '
      f'allowed is one of {", ".join(MODES)}'
    )
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
    baseline = config_lib.resolve(_load_config_file(ours.config))
    options['baseline'], ours.config = (ours.config, baseline), ''
  if ours.config:
    config = _load_config_file(ours.config)
  elif workdir and mode.workdir != 'makes':
    config = config_lib.load(pathlib.Path(workdir) / 'config.json')
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
  values = {name: ours[name].value for name in MODES[ours.mode].flags}
  return {
    name: os.path.expanduser(value) if isinstance(value, str) else value
    for name, value in values.items()
  }


def _fresh_workdir(config_file: str) -> str:
  stamp = time.strftime('%Y-%m-%d-%H%M%S', time.localtime(_STARTED))
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


def _load_config_file(path: str) -> ml_collections.ConfigDict:
  """Returns get_config() of a config file; `path:text` calls it with text.

  ml_collections would answer a broken file with a page of traceback.
  """
  file, _, argument = path.partition(':')
  if not pathlib.Path(file).is_file() or not file.endswith('.py'):
    near = did_you_mean(path, map(str, pathlib.Path('configs').glob('*.py')))
    raise UserError(f'--config={path}: no such file ending in .py{near}')
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


def _override(config: ml_collections.ConfigDict, argv: list[str]) -> None:
  """Sets the fields that are given as flags; nothing else may be left."""
  for arg in argv[1:]:
    match = re.match('--?(?:no)?config[.]([^=]*)', arg)
    if match and match[1] not in FIELDS:
      raise config_lib.unknown_field(match[1])
  fields = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=fields, sys_argv=argv
    )
    positional = fields(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    near = did_you_mean(error.flagname, ('config', 'workdir', 'mode', *FLAGS))
    raise UserError(f'--{error.flagname} is not a flag{near}') from error
  # Beside its own errors absl lets some of Python's through.
  except (flags.Error, ValueError, TypeError, AttributeError) as error:
    raise UserError(_value_problem(argv, str(error))) from error
  if positional:
    raise UserError(
      f'{positional[0]!r} is no flag: all input is given as --flag=value'
    )


def _value_problem(argv: list[str], text: str) -> str:
  """Returns one line for a value that absl refused."""
  for name in re.findall(r'config[.]([\w.]+)', text):
    for arg, following in zip(argv, (*argv[1:], ''), strict=True):
      flag, equals, value = arg.partition('=')
      if flag.lstrip('-') in (f'config.{name}', f'noconfig.{name}'):
        value = value if equals else following
        if f'={value}' in text or not equals:
          return str(config_lib.invalid(name, value))
  return text


def help_text() -> str:
  """Returns what --help prints: the modes of the table by group."""
  lines = []
  for group in dict.fromkeys(mode.group for mode in MODES.values()):
    lines.append(group)
    for name, mode in MODES.items():
      if mode.group == group:
        lines.append(f'  --mode={name:<15} {mode.help}')
        lines += [f'      --{flag}: {FLAGS[flag].help}' for flag in mode.flags]
    lines.append('')
  return __doc__.replace('{modes}', '\n'.join(lines).rstrip() + '\n')


def main(argv: list[str]) -> int:
  """Runs the mode of a command line and returns the exit code."""
  signal.signal(signal.SIGINT, signal.default_int_handler)
  if _HELP.intersection(argv):
    print(help_text())
    return EXIT_DONE
  try:
    is_alone = not supervisor.is_one_of_several(argv[1:], os.environ)
    return _run(parse(argv), is_alone)
  except (UserError, OSError) as error:
    code = getattr(error, 'exit_code', EXIT_BAD_INPUT)
    prefix = '' if isinstance(error, Stopped) else 'error: '
    text = ' '.join(str(error).split())
    print(f'{prefix}{text}', file=sys.stderr, flush=True)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    code = EXIT_INTERRUPTED
  if jax.distributed.is_initialized():
    distributed.end_process(code)
  return code


def _run(arguments: Arguments, is_alone: bool) -> int:
  if arguments.mode != 'train':  # nothing to continue
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
  if not is_alone:
    distributed.initialize(
      arguments.address, arguments.heartbeat_timeout_seconds
    )
  if arguments.mode != 'benchmark':  # its processes do so themselves
    tune_machine(arguments.config.train.compilation_cache)
  mode = importlib.import_module(f'googlenet.modes.{arguments.mode}')
  try:
    mode.run(arguments.config, arguments.workdir, _STARTED, **arguments.options)
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    raise distributed.PeerError(error) from error
  return EXIT_DONE


if __name__ == '__main__':
  sys.exit(main(sys.argv))
