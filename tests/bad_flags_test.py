"""Mistakes on the command line and in config files: one line each."""

import pathlib

import pytest

from googlenet.cli.modes import MODES


def config_file(tmp_path: pathlib.Path, text: str) -> str:
  path = tmp_path / 'own.py'
  path.write_text(text)
  return f'--config={path}'


def changed(tmp_path: pathlib.Path, assignment: str) -> str:
  return config_file(
    tmp_path,
    'import numpy as np\n'
    'from ml_collections import ConfigDict\n'
    'from ml_collections.config_dict import required_placeholder\n'
    'from configs import fmnist96\n'
    'def get_config():\n'
    '  config = fmnist96.get_config().unlock()\n'
    f'  with config.ignore_type():\n    config.{assignment}\n'
    '  return config\n',
  )


def flag_file(tmp_path: pathlib.Path, content: bytes) -> str:
  path = tmp_path / 'flags.txt'
  path.write_bytes(content)
  return f'--flagfile={path}'


# Flags (or a function of tmp_path that makes them), what the line must say.
BAD_INPUT = {
  'unknown field': (
    ['--config.train.epoch=2'],
    ['config.train.epoch is not a field', "'train.epochs'"],
  ),
  'unknown section': (
    ['--config.optimiser.learning_rate=1'],
    ['config.optimiser.learning_rate', "'optimizer.learning_rate'"],
  ),
  'a section as a field': (['--config.train=2'], ['config.train']),
  'unknown flag': (['--workdri=x'], ['--workdri', "'workdir'"]),
  'unknown mode': (
    ['--mode=trian'],
    ['--mode=trian', "did you mean 'train'", ', '.join(MODES)],
  ),
  'a word without a flag': (['train'], ["'train'", '--flag=value']),
  'no config': (None, ['--config is missing', 'configs/fmnist96.py']),
  'fields in a flag file': (
    lambda tmp_path: [flag_file(tmp_path, b'--config.train.epoch=2')],
    ['config.train.epoch is not a field', "'train.epochs'"],
  ),
  'no flag file': (['--flagfile=none'], ['none']),
  'a value after a space': (
    ['--config.train.epochs', 'two'],
    ['config.train.epochs', "'two'", 'whole number'],
  ),
  'a bool denied twice': (
    ['--noconfig.optimizer.nesterov=true'],
    ['config.optimizer.nesterov', 'true or false'],
  ),
  'a field without a name': (['--config.=2'], ['config. is not a field']),
  'a value that is empty': (
    ['--config.train.epochs='],
    ['config.train.epochs', 'whole number'],
  ),
  'a comparison of runs': (
    ['--mode=train', '--compare'],
    ['--compare', '--mode=summary'],
  ),
  'change of config in another mode': (
    ['--mode=summary', '--allow_config_change'],
    ['--allow_config_change', '--mode=train'],
  ),
  'weights for another mode': (
    ['--weights=a.pth'],
    ['--weights is a flag of', 'import_weights', 'not of --mode=train'],
  ),
  'no address of the coordinator': (
    ['--num_processes=2', '--process_id=0'],
    ['--coordinator_address is missing', 'host:port'],
  ),
  'process without its number and the address': (
    ['--process_id=1'],
    ['--process_id=1', '--num_processes', '--coordinator_address'],
  ),
  'address without a port': (
    ['--coordinator_address=node1', '--num_processes=2', '--process_id=0'],
    ['--coordinator_address=node1', 'host:port'],
  ),
  'process beyond the last': (
    ['--coordinator_address=a:1', '--num_processes=2', '--process_id=2'],
    ['--process_id=2', '0 to 1'],
  ),
  'no process': (
    ['--coordinator_address=a:1', '--num_processes=0', '--process_id=0'],
    ['--num_processes=0', '1 or more'],
  ),
  'number of processes that is none': (
    ['--num_processes=two'],
    ['num_processes', 'two'],
  ),
  'heartbeat of no second': (
    ['--heartbeat_timeout_seconds=0'],
    ['heartbeat_timeout_seconds', '0'],
  ),
  'flag file that is no text': (
    lambda tmp_path: [flag_file(tmp_path, b'--workdir=\xff\xfe')],
    ['--flagfile=', 'flags.txt', 'not UTF-8', '--flag=value'],
  ),
  'flag file that names one with a NUL': (
    lambda tmp_path: [flag_file(tmp_path, b'--flagfile=a\0b')],
    ['--flagfile=', 'NUL', '--flag=value'],
  ),
  'workdir with a NUL': (
    lambda tmp_path: [flag_file(tmp_path, b'--workdir=a\0b')],
    [r"--workdir='a\x00b'", 'NUL'],
  ),
  'output with a NUL': (
    lambda tmp_path: [
      '--mode=evaluate',
      flag_file(tmp_path, b'--workdir=a\n--output=a\0b'),
    ],
    [r"--output='a\x00b'", 'NUL'],
  ),
  'output with too long a name': (
    ['--mode=evaluate', '--workdir=a', '--output=a/' + 300 * 'x'],
    ["--output='a/xxx", 'too long: 300 bytes', 'xxx... cannot'],
  ),
  'folder with too long a name': (
    ['--config.data.data_dir=' + 400 * 'x'],
    ["config.data.data_dir='xxx", 'xxx... is not allowed', '255 bytes'],
  ),
  'folder with a NUL': (
    lambda tmp_path: [flag_file(tmp_path, b'--config.data.data_dir=a\0b')],
    [r"config.data.data_dir='a\x00b' is not allowed", 'NUL'],
  ),
  'workdir under a file': (
    lambda tmp_path: [f'--workdir={config_file(tmp_path, "")[9:]}/run'],
    ['own.py/run', 'Not a directory'],
  ),
  'workdir that nobody can make': (
    ['--workdir=/proc/run'],
    ['--workdir=/proc/run', 'cannot be made'],
  ),
  'workdir with too long a name': (
    ['--workdir=' + 300 * 'x'],
    ["--workdir='xxx", 'too long'],
  ),
  'cache that is a file': (
    lambda tmp_path: [
      '--config.train.compilation_cache='
      + config_file(tmp_path, '').removeprefix('--config=')
    ],
    ['config.train.compilation_cache', 'own.py'],
  ),
  'config file does not exist': (
    ['--config=configs/fmnist69.py'],
    ['--config=configs/fmnist69.py', 'no such file'],
  ),
  'config file without get_config': (
    lambda tmp_path: [config_file(tmp_path, 'x = 1\n')],
    ['own.py has no get_config()'],
  ),
  'config file that is no Python': (
    lambda tmp_path: [config_file(tmp_path, 'def (:\n')],
    ['own.py cannot be loaded', 'SyntaxError'],
  ),
  'config file that raises': (
    lambda tmp_path: [
      config_file(tmp_path, 'def get_config():\n  raise ValueError("no\\nway")')
    ],
    ['own.py cannot be loaded', 'ValueError: no way'],
  ),
  'config file without a field': (
    lambda tmp_path: [
      config_file(
        tmp_path,
        'import ml_collections\n'
        'def get_config():\n  return ml_collections.ConfigDict({"seed": 1})',
      )
    ],
    ['is missing', 'configs/fmnist96.py'],
  ),
  'config file that is no .py': (
    lambda tmp_path: [f'--config={tmp_path}'],
    ['no such file ending in .py'],
  ),
  'config file that exits': (
    lambda tmp_path: [config_file(tmp_path, 'import sys; sys.exit(0)')],
    ['own.py cannot be loaded', 'SystemExit'],
  ),
  'config file that raises what is no Exception': (
    lambda tmp_path: [
      config_file(
        tmp_path,
        'class End(BaseException): pass\n'
        'def get_config():\n  raise End("of it")',
      )
    ],
    ['own.py cannot be loaded', 'End: of it'],
  ),
  'config file that raises such while it is imported': (
    lambda tmp_path: [config_file(tmp_path, 'raise GeneratorExit(3)')],
    ['own.py cannot be loaded', 'GeneratorExit: 3'],
  ),
  'config file with half a character in a path': (
    lambda tmp_path: [changed(tmp_path, r'train.teacher = ("a\ud800",)')],
    ['config.train.teacher', r'a\ud800', 'names of runs'],
  ),
  'config file of another type': (
    lambda tmp_path: [
      config_file(tmp_path, 'def get_config():\n  return {"seed": 1}')
    ],
    ['own.py', 'returns a dict', 'ConfigDict'],
  ),
  'config file with a placeholder': (
    lambda tmp_path: [changed(tmp_path, 'seed = required_placeholder(int)')],
    ['own.py', 'RequiredValueError'],
  ),
  'config file with a NumPy number': (
    lambda tmp_path: [
      changed(tmp_path, 'optimizer.learning_rate = np.float32(1)')
    ],
    ['config.optimizer.learning_rate', 'a number > 0'],
  ),
  'config file with another section': (
    lambda tmp_path: [changed(tmp_path, 'extra = ConfigDict()')],
    ['config.extra is not a field'],
  ),
  'config file that holds itself': (
    lambda tmp_path: [changed(tmp_path, 'extra = config')],
    ['own.py', 'RecursionError'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_flags_are_one_line(case, tmp_path, assert_refused):
  flags, words = BAD_INPUT[case]
  assert_refused(flags(tmp_path) if callable(flags) else flags, words)
