"""Scoring a run that is there, and one that is damaged."""

import shutil

import numpy as np
import pytest
from run_files import problems


def test_evaluation_takes_overrides_of_the_runs_config(
  launch_here, trained_run
):
  done = launch_here(
    '--mode=evaluate',
    f'--workdir={trained_run}',
    '--config.data.eval_split=train[50000:50300]',
    config='',
  )
  assert done.returncode == 0, done.stderr
  assert 'train[50000:50300]: accuracy' in done.stdout
  assert 'on 300 images' in done.stdout


DAMAGE = {
  'truncated': ('checkpoints/step_000000006.npz', 'is damaged'),
  'of another network': ('checkpoints/step_000000006.npz', 'another network'),
  'not finite': ('checkpoints/step_000000006.npz', 'loss of these'),
  'config damaged': ('config.json', 'is damaged'),
  'config gone': ('config.json', 'holds no run'),
  'checkpoint gone': ('checkpoints', 'holds no checkpoint'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_evaluating_a_damaged_run(launch_here, trained_run, tmp_path, damage):
  shutil.copytree(trained_run, tmp_path / 'run')
  name, words = DAMAGE[damage]
  path, flags = tmp_path / 'run' / name, []
  if damage == 'truncated':
    path.write_bytes(path.read_bytes()[:5000])
  elif damage == 'of another network':
    flags.append('--config.model.num_classes=12')
  elif damage == 'not finite':
    with np.load(path) as file:
      arrays = dict(file)
    arrays['params/logits/b'][0] = np.nan
    np.savez(path, **arrays)
  elif damage == 'config damaged':
    path.write_bytes(b'\xff\xfe{}')
  else:
    path.rename(tmp_path / 'elsewhere')
  done = launch_here('--mode=evaluate', '--workdir=run', *flags, config='')
  assert done.returncode == 2
  stderr = problems(done.stderr)
  assert stderr.startswith('error: ')
  assert stderr.count('\n') == 1, done.stderr
  assert words in done.stderr
  assert 'run' in done.stderr
