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
              fresh dated one in runs/.
  --compare   With --mode=summary: a line for each network.
  --weights   File of another framework that is imported or written.

Exit codes: 0 done, 2 bad input (one line on stderr), 130 interrupted.
"""

import signal
import time

# The imports below take seconds: they count as part of the start, and Ctrl-C
# in the midst of them ends the program without a page of traceback.
_STARTED = time.time()
if __name__ == '__main__':
  signal.signal(signal.SIGINT, signal.SIG_DFL)

import importlib.util  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from typing import NamedTuple  # noqa: E402

import ml_collections  # noqa: E402
from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from googlenet import config as config_lib  # noqa: E402
from googlenet.errors import UserError, did_you_mean  # noqa: E402
from googlenet.machine import tune_machine  # noqa: E402

# A mode is the file googlenet/modes/<name>.py with a function `run`.
MODES = (
  'train',
  'evaluate',
  'summary',
  'benchmark',
  'import_weights',
  'export_weights',
)
# They write a run: a workdir with one in it is of no use to them.
_WRITING = ('train', 'benchmark', 'import_weights')
# They read one.
_READING = {
  'evaluate': '--mode=evaluate scores a run',
  'export_weights': '--mode=export_weights writes the weights of a run',
}
_WITH_WEIGHTS = ('import_weights', 'export_weights')
EXIT_DONE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130
_HELP = {'-h', '--help', '-help', '--helpfull', '--helpshort'}


class Arguments(NamedTuple):
  """A command line, checked."""

  mode: str
  workdir: str
  config: ml_collections.FrozenConfigDict
  options: dict[str, bool | str]  # of the mode alone


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
  if ours.compare and ours.mode != 'summary':
    raise UserError('--compare is a flag of --mode=summary alone')
  options = {'compare': True} if ours.compare else {}
  if ours.mode in _WITH_WEIGHTS:
    options['weights'] = os.path.expanduser(ours.weights)
  elif ours.weights:
    raise UserError(
      f'--weights={ours.weights} is for --mode={" and ".join(_WITH_WEIGHTS)}, '
      f'not for --mode={ours.mode}'
    )
  workdir = os.path.expanduser(ours.workdir)
  if ours.mode in _READING and not workdir:
    raise UserError(f'--workdir is missing: {_READING[ours.mode]}')
  if ours.config:
    config = _load_config_file(ours.config)
  elif ours.mode not in _WRITING and workdir:
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
  return Arguments(ours.mode, workdir, config_lib.resolve(config), options)


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
    if match and match[1] not in config_lib.FIELDS:
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
    arguments = parse(argv)
    if arguments.mode != 'benchmark':  # its processes do so themselves
      tune_machine(arguments.config.train.compilation_cache)
    mode = importlib.import_module(f'googlenet.modes.{arguments.mode}')
    mode.run(arguments.config, arguments.workdir, _STARTED, **arguments.options)
  except (UserError, OSError) as error:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    return EXIT_BAD_INPUT
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return EXIT_INTERRUPTED
  return EXIT_DONE


if __name__ == '__main__':
  sys.exit(main(sys.argv))
