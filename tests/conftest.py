"""Shared by all tests: config files as modules, launch.py as a process."""

import importlib.util
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import jax
import ml_collections
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A network of two layers on small images: seconds, not minutes.
SMALL = (
  '--config.model.variant=tiny',
  '--config.data.image_size=28',
  '--config.train.max_steps=6',
  '--config.train.batch_size=64',
  '--config.logging.every_steps=2',
  '--config.logging.images=0',
  '--config.data.eval_split=test[:1000]',
)


def load_config(path: pathlib.Path | str) -> ml_collections.ConfigDict:
  """Returns get_config() of a config file, as --config does."""
  spec = importlib.util.spec_from_file_location('config_file', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


@pytest.fixture
def config() -> ml_collections.ConfigDict:
  """The default config, unlocked, made small."""
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.variant = 'tiny'
  config.data.image_size = 28
  config.data.eval_split = 'test[:1000]'
  config.train.batch_size = 64
  config.train.max_steps = 6
  config.logging.every_steps = 2
  config.logging.images = 0
  return config


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
  """A cache of compiled programs, shared by all tests and their processes."""
  folder = str(tmp_path_factory.mktemp('compilation_cache'))
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


Launch = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def launch_py(tmp_path: pathlib.Path, compilation_cache: str) -> Launch:
  """Runs `python launch.py` as a user would, in an empty current folder."""

  def run(
    *flags: str,
    devices: int = 1,
    config: str = 'configs/fmnist96.py',
    timeout: float = 300,
  ) -> subprocess.CompletedProcess:
    paths = [f'--config={ROOT / config}'] if config else []
    if config:
      paths.append(f'--config.train.compilation_cache={compilation_cache}')
    environment = {
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    }
    return subprocess.run(
      [sys.executable, str(ROOT / 'launch.py'), *paths, *flags],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
      timeout=timeout,
    )

  return run
