"""Odd arguments from Python: taken as they are meant, or refused in a line."""

import pathlib

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
