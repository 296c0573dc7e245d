"""Temperature scaling (Guo et al., 2017, arXiv 1706.04599, section 4.2)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from googlenet.data import sources
from googlenet.data.splits import (
  Part,
  count_common,
  resolve_split,
  trained_on,
)
from googlenet.errors import UserError
from googlenet.runtime.terminal import warn
from googlenet.tools.inference.predict import (
  softmax,
  to_logits,
  with_temperature,
)
from googlenet.tools.scoring import scores
from googlenet.tools.scoring.predictions import Predictions
from googlenet.tools.scoring.scores import Scores

Config = ml_collections.FrozenConfigDict

FLAG = '--calibrate'
LOWEST, HIGHEST = 0.01, 100.0  # temperatures
_CHUNK = 4096  # examples at the same time
_MAX_STEPS = 200  # bisection alone would take 60


class Calibration(NamedTuple):
  """A temperature, and what it changes on other images.

  Attributes:
    temperature: fitted on the split.
    split: as it was given.
    count: number of its images.
    before: scores of other images.
    after: their scores with the temperature.
  """

  temperature: float
  split: str
  count: int
  before: Scores
  after: Scores


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
  """Returns the temperature with the lowest negative log-likelihood.

  The logits are the logarithms of the probabilities, which for one view differ
  from the network's by a constant. The likelihood is convex in 1 / temperature,
  which is found by Newton's method within a shrinking interval, in float64.

  Args:
    probabilities: float [N, K], finite.
    labels: int [N], each in range(K).

  Raises:
    UserError: the best temperature is not between `LOWEST` and `HIGHEST`.
  """
  low, high = 1 / HIGHEST, 1 / LOWEST
  if _derivatives(probabilities, labels, high)[0] <= 0:
    raise UserError(
      f'{FLAG}: no temperature from {LOWEST} fits, since (almost) all of the '
      f'{len(labels):,} images are classified correctly: take more images, '
      'which the network was not trained on'
    )
  if _derivatives(probabilities, labels, low)[0] >= 0:
    raise UserError(
      f'{FLAG}: no temperature up to {HIGHEST:g} fits, since the predictions '
      f'for the {len(labels):,} images are no better than chance'
    )
  inverse = 1.0
  for _ in range(_MAX_STEPS):
    slope, curvature = _derivatives(probabilities, labels, inverse)
    low, high = (low, inverse) if slope > 0 else (inverse, high)
    new = inverse - slope / curvature if curvature > 0 else low
    if not low < new < high:
      new = (low * high) ** 0.5
    is_found = abs(new - inverse) <= 1e-12 * inverse
    inverse = new
    if is_found:
      break
  return 1 / inverse


def _derivatives(
  probabilities: np.ndarray, labels: np.ndarray, inverse: float
) -> tuple[float, float]:
  """Returns the first and second derivative by 1 / temperature of the mean NLL.

  They are the mean logit under the tempered probabilities without the true
  logit, and its variance; both are means over examples.
  """
  slope = curvature = 0.0
  for start in range(0, len(labels), _CHUNK):
    part = probabilities[start : start + _CHUNK]
    label = labels[start : start + _CHUNK, None]
    logits = to_logits(part)
    tempered = softmax(inverse * logits)
    mean = (tempered * logits).sum(-1, keepdims=True)
    true = np.take_along_axis(logits, label, -1)
    slope += float((mean - true).sum())
    curvature += float((tempered * (logits - mean) ** 2).sum())
  return slope / len(labels), curvature / len(labels)


def check_split(config: Config, split: str) -> Config:
  """Returns the config with another split to evaluate, to fit on.

  A warning tells if the network was trained on its images.

  Raises:
    UserError: the split is malformed, unknown or empty, or has images of
      `data.eval_split`.
  """
  other = with_split(config, split)
  parts = _parts(other, 'eval_split', FLAG)
  field = 'config.data.eval_split'
  evaluated = _parts(config, 'eval_split', field)
  if common := count_common(parts, evaluated):
    raise UserError(
      f'{FLAG}={split} has {common:,} images of {field}='
      f'{config.data.eval_split!r}: a temperature is fitted on other images '
      f"than it is scored on, like {FLAG}='test[:5000]' "
      f"--{field}='test[5000:]'"
    )
  trained = _parts(config, 'train_split', 'config.data.train_split')
  called = f'{FLAG}={split}'
  if told := trained_on(parts, called, trained, config.data.train_split):
    warn(f'{told}, so the temperature will be too low')
  return other


def with_split(config: Config, split: str) -> Config:
  """Returns a config whose `data.eval_split` is another one."""
  changed = ml_collections.ConfigDict(config.to_dict())
  changed.data.eval_split = split
  return ml_collections.FrozenConfigDict(changed)


def _parts(config: Config, field: str, called: str) -> tuple[Part, ...]:
  _, source = sources.open_source(config.data)
  return resolve_split(config.data[field], source.split_sizes, called)


def to_dict(found: Calibration) -> dict[str, Any]:
  """Returns a calibration for JSON."""

  def part(of: Scores) -> dict[str, float]:
    return {name: getattr(of, name) for name in _SHOWN}

  return {
    'temperature': found.temperature,
    'split': found.split,
    'count': found.count,
    'before': part(found.before),
    'after': part(found.after),
  }


_SHOWN = {
  'loss': 'loss',
  'brier': 'Brier score',
  'calibration_error': 'calibration error',
}


def lines(found: Calibration) -> Iterator[str]:
  """Yields a calibration as lines of text."""
  yield (
    f'temperature {found.temperature:.4f}, fitted on {found.split} '
    f'({found.count:,} images)'
  )
  yield f'{"temperature":<12}' + ''.join(f'{x:>19}' for x in _SHOWN.values())
  for value, of in ((1, found.before), (found.temperature, found.after)):
    cells = ''.join(f'{getattr(of, name):>19.4f}' for name in _SHOWN)
    yield f'{value:<12.4f}{cells}'


def calibrated(
  fitted_on: Predictions, evaluated: Predictions, before: Scores
) -> Calibration:
  """Fits a temperature, and scores other predictions with it.

  Args:
    fitted_on: predictions of the split to fit on.
    evaluated: predictions of other images.
    before: their scores.

  Raises:
    UserError: as `fit_temperature`.
  """
  temperature = fit_temperature(fitted_on.probabilities, fitted_on.labels)
  tempered = with_temperature(evaluated.probabilities, temperature)
  return Calibration(
    temperature,
    fitted_on.dataset.split,
    len(fitted_on.labels),
    before,
    scores.compute(tempered, evaluated.labels),
  )
