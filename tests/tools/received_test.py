"""What somebody else has made: nothing that it names is read or run."""

import json
import shlex

import pytest
from conftest import ROOT, small_config
from saved_run import save_run

import launch
from googlenet import config as config_lib
from googlenet.cli.command_line import parse
from googlenet.cli.modes import MODES
from googlenet.errors import UserError
from googlenet.fields import FIELDS, LOCAL
from googlenet.fields.flag_text import as_text
from googlenet.io import array_files, compare
from googlenet.tools import trials
from googlenet.tools.inference import arrays, trained
from googlenet.tools.modes import predict
from googlenet.tools.sweep import folder as sweep_folder
from googlenet.tools.sweep import grid

DEFAULT = config_lib.flatten(config_lib.default_config())
# Fields with a text that names neither folder, program nor module.
TEXTS = {
  *('data.name', 'data.train_split', 'data.eval_split', 'train.precision'),
  *('model.architecture', 'model.kernels', 'train.image_sizes'),
  'finetune.frozen',
}


def test_every_field_that_may_name_something_is_known():
  takes_any_text = {
    name
    for name, field in FIELDS.items()
    if field.is_valid('/any/text') or field.is_valid(('/any/text',))
  }
  assert takes_any_text == LOCAL.keys() | (TEXTS & takes_any_text)
  for modes in LOCAL.values():
    assert set(modes) <= MODES.keys()


@pytest.fixture
def planted(tmp_path):
  """Values of `LOCAL` that lead into a folder of somebody else."""
  folder = tmp_path / 'planted'
  folder.mkdir()
  program = folder / 'python'
  program.write_text(f'#!/bin/sh\ntouch {shlex.quote(str(tmp_path / "ran"))}\n')
  program.chmod(0o755)
  values = dict.fromkeys(LOCAL, str(folder / 'missing'))
  values['benchmark.torch_python'] = str(program)
  values['train.teacher'] = (values['train.teacher'],)
  return values


@pytest.fixture
def run(tmp_path, planted):
  config = small_config()
  config.update_from_flattened_dict(planted | {'data.source': 'folder'})
  return save_run(tmp_path / 'run', config)


def local(config):
  flat = config_lib.flatten(config)
  return {name: flat[name] for name in LOCAL}


def parsed(*flags):
  return parse(launch.FLAGS, ['launch.py', *flags]).config


@pytest.mark.parametrize('mode', MODES)
def test_no_mode_takes_them_from_a_run(mode, run, planted, tmp_path, capsys):
  """What it leaves out, it says if it needs it; flags give it again."""
  path = run / 'config.json'
  started = [
    f'--mode={mode}',
    f'--config={path}',
    f'--workdir={tmp_path / "w"}',
  ]
  if mode == 'report':  # --config is only compared
    started[1:] = [f'--workdir={run}']
  defaults = {name: DEFAULT[name] for name in LOCAL}
  config = parsed(*started)
  kept = {'finetune.from_workdir'} if mode == 'report' else set()
  assert local(config) == {
    name: planted[name] if name in kept else default
    for name, default in defaults.items()
  }
  told = capsys.readouterr().err.splitlines()
  assert [line.split('=')[0] for line in told] == [
    f'warning: config.{name}'
    for name in DEFAULT
    if mode in LOCAL.get(name, ()) and name not in kept
  ]
  for line in told:
    assert f'of {path} is left out' in line
  flags = [f'--config.{name}={value}' for name, value in planted.items()]
  flags += ['--config.data.source=folder']  # which reads classes
  assert local(parsed(*started, *flags)) == planted
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('mode', ['evaluate', 'report', 'demo', 'features'])
def test_a_lost_class_map_is_told(mode, run, capsys):
  parsed(f'--mode={mode}', f'--workdir={run}')
  assert 'warning: config.data.classes=' in capsys.readouterr().err


