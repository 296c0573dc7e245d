"""The measurement of the input path, made small."""

import errno
import io
import re

import numpy as np
import pytest
from PIL import Image

from googlenet.tools import throughput


def test_images_are_like_those_of_imagenet():
  contents = throughput.natural_jpeg(0)
  assert 110_000 <= len(contents) < 125_000
  image = Image.open(io.BytesIO(contents))
  assert image.size == (500, 375)
  # Neighbours are alike, as in photographs and not in noise.
  grey = np.asarray(image.convert('L'), float)
  assert np.abs(np.diff(grey)).mean() < grey.std() / 2


@pytest.mark.slow
def test_prints_a_line_for_each_number_of_workers(monkeypatch, capsys):
  monkeypatch.setattr(throughput, '_NUM_FILES', 130)
  monkeypatch.setattr(throughput, '_NUM_DIFFERENT', 2)
  flags = ['--workers=0,1', '--images=128', '--image_size=32']
  assert throughput.main(flags) == 0
  lines = capsys.readouterr().out.splitlines()
  rates = [
    line for line in lines if re.search(r'(thread|process).* \d+ ', line)
  ]
  assert len(rates) == 4


def test_measures_a_set_by_name(photos_dir, capsys):
  flags = ['--name=photos', f'--data_dir={photos_dir}', '--workers=0']
  assert throughput.main([*flags, '--images=128', '--image_size=32']) == 0
  assert 'photos, 32x32' in capsys.readouterr().out
  assert throughput.main([*flags, '--split=validation']) == 2
  assert 'has 37 images: choose one of at least 128' in capsys.readouterr().err


def test_a_full_disk_has_its_exit_code(monkeypatch, capsys):
  def fail(folder):
    raise OSError(errno.ENOSPC, 'No space left on device', folder / 'a')

  monkeypatch.setattr(throughput, 'write_natural', fail)
  assert throughput.main([]) == 74
  assert '/a cannot be written (No space left' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--name=no_such_set', "config.data.name='no_such_set'"),
    ('--workers=-1', "'-1' is not a whole number from 0"),
    ('--images=0', "'0' is not a whole number from 1"),
  ],
)
def test_bad_input(flag, words, tmp_path, capsys):
  try:
    code = throughput.main([f'--data_dir={tmp_path}', flag])
  except SystemExit as error:  # argparse
    code = error.code
  assert code == 2
  assert words in capsys.readouterr().err
