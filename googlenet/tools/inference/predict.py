"""Computes probabilities of images: averages views, batches, uses all devices.

Evaluation, prediction, report, demo and exported programs all use these
functions, so that they give the same numbers for the same images.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import haiku as hk
import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.data import batches as data_batches
from googlenet.data.images import Squares
from googlenet.data.sources import Dataset
from googlenet.errors import UserError, shown
from googlenet.input import views as view_lib
from googlenet.model.network import Network
from googlenet.runtime import memory
from googlenet.runtime.parallel import parallelize, steps_in_flight
from googlenet.runtime.terminal import tell
from googlenet.tools.inference import crops
from googlenet.tools.inference.apply import PROBABILITIES, make_function

# (params, network_state, images) -> {name: array}.
Step = Callable[..., dict[str, jax.Array]]


class Views(NamedTuple):
  """The views of an image that are averaged: fields of the `eval` section.

  Attributes:
    flip: whether mirrored views are included.
    shift: pixels of the stored image by which views are shifted; 0: no shift.
    crops: number of crops of the whole image: 1, 10 or 144.
  """

  flip: bool = False
  shift: int = 0
  crops: int = 1

  @property
  def count(self) -> int:
    """The number of views of an image."""
    return self.crops if self.crops > 1 else view_lib.num_views(self)

  @property
  def fields(self) -> str:
    """The fields that cause more than one view: 'eval.flip, ...'."""
    names = {
      'eval.flip': self.flip,
      f'eval.shift={self.shift}': self.shift,
      f'eval.crops={self.crops}': self.crops > 1,
    }
    return ', '.join(name for name, is_set in names.items() if is_set)

  def inputs(self, image_size: int) -> list[Squares | None]:
    """Returns the transforms of the host; each needs a pass over the images.

    None stands for the usual transform of evaluation.
    """
    return crops.squares(self.crops, image_size) if self.crops > 1 else [None]


ONE_VIEW = Views()


def views_of(
  eval_config: ml_collections.ConfigDict, is_wanted: bool = True
) -> Views:
  """Returns the views of the `eval` section, or one view if not wanted."""
  if not is_wanted:
    return ONE_VIEW
  return Views(eval_config.flip, eval_config.shift, eval_config.crops)


def chosen_views(
  eval_config: ml_collections.ConfigDict, views: bool | Views
) -> Views:
  """Returns the views that a caller means.

  Args:
    eval_config: the `eval` section.
    views: True: those of the section; False: one view; or the views themselves.

  Raises:
    UserError: it is none of these, or the section could not hold such views.
  """
  if isinstance(views, Views):
    views = Views(
      *(x.item() if isinstance(x, np.generic) else x for x in views)
    )
    for name, value in views._asdict().items():
      if not config_lib.FIELDS[f'eval.{name}'].is_valid(value):
        raise config_lib.invalid(f'eval.{name}', value)
    return views
  if isinstance(views, bool | np.bool_):
    return views_of(eval_config, bool(views))
  raise UserError(
    f'views={shown(views)} is not allowed: it takes True, False or Views(...)'
  )


def tell_cost(views: Views, how_to_avoid: str) -> None:
  """Prints to stderr how often each image is computed, if more than once.

  Args:
    views: that are averaged.
    how_to_avoid: the flags that compute each image only once.
  """
  if views.count > 1:
    tell(
      f'views    each image is computed {views.count} times ({views.fields}), '
      f'as in evaluation; {how_to_avoid} computes it once'
    )


def make_probabilities(
  network: Network,
  data_config: ml_collections.ConfigDict,
  precision: str,
  views: Views,
) -> Callable[[hk.Params, hk.State, jax.Array], jax.Array]:
  """Makes the pure function from images to probabilities.

  Args:
    network: the network.
    data_config: the `data` section, for preprocessing.
    precision: `train.precision`.
    views: over which to average.

  Returns:
    (params, network_state, images) -> float32 [B, num_classes]. `images` are
    uint8 [B, H, W, C], or squares [B, n, R, R, C] if there are several crops.
  """
  function = make_function(network, data_config, precision)

  def probabilities(params, network_state, images):
    stacks = (
      crops.cut(images, views.crops, data_config.image_size)
      if views.crops > 1
      else [view_lib.make_views(images, views)]
    )
    return view_lib.mean_over(
      stacks, lambda view: function(params, network_state, view).logits
    )

  return probabilities


@functools.lru_cache(maxsize=32)
def make_step(
  network: Network,
  data_config: ml_collections.FrozenConfigDict,
  train_config: ml_collections.FrozenConfigDict,
  wanted: Views | tuple[str, ...],
) -> Step:
  """Makes the function that computes a batch on all devices.

  Args:
    network: the network.
    data_config: the `data` section, for preprocessing.
    train_config: the `train` section, for `precision` and `parallel`.
    wanted: the views over which probabilities are averaged; or names of end
      points, to compute those of the unchanged images.

  Returns:
    (params, network_state, images) -> {name: float32 [D, B, ...]}. `images` are
    uint8 [D, B, ...], `params` and `network_state` are on every device.
  """
  precision = train_config.precision
  if isinstance(wanted, Views):
    mean = make_probabilities(network, data_config, precision, wanted)

    def step(params, network_state, images):
      return {PROBABILITIES: mean(params, network_state, images)}

  else:
    function = make_function(network, data_config, precision)

    def step(params, network_state, images):
      return function(params, network_state, images, wanted).end_points

  return parallelize(
    step,
    in_axes=(None, None, 0),
    options=network.kernels.compiler_options,
    what='network',
    how=train_config.parallel,
  )


def with_temperature(
  probabilities: np.ndarray, temperature: float
) -> np.ndarray:
  """Divides logits, the logarithms of probabilities, by a temperature.

  Guo et al., 2017 (arXiv 1706.04599), section 4.2. Over 1 the predictions are
  less certain, below 1 more; the order of the classes stays. 1 changes nothing.

  Args:
    probabilities: float [N, K], over all views and networks.
    temperature: over 0.

  Returns:
    float64 [N, K]; the probabilities themselves for 1.
  """
  if temperature == 1:
    return probabilities
  return softmax(to_logits(probabilities) / temperature)


def to_logits(probabilities: np.ndarray) -> np.ndarray:
  """Returns finite logits of probabilities, float64 [N, K]."""
  tiny = np.finfo(np.float32).tiny
  return np.log(np.maximum(probabilities, tiny), dtype=np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
  """Returns the softmax of logits, float64 [N, K]."""
  odds = np.exp(logits - logits.max(-1, keepdims=True))
  return odds / odds.sum(-1, keepdims=True)


def check_temperature(temperature: float) -> None:
  """Raises UserError if --temperature is no temperature."""
  if not 0 < temperature < math.inf:
    raise UserError(
      f'--temperature={temperature:g} is not allowed: it takes a number '
      'over 0, like what --mode=evaluate --calibrate=SPLIT finds'
    )


class Batch(NamedTuple):
  """A batch for all devices.

  Attributes:
    of: any value that identifies the batch for the caller.
    images: uint8 [D, B, ...].
    is_real: mask or slice of the D * B images that are no padding.
  """

  of: Any
  images: Any
  is_real: Any = slice(None)


def run_batches(
  step: Callable[[Any], Any], batches: Iterable[Batch]
) -> Iterator[tuple[Any, Any]]:
  """Applies a step to batches, without waiting for each result.

  Args:
    step: images [D, B, ...] -> tree of arrays [D, B, ...].
    batches: the batches, in order.

  Yields:
    `of` of the batch, and the tree as NumPy arrays [n, ...] without padding.
  """
  in_flight, waiting = steps_in_flight(), []

  def finish(batch: Batch, out: Any) -> tuple[Any, Any]:
    def flat(x: jax.Array) -> np.ndarray:
      return np.asarray(x).reshape(-1, *x.shape[2:])[batch.is_real]

    return batch.of, jax.tree.map(flat, out)

  for batch in batches:
    waiting.append((batch, step(batch.images)))
    if len(waiting) > in_flight:
      yield finish(*waiting.pop(0))
  for item in waiting:
    yield finish(*item)


def split_batches(
  config: ml_collections.FrozenConfigDict, dataset: Dataset
) -> Iterator[Batch]:
  """Yields a split in its order; `of` of each batch holds its labels.

  Args:
    config: its `data`, `eval` and `train` sections.
    dataset: the split. Its labels, int32 [n], need not be classes of a network.
  """
  with memory.explained('data'):
    inputs = data_batches.make_pipeline(
      dataset,
      dataset.num_classes,
      config.data.on_device_mb,
      config.data.workers,
      config.train.parallel,
    )
  for batch in data_batches.eval_batches(inputs, config.eval.batch_size):
    labels, mask = (
      np.asarray(batch[name]).reshape(-1) for name in ('label', 'mask')
    )
    is_real = mask > 0
    yield Batch(labels[is_real], batch['image'], is_real)


def padded_size(count: int, batch_size: int, num_devices: int) -> int:
  """Returns the batch size for `count` images.

  It is `batch_size`, or the next power of two if there are fewer images: then
  few shapes are compiled, and one image does not cost a full batch.

  Args:
    count: number of images in all.
    batch_size: the largest batch size.
    num_devices: the result is rounded up to a multiple of it.
  """
  size = min(batch_size, 1 << max(count - 1, 0).bit_length())
  return -(-size // num_devices) * num_devices


def padded(
  parts: Iterable[tuple[Any, np.ndarray]], size: int
) -> Iterator[Batch]:
  """Pads batches with black images, and divides them over the devices.

  Args:
    parts: `of` of each batch, and its images, uint8 [n, ...] with n <= size.
    size: padded batch size, a multiple of the number of local devices.
  """
  for of, images in parts:
    count = len(images)
    padding = np.zeros((size - count, *images.shape[1:]), np.uint8)
    images = np.concatenate([images, padding])
    images = images.reshape(jax.local_device_count(), -1, *images.shape[1:])
    yield Batch(of, images, slice(count))
