"""--mode=sweep: grammar, trials, what becomes of them, the summary."""

import contextlib
import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, last_of_each, load_config
from PIL import Image
from run_files import assert_same_run

import launch
from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.cli.overrides import as_flags, set_fields, split_flags
from googlenet.data import sources
from googlenet.errors import UserError
from googlenet.io import checkpoint
from googlenet.io.workdir import Lock, is_locked
from googlenet.tools.sweep import folder, grid, plot, summary, trials

TINY = (
  '--config.model.variant=tiny',
  '--config.model.kernels=xla',
  '--config.data.image_size=28',
  '--config.train.batch_size=32',
  '--config.train.precision=float32',
  '--config.train.epochs=2',
  '--config.data.train_split=train[:96]',
  '--config.data.eval_split=test[:100]',
  '--config.optimizer.grad_clip_norm=0',
  '--config.optimizer.warmup_steps=1',
)
RATES = '--sweep=optimizer.learning_rate=0.1,0.3;seed=0,1'
NAMES = [
  f'learning_rate={rate}__seed={s}' for rate in (0.1, 0.3) for s in (0, 1)
]


@pytest.fixture
def base():
  return load_config(ROOT / 'configs/fmnist96.py')


# ---- Grammar.


@pytest.mark.parametrize(
  ('text', 'sweep'),
  [
    (
      'optimizer.learning_rate=0.05,1e-1;seed=0,1,2',
      {'optimizer.learning_rate': (0.05, 0.1), 'seed': (0, 1, 2)},
    ),
    (' config.seed = 3 , 4 ; ', {'seed': (3, 4)}),
    ('data.mean=(0.2,),(0.3, 0.4)', {'data.mean': ((0.2,), (0.3, 0.4))}),
    ("data.name='a,b','c;d',e", {'data.name': ('a,b', 'c;d', 'e')}),
    (
      'train.precision=float32,"params=float32,compute=bfloat16,output=float32"',
      {'train.precision': ('float32', 'bfloat16')},
    ),
    (
      'finetune.frozen=(),("conv_1",),("conv_1", "conv_2")',
      {'finetune.frozen': ((), ('conv_1',), ('conv_1', 'conv_2'))},
    ),
    ('model.dropout=None,0.4', {'model.dropout': (None, 0.4)}),
    ('optimizer.nesterov=true,false', {'optimizer.nesterov': (True, False)}),
    ("data.data_dir='',x", {'data.data_dir': ('', 'x')}),
    ('train.loss_scale=dynamic,8', {'train.loss_scale': ('dynamic', 8)}),
    ("""train.teacher=("it's", 'a"b'),()""", {
      'train.teacher': (("it's", 'a"b'), ())
    }),
    ('data.train_split=train[:50%],train', {
      'data.train_split': ('train[:50%]', 'train')
    }),
  ],
)  # fmt: skip
def test_grammar(base, text, sweep):
  parsed = grid.parse(text, base)
  assert parsed == sweep
  assert list(parsed) == list(sweep)
  # What is stored and given to a process comes back as it was.
  stored = config_lib.from_json(config_lib.to_json(base))
  for name, values in sweep.items():
    for value in values:
      copy = config_lib.from_json(config_lib.to_json(stored))
      set_fields(copy, split_flags(as_flags({name: value}))[0])
      assert config_lib.flatten(copy)[name] == value


def test_trials_are_every_combination_the_last_field_fastest(base):
  made = grid.make_trials(
    {'optimizer.learning_rate': (1, 2), 'seed': (3, 4)}, base
  )
  assert [
    (t.index, t.config.optimizer.learning_rate, t.config.seed) for t in made
  ] == [(0, 1, 3), (1, 1, 4), (2, 2, 3), (3, 2, 4)]
  assert [t.name for t in made][1:3] == [
    'learning_rate=1__seed=4',
    'learning_rate=2__seed=3',
  ]
  assert base.seed == 0  # what they start from stays as it is
  assert made[0].setting == made[1].setting != made[2].setting


