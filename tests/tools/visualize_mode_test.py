"""--mode=visualize: sheets, arrays, animations and folders; mistakes."""

import numpy as np
import pytest
from conftest import last_of_each
from PIL import Image
from run_files import files_under, problems
from saved_run import save_run

import googlenet
import launch
from googlenet.tools.visualize import objectives, render, sheet


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """Two runs and a photo, in the current folder."""
  monkeypatch.chdir(tmp_path)
  save_run(tmp_path / 'runs/one', config)
  config.model.normalization = 'batch'
  save_run(tmp_path / 'runs/two', config, seed=1)
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
  Image.fromarray(pixels).save('photo.png')
  return tmp_path


def visualize(*flags: str, code: int = 0) -> None:
  argv = ['launch.py', '--mode=visualize', '--workdir=runs/one', '--steps=3']
  argv = last_of_each([*argv, '--config.train.compilation_cache=', *flags])
  assert launch.main(argv) == code


def test_a_sheet_has_the_images_of_the_function(run, capfd):
  visualize('--channels=inception_2a:3,logits:0-1,inception_2a:1', '--output=a.png')
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  assert 'sheet    a.png: 4 images of 28x28 pixels (shown 4 times' in shown.out
  net = googlenet.load('runs/one')
  made = render.render(
    net,
    [objectives.channel('inception_2a', [3, 1]), objectives.class_logit([0, 1])],
    steps=3,
  )
  found = np.asarray(Image.open('a.png'))
  for place, index in enumerate((0, 2, 3, 1)):
    at = sheet.place(place, (28, 28), 2, 3)
    expected = made.images[index].repeat(4, 0).repeat(4, 1).repeat(3, 2)
    np.testing.assert_array_equal(found[at], expected)
