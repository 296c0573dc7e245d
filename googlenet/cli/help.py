"""The texts of --help and --version."""

import glob
import os
import pathlib
import platform
import shlex
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TextIO

from absl import flags

import googlenet
from googlenet.cli import comments
from googlenet.cli.modes import MODES, parse_flags, unknown_mode
from googlenet.runtime import backend
from googlenet.runtime.terminal import paint

_WIDTH = 80
# How each way to start the program is called, by the name of its file.
_PROGRAMS = {
  'launch': 'python launch.py',
  'googlenet': 'googlenet',
  '__main__': 'python -m googlenet',
}
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
_SEVERAL_PROCESSES = {
  '--coordinator_address=HOST:PORT': 'address of process 0',
  '--num_processes=N, --process_id=I': 'number of processes, and index of this '
  'one. Not needed under SLURM, Open MPI, Kubernetes and on Cloud TPUs',
  '--heartbeat_timeout_seconds=30': 'if a process is silent for this long or '
  'does not come, the others end',
}
_MORE = {
  '--help --mode=MODE': 'its flags and an example',
  '--help --config=FILE': 'every field: its value, what it does and takes',
  '--version': 'versions of this program and its libraries; devices',
}
_EXIT_CODES = {
  '0': 'done',
  '2': 'bad input, a loss that is not finite, or too little memory: one line '
  'on stderr',
  '65': 'some images cannot be read, the others are done',
  '74': 'files of the run, or a result on stdout, cannot be written',
  '75': 'ended by a signal, or because another process ended: the same command '
  'with that --workdir continues the run',
  '130': 'interrupted',
  '141': 'nobody reads the result on stdout any more, as in | head',
}


def answer(
  values: flags.FlagValues, argv: Sequence[str], stream: TextIO
) -> str:
  """Returns the text for --help or --version; '' if neither is given.

  Commands in it begin as the user began this one: `python launch.py`,
  `googlenet` or `python -m googlenet`.

  JAX is imported only for --help with --config, which checks the config.

  Args:
    values: the defined flags.
    argv: the name of the program, then its arguments.
    stream: where the text will be printed.

  Raises:
    UserError: the mode is unknown, or the config is wrong.
  """
  rest = parse_flags(values, argv)
  if not is_asked(rest):
    return ''
  text = _answer(values, rest, stream)
  called = pathlib.PurePath(argv[0]).stem
  return text.replace(
    'python launch.py', _PROGRAMS.get(called, 'python launch.py')
  )


def _answer(
  values: flags.FlagValues, rest: Sequence[str], stream: TextIO
) -> str:
  """Does the work of `answer`; `rest` are the arguments that no flag takes."""
  if not {word.partition('=')[0] for word in rest}.isdisjoint(_VERSION):
    return version()
  others = [word for word in rest if word.partition('=')[0] not in _HELP]
  if values['mode'].present:
    if values.mode not in MODES:
      raise unknown_mode(values.mode)
    return of_mode(values, values.mode, stream)
  if values.config:
    return fields(values.config, others, stream)
  return general(values, stream)


def is_asked(arguments: Sequence[str]) -> bool:
  """Returns whether --help or --version is among the arguments."""
  names = {word.partition('=')[0] for word in arguments}
  return not names.isdisjoint(_HELP | _VERSION)


def general(values: flags.FlagValues, stream: TextIO) -> str:
  """Returns the help that lists the modes."""
  parts = [
    _USAGE,
    'GoogLeNet in JAX: train, inspect and use the network of a config file.\n',
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
    _section('Every mode', _every_mode(values), stream),
    _section('One run of several processes', _SEVERAL_PROCESSES, stream),
    _section('More', _MORE, stream),
    _section('Exit codes', _EXIT_CODES, stream),
  ]
  return '\n'.join(parts).rstrip('\n')