@pytest.mark.parametrize(
  ('sweep', 'names'),
  [
    ({'seed': (0, 1)}, ['seed=0', 'seed=1']),
    ({'data.mean': ((0.2, 0.5, 0.1),)}, ['mean=0.2+0.5+0.1']),
    (
      {'optimizer.name': ('sgd',), 'data.name': ('fashion_mnist',)},
      ['optimizer.name=sgd__data.name=fashion_mnist'],
    ),
    ({'finetune.from_workdir': ('runs/a b',)}, ['from_workdir=runs_a_b']),
  ],
)
def test_names_of_trials(base, sweep, names):
  assert [trial.name for trial in grid.make_trials(sweep, base)] == names


def test_a_sweep_of_an_older_version_keeps_its_names(base, tmp_path):
  made = grid.make_trials({'train.epochs': (1, 2), 'seed': (0, 1)}, base)
  (tmp_path / 'epochs=1,seed=1').mkdir()
  found = folder.with_old_names(tmp_path, made)
  assert [trial.name for trial in found] == [
    'epochs=1__seed=0',
    'epochs=1,seed=1',
    'epochs=2__seed=0',
    'epochs=2__seed=1',
  ]


def test_a_list_of_workdirs_may_hold_old_names(tmp_path):
  for name in ('r=1,seed=0', 'r=1,seed=1', 'a'):
    (tmp_path / name).mkdir()
  given = [f'{tmp_path}/{name}' for name in ('r=1,seed=0', 'a', 'r=1,seed=1')]
  assert command_line._split_workdirs(','.join(given)) == given
  assert command_line._split_workdirs('x,y,,z') == ['x', 'y', '', 'z']


def test_names_that_would_be_equal_or_too_long_get_a_digest(base):
  values = ('a/b', 'a_b', f'{"x" * 150}/{"x" * 150}')
  made = grid.make_trials({'finetune.from_workdir': values}, base)
  names = [trial.name for trial in made]
  assert len(set(names)) == 3
  assert names[0].startswith('from_workdir=a_b-')
  assert names[1].startswith('from_workdir=a_b-')
  assert max(map(len, names)) < 255
  again = grid.make_trials({'finetune.from_workdir': values}, base)
  assert [trial.name for trial in again] == names


def test_shards_are_all_trials_once(base):
  made = grid.make_trials({'seed': tuple(range(7))}, base)
  parts = [grid.shard(made, f'{i}/3') for i in range(3)]
  assert sorted(map(len, parts)) == [2, 2, 3]
  assert sorted(t.index for part in parts for t in part) == list(range(7))
  assert grid.shard(made, '') == list(made)
  assert grid.shard(made, '8/9') == []


# ---- Bad input.


def sweep_main(*flags: str, config: bool = True) -> int:
  given = [f'--config={ROOT}/configs/fmnist96.py', *TINY] if config else []
  return launch.main(
    last_of_each(['launch.py', '--mode=sweep', *given, *flags])
  )


