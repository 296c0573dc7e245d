"""Runs with ablations: kept, continued, swept; and the study at equal cost."""

import json
import pathlib

import numpy as np
import pytest
from conftest import SMALL, small_config, start
from networks import model_config
from PIL import Image
from saved_run import save_run

import googlenet
from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.data import auto
from googlenet.errors import UserError
from googlenet.io import compare
from googlenet.model import ablations
from googlenet.tools import ablations as study
from googlenet.tools import equal_cost
from googlenet.tools.modes import summary
from googlenet.tools.sweep import trials
from googlenet.tools.weights import names


def ablated():
  config = small_config()
  config.model.drop_branches = ('5x5',)
  config.model.stage_depths = ('2=2',)
  return config


def test_a_run_keeps_its_ablations(tmp_path):
  folder = save_run(tmp_path / 'run', ablated())
  config = config_lib.resolve(config_lib.load(folder / 'config.json'))
  assert config.model.drop_branches == ('5x5',)
  params = googlenet.load(str(folder)).params
  assert 'inception_2b/conv_3x3' in params
  assert 'inception_2b/conv_5x5' not in params
  for field in ablations.FIELDS:
    assert f'model.{field}' in compare.NEVER_CHANGES


@pytest.mark.slow
def test_a_run_is_trained_continued_and_used_by_other_processes(tmp_path):
  flags = [
    *SMALL,
    "--config.model.drop_branches=('5x5',)",
    '--config.model.block_pool=average',
    '--workdir=run',
  ]
  config = '--config=configs/fmnist96.py'
  done = start(tmp_path, config, *flags, '--config.train.max_steps=2')
  assert "tiny block_pool=average drop_branches=('5x5',)" in done.stdout
  done = start(
    tmp_path,
    '--workdir=run',
    '--config.train.max_steps=4',
    '--allow_config_change',
  )
  assert done.returncode == 0, done.stderr
  other = start(
    tmp_path,
    '--workdir=run',
    '--config.model.drop_branches=()',
    '--allow_config_change',
  )
  assert other.returncode == 2
  assert 'A run keeps model.drop_branches' in other.stderr
  done = start(tmp_path, '--mode=evaluate', '--workdir=run')
  assert done.returncode == 0, done.stderr


def test_two_ablations_in_a_sweep(launch_here):
  done = launch_here(
    *SMALL,
    '--mode=sweep',
    '--dry_run',
    '--workdir=sweep',
    '--sweep=model.drop_branches=(),("5x5",),("1x1","pool");'
    'model.block_pool=auto,average',
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
    f'trial {i}/6  drop_branches={dropped}__block_pool={pool}: to do'
    for i, (dropped, pool) in enumerate(
      [
        (dropped, pool)
        for dropped in ('', '5x5', '1x1+pool')
        for pool in ('auto', 'average')
      ],
      start=1,
    )
  ]


def test_published_weights_have_no_ablations():
  config = model_config(variant='torchvision', drop_branches=('pool',))
  with pytest.raises(
    UserError, match=r'drop_branches=\(.pool.,\): .* has \(\)'
  ):
    names.scheme_of(config)


# ---- Equal cost.


def count(model, shape=(28, 28, 1)):
  """Multiply-adds, from the layer table that --mode=summary prints."""
  return summary.summarize(model, shape)[-1].multiply_adds


def test_a_width_with_as_many_multiply_adds():
  whole = model_config(variant='fmnist28', width_multiplier=0.5)
  part = model_config(
    variant='fmnist28', width_multiplier=0.5, drop_branches=('3x3',)
  )
  found = equal_cost.equal_width(part, (28, 28, 1), count(whole))
  part.width_multiplier = found.width_multiplier
  assert found.multiply_adds == count(part)
  assert count(part) == pytest.approx(count(whole), rel=0.005)
  assert found.width_multiplier > 0.6
  with pytest.raises(UserError, match='about 7 multiply-adds: 0.0'):
    equal_cost.equal_width(whole, (28, 28, 1), 7)


def test_no_other_width_is_nearer():
  config, shape = model_config(variant='tiny'), (32, 32, 1)
  costs = []
  for thousandths in range(300, 500):
    config.width_multiplier = thousandths / 1000
    costs.append(equal_cost.multiply_adds(config, shape))
  # Between two widths the cost jumps by a tenth and more.
  for wanted in (45_000, 48_104, 49_007, 54_188, 60_000, 70_000):
    found = equal_cost.equal_width(config, shape, wanted)
    assert found.multiply_adds == min(costs, key=lambda c: abs(c - wanted))


def test_summary_finds_that_width(launch_here):
  config = 'configs/fmnist28_fast.py'
  flags = ['--mode=summary', "--config.model.drop_branches=('5x5',)"]
  done = launch_here(*flags, f'--equal_to={config}', config=config)
  assert done.stdout == (
    f'33,768,576 multiply-adds: {config}\n'
    '33,776,343 (+0.02%): --config.model.width_multiplier=0.5422\n'
  )
  done = launch_here(*flags, f'--equal_to={config}', '--compare', config=config)
  assert done.returncode == 2
  assert done.stderr == 'error: --compare and --equal_to: give one of them\n'
  done = launch_here(*flags, '--equal_to=missing.py', config=config)
  assert done.returncode == 2
  assert 'missing.py: no such file' in done.stderr


