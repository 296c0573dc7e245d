"""The table of trials: what it says of runs that are written here by hand."""

import csv
import io
import json

import numpy as np
import pytest
from conftest import ROOT

from googlenet import config as config_lib
from googlenet.io import checkpoint
from googlenet.tools import trials


def write(folder, config, accuracies, seconds=None, cut=False):
  folder.mkdir()
  resolved = config_lib.resolve(config)
  (folder / 'config.json').write_text(config_lib.to_json(resolved))
  lines = []
  for epoch, accuracy in enumerate(accuracies, start=1):
    lines.append({'step': 5, 'epoch': epoch, 'train/images_per_second': 90.0})
    lines.append({'step': 5, 'epoch': epoch, 'eval/accuracy': accuracy})
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text + ('{"st' if cut else ''))
  if seconds is not None:
    result = {'seconds': seconds, 'train/images_per_second': 100.0}
    (folder / 'result.json').write_text(json.dumps(result))


@pytest.fixture
def runs(config, tmp_path):
  write(tmp_path / 'a', config, [0.5, 0.8, 0.7], 120)
  config.seed = 1
  config.logging.every_steps = 7  # no part of a recipe
  write(tmp_path / 'b', config, [0.8], 60)
  config.augment.flip = 'random'
  config.train.epochs = 3
  write(tmp_path / 'c', config, [0.6], cut=True)
  (tmp_path / 'empty').mkdir()
  return [str(tmp_path / name) for name in ('a', 'b', 'c', 'empty')]


def test_rows_and_means(runs, capsys):
  assert trials.main([*runs, '--format=json']) == 0
  out, err = capsys.readouterr()
  assert 'warning: left out' in err
  assert 'empty' in err
  table = json.loads(out)
  a, b, c = table['trials']
  assert (a['accuracy'], a['best_accuracy'], a['epoch']) == (0.7, 0.8, 3)
  assert (a['images_per_second'], a['minutes'], a['is_finished']) == (
    100.0,
    2.0,
    True,
  )
  assert (a['changes'], b['changes'], b['seed']) == ('', '', 1)
  assert c['changes'] == "augment.flip='random', train.epochs=3"
  assert (c['images_per_second'], c['minutes']) == (90.0, None)
  assert not c['is_finished']
  (group,) = table['groups']  # c is not finished
  assert (group['seeds'], group['minutes']) == (2, 1.5)
  assert group['mean'] == pytest.approx(0.75)
  assert group['deviation'] == pytest.approx(0.05 * 2**0.5)


def test_groups_are_compared_seed_by_seed(config, tmp_path, capsys):
  for flip, accuracies in (('random', [0.5, 0.8]), ('none', [0.4, 0.6])):
    for seed, accuracy in enumerate(accuracies):
      config.augment.flip, config.seed = flip, seed
      write(tmp_path / f'{flip}{seed}', config, [accuracy], 60)
  folders = sorted(map(str, tmp_path.iterdir()))
  assert trials.main([*folders, '--format=json']) == 0
  (pair,) = json.loads(capsys.readouterr().out)['pairs']
  assert pair['changes'] == "augment.flip='random'"
  assert (pair['minus'], pair['seeds']) == ('(none)', 2)
  assert pair['difference'] == pytest.approx(0.15)
  assert pair['error'] == pytest.approx(0.05)  # of 0.1 and 0.2
  assert trials.main(folders) == 0
  text = capsys.readouterr().out.split('\n\n')[2]
  assert text.splitlines()[1].split()[1:4] == ['2', '0.15', '0.05']


def test_the_folder_of_a_sweep_is_left_out_by_name(runs, capsys, tmp_path):
  write(tmp_path / 'sweep', trials.load_config(runs[0], False), [])
  (tmp_path / 'sweep/sweep.json').write_text('{}')
  assert trials.main([f'{tmp_path}/sweep', runs[0], '--format=json']) == 0
  out, err = capsys.readouterr()
  assert err == (
    f'warning: left out: {tmp_path}/sweep holds a sweep and is no run: give '
    f'its trials, {tmp_path}/sweep/*/\n'
  )
  assert [t['workdir'] for t in json.loads(out)['trials']] == [runs[0]]