BAD_INPUT = {
  'no sweep': ([], ['--sweep is missing', 'learning_rate=0.05,0.1;seed=0,1,2']),
  'no value': (['--sweep=seed'], ["'seed' is not field=value"]),
  'unknown field': (
    ['--sweep=optimizer.learning_rat=1;seed=0'],
    ['optimizer.learning_rat', "did you mean 'optimizer.learning_rate'"],
  ),
  'field twice': (['--sweep=seed=0;seed=1'], ['seed is given twice']),
  'value twice': (
    ['--sweep=optimizer.learning_rate=0.1,1e-1'],
    ['optimizer.learning_rate has the value 0.1 twice'],
  ),
  'empty value': (['--sweep=seed=0,,1'], ['seed has an empty value']),
  'text for a number': (
    ['--sweep=seed=0,one'],
    ["config.seed='one'", 'a whole number'],
  ),
  'out of range': (['--sweep=seed=0,-1'], ['config.seed=-1', 'from 0 to']),
  'open bracket': (['--sweep=data.mean=(0.2'], ["'data.mean=(0.2'", 'closed']),
  'open quote': (["--sweep=data.name='a"], ['closed']),
  'closed too early': (['--sweep=data.mean=0.2)'], ['closed']),
  'a combination that is not allowed': (
    ['--sweep=train.batch_size=32,33;train.microbatches=1,2'],
    [
      'trial batch_size=33__microbatches=2: config.train.batch_size=33',
      'choose a multiple',
    ],
  ),
  'too many': (
    [f'--sweep=seed={",".join(map(str, range(101)))};train.epochs='
     + ','.join(map(str, range(1, 101)))],
    ['makes 10,100 trials', '10,000'],
  ),
  'shard beyond the last': (
    ['--sweep=seed=0,1', '--shard=2/2', '--workdir=s'],
    ['--shard=2/2', 'from 0 to N - 1'],
  ),
  'shard of nothing': (
    ['--sweep=seed=0,1', '--shard=first', '--workdir=s'],
    ['--shard=first', 'like 0/8'],
  ),
  'shard without a folder that all know': (
    ['--sweep=seed=0,1', '--shard=0/2'],
    ['--shard is given without --workdir'],
  ),
  'folder that nobody can make': (
    ['--sweep=seed=0,1', '--workdir=/proc/sweep'],
    ['--workdir=/proc/sweep', 'cannot be made'],
  ),
  'several processes': (
    ['--sweep=seed=0', '--num_processes=2', '--coordinator_address=a:1'],
    ['--mode=sweep is one process', '--num_processes=1'],
  ),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(case, tmp_path, monkeypatch, capfd):
  flags, words = BAD_INPUT[case]
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(trials.Process, 'run', None)
  assert sweep_main(*flags) == 2
  stderr = capfd.readouterr().err
  assert stderr.startswith('error: ')
  assert stderr.count('\n') == 1, stderr
  for word in words:
    assert word in stderr
  assert list(tmp_path.iterdir()) == []


# ---- Trials, trained in this process.


class Trainer:
  """Runs the command of a trial in this process, and remembers it."""

  def __init__(self):
    self.names = []
    self.ends: dict[str, trials.End] = {}  # of trials that do not train

  def run(self, command) -> trials.End:
    assert command[:2] == [sys.executable, str(ROOT / 'launch.py')]
    (folder,) = [a for a in command if a.startswith('--workdir=')]
    name = pathlib.Path(folder).name
    self.names.append(name)
    if name in self.ends:
      return self.ends[name]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
      code = launch.main(command[1:])
    return trials.End(code, errors.getvalue().removeprefix('error: ').strip())


@pytest.fixture
def trainer(monkeypatch, tmp_path, compilation_cache):
  made = Trainer()
  monkeypatch.setattr(
    trials.Process, 'run', lambda _, command: made.run(command)
  )
  monkeypatch.chdir(tmp_path)
  return made


def sweep_in(folder: str, *flags: str, cache: str, config: bool = True) -> int:
  where = [f'--workdir={folder}', *flags]
  if config:
    where.append(f'--config.train.compilation_cache={cache}')
  return sweep_main(*where, config=config)


@pytest.fixture
def sweep(trainer, compilation_cache):
  """Calls --mode=sweep in the folder s; returns the exit code."""

  def call(*flags: str, folder: str = 's', config: bool = True) -> int:
    trainer.names.clear()
    return sweep_in(folder, *flags, cache=compilation_cache, config=config)

  return call


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and path.name not in ('lock', 'curves.png')
  }


