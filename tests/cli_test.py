"""Help, version, colours, and what an error suggests: all in this process."""

import io
import os
import pathlib
import pydoc
import re
import shlex
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, load_config

import googlenet
import launch
from googlenet import config as config_lib
from googlenet.cli import comments
from googlenet.cli import help as help_lib
from googlenet.cli.command_line import load_config_file, parse
from googlenet.cli.modes import FLAGS, MODES
from googlenet.cli.overrides import set_fields, split_flags
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.runtime import progress, terminal

CONFIG = f'--config={ROOT}/configs/fmnist96.py'


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
  monkeypatch.delenv('NO_COLOR', raising=False)
  monkeypatch.setenv('TERM', 'xterm')


def shown(capsys, *argv: str) -> str:
  assert launch.main(['launch.py', *argv]) == 0
  out, err = capsys.readouterr()
  assert err == ''
  assert '\x1b' not in out  # no terminal
  assert all(
    len(line) <= 80 or line.startswith('training starts with ')  # on a GPU
    for line in out.splitlines()
  ), out
  return out


@pytest.mark.parametrize('flag', ['--help', '-h', '--helpfull', '--help=all'])
def test_help_lists_every_mode_by_group(capsys, flag):
  out = shown(capsys, flag)
  assert out.startswith('usage: python launch.py ')
  for name, mode in MODES.items():
    group = out[out.index(f'\n{mode.group}\n') :]
    section = group[: group.index('\n\n')]
    assert re.search(f'^  --mode={name} +{mode.help[:20]}', section, re.M)
  for text in ('--version', '--help --mode=MODE', '  75   ended by a signal'):
    assert text in out
  assert len(out.splitlines()) < 80


@pytest.mark.parametrize('name', MODES)
def test_help_on_a_mode_has_its_flags_and_an_example_that_parses(capsys, name):
  assert launch.main(['launch.py', f'--mode={name}', '--help']) == 0
  out = capsys.readouterr().out
  assert out.startswith(f'--mode={name}: ')
  for flag in MODES[name].flags:
    assert re.search(f'^  --{flag}\\b', out, re.M)
    assert launch.FLAGS[flag].help.split()[-1] in out
  others = set(FLAGS) - set(MODES[name].flags)
  assert not [
    flag for flag in others if re.search(f'^  --{flag}\\b', out, re.M)
  ]
  (example,) = re.findall(r'^  python (launch.py .*)', out, re.M)
  given = {word.partition('=')[0] for word in re.findall(r'--[\w.=]+', example)}
  fields = {f'--config.{field}' for field in FIELDS}
  flags = {f'--{flag}' for flag in MODES[name].flags}
  assert given <= fields | flags | {'--mode', '--config', '--workdir'}


def test_help_on_an_unknown_mode(capsys):
  assert launch.main(['launch.py', '--help', '--mode=evalute']) == 2
  out, err = capsys.readouterr()
  assert out == ''
  assert err.startswith("error: --mode=evalute is not a mode, did you mean 'ev")
  assert err.count('\n') == 1


def test_help_with_a_config_lists_every_field_as_a_flag(capsys):
  assert launch.main(['l', '--help', CONFIG, '--config.seed=7']) == 0
  out = capsys.readouterr().out
  lines = out.splitlines()
  place = lines.index('  --config.seed=7')
  assert lines[place + 1 : place + 3] == [
    '      Determines initial weights, data order, augmentation and dropout.',
    f'      Takes {FIELDS["seed"].allowed}.',
  ]
  assert "  --config.data.mean='(0.286,)'" in lines
  assert '      Takes one of auto, on, off.' in lines
  place = lines.index('  --config.augment.crop_padding=0')
  assert lines[place + 1] == (
    '      Border in stored pixels that is added before a random crop; 0: off.'
  )
  for name in FIELDS:
    assert any(line.startswith(f'  --config.{name}=') for line in lines)
  # What is shown can be given back as it is shown.
  given = [
    word
    for line in lines
    if line.startswith('  --config.')
    for word in shlex.split(line)
  ]
  config = load_config(ROOT / 'configs/fmnist96.py')
  wanted = {**config_lib.flatten(config), 'model.num_classes': 0}
  config.update_from_flattened_dict(
    {'data.mean': (9.0,), 'optimizer.nesterov': False}
  )
  set_fields(config, split_flags(given)[0])
  assert config_lib.flatten(config) == {**wanted, 'seed': 7}


