"""GoogLeNet on JAX: train, evaluate, look at or time what a config file says.

  python launch.py --config=configs/fmnist96.py
  python launch.py --config=configs/fmnist96.py --config.train.epochs=2
  python launch.py --mode=evaluate --workdir=runs/...
  python launch.py --mode=summary --config=configs/fmnist96.py [--compare]
  python launch.py --mode=benchmark --config=configs/fmnist96.py
  python launch.py --mode=import_weights --weights=googlenet.pth ...
  python launch.py --mode=export_weights --workdir=runs/... --weights=out.pth

Flags:
  --config    Config file. Any field of it is a flag: --config.seed=1.
              Without it, the config of the run in --workdir.
  --mode      train (default), evaluate, summary, benchmark, import_weights or
              export_weights.
  --workdir   Folder of a run. Default of training, benchmark and import: a
              fresh dated one in runs/. A run that was cut off is continued.
              With --mode=evaluate also several, as a,b,c: their predictions
              are averaged.
  --compare   With --mode=summary: a line for each network.
  --weights   File of another framework that is imported or written.
  --allow_config_change
              Continue a run with another config (but not another network, data
              or seed).
  --coordinator_address, --num_processes, --process_id
              One run of several processes: host:port of process 0, how many
              there are, which one this is (from 0). Under SLURM, Open MPI,
              Kubernetes and on Cloud TPUs they are found without these.
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
from googlenet.stopping import Stopped  # noqa: E402

# A mode is the file googlenet/modes/<name>.py with a function `run`.
MODES = (
  'train',
  'evaluate',
  'summary',
  'benchmark',
  'import_weights',
  'export_weights',
)
# They make a run anew: a workdir has nothing to tell them.
_FRESH = ('benchmark', 'import_weights')
# They read one.
_READING = {
  'evaluate': '--mode=evaluate scores a run',
  'export_weights': '--mode=export_weights writes the weights of a run',
}
# Flags that are of some modes alone.
_FLAG_MODES = {
  'compare': ('summary',),
  'allow_config_change': ('train',),
  'weights': ('import_weights', 'export_weights'),
}
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
  ours = flags.FlagValues()
  flags.DEFINE_string('config', '', '', flag_values=ours)
  flags.DEFINE_string('mode', 'train', '', flag_values=ours)
  flags.DEFINE_string('workdir', '', '', flag_values=ours)
  flags.DEFINE_string('weights', '', '', flag_values=ours)
  flags.DEFINE_bool('compare', False, '', flag_values=ours)
  flags.DEFINE_bool('allow_config_change', False, '', flag_values=ours)
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
  options = {}
  for name, modes in _FLAG_MODES.items():
    if ours.mode in modes:
      options[name] = ours[name].value
    elif ours[name].value:
      raise UserError(
        f'--{name} is a flag of --mode={" and ".join(modes)}, not of '
        f'--mode={ours.mode}'
      )
  if 'weights' in options:
    options['weights'] = os.path.expanduser(ours.weights)
  workdir = os.path.expanduser(ours.workdir)
  if ours.mode in _READING and not workdir:
    raise UserError(f'--workdir is missing: {_READING[ours.mode]}')
  address = distributed.Address(
    ours.coordinator_address, ours.num_processes, ours.process_id
  )
  distributed.check_address(address)
  if ours.mode == 'evaluate' and not os.path.isdir(workdir):
    workdir, *others = map(os.path.expanduser, workdir.split(','))
  else:
    others = []
  if ours.config:
    config = _load_config_file(ours.config)
  elif ours.mode not in _FRESH and workdir:
    config = config_lib.load(pathlib.Path(workdir) / 'config.json')
  else:
    raise UserError(
      '--config is missing: give a config file, like '
      '--config=configs/fmnist96.py'
    )
  _override(config, rest)
  if not workdir:
    stamp = time.strftime('%Y-%m-%d-%H%M%S', time.localtime(_STARTED))
    name = f'{pathlib.Path(ours.config).stem}-{stamp}-{os.getpid()}'
    workdir = os.path.join('runs', name)
  resolved = config_lib.resolve(config)
  if others:
    options['others'] = tuple(
      (other, _config_of(other, config, ours.config, rest)) for other in others
    )
  return Arguments(
    ours.mode,
    workdir,
    resolved,
    options,
    address,
    ours.heartbeat_timeout_seconds,
  )


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
    near = did_you_mean(
      error.flagname, ('config', 'workdir', 'mode', 'weights', 'compare')
    )
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


def main(argv: list[str]) -> int:
  """Runs the mode of a command line and returns the exit code."""
  signal.signal(signal.SIGINT, signal.default_int_handler)
  if _HELP.intersection(argv):
    print(__doc__)
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