def test_a_seed_counts_once_and_alone_has_no_deviation(runs, capsys):
  assert trials.main([runs[0], runs[0], '--format=json']) == 0
  (group,) = json.loads(capsys.readouterr().out)['groups']
  assert (group['seeds'], group['mean'], group['deviation']) == (1, 0.7, None)


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('result.json', b'[]'),
    ('result.json', b'{"sec'),
    ('metrics.jsonl', b'5\n{"step": 1}\n\xff\n[]\n{"eval/accuracy": 1}\n'),
  ],
)
def test_damaged_files_lose_no_table(runs, tmp_path, capsys, name, content):
  (tmp_path / 'a' / name).write_bytes(content)
  assert trials.main([*runs[:2], '--format=json']) == 0
  out, err = capsys.readouterr()
  assert not err
  table = json.loads(out)
  assert [trial['workdir'] for trial in table['trials']] == runs[:2]
  if name == 'result.json':
    assert not table['trials'][0]['is_finished']
  else:
    assert table['trials'][0]['accuracy'] is None


def test_when_a_run_is_scored_is_no_part_of_its_recipe(runs, tmp_path, capsys):
  path = tmp_path / 'b/config.json'
  config = json.loads(path.read_text())
  config['eval'] |= {'every_epochs': 7, 'batch_size': 11, 'crops': 10}
  path.write_text(json.dumps(config))
  assert trials.main([*runs[:2], '--format=json']) == 0
  table = json.loads(capsys.readouterr().out)
  assert [trial['changes'] for trial in table['trials']] == ['', '']
  assert table['groups'][0]['seeds'] == 2


def test_a_distilled_run_is_another_recipe(config, tmp_path, capsys):
  for name, teacher in (('alone', ()), ('taught', ('fmnist28_best',))):
    for config.seed in (0, 1):
      config.train.teacher = teacher
      write(tmp_path / f'{name}{config.seed}', config, [0.5], 60)
  folders = sorted(map(str, tmp_path.iterdir()))
  assert trials.main([*folders, '--format=json']) == 0
  table = json.loads(capsys.readouterr().out)
  taught = "train.teacher=('fmnist28_best',)"
  found = [(group['changes'], group['seeds']) for group in table['groups']]
  assert found == [('', 2), (taught, 2)]


def test_text_and_csv_say_the_same(runs, capsys):
  base = f'--base={ROOT / "configs/fmnist96.py"}'
  assert trials.main([*runs[:3], base]) == 0
  text = capsys.readouterr().out
  assert "model.variant='tiny'" in text
  assert '0.75' in text.split('\n\n')[1]
  assert trials.main([*runs[:3], base, '--format=csv']) == 0
  rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
  assert [row['accuracy'] for row in rows] == ['0.7', '0.8', '0.6']
  assert "model.variant='tiny'" in rows[0]['changes']


def test_a_long_field_is_cut_in_the_table_alone(runs, capsys):
  changes = 'model.architecture=' + 3000 * 'x'
  trial = trials.read_trial(runs[0], trials.load_config(runs[0], False))
  trial = trial._replace(changes=changes)
  assert changes[:100] in (text := trials.render([trial], 'text'))
  assert max(map(len, text.splitlines())) < 400
  for form in ('csv', 'json'):
    assert changes in trials.render([trial], form)


def test_a_base_is_what_config_takes(runs, capsys):
  changes = []
  for base in ('fmnist96', 'configs/fmnist96.py', runs[1], f'{runs[1]}/config'):
    path = f'{base}.json' if base.endswith('/config') else base
    assert trials.main([runs[0], f'--base={path}', '--format=json']) == 0
    (trial,) = json.loads(capsys.readouterr().out)['trials']
    changes.append(trial['changes'])
  assert changes[0] == changes[1]
  assert "model.variant='tiny'" in changes[0]
  assert changes[2:] == ['', '']


