"""The networks that come with the project are what their files say."""

import hashlib
import json
import re

import ml_collections
import numpy as np
import pytest
from conftest import ROOT

import googlenet
from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.tools.publish import SUMS
from googlenet.tools.scoring.predictions import predict_split

FOLDERS = sorted(p for p in (ROOT / 'pretrained').iterdir() if p.is_dir())
MAX_BYTES = 15e6


def test_there_is_one_and_all_are_small():
  assert FOLDERS
  files = [p for p in (ROOT / 'pretrained').rglob('*') if p.is_file()]
  assert sum(path.stat().st_size for path in files) <= MAX_BYTES


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_checksums(folder):
  lines = (folder / SUMS).read_text().splitlines()
  assert len(lines) >= 5
  for line in lines:
    digest, name = line.split('  ')
    found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert found == digest, name


def test_a_few_images_are_classified_well(launch_here):
  """A look that costs little: the slow test scores all images."""
  done = launch_here(
    '--mode=evaluate',
    f'--workdir={FOLDERS[0]}',
    '--config.data.eval_split=test[:100]',
    config='',
  )
  assert done.returncode == 0, done.stderr
  assert 'warning' not in done.stderr  # such as of fields that it lacks
  assert float(re.search(r'accuracy ([\d.]+)', done.stdout)[1]) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_accuracy_on_the_test_images_is_the_stated_one(launch_py, folder):
  """Rounding of bfloat16 differs from machine to machine: ten images may."""
  done = launch_py(
    '--mode=evaluate',
    f'--workdir={folder}',
    config='',
    optimized=True,
    timeout=1800,
  )
  assert done.returncode == 0, done.stderr
  found = re.search(
    r'fashion_mnist test: accuracy ([\d.]+) .* on 10,000 images', done.stdout
  )
  assert found, done.stdout
  result = json.loads((folder / 'result.json').read_text())
  assert float(found[1]) == pytest.approx(result['eval/accuracy'], abs=1e-3)
  readme = (ROOT / 'pretrained/README.md').read_text()
  (line,) = (
    x for x in readme.splitlines() if x.startswith(f'| `{folder.name}')
  )
  assert f'{result["eval/accuracy"]:.4f}' in line
  assert 'launch.py --config=' in line


@pytest.mark.slow
@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_python_predicts_what_is_scored(folder):
  """By `net.predict`, on a batch of those that the test above scores."""
  net = googlenet.load(folder)
  config = ml_collections.ConfigDict(net.config.to_dict())
  config.data.eval_split = f'test[:{config.eval.batch_size}]'
  config = config_lib.resolve(config)
  dataset = pipeline.load_split(config, 'eval_split')
  images, labels = dataset.read(np.arange(dataset.num_examples))
  scored = predict_split(config, [net])
  np.testing.assert_array_equal(scored.labels, labels)
  np.testing.assert_allclose(
    net.predict(images), scored.probabilities, atol=1e-6
  )