def test_a_run_keeps_the_name_of_the_one_it_started_from(
  run, planted, tmp_path, capsys
):
  """With a checkpoint it is not read any more; without one it is left out."""
  source = planted['finetune.from_workdir']
  config = parsed(f'--workdir={run}')
  assert config.finetune.from_workdir == source
  assert config.data.data_dir == ''
  stored = config_lib.load(run / 'config.json', with_local=True)
  assert not compare.check_config(run, stored, config, False)
  (run / 'checkpoints/step_000000007.npz').unlink()
  capsys.readouterr()
  config = parsed(f'--workdir={run}')
  assert config.finetune.from_workdir == ''
  assert f"config.finetune.from_workdir='{source}'" in capsys.readouterr().err
  with pytest.raises(UserError, match='holds a run with another config'):
    compare.check_config(run, stored, config, False)


def test_nothing_planted_is_touched(run, tmp_path, launch_here):
  flags = ('--mode=summary', '--config.data.source=bundled')
  done = launch_here(*flags, f'--workdir={run}', config='')
  assert done.returncode == 0, done.stderr
  assert [p.name for p in (tmp_path / 'planted').iterdir()] == ['python']
  net = trained.load_run(run)
  defaults = {name: DEFAULT[name] for name in LOCAL}
  assert local(net.config) == defaults
  exported = tmp_path / 'net.safetensors'
  config = config_lib.load(run / 'config.json', with_local=True)
  arrays.write(exported, net._replace(config=config_lib.resolve(config)))
  assert b'planted' in exported.read_bytes()
  assert local(arrays.read(exported).config) == defaults


def test_a_sweep_gives_its_trials_what_the_user_gave(run, planted, tmp_path):
  config = config_lib.load(run / 'config.json', with_local=True)
  flags = sweep_folder.config_flags(run, config_lib.resolve(config))
  assert sorted(flags) == sorted(
    f'--config.{name}={as_text(value)}' for name, value in planted.items()
  )
  assert (
    sweep_folder.config_flags(run, config_lib.load(run / 'config.json')) == []
  )


@pytest.mark.parametrize('name', [*LOCAL, 'no.field'])
def test_a_sweep_from_elsewhere(name, run, tmp_path):
  base = config_lib.load(run / 'config.json', with_local=True)
  (run / 'sweep.json').write_text(json.dumps({'sweep': {name: ['/x']}}))
  told = 'is damaged' if name == 'no.field' else f"sweeps {name}='/x'"
  with pytest.raises(UserError, match=told) as error:
    sweep_folder.check_own(run, sweep_folder.read(run, base))
  assert 'sweep.json' in str(error.value)
  sweep_folder.check_own(
    run, grid.parse('seed=1,2', config_lib.default_config())
  )


@pytest.mark.parametrize(
  'change',
  [
    *({'image_shape': [28, 28, -1]}, {'image_shape': [2**40, 28, 1]}),
    *({'image_shape': [28, 28, float('inf')]}, {'step': float('inf')}),
    *({'class_names': 3}, {'config': {}}),
  ],
)
def test_a_description_that_is_none(change, run, tmp_path):
  """The parameters are as exported; what stands beside them is not."""
  path = tmp_path / 'net.safetensors'
  arrays.write(path, trained.load_run(run))
  described = json.loads(array_files.read_metadata(path)['googlenet'])
  stored = {name: x.read() for name, x in array_files.read(path).items()}
  text = json.dumps(described | change)
  array_files.write(path, stored, {'format': 'np', 'googlenet': text})
  with pytest.raises(UserError, match='does not describe its network'):
    arrays.read(path)


def test_class_names_send_no_codes_to_the_terminal():
  _, row = predict.make_rows('table', 1, ['a'])
  assert row('a', [predict.Guess(0, '\x1b[2J', 0.5)]) == 'a  ?[2J 0.5000\n'


def test_a_pattern_of_runs_runs_no_code(run, tmp_path, capsys):
  code = tmp_path / 'a.py'
  code.write_text(f'open({str(tmp_path / "ran")!r}, "w")')
  assert trials.main([str(code), str(run)]) == 0
  assert not (tmp_path / 'ran').exists()
  assert f'{code} holds no run' in capsys.readouterr().err
  assert (
    trials.main(['--base', str(ROOT / 'configs/fmnist96.py'), str(run)]) == 0
  )