def test_a_run_on_images_of_ones_own_is_found_by_the_flag(
  launch_here, tmp_path
):
  """Its config.json does not say where they are."""
  for path in ('train/a', 'train/b', 'test/a', 'test/b'):
    (tmp_path / 'photos' / path).mkdir(parents=True)
    Image.new('L', (28, 28)).save(tmp_path / 'photos' / path / '1.png')
  config = small_config()
  config.data.source, config.data.data_dir = 'folder', 'photos'
  config.data.train_split, config.data.eval_split = 'train', 'test'
  (tmp_path / 'run').mkdir()
  text = config_lib.to_json(config_lib.resolve(config))
  (tmp_path / 'run/config.json').write_text(text)
  flags = ['--mode=summary', '--workdir=run', '--equal_to=run']
  flags += ['--config.data.data_dir=photos']
  done = launch_here(*flags, config='')
  assert done.returncode == 0, done.stderr
  assert '(+0.00%): --config.model.width_multiplier=1\n' in done.stdout


def test_the_comparison_of_networks_has_ablations(launch_here):
  done = launch_here(
    '--mode=summary',
    '--compare',
    "--config.model.drop_branches=('5x5',)",
    config='configs/fmnist28_fast.py',
  )
  lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
  assert lines['fmnist28'][2:4] == ['1,241,706', '28,714,368']
  assert lines['residual'][1:] == ['-'] * 5
  assert 'or it does not allow a change of the config' in done.stdout


# ---- The study.


@pytest.fixture(scope='module')
def config():
  return auto.complete(
    command_line.read_config('configs/fmnist28_ablations.py', '', [])
  )


@pytest.fixture(scope='module')
def rows(config):
  return study.make_rows(config)


def finish(folder, config, accuracy):
  """Writes what a finished run leaves."""
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(config_lib.to_json(config))
  (folder / 'result.json').write_text(json.dumps({'eval/accuracy': accuracy}))


def test_rows_of_the_study_cost_the_same(rows):
  assert [row.name for row in rows] == list(study.SETTINGS)
  whole = rows[0].multiply_adds
  for row in rows:
    assert row.multiply_adds == pytest.approx(whole, rel=0.02)


def test_the_table_of_the_study(config, rows, tmp_path):
  """Means and differences by seed; a run without result counts for nothing."""
  every = study.plan(config, rows, range(3))
  accuracies = {
    'whole_block': (0.8, 0.82, 0.84),
    'without_1x1': (0.79, 0.8, 0.85),
    'without_3x3': (0.7,),
  }
  for run in every:
    name, seed = run.name.rsplit('_s', 1)
    values = accuracies.get(name, ())
    if int(seed) < len(values):
      finish(tmp_path / run.name, run.config, values[int(seed)])
  text = study.render(study.read_results(tmp_path, rows, every))
  lines = [line.split('  ') for line in text.splitlines()]
  cells = {line[0]: [x.strip() for x in line if x.strip()] for line in lines}
  assert cells['whole block'][-3:] == ['3', '0.8200 +- 0.0200', '-']
  # Differences -0.01, -0.02, 0.01: their deviation is 0.0153.
  error = np.std([-0.01, -0.02, 0.01], ddof=1) / 3**0.5
  assert cells['without 1x1'][-2:] == [
    '0.8133 +- 0.0321',
    f'-0.0067 +- {error:.4f}',
  ]
  assert cells['without 3x3'][-3:] == ['1', '0.7000', '-']
  assert cells['without 5x5'][-3:] == ['0', '-', '-']


def test_the_study_trains_what_is_missing(tmp_path, monkeypatch, capsys):
  """Each run gets its fields; a run with a result is not made again."""
  commands, ends = [], []

  def run(self, command):
    commands.append(command)
    own = command_line.read_config(
      'configs/fmnist28_ablations.py', '', command[4:]
    )
    folder = pathlib.Path(command[2].removeprefix('--workdir='))
    if ends:
      return ends.pop()
    finish(folder, auto.complete(own), 0.5)
    return trials.End(0, '')

  monkeypatch.setattr(trials.Process, 'run', run)
  monkeypatch.setattr(
    study,
    'SETTINGS',
    {study.WHOLE: {}, 'average': {'model.block_pool': 'average'}},
  )
  flags = [f'--workdir={tmp_path}', '--seeds=2', '--config.train.batch_size=32']
  assert study.main([*flags, '--shard=1/2']) == 0
  fields = [
    '--config.train.batch_size=32',
    '--config.model.block_pool=average',
    '--config.model.width_multiplier=0.24',
  ]
  assert [command[4:] for command in commands] == [
    [*fields, '--config.seed=0'],
    [*fields, '--config.seed=1'],
  ]
  ends.append(trials.End(1, 'broken'))
  assert study.main(flags) == 2  # the other one is trained
  assert 'error: 1 of 4 runs failed, whole_block_s0: broken' in (
    capsys.readouterr().err
  )
  assert len(commands) == 4
  assert study.main(flags) == 0
  assert len(commands) == 5
  assert study.main(flags) == 0
  assert len(commands) == 5
  # Runs of another recipe are not taken for those of this one.
  assert study.main(flags[:2]) == 2
  assert 'config.train.batch_size is 32 there and 64 here' in (
    capsys.readouterr().err
  )
  assert study.main([*flags, '--shard=2/2']) == 2
  assert study.main([*flags, '--config.model.drop_branches=("7x7",)']) == 2
  assert "has no branch '7x7'" in capsys.readouterr().err
  assert len(commands) == 5