def test_runs_on_different_folders_are_different_recipes(
  config, tmp_path, capsys
):
  config.data.source = 'folder'
  for i, photos in enumerate(('cats', 'cats', 'dogs')):
    config.data.data_dir, config.seed = photos, i % 2
    write(tmp_path / str(i), config, [0.5], 60)
  folders = sorted(map(str, tmp_path.iterdir()))
  assert trials.main([*folders, '--format=json']) == 0
  groups = json.loads(capsys.readouterr().out)['groups']
  assert [(group['changes'], group['seeds']) for group in groups] == [
    ('', 2),
    ("data.data_dir='dogs'", 1),
  ]


def test_published_runs_are_told_apart_by_their_images(
  config, tmp_path, capsys
):
  config.data.source = 'folder'
  for i, files in enumerate(('aaaaaaaaa', 'aaaaaaaaa', 'bbbbbbbbb')):
    config.seed = i % 2
    write(tmp_path / str(i), config, [0.5], 60)
    checkpoint.folder_of(tmp_path / str(i)).mkdir()
    tree = {'params': {'a': {'w': np.zeros(1)}}}
    snapshot = checkpoint.Snapshot(5, tree, {'data': {'files': files}})
    checkpoint.save(tmp_path / str(i), snapshot)
  folders = sorted(map(str, tmp_path.iterdir()))
  assert trials.main([*folders, '--format=json']) == 0
  groups = json.loads(capsys.readouterr().out)['groups']
  assert [(group['changes'], group['seeds']) for group in groups] == [
    ('images=aaaaaaaa', 2),
    ('images=bbbbbbbb', 1),
  ]


def test_a_base_is_loaded_as_config_is(runs, tmp_path, capsys):
  """It may import its neighbours, and leave fields to the data set."""
  (tmp_path / 'sibling.py').write_text('EPOCHS = 7\n')
  base = tmp_path / 'base.py'
  base.write_text(
    'import dataclasses\n'
    'import sibling\n'
    'from googlenet import config as config_lib\n'
    '@dataclasses.dataclass\n'
    'class Recipe:\n'
    '  epochs: "int" = sibling.EPOCHS\n'
    'def get_config():\n'
    '  config = config_lib.default_config()\n'
    "  config.model.variant, config.data.mean = 'tiny', ('auto',)\n"
    '  config.train.epochs = Recipe().epochs\n'
    '  return config\n'
  )
  assert config_lib.default_config().model.num_classes == 0
  assert trials.main([runs[0], f'--base={base}', '--format=json']) == 0
  out, err = capsys.readouterr()
  assert not err
  (trial,) = json.loads(out)['trials']
  assert 'train.epochs=' in trial['changes']
  assert 'num_classes' not in trial['changes']
  assert 'data.mean' not in trial['changes']
  base.write_text('')
  assert trials.main([runs[0], f'--base={base}']) == 2
  err = capsys.readouterr().err
  assert err.startswith(f'error: --base={base} has no get_config()')


@pytest.mark.parametrize('flags', [[], ['--base=none.py'], ['--base=none']])
def test_bad_input_is_one_line(runs, capsys, flags):
  folders = runs[:1] if flags else runs[3:]
  assert trials.main([*folders, *flags]) == 2
  out, err = capsys.readouterr()
  assert not out
  assert err.splitlines()[-1].startswith('error: ')


def test_a_run_is_named_as_for_the_modes(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  names = 'fmnist28_fast', 'fmnist28_long'
  assert trials.main([*names, '--format=json']) == 0
  found = json.loads(capsys.readouterr().out)['trials']
  assert all(trial['accuracy'] > 0.9 for trial in found)
  assert len(found) == 2