def of_mode(values: flags.FlagValues, name: str, stream: TextIO) -> str:
  """Returns the help on one mode."""
  mode = MODES[name]
  parts = [
    textwrap.fill(f'--mode={name}: {mode.help}', _WIDTH) + '\n',
    _heading('Example', stream) + f'  {example(name)}\n',
  ]
  if mode.flags:
    rows = dict(_describe(values[flag]) for flag in mode.flags)
    parts.append(_section('Its flags', rows, stream))
  parts.append(_section('Every mode', _every_mode(values), stream))
  return '\n'.join(parts).rstrip('\n')


def example(name: str) -> str:
  """Returns a command line for a mode."""
  mode = MODES[name]
  words = ['python launch.py']
  if name != 'train':
    words.append(f'--mode={name}')
  if mode.workdir == 'reads':
    words += [] if mode.default_workdir else ['--workdir=runs/trial']
  else:
    words.append('--config=configs/fmnist96.py')
  return ' '.join([*words, *([mode.example] if mode.example else [])])


def _describe(flag: flags.Flag) -> tuple[str, str]:
  """Returns the usage and the help text of a flag."""
  words = {'bool': '', 'int': '=N', 'float': '=X', 'string': '=TEXT'}
  word = words[flag.flag_type()]
  if flag.boolean and word:  # its value may be left out
    word = f'[{word}]'
  has_default = word and flag.default != ''
  default = f' (default: {flag.default})' if has_default else ''
  return f'--{flag.name}{word}', flag.help + default


def _every_mode(values: flags.FlagValues) -> dict[str, str]:
  return {
    '--config=FILE': values['config'].help,
    '--config.FIELD=VALUE': 'any field of the config, like --config.seed=1',
    '--workdir=FOLDER': values['workdir'].help,
    '--flagfile=FILE': 'a file with more flags, one per line',
  }


def _heading(text: str, stream: TextIO) -> str:
  return paint(text, 'heading', stream) + '\n'


def _section(title: str, rows: Mapping[str, str], stream: TextIO) -> str:
  return _heading(title, stream) + table(rows)


def table(rows: Mapping[str, str]) -> str:
  """Formats names and descriptions as two columns, 80 characters wide."""
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


def fields(file: str, arguments: Sequence[str], stream: TextIO) -> str:
  """Returns every field of a config as a flag: what it does, what it takes.

  Args:
    file: value of --config.
    arguments: flags that override fields.
    stream: where the text will be printed.

  Raises:
    UserError: the config is wrong.
  """
  from googlenet import config as config_lib  # imports JAX
  from googlenet.cli.command_line import config_of, read_config
  from googlenet.fields import FIELDS

  config = config_lib.flatten(read_config(config_of(file), '', arguments))
  lines, last = [], None
  for name, field in FIELDS.items():
    section = name.rpartition('.')[0]
    if section != last:
      title = f'config.{section}' if section else 'config'
      lines += ['', paint(title, 'heading', stream)]
      last = section
    lines.append(f'  --config.{name}={to_text(config[name])}')
    indent = ' ' * 6
    for text in (comments.of_fields()[name], f'Takes {field.allowed}.'):
      lines += textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
      )
  return '\n'.join(lines).lstrip('\n')


def to_text(value: object) -> str:
  """Returns a value as text for a flag, quoted for the shell if needed."""
  from googlenet.fields.flag_text import as_text

  return shlex.quote(as_text(value)) if value != '' else ''


def version() -> str:
  """Returns versions of program and libraries, devices and settings."""
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


def _cores() -> int:
  """Returns how many CPU cores this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # not Linux
    return os.cpu_count() or 1


def _devices() -> list[str]:
  """Lists the devices without JAX, whose import takes seconds."""
  count = _cores()
  found = [f'{count} CPU core{"s" if count != 1 else ""}']
  gpus = [
    line.partition(':')[2].strip()
    for path in sorted(glob.glob('/proc/driver/nvidia/gpus/*/information'))
    for line in pathlib.Path(path)
    .read_text(encoding='utf-8', errors='replace')
    .splitlines()
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