def test_every_field_has_a_comment_of_its_own():
  found = comments.of_fields()
  assert found.keys() == FIELDS.keys()
  assert all(found.values())
  assert len({*found.values()}) == len(found)
  assert found['train.epochs'] == 'length of the schedule and of the run'
  assert found['data.channels'].startswith('Channels that the network sees')
  assert found['benchmark.steps'].startswith('Steps timed per round')
  assert 'prefixes' not in found['finetune.from_workdir']


def test_help_with_a_config_that_is_not_valid(capsys):
  assert launch.main(['l', '--help', CONFIG, '--config.seed=-1']) == 2
  assert 'config.seed=-1' in capsys.readouterr().err


def test_version(capsys):
  lines = shown(capsys, '--version').splitlines()
  assert lines[0].startswith(f'googlenet {googlenet.__version__}')
  assert re.search(r'Python 3\.\d+\.\d+.*, JAX 0\.\d+.*, Haiku 0\.', lines[1])
  assert re.match(r'\d+ CPU cores?', lines[2])


def test_the_package_shows_what_it_offers():
  assert 'load' in dir(googlenet)
  text = pydoc.plain(pydoc.render_doc(googlenet))
  assert 'load(' in text
  assert googlenet.load.__doc__.splitlines()[0] in text


def test_help_and_version_import_no_jax():
  """In a process of its own: this one has it long since."""
  code = (
    'import sys, runpy\n'
    'for flag in ("--help", "--version"):\n'
    '  sys.argv = ["launch.py", flag]\n'
    '  try:\n    runpy.run_path("launch.py", run_name="__main__")\n'
    '  except SystemExit as end:\n    assert not end.code, end.code\n'
    'heavy = {"jax", "numpy", "haiku", "ml_collections"}\n'
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.count('usage:') == 1


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch):
  stream = Terminal()
  assert terminal.paint('error:', 'error', stream) == '\x1b[1;31merror:\x1b[0m'
  assert terminal.paint('error:', 'error', io.StringIO()) == 'error:'
  assert '\x1b[1mTrain\x1b[0m' in help_lib.general(launch.FLAGS, stream)
  monkeypatch.setenv('NO_COLOR', '1')
  assert terminal.paint('error:', 'error', stream) == 'error:'
  monkeypatch.setenv('NO_COLOR', '')  # empty: as if it were not set
  assert '\x1b' in terminal.paint('error:', 'error', stream)
  monkeypatch.setenv('TERM', 'dumb')
  assert '\x1b' not in help_lib.general(launch.FLAGS, stream)


def test_errors_and_warnings_are_coloured_on_a_terminal(monkeypatch):
  stream = Terminal()
  monkeypatch.setattr(sys, 'stderr', stream)
  assert launch.main(['launch.py', '--mode=trian']) == 2
  terminal.warn('a disk is full')
  error, warning = stream.getvalue().splitlines()
  assert error.startswith('\x1b[1;31merror:\x1b[0m --mode=trian is not a mode')
  assert warning == '\x1b[1;33mwarning:\x1b[0m a disk is full'


class Console(Terminal):
  """A terminal that says when something was counted on it."""

  def __init__(self):
    super().__init__()
    self.has_counted = threading.Event()

  def write(self, text: str) -> int:
    if ' s\r' in text:
      self.has_counted.set()
    return super().write(text)


def test_seconds_are_counted_below_a_line_on_a_terminal():
  stream = Console()
  with progress.shown_on(stream), progress.working('compile  it', tick=0.001):
    assert stream.has_counted.wait(60)
  line, counted = stream.getvalue().split('\n')
  assert line == 'compile  it'
  assert re.fullmatch(r'( +0 s\r)+ +\r', counted)  # and wiped out at the end


def test_elsewhere_there_are_lines():
  stream = io.StringIO()
  with progress.shown_on(stream), progress.working('compile  it'):
    assert stream.getvalue() == 'compile  it\n'
  assert stream.getvalue() == 'compile  it\n'


def make_run(folder: pathlib.Path) -> None:
  folder.mkdir(parents=True)
  text = config_lib.to_json(load_config(ROOT / 'configs/fmnist96.py'))
  (folder / 'config.json').write_text(text)


