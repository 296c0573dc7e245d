"""GoogLeNet on JAX: train, evaluate and look at a network of a config file.

  python launch.py --config=configs/fmnist96.py
  python launch.py --config=configs/fmnist96.py --config.train.epochs=2
  python launch.py --mode=evaluate --workdir=runs/...
  python launch.py --mode=summary --config=configs/fmnist96.py

Exit codes: 0 done, 2 bad input (one line on stderr), 130 interrupted.
"""

import time

_STARTED = time.time()  # before the slow imports: they are part of the start

import importlib  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from googlenet.errors import UserError, did_you_mean  # noqa: E402

# A mode is the file googlenet/modes/<name>.py with a function `run`.
MODES = ('train', 'evaluate', 'summary')
EXIT_DONE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file; any field of it is a flag: --config.seed=1.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Folder of a run. Default for training: a fresh one in runs/'
)
_MODE = flags.DEFINE_string('mode', 'train', ' | '.join(MODES))


def _overrides(argv: list[str]) -> list[str]:
  """Returns the config fields that flags name, without 'config.'."""
  matches = [re.match(r'--?(?:no)?config\.([^=]+)', arg) for arg in argv]
  return [match[1] for match in matches if match]


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; whatever is wrong with them is a UserError.

  ml_collections itself answers an unknown field or a broken config file with
  a page of traceback.
  """
  from googlenet import config as config_lib

  for name in _overrides(argv[1:]):
    if name not in config_lib.FIELDS:
      raise config_lib.unknown_field(name)
  try:
    rest = flags.FLAGS(argv)
    if _CONFIG.value is not None:
      _ = _CONFIG.value.seed  # the file is read here, or fails here
  except flags.UnrecognizedFlagError as error:
    near = did_you_mean(error.flagname, ('config', 'workdir', 'mode'))
    raise UserError(f'--{error.flagname} is not a flag{near}') from error
  except flags.Error as error:
    raise UserError(_flag_problem(argv, error)) from error
  except Exception as error:
    raise UserError(_file_problem(argv, error)) from error
  if rest[1:]:
    raise UserError(
      f'{rest[1]!r} is no flag: all input is given as --flag=value'
    )
  return rest


def _field_of(argv: list[str]) -> dict[str, str]:
  """Returns {field: value} of every --config.field=value flag."""
  pairs = [re.match(r'--?config\.([^=]+)=(.*)', arg, re.S) for arg in argv]
  return {match[1]: match[2] for match in pairs if match}


def _flag_problem(argv: list[str], error: flags.Error) -> str:
  """Returns one line for a flag that absl refused."""
  from googlenet import config as config_lib

  for name, value in _field_of(argv).items():
    if f'--config.{name}={value}' in str(error) or f'config.{name}' in str(
      error
    ):
      return str(config_lib.invalid(name, value))
  return f'{_one_line(error)}'


def _file_problem(argv: list[str], error: Exception) -> str:
  """Returns one line for a config file that cannot be loaded."""
  paths = [arg.split('=', 1)[1] for arg in argv if arg.startswith('--config=')]
  path = paths[-1] if paths else '?'
  if not pathlib.Path(path.split(':')[0]).is_file():
    files = sorted(str(p) for p in pathlib.Path('configs').glob('*.py'))
    near = did_you_mean(path, files)
    return f'--config={path}: no such file{near}'
  if isinstance(error, AttributeError) and 'get_config' in str(error):
    return (
      f'--config={path} has no get_config(): a config file defines that '
      'function, like configs/fmnist96.py'
    )
  return (
    f'--config={path} cannot be loaded: {type(error).__name__}: '
    f'{_one_line(error)}'
  )


def _one_line(error: BaseException) -> str:
  return ' '.join(str(error).split())


def _load_config():
  """Returns the checked config: of --config, or of the run in --workdir."""
  from googlenet import config as config_lib

  if _CONFIG.value is not None:
    return config_lib.resolve(_CONFIG.value)
  if _MODE.value == 'train' or not _WORKDIR.value:
    raise UserError(
      '--config is missing: give a config file, like '
      '--config=configs/fmnist96.py'
    )
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
  """Runs the mode; absl calls it with what `_parse_flags` returned."""
  del argv
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
  try:
    main(_parse_flags(sys.argv))
  except (UserError, OSError) as error:
    print(f'error: {_one_line(error)}', file=sys.stderr)
    return EXIT_BAD_INPUT
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return EXIT_INTERRUPTED
  return EXIT_DONE


if __name__ == '__main__':
  sys.exit(_run())
