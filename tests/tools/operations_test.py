"""Operations of one's own in tools and processes beside that of the mode."""

import io
import json
import sys

import pytest
from conftest import ROOT
from saved_run import save_run

import launch
from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.model import own, rows
from googlenet.model.architecture_text import read_network, to_text
from googlenet.tools import ablations, publish, trials
from googlenet.tools.benchmark import contenders, ours

FILE = """
from googlenet.model import own

own.register('same', lambda x, is_training: x)
"""


def forget():
  own._REGISTERED.clear()
  read_network.cache_clear()
  own.sizes.cache_clear()


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """A finished run with an operation that this process does not know."""
  monkeypatch.setattr(own, '_REGISTERED', {})
  (tmp_path / 'mine.py').write_text(FILE)
  own.register('same', lambda x, is_training: x)
  config.model.variant = 'own'
  layer = rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 4, 3, 2),))
  stage = rows.Stage('stage_1', (layer, rows.Own('mine', 'same')))
  config.model.architecture = to_text(rows.Architecture((stage,)))
  folder = save_run(tmp_path / 'run', config)
  (folder / 'result.json').write_text('{"step": 7, "eval/accuracy": 0.5}')
  forget()
  return folder


@pytest.mark.parametrize('tool', ['trials', 'publish'])
def test_tools_take_the_file(run, tmp_path, capsys, tool):
  main, arguments = {
    'trials': (trials.main, [str(run)]),
    'publish': (publish.main, [str(run), str(tmp_path / 'sent')]),
  }[tool]
  assert main(arguments) == 2
  assert 'own.register: --operations=mine.py' in capsys.readouterr().err
  assert main([*arguments, f'--operations={tmp_path}/mine.py']) == 0
  assert str(run if tool == 'trials' else tmp_path) in capsys.readouterr().out
  assert main([*arguments, '--operations=missing.py']) == 2
  assert '--operations=missing.py: no such file' in capsys.readouterr().err


def test_ablations_pass_it_on(tmp_path, monkeypatch, capsys):
  (tmp_path / 'mine.py').write_text(FILE)
  given = []
  monkeypatch.setattr(
    ablations, '_train', lambda _, flags, mine: given.extend(flags) or {}
  )
  flag = f'--operations={tmp_path}/mine.py'
  assert ablations.main([f'--workdir={tmp_path}/runs', flag]) == 0
  assert given[1:] == [flag]


@pytest.mark.parametrize('mode', ['benchmark', 'sweep'])
@pytest.mark.parametrize('network', ['own', 'tiny'])
def test_modes_of_several_processes_pass_it_on(run, tmp_path, mode, network):
  """A network without operations may have a teacher with some."""
  config = run if network == 'own' else ROOT / 'configs/fmnist28_fast.py'
  flags = [f'--mode={mode}', f'--config={config}']
  flags += [f'--workdir={tmp_path}/new', f'--operations={tmp_path}/mine.py']
  found = command_line.parse(launch.FLAGS, ['', *flags])
  assert found.options['operations'] == f'{tmp_path}/mine.py'


def test_a_peer_of_the_benchmark_registers_it(
  run, tmp_path, monkeypatch, capsys
):
  own.register('same', lambda x, is_training: x)
  config = config_lib.resolve(config_lib.load(run / 'config.json'))
  for operations, code in (('', 2), (f'{tmp_path}/mine.py', 0)):
    forget()
    peers = contenders.our_contenders(config, tmp_path, operations)
    job = json.dumps({**peers[0].job, 'started': 0.0})
    monkeypatch.setattr(sys, 'stdin', io.StringIO(job))
    monkeypatch.setattr(ours, 'measure', lambda config, started, tell: None)
    monkeypatch.setattr(ours, 'tune_machine', lambda folder: None)
    assert ours.main() == code
    assert ("'same' of mine is not" in capsys.readouterr().out) == (code == 2)
