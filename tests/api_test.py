"""Odd arguments from Python: taken as they are meant, or refused in a line."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import googlenet
from googlenet.errors import UserError


def refused(call, *args, **kwargs):
  """Returns the message of the UserError of a call; it is one short line."""
  with pytest.raises(UserError) as caught:
    call(*args, **kwargs)
  message = str(caught.value)
  assert '\n' not in message
  assert len(message) < 400
  return message


def test_a_config_by_its_path(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from configs import fmnist96\n'
    'def get_config():\n'
    '  config = fmnist96.get_config()\n'
    '  config.seed = 7\n'
    '  return config\n'
  )
  assert isinstance(path, pathlib.Path)
  assert googlenet.get_config(path).seed == 7


@pytest.mark.parametrize('path', ['a\0b', 'a' * 300, pathlib.Path('a' * 300)])
@pytest.mark.parametrize('name', ['get_config', 'load', 'train'])
def test_a_path_that_none_can_have(name, path):
  config = [googlenet.get_config()] if name == 'train' else []
  message = refused(getattr(googlenet, name), *config, path)
  assert 'cannot be a path' in message


@pytest.mark.parametrize('given', ['fmnist96', None, {'seed': 0}])
def test_what_is_no_config(tmp_path, given):
  expected = f'config is a {type(given).__name__}; allowed is a ConfigDict'
  assert expected in refused(googlenet.train, given, tmp_path / 'run')
  assert expected in refused(googlenet.make_network, given)
  assert expected in refused(googlenet.read_split, given, 'test[:2]')


def test_a_folder_of_images_as_a_path(tmp_path):
  """A path takes the way of its text: here to what is missing in it."""
  net = 'fmnist28_fast'
  messages = [
    refused(googlenet.evaluate, net, data_dir=folder)
    for folder in (tmp_path / 'none', str(tmp_path / 'none'))
  ]
  assert messages[0] == messages[1]
  assert 'none' in messages[0]


def test_what_initialization_refuses():
  config = googlenet.get_config()
  config.model.variant, config.data.image_size = 'tiny', 28
  network = googlenet.make_network(config)
  init = googlenet.init_from_numpy
  for shape in ((28, 28), (1, 28, 28, 1), 28, (28, 28, 0), (28.0, 28, 1), None):
    message = refused(init, network, shape, 0)
    assert message.startswith(f'image_shape={shape} is not allowed')
  for seed in (None, -1, 1.5, 'a'):
    message = refused(init, network, (28, 28, 1), seed)
    assert message.startswith(f'seed={seed!r} is not allowed: it takes a whole')
  drawn = [
    init(network, shape, seed)[0]['logits']['w']
    for shape, seed in (((28, 28, 1), 3), (np.array([28, 28, 1]), np.int64(3)))
  ]
  np.testing.assert_array_equal(*drawn)


def test_dropping_needs_a_key_for_each_image():
  config = googlenet.get_config()
  config.model.variant, config.data.image_size = 'tiny', 28
  with config.ignore_type():
    config.model.dropout = 0.5
  network = googlenet.make_network(config)
  params, state = googlenet.init_from_numpy(network, (28, 28, 1), 0)
  x = jnp.zeros((2, 28, 28, 1))
  key = jax.random.key(0)
  for keys, given in (
    (None, 'None'),
    (key, 'of shape ()'),
    (jax.random.split(key, 3), 'of shape (3,)'),
  ):
    message = refused(network.apply, params, state, keys, x, is_training=True)
    assert message.startswith(f'keys are {given}: dropping in training needs')
    assert 'jax.random.split(key, 2)' in message
