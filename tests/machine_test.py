"""Tests of what is set for a process that computes."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest
from conftest import ROOT, environment, last_of_each, load_config
from run_files import assert_same_end, problems

from googlenet.errors import UserError
from googlenet.runtime import backend, machine

SUMMARY = ('--mode=summary', f'--config={ROOT}/configs/fmnist96.py')


@pytest.mark.parametrize('name', ['cpu', 'gpu', 'tpu', 'metal'])
def test_the_allocator_is_tuned_on_a_cpu_alone(monkeypatch, capfd, name):
  tuned = []
  monkeypatch.setattr(backend, 'expected_backend', lambda environment: name)
  monkeypatch.setattr(jax, 'default_backend', lambda: name)
  monkeypatch.setattr(machine, 'tune_allocator', lambda: tuned.append(name))
  machine.tune_machine('')
  assert tuned == ['cpu'] * (name == 'cpu')
  assert capfd.readouterr().err == ''


def test_a_wrong_foretelling_is_told(monkeypatch, capfd):
  monkeypatch.setattr(machine, 'tune_allocator', lambda: None)
  monkeypatch.setattr(backend, 'expected_backend', lambda environment: 'cpu')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  machine.tune_machine('')
  assert capfd.readouterr().err.startswith(
    'warning: JAX computes on gpu, although plugins and device files point to '
    'cpu'
  )


def test_a_seed_gives_the_same_numbers_whatever_variables_say(tmp_path):
  """Dropout draws them in the program, as augmentation does."""
  flags = (
    *('--config.model.variant=tiny', '--config.model.kernels=xla'),
    *('--config.model.dropout=0.5', '--config.train.max_steps=2'),
    *('--config.data.image_size=28', '--config.data.eval_split=test[:100]'),
    *('--config.train.batch_size=32', '--config.train.compilation_cache='),
    *('--config.train.precision=float32', '--config.logging.images=0'),
  )
  variables = {
    'JAX_THREEFRY_PARTITIONABLE': '0',
    'JAX_DEFAULT_PRNG_IMPL': 'rbg',
    'JAX_RANDOM_SEED_OFFSET': '7',
  }
  for name, given in (('plain', {}), ('varied', variables)):
    done = launch(
      tmp_path,
      *('--mode=train', f'--workdir={name}', *flags),
      **environment(1) | given,
    )
    assert done.returncode == 0, done.stderr
  assert_same_end(tmp_path / 'plain', tmp_path / 'varied')


def launch(
  folder: pathlib.Path, *flags: str, **variables: str
) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, str(ROOT / 'launch.py'), *last_of_each(SUMMARY + flags)],
    cwd=folder,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', **variables},
    capture_output=True,
    text=True,
  )


def test_the_default_is_that_of_the_config():
  config = load_config(ROOT / 'configs/fmnist96.py')
  assert config.train.compilation_cache == machine.DEFAULT_CACHE


def test_a_home_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
  (tmp_path / 'file').touch()
  done = launch(tmp_path, HOME=str(tmp_path / 'file'))
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].startswith('total ')
  assert problems(done.stderr) == (
    f'warning: compiled programs are not kept: {tmp_path}/file/.cache/'
    'googlenet-haiku cannot be written (Not a directory); '
    "config.train.compilation_cache takes another folder, or '' for none\n"
  )


def test_a_folder_of_the_user_that_cannot_be_made_does(tmp_path):
  (tmp_path / 'file').touch()
  done = launch(tmp_path, '--config.train.compilation_cache=file/cache')
  assert done.returncode == 2
  assert problems(done.stderr).startswith(
    "error: config.train.compilation_cache='file/cache' cannot be made"
  )
  assert problems(done.stderr).count('\n') == 1


def test_haiku_needs_docstrings(tmp_path):
  done = launch(tmp_path, PYTHONOPTIMIZE='2')
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  assert problems(done.stderr).startswith('error: Python runs with -OO')


def test_programs_must_be_compiled():
  with jax.disable_jit(), pytest.raises(UserError, match='JAX_DISABLE_JIT'):
    machine.tune_machine('')


@pytest.fixture
def settings(monkeypatch, tmp_path):
  """Returns what JAX is given; its own are put back."""
  given = {}
  monkeypatch.setattr(machine, 'RANDOM_NUMBERS', {})
  monkeypatch.setattr(jax.config, 'update', given.__setitem__)
  for name in (
    'JAX_COMPILATION_CACHE_DIR',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS',
  ):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  return given


SECONDS = 'jax_persistent_cache_min_compile_time_secs'
FOLDER = 'jax_compilation_cache_dir'


def test_programs_are_kept_in_the_home_of_the_user(settings, tmp_path):
  machine.tune_machine(machine.DEFAULT_CACHE)
  folder = tmp_path / '.cache/googlenet-haiku'
  assert settings == {SECONDS: 0.0, FOLDER: str(folder)}
  assert folder.is_dir()


def test_variables_of_jax_count_where_the_field_has_its_default(
  settings, tmp_path, monkeypatch
):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'gs://bucket/cache')
  machine.tune_machine(machine.DEFAULT_CACHE)
  assert settings == {SECONDS: 0.0}
  monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '1')
  machine.tune_machine(str(tmp_path / 'own'))
  assert settings == {SECONDS: 0.0, FOLDER: str(tmp_path / 'own')}