def test_a_sweep_from_its_start_to_its_summary(
  sweep, trainer, tmp_path, capsys, compilation_cache
):
  rates = '--sweep=optimizer.learning_rate=1e30,0.1,0.3;seed=0,1'
  assert sweep(rates) == 0
  names = [f'learning_rate=1e+30__seed={seed}' for seed in (0, 1)] + NAMES
  assert trainer.names == names
  out = capsys.readouterr().out
  assert 'trial 3/6  learning_rate=0.1__seed=0\n' in out

  # A trial is the run that its flags make.
  plain = [f'--config={ROOT}/configs/fmnist96.py', *TINY]
  plain += ['--config.seed=1', '--config.optimizer.learning_rate=0.3']
  plain.append(f'--config.train.compilation_cache={compilation_cache}')
  plain.append('--workdir=plain')
  assert launch.main(['launch.py', *plain]) == 0
  assert_same_run(tmp_path / 'plain', tmp_path / 's' / NAMES[3])
  capsys.readouterr()

  results = {
    name: json.loads((tmp_path / 's' / name / 'result.json').read_text())
    for name in NAMES
  }
  expected = {}
  for rate in (0.1, 0.3):
    of = [results[f'learning_rate={rate}__seed={seed}'] for seed in (0, 1)]
    for score in ('eval/accuracy', 'eval/loss'):
      values = np.array([result[score] for result in of])
      expected[rate, score] = values.mean(), values.std(ddof=1)
  best = max((0.1, 0.3), key=lambda rate: expected[rate, 'eval/accuracy'][0])
  order = [best, 0.4 - best, 1e30]
  with open(tmp_path / 's/summary.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [float(row['optimizer.learning_rate']) for row in rows] == (
    pytest.approx(order)
  )
  assert [row['finished'] for row in rows] == ['2', '2', '0']
  assert [row['diverged'] for row in rows] == ['0', '0', '2']
  assert rows[2]['eval/accuracy mean'] == ''
  for (rate, score), (mean, deviation) in expected.items():
    (row,) = [r for r in rows if r['optimizer.learning_rate'] == str(rate)]
    assert float(row[f'{score} mean']) == pytest.approx(mean)
    assert float(row[f'{score} deviation']) == pytest.approx(deviation)
    assert f'{mean:.4f} +- {deviation:.4f}' in out
  stored = json.loads((tmp_path / 's/summary.json').read_text())
  assert [t['name'] for t in stored['trials']] == names
  assert [t['state'] for t in stored['trials']] == ['diverged'] * 2 + [
    'finished'
  ] * 4
  assert 'train/loss is nan at step' in stored['trials'][0]['result']['error']
  assert stored['settings'][0]['optimizer.learning_rate'] == pytest.approx(best)
  assert (tmp_path / 's/curves.png').read_bytes().startswith(b'\x89PNG')

  # Once more, in each way to say it: nothing is left to train.
  before = snapshot(tmp_path / 's')
  assert sweep(rates) == 0
  assert sweep(config=False) == 0
  assert sweep('--sweep=seed=1,0;optimizer.learning_rate=0.3,1e30,0.1') == 0
  assert trainer.names == []
  out = capsys.readouterr().out
  assert 'learning_rate=1e+30__seed=0: diverged: train/loss is nan' in out
  told = json.loads((tmp_path / 's' / names[0] / 'diverged.json').read_text())
  assert told == stored['trials'][0]['result']
  accuracy = results[NAMES[0]]['eval/accuracy']
  assert f'{NAMES[0]}: finished, eval accuracy {accuracy:.4f}\n' in out
  assert snapshot(tmp_path / 's') == before


def test_what_fails_is_tried_again_and_the_others_are_trained(
  sweep, trainer, tmp_path, capsys
):
  trainer.ends[NAMES[0]] = trials.End(-signal.SIGKILL, '')
  trainer.ends[NAMES[1]] = trials.End(2, 'config.data.name is not prepared')
  trainer.ends[NAMES[2]] = trials.End(1, '')
  assert sweep(RATES) == 2
  assert trainer.names == NAMES
  stderr = capsys.readouterr().err
  assert stderr.count('\n') == 1
  assert f'error: 3 of 4 trials failed, {NAMES[0]} and 2 more' in stderr
  assert 'ended by SIGKILL (out of memory?)' in stderr
  assert 'tries them again' in stderr
  del trainer.ends[NAMES[0]], trainer.ends[NAMES[2]]
  assert sweep() == 2
  assert trainer.names == NAMES[:3]
  assert 'config.data.name is not prepared' in capsys.readouterr().err
  trainer.ends.clear()
  assert sweep() == 0
  assert trainer.names == [NAMES[1]]


def test_a_full_disk_ends_the_sweep(sweep, trainer, capsys):
  trainer.ends[NAMES[1]] = trials.End(74, 's/x cannot be written')
  assert sweep(RATES) == 74
  assert trainer.names == NAMES[:2]
  assert 'error: s/x cannot be written; the same command' in (
    capsys.readouterr().err
  )


def test_a_trial_that_was_ended_ends_the_sweep(
  sweep, trainer, tmp_path, capsys
):
  trainer.ends[NAMES[1]] = trials.End(75, '')
  assert sweep(RATES) == 75
  assert trainer.names == NAMES[:2]
  out, err = capsys.readouterr()
  assert err.startswith('ended on SIGTERM with 3 trial(s) to go: the same comm')
  assert '1 of 2' in out
  assert (tmp_path / 's/summary.csv').exists()


