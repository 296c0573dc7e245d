"""What --help and --version print, made without importing JAX."""

import glob
import itertools
import os
import pathlib
import platform
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TextIO

import googlenet
from googlenet.cli.modes import FLAGS, MODES, Flag, Mode
from googlenet.errors import UserError, did_you_mean
from googlenet.runtime import backend
from googlenet.runtime.terminal import paint

_WIDTH = 80
_HELP = {'-h', '-help', '--help', '--helpfull', '--helpshort'}
_VERSION = {'-version', '--version'}

_USAGE = """\
usage: python launch.py [--mode=MODE] [--config=FILE] [--workdir=FOLDER]
                        [--config.FIELD=VALUE ...] [--FLAG=VALUE ...]
"""
_EXAMPLES = """\
  python launch.py --config=configs/fmnist96.py
  python launch.py --config=configs/fmnist96.py --config.train.epochs=2
  python launch.py --mode=evaluate --workdir=runs/trial
"""
_EVERY_MODE = {
  '--config=FILE': 'config file, or the config.json of a run; without it, the '
  'config of the run in --workdir',
  '--config.FIELD=VALUE': 'any field of the config, like --config.seed=1',
  '--workdir=FOLDER': 'folder of a run; where one is made, the default is a '
  'fresh dated one in runs/. A run that was cut off is continued',
  '--flagfile=FILE': 'more flags, one in each line',
}
_SEVERAL_PROCESSES = {
  '--coordinator_address=HOST:PORT': 'of process 0',
  '--num_processes=N, --process_id=I': 'how many, and which one this is, from '
  '0. Under SLURM, Open MPI, Kubernetes and on Cloud TPUs all three are found',
  '--heartbeat_timeout_seconds=30': 'a process silent for so long ends the '
  'others',
}
_MORE = {
  '--help --mode=MODE': 'its flags and an example',
  '--help --config=FILE': 'every field, its value and what it takes',
  '--version': 'of this program and of what it stands on; devices',
}
_EXIT_CODES = {
  '0': 'done',
  '2': 'bad input, a loss that is not finite, or too little memory: one line '
  'on stderr',
  '65': 'some images cannot be read, the others are done',
  '74': 'what the run makes cannot be written',
  '75': 'ended on request, or because another process did: the same command '
  'with that --workdir goes on',
  '130': 'interrupted',
}


def answer(argv: Sequence[str], stream: TextIO) -> str | None:
  """Returns the answer to --help or --version, if that is what is asked.

  Args:
    argv: the name of the program, then its arguments.
    stream: where it will be shown.

  Returns:
    Text; '' where that is a list of fields, for which a config has to be read;
    None where neither is asked for.

  Raises:
    UserError: help on an unknown mode.
  """
  arguments = argv[1:]
  if _VERSION.intersection(arguments):
    return version()
  if not asks_for_help(argv):
    return None
  mode = _value_of('mode', arguments)
  if mode is not None:
    if mode not in MODES:
      raise unknown_mode(mode)
    return of_mode(mode, stream)
  return '' if _value_of('config', arguments) else general(stream)


def asks_for_help(argv: Sequence[str]) -> bool:
  """Returns whether --help is in a command line."""
  return len(without_help(argv)) < len(argv)


def without_help(argv: Sequence[str]) -> list[str]:
  """Returns a command line without its --help, --help=..., -h."""
  return [word for word in argv if word.partition('=')[0] not in _HELP]


def mode_of(argv: Sequence[str]) -> Mode:
  """Returns the mode of a command line, 'train' where it names none.

  Flag files are not read: one that names a mode counts as 'train' here.
  """
  return MODES.get(_value_of('mode', argv[1:]) or 'train', MODES['train'])


def unknown_mode(name: str) -> UserError:
  """Returns the error for a mode that there is not."""
  return UserError(
    f'--mode={name} is not a mode{did_you_mean(name, MODES)}; allowed is one '
    f'of {", ".join(MODES)}'
  )


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
  """Returns the last value of a flag, given as --flag=value or --flag value."""
  found = None
  followers = itertools.zip_longest(arguments, arguments[1:], fillvalue='')
  for argument, following in followers:
    name, equals, value = argument.partition('=')
    if name in (f'--{flag}', f'-{flag}'):
      found = value if equals else following
  return found


def general(stream: TextIO) -> str:
  """Returns the help that lists the modes."""
  parts = [
    _USAGE,
    'GoogLeNet on JAX: train, look at and use what a config file says.\n',
    _heading('Examples', stream) + _EXAMPLES,
  ]
  for group in dict.fromkeys(mode.group for mode in MODES.values()):
    rows = {
      f'--mode={name}': mode.help
      for name, mode in MODES.items()
      if mode.group == group
    }
    parts.append(_section(group, rows, stream))
  parts += [
    _section('Every mode', _EVERY_MODE, stream),
    _section('One run of several processes', _SEVERAL_PROCESSES, stream),
    _section('More', _MORE, stream),
    _section('Exit codes', _EXIT_CODES, stream),
  ]
  return '\n'.join(parts).rstrip('\n')


