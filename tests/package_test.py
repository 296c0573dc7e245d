"""The installed package: what it declares, holds and finds.

The slow tests build and install the wheel, into an environment that sees the
libraries of this one.
"""

import importlib
import inspect
import os
import pathlib
import pydoc
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import numpy as np
import pytest
from conftest import FEW_OPTIMIZATIONS, ROOT, SMALL, environment

import googlenet
from googlenet.runtime import places

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))


SHARE = pathlib.PurePosixPath('googlenet', '_share')


def requirements(part: str) -> list[str]:
  """The lines of requirements.txt before or after its heading, uncommented."""
  text = (ROOT / 'requirements.txt').read_text(encoding='utf-8')
  parts = dict(
    zip(('run', 'test'), text.split('# Tests and lint'), strict=True)
  )
  lines = [
    re.split(r'(?:^|\s+)#', line)[0] for line in parts[part].splitlines()
  ]
  return [line.strip() for line in lines if line.strip()]


def test_pip_installs_what_requirements_txt_lists():
  """Whoever changes one of the two files changes the other."""
  project = PROJECT['project']
  assert project['dependencies'] == requirements('run')
  assert project['optional-dependencies']['test'] == requirements('test')


def test_the_version_is_in_one_place():
  assert PROJECT['project']['dynamic'] == ['version']
  assert 'version' not in PROJECT['project']
  assert PROJECT['tool']['hatch']['version']['path'] == 'googlenet/__init__.py'
  newest = re.search(
    r'^## \[(.+?)\]', (ROOT / 'CHANGELOG.md').read_text('utf-8'), re.MULTILINE
  )
  assert newest[1] == googlenet.__version__


def test_the_licences_it_declares_are_there():
  for path in PROJECT['project']['license-files']:
    assert (ROOT / path).read_text(encoding='utf-8')