def test_a_trial_of_another_process_is_left_to_it(
  sweep, trainer, tmp_path, capsys
):
  (tmp_path / 's/seed=1').mkdir(parents=True)
  with Lock(tmp_path / 's/seed=1'):
    assert sweep('--sweep=seed=0,1,2') == 0
    assert trainer.names == ['seed=0', 'seed=2']
    out = capsys.readouterr().out
    assert 'seed=1: in use by another process' in out
    assert '2 of 3' in out
  assert not is_locked(tmp_path / 's/seed=1')
  assert sweep() == 0
  assert trainer.names == ['seed=1']


def test_shards_train_their_own_and_sum_up_all(sweep, trainer, capsys):
  assert sweep(RATES, '--shard=1/2') == 0
  assert trainer.names == NAMES[1::2]
  assert sweep('--shard=0/2', config=False) == 0
  assert trainer.names == NAMES[0::2]
  assert capsys.readouterr().out.count('2 of 2') == 2


def test_a_dry_run_writes_nothing(sweep, trainer, tmp_path, capsys):
  assert sweep(RATES, '--dry_run') == 0
  assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
    f'{name}:' for name in NAMES
  ]
  assert list(tmp_path.iterdir()) == []
  trainer.ends[NAMES[2]] = trials.End(75, '')
  assert sweep(RATES) == 75
  before = snapshot(tmp_path)
  capsys.readouterr()
  assert sweep('--dry_run') == 0
  states = [
    line.split(': ')[1] for line in capsys.readouterr().out.splitlines()
  ]
  assert [state.split(',')[0] for state in states] == [
    'finished', 'finished', 'to do', 'to do'
  ]  # fmt: skip
  assert snapshot(tmp_path) == before


def test_where_things_are_may_change_and_reaches_the_trials(
  sweep, trainer, monkeypatch
):
  commands = []
  end = trials.End(75, '')
  monkeypatch.setattr(
    trials.Process, 'run', lambda _, command: commands.append(command) or end
  )
  assert sweep(RATES) == 75
  assert sweep('--config.data.workers=3') == 75
  monkeypatch.setenv('SLURM_JOB_ID', '1')
  monkeypatch.setenv('SLURM_STEP_NODELIST', 'a')
  monkeypatch.setenv('SLURM_PROCID', '0')
  monkeypatch.setenv('SLURM_NTASKS', '2')
  assert sweep(RATES, '--num_processes=1') == 75
  assert '--config.data.workers=3' not in commands[0]
  assert '--config.data.workers=3' in commands[1]
  assert '--num_processes=1' not in commands[1]
  assert '--num_processes=1' in commands[2]


def test_images_in_another_place_must_be_the_same(base, tmp_path):
  for place, count in (('here', 1), ('moved', 1), ('other', 2)):
    for split in ('train', 'test'):
      for name in ('cat', 'dog'):
        (tmp_path / place / split / name).mkdir(parents=True)
        for i in range(count):
          path = tmp_path / place / split / name / f'{i}.png'
          Image.new('L', (8, 8)).save(path)
  sweep = {'seed': (0, 1)}

  def check(place):
    base.data.source, base.data.data_dir = 'folder', str(tmp_path / place)
    config = config_lib.resolve(base)
    folder.begin(tmp_path / 's', config, sweep)
    every = grid.make_trials(sweep, base)
    folder.check_data(tmp_path / 's', config, every)
    return every

  every = check('here')
  check('other')  # no trial has begun
  data = sources.load_dataset(every[0].config.data, 'train')
  about = {'data': data.identity.to_json()}
  run = tmp_path / 's' / every[1].name
  checkpoint.folder_of(run).mkdir(parents=True)
  tree = {'params': {'a': {'w': np.zeros(1)}}}
  checkpoint.save(run, checkpoint.Snapshot(0, tree, about))
  check('here')
  check('moved')
  with pytest.raises(UserError, match='other images .*cat had 1 .* has 2'):
    check('other')


def test_a_trial_whose_data_decide_a_value_is_found_again(
  base, tmp_path, capsys
):
  sweep = {
    'train.class_weights': (('balanced',), ()),
    'data.mean': (('auto',), (0.5,)),
  }
  every = grid.make_trials(sweep, base)
  for trial in every:
    run = config_lib.from_json(config_lib.to_json(trial.config))
    if trial.values['data.mean'] == ('auto',):
      run.data.mean = (0.4,)
    if trial.values['train.class_weights']:
      run.train.class_weights = (1.0,) * 10
    (tmp_path / trial.name).mkdir()
    (tmp_path / trial.name / 'config.json').write_text(config_lib.to_json(run))
    assert trials.look(tmp_path / trial.name, trial).name == 'begun'
  assert capsys.readouterr() == ('', '')
  with pytest.raises(UserError, match='another config: config.data.mean'):
    trials.look(tmp_path / every[0].name, every[1])