# What is given, what is suggested.
SUGGESTED = {
  'a mode': (['--mode=summry'], "'summary'"),
  'a flag': ([CONFIG, '--wokdir=x'], "'workdir'"),
  'a flag of another mode': (
    [CONFIG, '--allow_config_chnge'],
    'allow_config_c',
  ),
  'a field without its section': (
    [CONFIG, '--learning_rate=1'],
    "'config.optimizer.learning_rate'",
  ),
  'a field': (
    [CONFIG, '--config.optimizer.momentun=1'],
    "'optimizer.momentum'",
  ),
  'a choice': ([CONFIG, '--config.optimizer.schedule=cosin'], "'cosine'"),
  'a choice among others': (
    [CONFIG, '--config.checkpoint.best_metric=eval/acuracy'],
    "'eval/accuracy'",
  ),
  'a config file': (['--config=configs/fmnist69.py'], 'configs/fmnist96.py'),
  'a config file of configs': (['--config=imagenet'], 'configs/imagenet224.py'),
  'a config file beside': (['--config=own/mne.py'], 'own/mine.py'),
  'a mode without its flag': ([CONFIG, 'evaluate'], '--mode=evaluate'),
  'a mode without anything': (['evaluat'], '--mode=evaluate'),
  'a config without its flag': (['own/mine.py'], '--config=own/mine.py'),
  'a run': (['--mode=evaluate', '--workdir=runs/trail'], "'runs/trial'"),
  'a network of the project': (
    ['--mode=evaluate', '--workdir=fmnist28_bst'],
    "'fmnist28_best'",
  ),
  'a run, with a config': (
    ['--mode=evaluate', CONFIG, '--workdir=runs/trail'],
    "'runs/trial'",
  ),
}


@pytest.mark.parametrize('case', SUGGESTED)
def test_suggestions(case, tmp_path, monkeypatch, capsys):
  given, word = SUGGESTED[case]
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').symlink_to(ROOT / 'configs')
  (tmp_path / 'own').mkdir()
  (tmp_path / 'own/mine.py').write_text('')
  make_run(tmp_path / 'runs/trial')
  make_run(tmp_path / 'runs/another')
  assert launch.main(['launch.py', *given]) == 2
  err = capsys.readouterr().err
  assert re.search(f'did you mean .*{re.escape(word)}', err), err
  assert err.count('\n') == 1


def test_a_network_of_the_project_is_suggested_for_its_name_alone(tmp_path):
  with pytest.raises(UserError, match="did you mean 'fmnist28_long'"):
    googlenet.load('fmnist28_longg')
  with pytest.raises(UserError) as error:
    config_lib.load(tmp_path / 'fmnist28_longg' / 'config.json')
  assert 'did you mean' not in str(error.value)


def test_no_run_is_suggested_where_none_is_near(tmp_path):
  make_run(tmp_path / 'trial')
  for name in ('elsewhere', 'nowhere/trial'):
    with pytest.raises(UserError) as error:
      config_lib.load(tmp_path / name / 'config.json')
    assert 'did you mean' not in str(error.value)


def test_the_config_of_a_run_is_a_config_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  make_run(tmp_path / 'trial')
  arguments = parse(
    launch.FLAGS, ['l', '--config=trial/config.json', '--config.seed=3']
  )
  assert arguments.config.seed == 3
  assert arguments.workdir.startswith(f'runs{os.sep}config-')
  with pytest.raises(UserError, match=r'--config=trail/config.json: no such'):
    load_config_file('trail/config.json')
  published = ROOT / 'pretrained/fmnist28_long'
  for name, batch_size, run in (
    ('trial', 128, 'config'),
    (published, 256, 'config'),
    ('fmnist28_long', 256, 'fmnist28_long'),  # configs/ goes first
  ):
    arguments = parse(launch.FLAGS, ['l', f'--config={name}'])
    assert arguments.workdir.startswith(f'runs{os.sep}{run}-'), 'a new run'
    assert arguments.config.train.batch_size == batch_size
    text = help_lib.answer(
      launch.FLAGS, ['l', '--help', f'--config={name}'], io.StringIO()
    )
    assert f'--config.train.batch_size={batch_size}\n' in text


@pytest.mark.parametrize('from_json', [False, True])
@pytest.mark.parametrize(
  ('text', 'name', 'value'),
  [
    ('model.dropout=0.4', 'model.dropout', 0.4),
    ('model.dropout=None', 'model.dropout', None),
    ('train.loss_scale=dynamic', 'train.loss_scale', 'dynamic'),
    ('train.loss_scale=64.5', 'train.loss_scale', 64.5),
    ('data.mean=(0.2,)', 'data.mean', (0.2,)),
    ('data.mean=0.2', 'data.mean', (0.2,)),
    ('finetune.frozen=("conv_1",)', 'finetune.frozen', ('conv_1',)),
    ('optimizer.nesterov=false', 'optimizer.nesterov', False),
    ('data.data_dir=None', 'data.data_dir', 'None'),
  ],
)
def test_texts_for_fields(config, text, name, value, from_json):
  if from_json:  # a stored config says less of the types of its fields
    config = config_lib.from_json(config_lib.to_json(config))
  set_fields(config, split_flags([f'--config.{text}'])[0])
  assert config_lib.flatten(config)[name] == value
  config_lib.resolve(config)