def of_mode(name: str, stream: TextIO) -> str:
  """Returns the help on one mode."""
  mode = MODES[name]
  rows = {
    f'--{flag}{_value_word(FLAGS[flag])}': _describe(FLAGS[flag])
    for flag in mode.flags
  }
  parts = [
    _wrap(f'--mode={name}: {mode.help}'),
    _heading('Example', stream) + f'  {example(name)}\n',
  ]
  if rows:
    parts.append(_section('Its flags', rows, stream))
  parts.append(_section('Every mode', _EVERY_MODE, stream))
  return '\n'.join(parts).rstrip('\n')


def example(name: str) -> str:
  """Returns a command line for a mode."""
  mode: Mode = MODES[name]
  words = ['python launch.py']
  if name != 'train':
    words.append(f'--mode={name}')
  if mode.workdir == 'reads':
    words.append('--workdir=runs/trial')
  else:
    words.append('--config=configs/fmnist96.py')
  return ' '.join([*words, *([mode.example] if mode.example else [])])


def _value_word(flag: Flag) -> str:
  kinds = {bool: '', int: '=N', float: '=X', str: '=TEXT'}
  return kinds[type(flag.default)]


def _describe(flag: Flag) -> str:
  if isinstance(flag.default, bool) or flag.default == '':
    return flag.help
  return f'{flag.help} (default: {flag.default})'


def _heading(text: str, stream: TextIO) -> str:
  return paint(text, 'heading', stream) + '\n'


def _wrap(text: str) -> str:
  return textwrap.fill(text, _WIDTH) + '\n'


def _section(title: str, rows: Mapping[str, str], stream: TextIO) -> str:
  return _heading(title, stream) + table(rows)


def table(rows: Mapping[str, str]) -> str:
  """Returns names on the left, what they are on the right, in 80 columns."""
  column = 4 + min(max(map(len, rows)), 24)
  lines = []
  for name, text in rows.items():
    right = textwrap.wrap(text, _WIDTH - column, break_long_words=False) or ['']
    if len(name) + 4 > column:
      lines.append(f'  {name}')
    else:
      lines.append(f'  {name}'.ljust(column) + right.pop(0))
    lines += [' ' * column + part for part in right]
  return '\n'.join(line.rstrip() for line in lines) + '\n'


def version() -> str:
  """Returns the versions of what runs here, and the devices of the machine."""
  packages = (('JAX', 'jax'), ('Haiku', 'dm-haiku'), ('optax', 'optax'))
  versions = [f'Python {platform.python_version()}']
  versions += [f'{name} {_version_of(package)}' for name, package in packages]
  commit = _commit()
  environment = dict(os.environ)
  backend.prepare(environment, preallocates=True)
  settings = backend.in_force(environment)
  return '\n'.join(
    [
      f'googlenet {googlenet.__version__}' + (f' ({commit})' if commit else ''),
      ', '.join(versions),
      ', '.join(_devices()),
      *([f'training starts with {settings}'] if settings else []),
    ]
  )


def _version_of(package: str) -> str:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return 'is missing'


def _commit() -> str:
  """Returns 'commit 1a2b3c4' in a clone, '' elsewhere."""
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / '.git').exists():
    return ''
  try:
    done = subprocess.run(
      ['git', '-C', str(root), 'rev-parse', '--short', 'HEAD'],
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ''
  return f'commit {done.stdout.strip()}' if done.returncode == 0 else ''


def _devices() -> list[str]:
  """Returns what the system shows of its devices; asking JAX takes seconds."""
  count = len(os.sched_getaffinity(0))
  found = [f'{count} CPU core{"s" if count != 1 else ""}']
  gpus = [
    line.partition(':')[2].strip()
    for path in sorted(glob.glob('/proc/driver/nvidia/gpus/*/information'))
    for line in pathlib.Path(path).read_text(errors='replace').splitlines()
    if line.startswith('Model:')
  ]
  for name in dict.fromkeys(gpus):
    found.append(f'{gpus.count(name)} x {name}')
  installed = {
    distribution.name.lower() for distribution in metadata.distributions()
  }
  if gpus and not any('cuda' in name for name in installed if 'jax' in name):
    found[-1] += ' (unused: pip install "jax[cuda13]")'
  tpus = glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*')
  if tpus:
    found.append(f'{len(tpus)} TPU chips or other accelerators')
  return found
