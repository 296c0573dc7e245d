"""FID and Inception Score of folders are those of an independent PyTorch."""

import json

import numpy as np
import pytest
import scipy.special
from conftest import ROOT
from PIL import Image

torch = pytest.importorskip('torch', reason='compares with PyTorch')

import fid_metrics_test  # noqa: E402
import torch_networks  # noqa: E402
from weights_torch_test import launch_here, randomized  # noqa: E402

CLASSES = 1008


def save_photos(folder, count, seed):
  """Images of several sizes, some larger than 299, one grey."""
  rng = np.random.default_rng(seed)
  folder.mkdir()
  found = []
  for i in range(count):
    blocks = rng.integers(0, 256, (4 + seed, 5, 3), np.uint8)
    sides = ((64, 48), (320, 305), (299, 299))[i % 3]
    image = Image.fromarray(blocks).resize(sides, Image.Resampling.BILINEAR)
    image = image.convert('L') if i == 1 else image
    image.save(folder / f'{i:02}.png')
    found.append(image.convert('RGB'))
  return found


def clean(image):
  """clean-fid: each channel as floats, by Pillow."""
  channels = [
    Image.fromarray(np.float32(c)).resize((299, 299), Image.Resampling.BICUBIC)
    for c in image.split()
  ]
  return (np.stack(channels).clip(0, 255) - 128) / 128


def legacy_pytorch(image):
  """pytorch-fid: floats in 0..1, F.interpolate, then 2 x - 1."""
  x = torch.from_numpy(np.array(image).transpose(2, 0, 1)).float() / 255
  x = torch.nn.functional.interpolate(
    x[None], size=(299, 299), mode='bilinear', align_corners=False
  )
  return (2 * x - 1)[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize('prepare', [clean, legacy_pytorch])
def test_two_folders(prepare, tmp_path, capfd):
  """From random weights in a file of PyTorch to FID, KID and IS, to 1e-3."""
  theirs = randomized(torch_networks.FidInceptionV3(CLASSES))
  sets = {}
  for seed, name in enumerate(('generated', 'real'), start=1):
    images = save_photos(tmp_path / name, 9 + seed, seed)
    x = np.stack([prepare(image) for image in images]).astype(np.float32)
    with torch.no_grad():
      theirs(torch.from_numpy(x))
    sets[name] = theirs.pooled.numpy()
  # A classifier that tells these images apart, and whose bias counts.
  common, w = theirs.pooled.mean(0), theirs.fc.weight.data
  w -= (w @ common)[:, None] * common / common.square().sum()
  w *= 40
  theirs.fc.bias.data.normal_(0, 3)
  logits = sets['generated'] @ w.numpy().T
  torch.save(theirs.state_dict(), tmp_path / 'inception.pth')
  code = launch_here(
    '--mode=import_weights',
    f'--config={ROOT}/configs/fmnist96.py',
    '--config.model.variant=inception_fid',
    f'--weights={tmp_path}/inception.pth',
    f'--workdir={tmp_path}/run',
  )
  assert code == 0
  code = launch_here(
    '--mode=fid',
    f'--workdir={tmp_path}/run',
    f'--images={tmp_path}/generated',
    f'--against={tmp_path}/real',
    f'--resize={prepare.__name__}',
    f'--output={tmp_path}/found.json',
    '--splits=1',
    '--subsets=1',
  )
  assert code == 0, capfd.readouterr().err
  found = json.loads((tmp_path / 'found.json').read_text())
  a, b = sets['generated'], sets['real']
  expected = fid_metrics_test.by_images(a, b)
  assert expected > 0.1
  assert found['fid'] == pytest.approx(expected, rel=1e-3)
  p = scipy.special.softmax(logits.astype(np.float64), 1)
  kl = scipy.special.rel_entr(p, p.mean(0)).sum(1).mean()
  assert np.exp(kl) > 1.05
  assert found['inception_score']['mean'] == pytest.approx(np.exp(kl), rel=1e-3)
  rng = np.random.default_rng(0)
  expected = fid_metrics_test.kid_by_loops(
    a[rng.choice(10, 10, replace=False)], b[rng.choice(11, 10, replace=False)]
  )
  assert found['kid']['mean'] == pytest.approx(expected, rel=1e-3, abs=1e-5)
  shown = capfd.readouterr().out
  assert f'resize   {prepare.__name__}: ' in shown
  assert 'which these are not known to be' in shown
