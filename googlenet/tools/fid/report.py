"""The metrics of two sets of images, and how they are told."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.tools.fid import extract, metrics
from googlenet.tools.fid.files import About
from googlenet.tools.fid.images import Images
from googlenet.tools.fid.metrics import Score, Statistics
from googlenet.tools.inference.trained import Trained

FID, KID, IS = METRICS = 'fid', 'kid', 'is'


class Side(NamedTuple):
  """One of the two sets.

  Attributes:
    name: as the user wrote it.
    statistics: of its features.
    is_file: whether they are from a file, so that there are no images.
    pooled: float32 [N, d], if KID is computed.
    logits: float32 [N, classes], if the Inception Score is.
    about: how the features of a file were made.
  """

  name: str
  statistics: Statistics
  is_file: bool = False
  pooled: np.ndarray | None = None
  logits: np.ndarray | None = None
  about: About = About()

  @property
  def words(self) -> str:
    """What was read."""
    count = self.statistics.count
    images = f'{count:,} images' if count else 'images of unknown number'
    return (
      f'{self.name}: ' + ('statistics of ' if self.is_file else '') + images
    )


def choose(
  text: str, images_are_file: bool, against: str, is_file: bool
) -> tuple[list[str], dict[str, str]]:
  """Returns the metrics to compute, and why each other one is left out.

  Args:
    text: value of --metrics; '': all that can be computed.
    images_are_file: whether --images names statistics.
    against: value of --against, or ''.
    is_file: whether that names statistics.

  Returns:
    Names in the order of `METRICS`, and {name: reason}.

  Raises:
    UserError: a metric is unknown, or was asked for and cannot be computed.
  """
  wanted = [name for name in text.lower().split(',') if name]
  for name in wanted:
    if name not in METRICS:
      raise UserError(
        f'--metrics={text} is not allowed: {name!r} is unknown'
        f'{did_you_mean(name, METRICS)}; it takes some of {", ".join(METRICS)}'
      )
  alone = '--against is missing, which names the images to compare with'
  no_images = 'statistics are no images: it needs the images themselves'
  left_out = {}
  if not against:
    left_out = {FID: alone, KID: alone}
  elif images_are_file or is_file:
    left_out = {KID: no_images}
  if images_are_file:
    left_out[IS] = no_images
  for name in wanted:
    if name in left_out:
      raise UserError(f'--metrics={text}: {name}: {left_out[name]}')
  names = [
    name
    for name in METRICS
    if (name in wanted if wanted else name not in left_out)
  ]
  return names, {} if wanted else left_out


def measure(
  net: Trained,
  images: Images,
  resize: str,
  end_point: str,
  batch_size: int,
  keep: Collection[str],
) -> Side:
  """Reads a set of images once.

  Args:
    net: the network.
    images: the set.
    resize: see `extract.prepare_for`.
    end_point: the layer.
    batch_size: images at a time.
    keep: metrics that need all features in memory, KID and IS: 4 bytes for each
      feature or class of an image.

  Raises:
    UserError: there is one image only, or one cannot be read.
  """
  if images.count < 2:  # before anything is compiled
    raise UserError(
      f'{images.name}: 1 image has no covariance: give two or more'
    )
  pooled, logits = [], []

  def parts() -> Iterator[np.ndarray]:
    for part in extract.batches(net, images, resize, end_point, batch_size):
      if KID in keep:
        pooled.append(part.pooled)
      if IS in keep:
        logits.append(part.logits)
      yield part.pooled

  found = metrics.statistics(parts())
  return Side(
    images.name,
    found,
    pooled=np.concatenate(pooled) if pooled else None,
    logits=np.concatenate(logits) if logits else None,
  )


class Results(NamedTuple):
  """The metrics; None: not computed."""

  fid: float | None = None
  kid: Score | None = None
  inception_score: Score | None = None


def compute(
  images: Side,
  against: Side | None,
  names: list[str],
  subsets: int,
  subset_size: int,
  splits: int,
  seed: int,
) -> Results:
  """Computes metrics; `names` as `choose` returns them."""
  found = Results()
  if FID in names:
    distance = metrics.frechet_distance(images.statistics, against.statistics)
    found = found._replace(fid=distance)
  if KID in names:
    kid = metrics.kernel_distance(
      images.pooled, against.pooled, subsets, subset_size, seed
    )
    found = found._replace(kid=kid)
  if IS in names:
    score = metrics.inception_score(images.logits, splits, seed)
    found = found._replace(inception_score=score)
  return found


def few_images(side: Side) -> str:
  """Returns a warning about too few images, or ''."""
  count, size = side.statistics.count, len(side.statistics.mean)
  if not count or count >= size:
    return ''
  return (
    f'{side.name}: {count:,} images are fewer than the {size:,} features, so '
    'that their covariance is singular and FID too large: give 10,000 images '
    'or more, compare sets of the same size only, or use KID, which has no '
    'such bias'
  )


def lines(found: Results, is_fid: bool) -> list[str]:
  """Returns the results as lines.

  Args:
    found: the results.
    is_fid: whether the features are those by which FID and KID are defined.
  """
  rows = []
  if found.fid is not None:
    rows.append(f'{"FID" if is_fid else "FD":8} {found.fid:.4f}')
  if kid := found.kid:
    rows.append(
      f'{"KID" if is_fid else "KD":8} {kid.mean:.6f} ± {kid.std:.6f} '
      f'({kid.parts:,} subset{"" if kid.parts == 1 else "s"} of {kid.size:,} '
      'images)'
    )
  if score := found.inception_score:
    rows.append(
      f'{"IS":8} {score.mean:.4f} ± {score.std:.4f} ({score.parts:,} parts of '
      f'{score.size:,} images)'
    )
  return rows


def as_json(found: Results) -> dict[str, Any]:
  """Returns the results that were computed, for JSON."""
  return {
    name: value._asdict() if isinstance(value, Score) else value
    for name, value in found._asdict().items()
    if value is not None
  }


def side_as_json(side: Side | None) -> dict[str, Any] | None:
  """Returns what was read, for JSON."""
  if side is None:
    return None
  return {
    'name': side.name,
    'count': side.statistics.count or None,
    'is_statistics': side.is_file,
  }
