"""Tells if mean and deviation of a config do not fit its images."""

from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.input.preprocess import LUMA
from googlenet.runtime.terminal import warn

# The defaults of configs/fmnist96.py: mean and deviation of Fashion-MNIST.
_FASHION_MNIST = ((0.2860,), (0.3530,))
_NUM_IMAGES = 100  # from which the right numbers are estimated


def check_counts(data_config: ml_collections.ConfigDict, channels: int) -> None:
  """Checks that there is one mean and deviation, or one for each channel.

  Args:
    data_config: the `data` section.
    channels: number of channels that the network sees.

  Raises:
    UserError: there is another number of them.
  """
  for name in ('mean', 'std'):
    value = tuple(data_config[name])
    if len(value) not in (1, channels):
      allowed = '1' if channels == 1 else f'1 or {channels}'
      raise UserError(
        f'config.data.{name}={value} has {len(value)} numbers for images of '
        f'{channels} channel(s): give {allowed}'
      )


def problem(
  data_config: ml_collections.ConfigDict, name: str, channels: int
) -> str:
  """Returns why mean and deviation do not fit a data set, or ''.

  Args:
    data_config: the `data` section.
    name: name of the data set.
    channels: number of channels that the network sees.
  """
  mean, std = tuple(data_config.mean), tuple(data_config.std)
  if max(map(abs, mean)) > 1 or max(std) > 1:
    return f'are for pixels in 0..255, but those of {name} are scaled to 0..1'
  if (mean, std) == _FASHION_MNIST and not name.startswith('fashion_mnist'):
    return f'are those of Fashion-MNIST, not of {name}'
  if len(mean) == 1 < channels:
    return f'give all {channels} channels of {name} the same mean'
  return ''


def check(
  data_config: ml_collections.ConfigDict, dataset: Dataset, channels: int
) -> None:
  """Warns if mean and deviation do not fit the images of training.

  Args:
    data_config: the `data` section.
    dataset: the training split, from which the right numbers are estimated.
    channels: number of channels that the network sees.
  """
  why = problem(data_config, dataset.name, channels)
  if not why or jax.process_index():
    return
  count = min(_NUM_IMAGES, dataset.num_examples)
  images, _ = dataset.read(np.arange(count))
  mean, std = map(_as_flag, estimate(images, channels))
  warn(
    f'config.data.mean={_as_flag(data_config.mean)} and '
    f'std={_as_flag(data_config.std)} {why}; its first {count} images have '
    f"--config.data.mean='{mean}' --config.data.std='{std}'; auto for "
    'both measures them'
  )


def estimate(
  images: np.ndarray, channels: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and deviation of pixels in 0..1 for each channel.

  Args:
    images: uint8 [..., C], C being `channels`, 1 or 3.
    channels: number of channels that the network sees.
  """
  pixels = images.reshape(-1, images.shape[-1]) / 255
  if (pixels.shape[-1], channels) == (3, 1):
    pixels = pixels @ np.reshape(LUMA, (3, 1))
  return pixels.mean(0), pixels.std(0)


def _as_flag(values: Sequence[float]) -> str:
  numbers = ','.join(f'{value:.3g}' for value in values)
  return f'({numbers},)' if len(values) == 1 else f'({numbers})'
