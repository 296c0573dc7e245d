"""`net.apply` with edits: traced values in them, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from PIL import Image
from saved_run import save_run

import googlenet
from googlenet.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)


@pytest.fixture(scope='module')
def net(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run') / 'run'
  return googlenet.load(save_run(folder, small_config()))


def logits(net, **kwargs):
  return net.apply(net.params, net.network_state, PIXELS, **kwargs).logits


def test_an_edit_may_hold_values_that_are_traced(net):
  """The logits are linear in the last stage, so its weights are the answer."""

  def shifted(d):
    return logits(net, edit={'stage_2': lambda y: y + d})[:, 0].sum()

  gains = len(PIXELS) * np.asarray(net.params['logits']['w'][:, 0])
  base = float(logits(net)[:, 0].sum())
  d = jnp.arange(len(gains)) / 10
  np.testing.assert_allclose(jax.grad(shifted)(d), gains, rtol=1e-4)
  np.testing.assert_allclose(jax.jit(jax.grad(shifted))(d), gains, rtol=1e-4)
  expected = base + np.arange(3) * gains.sum()
  found = jax.vmap(shifted)(jnp.arange(3.0))
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  np.testing.assert_allclose(jax.jit(shifted)(2.0), expected[2], rtol=1e-4)
  # Not traced: compiled as it is.
  np.testing.assert_allclose(shifted(2.0), expected[2], rtol=1e-4)


def test_one_program_scans_channels(net):
  @jax.jit
  def masked(mask):
    return logits(net, edit={'inception_2a': lambda y: y * mask})

  for i in (0, 5):
    mask = np.ones(28, np.float32)
    mask[i] = 0
    silent = {'inception_2a': lambda y, i=i: y.at[..., i].set(0)}
    expected = logits(net, edit=silent)
    assert np.abs(expected - logits(net)).max() > 1e-3
    np.testing.assert_allclose(masked(mask), expected, atol=1e-5)
  assert masked._cache_size() == 1


def test_an_edit_is_a_function(net):
  with pytest.raises(UserError, match="^edit of 'stage_2': a value of type "):
    logits(net, edit={'stage_2': np.zeros(28)})


def test_one_name_is_not_its_letters(net):
  found = net.apply(net.params, net.network_state, PIXELS, 'stage_2').end_points
  assert set(found) == {'stage_2'}
  assert set(net.features(PIXELS, 'stage_2')) == {'stage_2'}


def test_one_path_is_not_its_letters(net, tmp_path):
  path = tmp_path / 'one.png'
  Image.fromarray(PIXELS[0, ..., 0]).save(path)
  expected = net.predict(PIXELS[:1])
  for one in (path, str(path)):
    np.testing.assert_array_equal(net.read(one), PIXELS[:1])
    np.testing.assert_allclose(net.predict(one), expected, atol=1e-6)


def test_an_unknown_precision(net):
  words = '^precision=fp32 is not allowed.*: it takes one of float32, bfloat16'
  with pytest.raises(UserError, match=words):
    logits(net, precision='fp32')
