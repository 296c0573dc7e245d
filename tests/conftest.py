"""Shared by all tests: workers, config files as modules, ways to launch."""

import gc
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import jax
import ml_collections
import photos
import pytest
from run_files import files_under

import launch

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A network of two layers on small images: seconds, not minutes. Programs that
# call oneDNN cannot be cached: what is not about kernels does without. In
# float32, whose rounding is small enough for exact comparisons.
SMALL = (
  '--config.model.variant=tiny',
  '--config.model.kernels=xla',
  '--config.data.image_size=28',
  '--config.train.max_steps=6',
  '--config.train.batch_size=64',
  '--config.train.precision=float32',
  '--config.logging.every_steps=2',
  '--config.logging.images=0',
  '--config.data.eval_split=test[:1000]',
)

# Compiling takes most of the time here, so programs are compiled with few
# optimizations: in this process, and in those that tests start, which inherit
# the variable. `optimized=True` starts one that compiles as a user's does.
FEW_OPTIMIZATIONS = 'JAX_DISABLE_MOST_OPTIMIZATIONS'
os.environ.setdefault(FEW_OPTIMIZATIONS, 'true')
jax.config.update(
  'jax_disable_most_optimizations',
  os.environ[FEW_OPTIMIZATIONS].lower() in ('1', 'true', 't', 'yes', 'on'),
)

# JAX makes many small objects that live on: to search them for garbage as often
# as Python does takes a tenth of the time.
gc.set_threshold(50_000, 20, 20)

MAX_WORKERS = 8  # each holds 1 GiB and more


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
  """The suite takes a worker for each core; -n 4 says otherwise.

  A part of it is done sooner without the start of workers; -s would show
  nothing of theirs; slow tests need the machine to themselves.
  """
  option = config.option
  is_one_file = len(config.args) == 1 and '.py' in config.args[0]
  is_slow = option.markexpr != 'not slow'
  if is_one_file or option.keyword or is_slow or option.capture == 'no':
    return 0
  try:
    cores = len(os.sched_getaffinity(0))
  except AttributeError:  # not Linux
    cores = os.cpu_count() or 1
  return min(cores, MAX_WORKERS) if cores > 1 else 0


