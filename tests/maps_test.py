"""Programs that nobody can call any more are freed before maps run out."""

import gc

import jax
import jax.numpy as jnp
import pytest

from googlenet.runtime import maps
from googlenet.runtime.parallel import parallelize


def files(folder, most, used):
  (folder / 'sys/vm').mkdir(parents=True)
  (folder / 'sys/vm/max_map_count').write_text(f'{most}\n')
  (folder / 'self').mkdir()
  (folder / 'self/maps').write_text('7f00-7f01 rw-p\n' * used)


def programs():
  gc.collect()
  return len(jax.local_devices()[0].client.live_executables())


def multiply_on_devices(number):
  factor = jnp.float32(number)
  function = parallelize(lambda x: x * factor, in_axes=(0,), what='')
  x = jnp.ones((jax.local_device_count(), 3))
  assert float(function(x)[0, 0]) == number
  return function


@pytest.mark.parametrize(
  ('most', 'used', 'scarce'), [(10, 5, False), (10, 6, True)]
)
def test_half_of_the_maps_may_be_used(
  monkeypatch, tmp_path, most, used, scarce
):
  files(tmp_path, most, used)
  monkeypatch.setattr(maps, '_PROC', tmp_path)
  assert maps.are_scarce() == scarce


def test_nothing_is_known_on_other_systems(monkeypatch, tmp_path):
  monkeypatch.setattr(maps, '_PROC', tmp_path)
  assert not maps.are_scarce()


def test_functions_that_are_gone_leave_no_programs(monkeypatch, tmp_path):
  files(tmp_path, 10, 6)
  monkeypatch.setattr(maps, '_PROC', tmp_path)
  kept = multiply_on_devices(2)
  multiply_on_devices(3)
  before = programs()
  for number in range(4, 9):
    multiply_on_devices(number)
  assert programs() <= before
  x = jnp.ones((jax.local_device_count(), 3))
  assert float(kept(x)[0, 0]) == 2