def test_the_command_is_the_program():
  target = PROJECT['project']['scripts']['googlenet']
  module, _, name = target.partition(':')
  assert callable(getattr(importlib.import_module(module), name))
  done = subprocess.run(
    [sys.executable, '-m', 'googlenet', '--help', '--mode=sweep'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '  python -m googlenet --mode=sweep --config=configs' in done.stdout


# ---- Configs and networks by name.


@pytest.mark.parametrize('name', ['fmnist28_fast', 'configs/fmnist28_fast.py'])
def test_configs_are_found_from_any_folder(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = places.find_config(name)
  assert path == str(ROOT / 'configs/fmnist28_fast.py')
  assert googlenet.get_config(name).model.variant == 'fmnist28'
  assert places.find_config(f'{name}:text') == f'{path}:text'


def test_what_is_in_the_folder_goes_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('nothing', 'a/fmnist96.py', 'fmnist96.py', '../fmnist96', ''):
    assert places.find_config(name) == name
  own = tmp_path / 'configs/fmnist96.py'
  own.parent.mkdir()
  own.write_text('')
  assert places.find_config('configs/fmnist96.py') == 'configs/fmnist96.py'
  assert places.find_config('fmnist96') == str(ROOT / 'configs/fmnist96.py')


def test_configs_of_the_user_build_on_those_of_the_project(tmp_path):
  """Both folders are called `configs`; the project's is not on the path."""
  folder = tmp_path / 'configs'
  folder.mkdir()
  (folder / 'own.py').write_text('STEPS = 7\n')
  (folder / 'mine.py').write_text(
    'from configs import fmnist96\n'
    'import own\n'
    'def get_config():\n'
    '  config = fmnist96.get_config().unlock()\n'
    '  config.train.max_steps = own.STEPS\n'
    '  return config.lock()\n'
  )
  code = (
    'import os, sys\n'
    f'sys.path.append({str(ROOT)!r})\n'
    'import googlenet\n'
    f'sys.path.remove({str(ROOT)!r})\n'
    'before = list(sys.path)\n'
    'print(googlenet.get_config("configs/mine.py").train.max_steps)\n'
    'assert sys.path == before\n'
  )
  done = subprocess.run(
    [sys.executable, '-I', '-c', code],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env={**os.environ, **environment(1)},
  )
  assert done.stdout == '7\n', done.stderr


def test_a_process_of_the_program_is_started_in_either_place(monkeypatch):
  assert places.launcher() == [sys.executable, str(ROOT / 'launch.py')]
  monkeypatch.setattr(places, 'ROOT', places._SHARE)
  assert places.launcher() == [sys.executable, '-P', '-m', 'googlenet']
  assert 'pip install' in places.how_to_restore(ROOT / 'a')


# ---- What `import googlenet` offers.


def test_the_public_names_are_there_and_shown():
  text = pydoc.plain(pydoc.render_doc(googlenet))
  for name in googlenet.__all__:
    found = getattr(googlenet, name)
    assert inspect.getdoc(found)
    assert callable(found)
    assert name in text
  assert list(inspect.signature(googlenet.train).parameters) == [
    'config',
    'workdir',
    'allow_config_change',
  ]
  with pytest.raises(AttributeError, match='nothing'):
    _ = googlenet.nothing


def test_importing_it_imports_no_library():
  code = 'import sys, googlenet; print("jax" in sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout == 'False\n', done.stderr


def test_train_load_evaluate(tmp_path, config, capfd):
  """A run from Python, and again: what is finished is not trained twice."""
  run = tmp_path / 'run'
  result = googlenet.train(config, run)
  assert result['step'] == config.train.max_steps
  assert googlenet.train(config, str(run)) == result
  scores = googlenet.evaluate(run)
  assert scores.accuracy == pytest.approx(result['eval/accuracy'])
  assert scores.loss == pytest.approx(result['eval/loss'], rel=1e-5)
  assert googlenet.evaluate(googlenet.load(run), 'test[:10]').count == 10
  out, err = capfd.readouterr()  # no terminal, as in a notebook: whole lines
  assert '\r' not in out + err
  assert '\x1b' not in out + err


def test_own_images_are_evaluated(tmp_path, config):
  """A run does not name a folder of the user, so that is given again."""
  rng = np.random.default_rng(0)
  data = tmp_path / 'data.npz'
  arrays = {
    f'{split}_{kind}': values
    for split in ('train', 'test')
    for kind, values in (
      ('images', rng.integers(0, 255, (64, 28, 28), np.uint8)),
      ('labels', np.arange(64) % 10),
    )
  }
  np.savez(data, **arrays)
  config.data.source, config.data.data_dir = 'arrays', str(data)
  config.data.eval_split = 'test'
  result = googlenet.train(config, tmp_path / 'run')
  with pytest.raises(googlenet.UserError, match='data_dir is missing'):
    googlenet.evaluate(tmp_path / 'run')
  scores = googlenet.evaluate(tmp_path / 'run', data_dir=str(data))
  assert scores.count == 64
  assert scores.accuracy == pytest.approx(result['eval/accuracy'])


def test_bad_input_is_told_as_on_the_command_line(tmp_path, config):
  with pytest.raises(googlenet.UserError, match='no such file'):
    googlenet.get_config('nothing')
  config.train.epochs = -1
  for call in (
    lambda: googlenet.train(config, tmp_path / 'run'),
    lambda: googlenet.make_network(config),
    lambda: googlenet.read_split(config, 'test'),
  ):
    with pytest.raises(googlenet.UserError, match='train.epochs=-1'):
      call()
  with pytest.raises(googlenet.UserError, match='holds no run'):
    googlenet.evaluate(tmp_path / 'run')
  assert not list(tmp_path.iterdir())


def test_the_loop_of_the_docs(capsys):
  """The example of one's own training loop, on a small network."""
  text = (ROOT / 'docs/use.md').read_text(encoding='utf-8')
  loop = next(
    block
    for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    if 'def step(' in block
  )
  loop = loop.replace("'fmnist28'", "'tiny'").replace(", 'train')", ", 'test')")
  exec(compile(loop, 'loop', 'exec'), {})
  out = capsys.readouterr().out.splitlines()
  losses = [float(re.search(r'loss (\S+)', line)[1]) for line in out]
  assert len(losses) >= 2
  assert losses[-1] < 0.8 * losses[0]


# ---- The wheel.


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> pathlib.Path:
  """Built by pip, which installs the build backend aside."""
  folder = tmp_path_factory.mktemp('wheel')
  subprocess.run(
    [
      *(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps'),
      *('-w', str(folder), str(ROOT)),
    ],
    check=True,
  )
  (path,) = folder.glob('*.whl')
  return path


@pytest.mark.slow
def test_the_wheel_holds_the_files_of_three_folders(wheel):
  # What .gitignore names: of Python, and of modes that look at the networks.
  written = {'lock', 'report.html', 'comparison.html'}
  files = [
    path.relative_to(ROOT)
    for name in ('googlenet', 'configs', 'pretrained')
    for path in (ROOT / name).rglob('*')
    if path.is_file()
    and '__pycache__' not in path.parts
    and not (name == 'pretrained' and path.name in written)
  ]
  expected = {
    str(path if path.parts[0] == 'googlenet' else SHARE / path)
    for path in files
  }
  names = zipfile.ZipFile(wheel).namelist()
  assert {name for name in names if '.dist-info/' not in name} == expected


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_clone(wheel, tmp_path):
  subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'env'], check=True)
  scripts = tmp_path / 'env' / ('Scripts' if os.name == 'nt' else 'bin')
  python = scripts / 'python'
  subprocess.run(
    [python, '-m', 'pip', 'install', '-q', '--no-deps', wheel], check=True
  )
  where = subprocess.run(
    [python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()
  # The libraries of this environment, after the installed package.
  pathlib.Path(where, 'libraries.pth').write_text(sysconfig.get_path('purelib'))
  work = tmp_path / 'work'
  work.mkdir()

  def run(*command: str) -> str:
    done = subprocess.run(
      [scripts / 'googlenet', *command]
      if command[0] != '-c'
      else [python, *command],
      cwd=work,
      env={**os.environ, **environment(1), FEW_OPTIMIZATIONS: 'true'},
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  assert str(ROOT) not in run('-c', 'import googlenet; print(googlenet)')
  assert run('--version').startswith(f'googlenet {googlenet.__version__}')
  assert '\n  googlenet --config=configs/fmnist96.py' in run('--help')
  run('--config=fmnist96', *SMALL, '--workdir=run')
  run('--mode=report', '--workdir=run')
  assert (work / 'run/report.html').stat().st_size > 10_000
  run(
    '--mode=sweep', '--config=configs/fmnist96.py', *SMALL,
    '--config.train.max_steps=1', '--sweep=seed=0,1', '--workdir=sweep',
  )  # fmt: skip
  assert (work / 'sweep/summary.csv').exists()
  scores = run(
    '--mode=evaluate',
    '--workdir=fmnist28_fast',
    '--config.data.eval_split=test[:500]',
  )
  assert 'accuracy 0.9' in scores
