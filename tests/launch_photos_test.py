"""Training on JPEGs that are read while it goes on, with workers."""

import os
import re
import signal
import subprocess
import sys

import photos
import pytest
from conftest import ROOT, SMALL
from run_files import arrays


def last_of_each(*flags):
  """Leaves out flags that later ones override: two would be warned of."""
  return list({flag.partition('=')[0]: flag for flag in flags}.values())


@pytest.mark.slow
def test_trains_on_jpegs_with_the_same_bits_from_any_workers(
  launch_here, photos_dir, tmp_path
):
  flags = last_of_each(*SMALL, *photos.flags(photos_dir))
  for num_workers in (0, 2):
    done = launch_here(
      *flags,
      f'--workdir={num_workers}',
      f'--config.data.workers={num_workers}',
      '--config.data.on_device_mb=0',
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert 'photos (tfds): 200 train' in done.stdout
    assert '28x28x3, streamed' in done.stdout
    assert 'on 37 images after 6 steps' in done.stdout
  last = 'checkpoints/step_000000006.npz'
  assert arrays(tmp_path / '0' / last) == arrays(tmp_path / '2' / last)

  def evaluate(workdir, *flags):
    where = f'--config.data.data_dir={photos_dir}'
    return launch_here(
      '--mode=evaluate', f'--workdir={workdir}', where, *flags, config=''
    )

  done = evaluate('0', '--config.eval.crops=10')
  assert done.returncode == 0, done.stderr
  assert 'on 37 images, 10 crops' in done.stdout
  # Two networks that are the same, the average of which is too.
  one, both = evaluate('0'), evaluate('0,2')
  assert both.returncode == 0, both.stderr
  assert '2 networks averaged' in both.stdout
  scores = [
    re.search('accuracy.*loss [0-9.]*', done.stdout)[0] for done in (one, both)
  ]
  assert scores[0] == scores[1]

  done = evaluate('0,2,3', '--config.eval.crops=10')
  assert done.returncode == 2
  assert done.stderr.startswith('error: --workdir=3 holds no run')


def test_ctrl_c_ends_the_workers_too(tmp_path, photos_dir, compilation_cache):
  process = subprocess.Popen(
    [
      sys.executable,
      str(ROOT / 'launch.py'),
      f'--config={ROOT}/configs/fmnist96.py',
      f'--config.train.compilation_cache={compilation_cache}',
      *last_of_each(
        *SMALL,
        *photos.flags(photos_dir),
        '--config.data.workers=2',
        '--config.train.max_steps=0',
        '--config.train.epochs=100000',
        '--config.eval.every_epochs=100000',
        '--config.checkpoint.every_epochs=100000',
      ),
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=tmp_path,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    start_new_session=True,
  )
  for line in process.stdout:
    if line.startswith('step 4/'):
      break
  os.killpg(process.pid, signal.SIGINT)  # as a terminal does
  # Workers inherit its output, which ends with the last process that holds it.
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 75
  *_, line = errors.splitlines()  # what starts, and that it is heard
  assert line.startswith('ended on SIGINT after step')
