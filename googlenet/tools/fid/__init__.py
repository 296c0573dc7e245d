"""How alike two sets of images are, in the features of a network.

  from googlenet.tools import fid

  net = googlenet.load('pytorch-fid/inception')
  a = fid.features(net, fid.open_images('generated'))
  b = fid.features(net, fid.open_images('real.npz'))
  fid.frechet_distance(fid.statistics(a.pooled), fid.statistics(b.pooled))
  fid.kernel_distance(a.pooled, b.pooled)
  fid.inception_score(a.logits)

metrics.py   FID, KID, Inception Score: NumPy arrays to numbers, no network
resize.py    the three ways in which others resize images
images.py    folders and .npz files as streams of images
extract.py   images to features, on all devices
files.py     .npz files of statistics, as pytorch-fid and clean-fid have them
report.py    what the mode prints
"""

from googlenet.tools.fid.extract import Features, batches, features
from googlenet.tools.fid.files import read_statistics, write_statistics
from googlenet.tools.fid.images import open_images
from googlenet.tools.fid.metrics import (
  Score,
  Statistics,
  frechet_distance,
  inception_score,
  kernel_distance,
  statistics,
)

__all__ = [
  'Features',
  'Score',
  'Statistics',
  'batches',
  'features',
  'frechet_distance',
  'inception_score',
  'kernel_distance',
  'open_images',
  'read_statistics',
  'statistics',
  'write_statistics',
]
