"""GoogLeNet on JAX: train, evaluate and look at a network of a config file.

  python launch.py --config=configs/fmnist96.py
  python launch.py --config=configs/fmnist96.py --config.train.epochs=2
  python launch.py --mode=evaluate --workdir=runs/...
  python launch.py --mode=summary --config=configs/fmnist96.py

Exit codes: 0 done, 2 bad input (one line on stderr), 130 interrupted.
"""

import time

_STARTED = time.time()  # before the slow imports: they are part of the start

import importlib.util  # noqa: E402
import itertools  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402

import ml_collections  # noqa: E402
from absl import app, flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from googlenet import config as config_lib  # noqa: E402
from googlenet.errors import UserError, did_you_mean  # noqa: E402

# A mode is the file googlenet/modes/<name>.py with a function `run`.
MODES = ('train', 'evaluate', 'summary')
_NO_CONFIG = (
  '--config is missing: give a config file, like --config=configs/fmnist96.py'
)
EXIT_DONE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file; any field of it is a flag: --config.seed=1.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Folder of a run. Default for training: a fresh one in runs/'
)
_MODE = flags.DEFINE_string('mode', 'train', ' | '.join(MODES))


def _config_path(argv: list[str]) -> str:
  """Returns the value of the last --config in a command line, or ''."""
  path = ''
  for arg, following in itertools.pairwise((*argv, '')):
    if re.fullmatch('--?config', arg):
      path = following
    elif match := re.fullmatch('--?config=(.*)', arg):
      path = match[1]
  return path


def _check_config_file(path: str) -> None:
  """Loads a config file to see that it can be, and has the known fields.

  Asked of ml_collections, a broken file is answered by a page of traceback.
  """
  file, _, variant = path.partition(':')
  if not pathlib.Path(file).is_file():
    files = sorted(str(p) for p in pathlib.Path('configs').glob('*.py'))
    near = did_you_mean(path, files)
    raise UserError(f'--config={path}: no such file{near}')
  try:
    spec = importlib.util.spec_from_file_location('config_file', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, 'get_config', None)
    config = get_config(*[variant][: bool(variant)]) if get_config else None
  except Exception as error:  # a config file is code: it may raise anything
    raise UserError(
      f'--config={path} cannot be loaded: {type(error).__name__}: {error}'
    ) from error
  if get_config is None:
    raise UserError(
      f'--config={path} has no get_config(): a config file defines that '
      'function, like configs/fmnist96.py'
    )
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f'--config={path}: get_config() returns a {type(config).__name__}, '
      'allowed is an ml_collections.ConfigDict'
    )
  config_lib.check_fields(config)


def _parse_flags(argv: list[str]) -> None:
  """Parses flags; whatever is wrong with them is a UserError."""
  overrides = [re.match('--?(?:no)?config[.]([^=]+)', arg) for arg in argv]
  for name in [match[1] for match in overrides if match]:
    if name not in config_lib.FIELDS:
      raise config_lib.unknown_field(name)
  path = _config_path(argv)
  if path:
    _check_config_file(path)
  try:
    rest = flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    if error.flagname.startswith('config.'):
      raise UserError(f'--{error.flagname}: {_NO_CONFIG}') from error
    near = did_you_mean(error.flagname, ('config', 'workdir', 'mode'))
    raise UserError(f'--{error.flagname} is not a flag{near}') from error
  except flags.Error as error:
    raise UserError(_flag_problem(argv, str(error))) from error
  if rest[1:]:
    raise UserError(
      f'{rest[1]!r} is no flag: all input is given as --flag=value'
    )


def _flag_problem(argv: list[str], text: str) -> str:
  """Returns one line for a value that absl refused."""
  for arg in argv:
    match = re.fullmatch('--?config[.]([^=]+)=(.*)', arg, re.DOTALL)
    if match and f'config.{match[1]}={match[2]}' in text:
      return str(config_lib.invalid(match[1], match[2]))
  return text


def _load_config():
  """Returns the checked config: of --config, or of the run in --workdir."""
  if _CONFIG.value is not None:
    return config_lib.resolve(_CONFIG.value)
  if _MODE.value == 'train' or not _WORKDIR.value:
    raise UserError(_NO_CONFIG)
  path = pathlib.Path(_WORKDIR.value) / 'config.json'
  if not path.is_file():
    raise UserError(
      f'--workdir={_WORKDIR.value} holds no run: there is no {path}'
    )
  return config_lib.resolve(config_lib.from_json(path.read_text()))


def _load_workdir() -> str:
  """Returns --workdir, or a fresh dated folder for training."""
  if _WORKDIR.value:
    return _WORKDIR.value
  if _MODE.value == 'evaluate':
    raise UserError('--workdir is missing: --mode=evaluate scores a run')
  name = pathlib.Path(flags.FLAGS['config'].config_filename or 'run').stem
  stamp = time.strftime('%Y-%m-%d-%H%M%S', time.localtime(_STARTED))
  return os.path.join('runs', f'{name}-{stamp}-{os.getpid()}')


def _tune_machine(compilation_cache: str) -> None:
  """Sets what belongs to the process: compilation cache, CPU allocator."""
  import jax

  from googlenet.allocator import tune_allocator

  if compilation_cache:
    # Compiled programs stay in a folder: a second start compiles nothing.
    folder = os.path.expanduser(compilation_cache)
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  if jax.default_backend() == 'cpu':
    tune_allocator()


def main(argv: list[str]) -> None:
  """Runs the mode that a command line asks for.

  Raises:
    UserError: bad input.
  """
  _parse_flags(argv)
  if _MODE.value not in MODES:
    raise UserError(
      f'--mode={_MODE.value} is not a mode'
      f'{did_you_mean(_MODE.value, MODES)}: one of {", ".join(MODES)}'
    )
  config = _load_config()
  workdir = _load_workdir()
  _tune_machine(config.train.compilation_cache)
  mode = importlib.import_module(f'googlenet.modes.{_MODE.value}')
  mode.run(config, workdir, _STARTED)


def _run() -> int:
  app.define_help_flags()
  try:
    main(sys.argv)
  except (UserError, OSError) as error:
    text = ' '.join(str(error).split())
    print(f'error: {text}', file=sys.stderr)
    return EXIT_BAD_INPUT
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return EXIT_INTERRUPTED
  return EXIT_DONE


if __name__ == '__main__':
  sys.exit(_run())