def load_config(path: pathlib.Path | str) -> ml_collections.ConfigDict:
  """Returns get_config() of a config file, as --config does."""
  spec = importlib.util.spec_from_file_location('config_file', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  if not config.model.num_classes:  # as `data.auto` finds in the bundled set
    config.model.num_classes = 10
  return config


def small_config() -> ml_collections.ConfigDict:
  """The default config, unlocked, made small as `SMALL` does."""
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.variant = 'tiny'
  config.model.kernels = 'xla'
  config.data.image_size = 28
  config.data.eval_split = 'test[:1000]'
  config.train.batch_size = 64
  config.train.max_steps = 6
  config.train.precision = 'float32'
  config.logging.every_steps = 2
  config.logging.images = 0
  return config


@pytest.fixture
def config() -> ml_collections.ConfigDict:
  return small_config()


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
  """A cache of compiled programs, shared by all workers and their processes.

  JAX writes its files in place, so a worker may read half of one. JAX finds out
  and compiles the program itself; pyproject.toml ignores its warning.
  """
  base = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    base = base.parent  # a worker has a folder of its own there
  folder = str(base / 'compilation_cache')
  # Counts where the field has its default: the config of a run keeps no folder.
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  return folder


@pytest.fixture(scope='module', autouse=True)
def free_programs() -> Iterator[None]:
  """Drops compiled programs after each file of tests.

  Each maps memory of its own, and a process may have 65,530 of such maps: at
  the end of a long run XLA crashed where it got no more.
  """
  yield
  jax.clear_caches()


@pytest.fixture(scope='session')
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Two sets of JPEGs as TFDS keeps them, `photos` and `damaged_photos`."""
  folder = tmp_path_factory.mktemp('photos')
  for builder_cls in (photos.Photos, photos.DamagedPhotos):
    photos.prepare(builder_cls, folder)
  return folder


def environment(devices: int, optimized: bool = False) -> dict[str, str]:
  """Variables for a process: how many devices it has, how it compiles."""
  return {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    FEW_OPTIMIZATIONS: str(not optimized),
  }


Launch = Callable[..., subprocess.CompletedProcess]


def config_flags(config: str, compilation_cache: str) -> list[str]:
  """Flags for a config file of this repository, or none for ''."""
  if not config:
    return []
  return [
    f'--config={ROOT / config}',
    f'--config.train.compilation_cache={compilation_cache}',
  ]


def last_of_each(flags: Sequence[str]) -> list[str]:
  """Leaves out what a later flag replaces, of which a warning would tell."""
  last = {flag.partition('=')[0]: i for i, flag in enumerate(flags)}
  return [
    flag
    for i, flag in enumerate(flags)
    if '=' not in flag or last[flag.partition('=')[0]] == i
  ]


def start(
  folder: pathlib.Path,
  *flags: str,
  devices: int = 1,
  optimized: bool = False,
  timeout: float = 900,
) -> subprocess.CompletedProcess:
  """Runs `python launch.py` to its end in a process of its own.

  The line that says what is started is left out: tests look for problems.
  """
  done = subprocess.run(
    [sys.executable, str(ROOT / 'launch.py'), *last_of_each(flags)],
    cwd=folder,
    env={**os.environ, **environment(devices, optimized)},
    capture_output=True,
    text=True,
    timeout=timeout,
  )
  done.stderr = re.sub('^mode     .*\n', '', done.stderr)
  return done


@pytest.fixture
def launch_py(tmp_path: pathlib.Path, compilation_cache: str) -> Launch:
  """Runs `python launch.py` as a user would, in an empty current folder."""

  def run(
    *flags: str, config: str = 'configs/fmnist96.py', **options: int
  ) -> subprocess.CompletedProcess:
    given = config_flags(config, compilation_cache)
    return start(tmp_path, *given, *flags, **options)

  return run


@pytest.fixture
def launch_here(
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
  capfd: pytest.CaptureFixture,
  compilation_cache: str,
) -> Launch:
  """Does the same in this process, without the seconds of a start.

  `launch.main` is all that `python launch.py` calls. An exception that it lets
  through, of which a user would see a page, ends the test.
  """
  monkeypatch.chdir(tmp_path)

  def run(
    *flags: str, config: str = 'configs/fmnist96.py'
  ) -> subprocess.CompletedProcess:
    flags = (*config_flags(config, compilation_cache), *flags)
    argv = ['launch.py', *last_of_each(flags)]
    capfd.readouterr()
    code = launch.main(argv)
    return subprocess.CompletedProcess(argv, code, *capfd.readouterr())

  return run


@pytest.fixture
def assert_refused(tmp_path: pathlib.Path, launch_here: Launch) -> Callable:
  """Asserts that bad input gets exit code 2 and a line, and writes nothing."""

  def check(flags: Sequence[str] | None, words: Sequence[str]) -> None:
    before = files_under(tmp_path)
    if flags is None:
      done = launch_here(config='')
    else:
      done = launch_here(*SMALL, *flags)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith('error: ')
    assert done.stderr.count('\n') == 1, done.stderr
    for word in words:
      assert word in done.stderr
    now = files_under(tmp_path)
    assert [name for name in now if '__pycache__' not in name] == before

  return check


@pytest.fixture(scope='session')
def trained_run(
  tmp_path_factory: pytest.TempPathFactory, compilation_cache: str
) -> pathlib.Path:
  """The workdir of a finished run of `SMALL`: to read, or to copy."""
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  given = config_flags('configs/fmnist96.py', compilation_cache)
  assert launch.main(['', *given, *SMALL, f'--workdir={workdir}']) == 0
  return workdir
