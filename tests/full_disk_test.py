"""A full disk: exit code 74, the file is named, nothing is left or lost."""

import errno
import io
import os
import re
import resource
import sys

import matplotlib.figure
import numpy as np
import pytest
from conftest import ROOT
from run_files import files_under

from googlenet.cli.process import ending
from googlenet.errors import EXIT_CANNOT_WRITE, UserError
from googlenet.io import archive, array_files, workdir
from googlenet.tools import hub, publish, trials
from googlenet.tools.inference import feature_files, outputs
from googlenet.tools.sweep import folder as sweep_folder
from googlenet.tools.sweep import plot

DATA = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8)


def write_text_aside(path):
  with outputs.written_aside(path, 'w') as file:
    file.write('a' * 10_000)


def write_features(writer):
  def write(path):
    with writer(path) as file:
      for _ in range(3):
        file.write({'a': DATA[None]})

  return write


WRITERS = {
  'text': lambda path: workdir.write_text(path, 'a' * 10_000),
  'output': write_text_aside,
  'npz': lambda path: archive.write(path, {'a': DATA}),
  'safetensors': lambda path: array_files.write(path, {'a': DATA}),
  'features': write_features(feature_files.npz),
  'array_record': write_features(feature_files.array_record),
  'png': lambda path: plot.write(path, matplotlib.figure.Figure()),
}


@pytest.fixture
def full():
  """No file may grow beyond a KiB, as on a disk that has no more."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('kind', WRITERS)
def test_what_cannot_be_written_is_named(kind, full, tmp_path, capsys):
  suffix = '.safetensors' if kind == 'safetensors' else '.npz'
  path = tmp_path / f'out{suffix}'
  path.write_text('old')
  with ending() as end:
    WRITERS[kind](path)
  assert end.code == EXIT_CANNOT_WRITE == 74
  assert capsys.readouterr().err == (
    f'error: {path} cannot be written (File too large): free disk space, then '
    'give the same command again\n'
  )
  assert files_under(tmp_path) == [path.name]
  assert path.read_text() == 'old'


def test_a_download_on_a_full_disk_names_its_file(full, tmp_path, capsys):
  with ending() as end, hub._made_aside(tmp_path / 'net') as aside:
    hub.download((ROOT / 'README.md').as_uri(), aside)
  assert end.code == 74
  assert re.fullmatch(
    f'error: {tmp_path}/.new-[^/]*/net cannot be written .File too large.: '
    'free disk space, then give the same command again\n',
    capsys.readouterr().err,
  )
  assert files_under(tmp_path) == []


def test_a_cache_on_a_full_disk_has_the_exit_code(tmp_path, monkeypatch):
  def fail(path, *_):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))

  monkeypatch.setattr(os, 'mkdir', fail)
  with ending() as end, hub._made_aside(tmp_path / 'new/net'):
    pass
  assert end.code == 74


@pytest.mark.parametrize('name', ['fsync', 'mkdir'])
def test_folders_that_cannot_be_made(name, trained_run, tmp_path, monkeypatch):
  def fail(*_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, name, fail)
  config = trials.load_config(trained_run, False)
  for write in (
    lambda: publish.main([str(trained_run), str(tmp_path / 'a/made')]),
    lambda: sweep_folder.begin(tmp_path / 'b', config, {'seed': (0, 1)}),
  ):
    with ending() as end:
      end.code = write()
    assert end.code == 74


def test_a_workdir_that_may_not_be_made_is_the_users_mistake(
  tmp_path, monkeypatch
):
  def fail(*_, **__):
    raise PermissionError(errno.EACCES, 'Permission denied')

  monkeypatch.setattr(os, 'mkdir', fail)
  with pytest.raises(UserError, match='Permission denied'):
    workdir.check_workdir(tmp_path / 'new')


def test_stdout_on_a_full_disk(monkeypatch, capsys):
  with (
    open('/dev/full', 'w') as stdout,
    monkeypatch.context() as patch,
    ending() as end,
  ):
    patch.setattr(sys, 'stdout', stdout)
    print('a result')
  assert end.code == 74
  assert 'error: stdout cannot be written' in capsys.readouterr().err


def test_a_closed_pipe_is_no_full_disk(monkeypatch):
  class Closed(io.StringIO):
    def flush(self):
      raise BrokenPipeError(errno.EPIPE, 'Broken pipe')

  with monkeypatch.context() as patch, ending() as end:
    patch.setattr(sys, 'stdout', Closed())
  assert end.code == 0