# flags of a second sweep in the folder, what the line must say.
ANOTHER = {
  'other values': (
    ['--sweep=optimizer.learning_rate=0.1,0.2;seed=0,1'],
    ['another sweep', 'learning_rate is 0.1, 0.3 there and 0.1, 0.2 here'],
  ),
  'other fields': (
    ['--sweep=seed=0,1'],
    ['optimizer.learning_rate is 0.1, 0.3 there and not swept here'],
  ),
  'other config': (
    [RATES, '--config.train.epochs=3'],
    ['with another config', 'config.train.epochs is 2 there and 3 here'],
  ),
  'other mode': (['--mode=train'], ['holds a sweep', '--mode=sweep']),
  'evaluation': (
    ['--mode=evaluate'],
    ['s holds a sweep: ', 'the folder of one of its trials'],
  ),
  'evaluation of all checkpoints': (
    ['--mode=evaluate', '--checkpoint=all'],
    ['s holds a sweep: ', 'the folder of one of its trials'],
  ),
  'a fresh run': (['--mode=benchmark'], ['already holds a run']),
}


@pytest.mark.parametrize('case', ANOTHER)
def test_another_sweep_is_refused(case, sweep, trainer, tmp_path, capsys):
  trainer.ends = {NAMES[0]: trials.End(75, '')}
  assert sweep(RATES) == 75
  before = snapshot(tmp_path)
  capsys.readouterr()
  flags, words = ANOTHER[case]
  assert sweep(*flags) == 2
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  for word in words:
    assert word in err
  assert snapshot(tmp_path) == before


def test_a_folder_that_does_not_fit_is_told_before_the_first_trial(
  sweep, trainer, tmp_path, capsys
):
  trainer.ends = {NAMES[0]: trials.End(75, '')}
  assert sweep(RATES) == 75
  config = json.loads((tmp_path / 's/config.json').read_text())
  config['optimizer']['learning_rate'] = 0.3
  config['seed'] = 1
  config['train']['epochs'] = 9
  (tmp_path / 's' / NAMES[3]).mkdir()
  (tmp_path / 's' / NAMES[3] / 'config.json').write_text(json.dumps(config))
  assert sweep() == 2
  assert trainer.names == []
  assert f'{NAMES[3]} holds a run with another config: config.train.epochs' in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize(
  'text', ['{', '[]', '{"sweep": 3}', '{"sweep": {"a": 1}}']
)
def test_a_damaged_sweep_is_told(text, sweep, trainer, tmp_path, capsys):
  trainer.ends = {NAMES[0]: trials.End(75, '')}
  assert sweep(RATES) == 75
  (tmp_path / 's/sweep.json').write_text(text)
  capsys.readouterr()
  assert sweep(RATES) == 2
  assert 's/sweep.json is damaged' in capsys.readouterr().err


def test_the_folder_of_a_run_is_refused(sweep, tmp_path, capsys):
  (tmp_path / 's').mkdir()
  (tmp_path / 's/metrics.jsonl').write_text('')
  assert sweep(RATES) == 2
  assert 'already holds a run (metrics.jsonl)' in capsys.readouterr().err
  assert [path.name for path in (tmp_path / 's').iterdir()] == ['metrics.jsonl']


# ---- Processes.


def python(code: str) -> list[str]:
  return [sys.executable, '-c', code]


def test_a_process_tells_how_it_ended(capfd):
  process = trials.Process()
  code = (
    'import sys; print("out"); sys.stderr.write("warning: w\\nerror: first\\n"'
    '"error: last\\n"); sys.exit(2)'
  )
  end = process.run(python(code))
  assert end == (2, 'last')
  out, err = capfd.readouterr()
  assert out == 'out\n'
  assert err == 'warning: w\nerror: first\nerror: last\n'
  assert (
    process.run(python('import os; os.abort()')).words == 'ended by SIGABRT'
  )
  assert process.run(python('raise SystemExit(3)')).words == 'exit code 3'
  assert process.run(python('')) == (0, '')