@pytest.mark.parametrize(
  ('given', 'texts', 'others'),
  [
    (['--config.seed=1', '--config.seed=2'], {'seed': '2'}, []),
    (['-config.seed', '1', 'x'], {'seed': '1'}, ['x']),
    (['--config.data.data_dir='], {'data.data_dir': ''}, []),
    (['--config.eval.flip', 'x'], {'eval.flip': 'true'}, ['x']),
    (['--config.eval.flip', 'false'], {'eval.flip': 'false'}, []),
    (['--config.data.mean', '-1'], {'data.mean': '-1'}, []),
    (['--config.model.dropout', 'None'], {'model.dropout': 'None'}, []),
    (['--noconfig.eval.flip'], {'eval.flip': 'false'}, []),
    (['--configs.seed=1', '--seed=1'], {}, ['--configs.seed=1', '--seed=1']),
  ],
)
def test_flags_of_fields(given, texts, others):
  assert split_flags(given) == (texts, others)


@pytest.mark.parametrize(
  'given',
  [
    ['--config.data.data_dir'],
    ['--config.seed'],
    ['--config.data.data_dir', '--config.seed=1'],
    ['--config.train.loss_scale', '--mode=summary'],
  ],
)
def test_a_field_without_its_value_takes_no_other_flag(given):
  with pytest.raises(UserError, match=f'^{given[0]} has no value: give '):
    split_flags(given)


def test_a_flag_that_is_given_twice_is_told(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  flags = ['--config.seed=71', '--config.seed=72', '--config.seed=72']
  flags += ['--workdir=a', '--workdir=b', '--config.eval.flip=false']
  arguments = parse(launch.FLAGS, ['launch.py', CONFIG, *flags])
  assert (arguments.config.seed, arguments.workdir) == (72, 'b')
  assert capsys.readouterr().err.splitlines() == [
    "warning: --workdir is given more than once: 'b' counts",
    "warning: --config.seed is given more than once: '72' counts, not '71'",
  ]


NEIGHBOUR = 'RATE = 0.03\n'
OWN = """\
from __future__ import annotations
import dataclasses
import a_neighbour
from configs import fmnist96

@dataclasses.dataclass
class Recipe:
  rate: float = a_neighbour.RATE
  next: Recipe | None = None

def get_config(text='0'):
  import another_neighbour
  config = fmnist96.get_config().unlock()
  config.optimizer.learning_rate = Recipe().rate + another_neighbour.MORE
  config.seed = int(text)
  return config
"""


def test_a_config_file_is_a_program_like_any_other(tmp_path, monkeypatch):
  """Outside of the project, with a dataclass and neighbours; in `~`."""
  folder = tmp_path / 'a:b'
  folder.mkdir()
  (folder / 'a_neighbour.py').write_text(NEIGHBOUR)
  (folder / 'another_neighbour.py').write_text('MORE = 0.01\n')
  (folder / 'own.py').write_text(OWN)
  (tmp_path / 'c').symlink_to(folder)
  before = list(sys.path)
  config = load_config_file(str(folder / 'own.py'))
  assert config.optimizer.learning_rate == 0.04
  config = load_config_file(f'{tmp_path}/c/own.py:7')
  assert config.seed == 7
  assert sys.path == before
  monkeypatch.setenv('HOME', str(tmp_path))
  flags = ['launch.py', '--mode=summary', '--config=~/c/own.py']
  parsed = parse(launch.FLAGS, flags)
  assert parsed.config.optimizer.learning_rate == 0.04


def test_it_starts_without_its_folder_on_the_path(tmp_path):
  done = subprocess.run(
    [sys.executable, '-P', str(ROOT / 'launch.py'), '--help'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, '')


def test_field_texts_are_quoted_for_a_shell():
  assert help_lib.to_text((0.1, 0.2)) == "'(0.1, 0.2)'"
  assert help_lib.to_text(('conv_1',)) == '\'("conv_1",)\''
  assert help_lib.to_text('train[:90%]') == "'train[:90%]'"
  assert help_lib.to_text('') == ''
  assert help_lib.to_text(0.1) == '0.1'