def test_a_signal_is_passed_on(capfd):
  """The process says when it listens, by a signal of its own."""
  code = (
    'import os, signal\n'
    'signal.signal(signal.SIGTERM, lambda *_: os._exit(75))\n'
    'os.kill(os.getppid(), signal.SIGTERM)\n'
    'while True: signal.pause()\n'
  )
  before = signal.getsignal(signal.SIGTERM)
  with trials.Process() as process:
    assert process.run(python(code)).exit_code == 75
    assert process.signal_name == 'SIGTERM'
    # One that is started after all is ended at once.
    end = process.run(python('import signal\nwhile True: signal.pause()'))
    assert end.exit_code == -signal.SIGTERM
  assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_sweep_ended_by_a_signal_goes_on(tmp_path, compilation_cache):
  """As a user has it: processes, a signal to the sweep alone."""
  command = [
    sys.executable,
    str(ROOT / 'launch.py'),
    '--mode=sweep',
    f'--config={ROOT}/configs/fmnist96.py',
    *TINY,
    f'--config.train.compilation_cache={compilation_cache}',
    '--config.logging.every_steps=1',
    '--config.train.epochs=100',
    '--config.eval.every_epochs=100',
    '--config.checkpoint.every_epochs=100',
    '--sweep=seed=0,1',
    '--shard=0/2',
    '--workdir=s',
  ]
  options = {
    'cwd': tmp_path,
    'env': {**os.environ, 'JAX_PLATFORMS': 'cpu'},
    'text': True,
    'stdout': subprocess.PIPE,
    'stderr': subprocess.PIPE,
  }
  process = subprocess.Popen(command, **options)
  for line in process.stdout:
    if line.startswith('step 2/'):
      break
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=300)
  assert process.returncode == 75, err
  assert 'ended on SIGTERM after step' in err
  assert 'ended on SIGTERM with 1 trial(s) to go: the same command' in err
  assert not (tmp_path / 's/seed=1').exists()
  assert len(list((tmp_path / 's/seed=0/checkpoints').iterdir())) == 1
  done = subprocess.run(command, **options)
  assert done.returncode == 0, done.stderr
  assert 'resumed  after step' in done.stdout
  assert '1 of 2' in done.stdout
  assert not (tmp_path / 's/seed=1').exists()


# ---- Summary and curves.


def finished(accuracy: float) -> trials.State:
  return trials.State('finished', {'eval/accuracy': accuracy, 'eval/loss': 1.0})


def test_summary_by_hand(base):
  made = grid.make_trials({'train.epochs': (1, 2, 3), 'seed': (0, 1, 2)}, base)
  states = [
    finished(0.5), finished(0.7), finished(0.9),
    trials.State('diverged', {'error': 'x'}), trials.State('to do', {}),
    trials.State('begun', {}),
    finished(0.8), trials.State('in use', {}), trials.State('to do', {}),
  ]  # fmt: skip
  rows = summary.summarize(made, states)
  assert [row.setting for row in rows] == [
    {'train.epochs': 3},
    {'train.epochs': 1},
    {'train.epochs': 2},
  ]
  assert [(row.finished, row.diverged) for row in rows] == [
    (1, 0),
    (3, 0),
    (0, 1),
  ]
  assert rows[0].scores['eval/accuracy'] == (0.8, None)
  assert rows[1].scores['eval/accuracy'] == pytest.approx((0.7, 0.2))
  lines = summary.render(rows).splitlines()
  assert lines[1].split() == ['3', '0.8000', '1.0000', '1', 'of', '3']
  assert '0.7000 +- 0.2000' in lines[2]
  assert lines[3].split('  ')[-1].strip() == '0 of 3, 1 diverged'


def test_settings_are_compared_seed_by_seed(base, tmp_path):
  made = grid.make_trials({'train.epochs': (1, 2, 3), 'seed': (5, 6, 7)}, base)
  states = [
    finished(0.5), finished(0.7), finished(0.9),
    finished(0.4), finished(0.63), finished(0.77),
    finished(0.6), trials.State('begun', {}), trials.State('to do', {}),
  ]  # fmt: skip
  rows = summary.summarize(made, states)
  ((first, second, difference),) = summary.differences(rows)
  assert (first.setting, second.setting) == (
    {'train.epochs': 1},
    {'train.epochs': 2},
  )
  # Of 0.1, 0.07, 0.13: the deviations of the means are five times as large.
  assert difference.seeds == 3
  assert difference.mean == pytest.approx(0.1)
  assert difference.error == pytest.approx(0.03 / 3**0.5)
  assert 'epochs=1  epochs=2  0.1000 +- 0.0173  3' in summary.render(rows)
  summary.write(tmp_path, rows, made, states)
  stored = json.loads((tmp_path / 'summary.json').read_text())
  assert stored['differences'] == [
    {
      'setting': {'train.epochs': 1},
      'minus': {'train.epochs': 2},
      **difference._asdict(),
    }
  ]


def test_seeds_alone_are_one_setting(base):
  made = grid.make_trials({'seed': (0, 1)}, base)
  rows = summary.summarize(made, [finished(0.5), finished(0.7)])
  assert [row.setting for row in rows] == [{}]
  assert '0.6000 +- 0.1414' in summary.render(rows)


def write_metrics(folder: pathlib.Path, accuracies: list[float]) -> None:
  folder.mkdir(parents=True)
  lines = [json.dumps({'step': 1, 'epoch': 0.5, 'train/loss': 1.0})] + [
    json.dumps({'step': 10 * epoch, 'epoch': epoch, 'eval/accuracy': accuracy})
    for epoch, accuracy in enumerate(accuracies, 1)
  ]
  (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')


def test_curves_are_means_and_deviations_over_seeds(base, tmp_path):
  made = grid.make_trials(
    {'train.epochs': tuple(range(1, 9)), 'seed': (0, 1)}, base
  )
  for trial in made:
    seed = trial.values['seed']
    curve = [0.2 + 0.2 * seed, 0.5]
    write_metrics(tmp_path / trial.name, curve[: 2 - seed])  # one was cut off
  rows = summary.summarize(made, [finished(0.9 - t.index / 100) for t in made])
  figure = plot.make_figure(tmp_path, rows)
  (axes,) = figure.axes
  assert [line.get_label() for line in axes.lines] == [
    f'epochs={epochs}' for epochs in range(1, 7)
  ]
  assert 'the best 6 of 8 settings' in axes.get_title('left')
  np.testing.assert_allclose(axes.lines[0].get_xydata(), [(1, 0.3), (2, 0.5)])
  band = axes.collections[0].get_paths()[0].vertices
  deviation = np.std([0.2, 0.4], ddof=1)
  assert band[:, 1].min() == pytest.approx(0.3 - deviation)
  assert band[band[:, 0] == 1, 1].max() == pytest.approx(0.3 + deviation)
  # Told apart without any colour.
  looks = {(line.get_linestyle(), line.get_marker()) for line in axes.lines}
  assert len(looks) == 6
  plot.write(tmp_path / 'curves.png', figure)
  assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_trials_of_one_evaluation_have_a_row_each(base, tmp_path):
  made = grid.make_trials({'train.epochs': (1, 2), 'seed': (0, 1)}, base)
  accuracies = [0.5, 0.7, 0.8, 0.9]
  for trial, accuracy in zip(made, accuracies, strict=True):
    write_metrics(tmp_path / trial.name, [accuracy])
  rows = summary.summarize(made, list(map(finished, accuracies)))
  figure = plot.make_figure(tmp_path, rows)
  (axes,) = figure.axes
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels == ['epochs=2', 'epochs=1']
  assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best on top
  dots = [line.get_xdata() for line in axes.lines if line.get_marker() == 'o']
  assert [sorted(values) for values in dots] == [[0.8, 0.9], [0.5, 0.7]]
  means = [bar.lines[0].get_xdata()[0] for bar in axes.containers]
  assert means == pytest.approx([0.85, 0.6])


def test_curves_of_nothing(base, tmp_path):
  made = grid.make_trials({'seed': (0,)}, base)
  rows = summary.summarize(made, [trials.State('to do', {})])
  plot.write(tmp_path / 'a.png', plot.make_figure(tmp_path, rows))
  assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_a_trial_of_a_broken_result_is_told(base, tmp_path):
  (trial,) = grid.make_trials({'seed': (0,)}, base)
  (tmp_path / 'result.json').write_text('{')
  with pytest.raises(UserError, match=r'result.json is damaged'):
    trials.look(tmp_path, trial)
