"""Values of fields that only make sense with certain values of others."""

from collections.abc import Callable
from typing import Any

import ml_collections

from googlenet.errors import UserError
from googlenet.input import image_sizes
from googlenet.model import graph, variants

Config = ml_collections.ConfigDict
# The field that is wrong, when it is, and what would do, where
# '{config.train.epochs}' is a value.
Row = tuple[str, Callable[[Config], Any], str]


def _has_batch_norm(config: Config) -> bool:
  return variants.resolve(config.model).normalization == 'batch'


def _schedule_free(
  name: str, is_wrong: Callable[[Config], Any], words: str
) -> Row:
  """Returns a row that holds with `optimizer.schedule_free`."""
  return (
    name,
    lambda config: config.optimizer.schedule_free and is_wrong(config),
    f'with config.optimizer.schedule_free=True {words}',
  )


CONTRADICTIONS: tuple[Row, ...] = (
  (
    'data.classes',
    lambda c: c.data.classes and c.data.source in ('bundled', 'idx', 'tfds'),
    'config.data.source={config.data.source!r} has classes of its own: leave '
    'it out, or give a source of own images, as folder',
  ),
  (
    'data.resize',
    lambda c: 0 < c.data.resize < c.data.image_size,
    'it is smaller than config.data.image_size={config.data.image_size}, the '
    'crop that is cut from it: choose 0 or at least {config.data.image_size}',
  ),
  (
    'eval.batch_norm_batches',
    lambda c: c.eval.batch_norm_batches and not _has_batch_norm(c),
    'the network {config.model.variant!r} has no batch norm; allowed is 0, or '
    "config.model.normalization='batch'",
  ),
  (
    'eval.crops',
    lambda c: c.eval.crops > 1 and (c.eval.flip or c.eval.shift),
    'crops are views of their own: leave out config.eval.flip and '
    'config.eval.shift, or give config.eval.crops=1',
  ),
  (
    'train.batch_size',
    lambda c: c.train.batch_size % c.train.microbatches,
    'it does not divide into '
    'config.train.microbatches={config.train.microbatches} parts: choose a '
    'multiple, or a number of parts that divides it',
  ),
  (
    'optimizer.step_epochs',
    lambda c: list(c.optimizer.step_epochs) != sorted(c.optimizer.step_epochs),
    'they must be in rising order',
  ),
  (
    'optimizer.warmup_steps',
    lambda c: c.optimizer.schedule == 'one_cycle' and c.optimizer.warmup_steps,
    "config.optimizer.schedule='one_cycle' begins with a rise of its own: "
    'give 0',
  ),
  (
    'train.early_stopping',
    lambda c: c.train.early_stopping and not c.checkpoint.best_metric,
    'it waits for a better config.checkpoint.best_metric, which is not set: '
    'give eval/accuracy, eval/top_5 or eval/loss there, or 0 here',
  ),
  _schedule_free(
    'optimizer.name',
    lambda c: c.optimizer.name not in ('sgd', 'adam', 'adamw'),
    'it must be sgd, adam or adamw, whose momentum can be left out',
  ),
  _schedule_free(
    'optimizer.schedule',
    lambda c: c.optimizer.schedule != 'constant',
    'the rate does not fall: give constant (a warm-up may come before)',
  ),
  _schedule_free(
    'optimizer.momentum',
    lambda c: not c.optimizer.momentum,
    'it is the share of the average in the parameters of a step: give a '
    'number > 0, as 0.9',
  ),
  _schedule_free(
    'optimizer.lookahead_period',
    lambda c: c.optimizer.lookahead_period,
    'nothing else may move the parameters: give 0',
  ),
  _schedule_free(
    'finetune.frozen',
    lambda c: c.finetune.frozen,
    'rounding would move frozen parameters: give ()',
  ),
  _schedule_free(
    'train.ema_decay',
    lambda c: c.train.ema_decay,
    'another average is evaluated: give 0',
  ),
  _schedule_free(
    'eval.batch_norm_batches',
    lambda c: not c.eval.batch_norm_batches and _has_batch_norm(c),
    'batch norm needs its statistics for the average, with which no step ran: '
    'give a number > 0, as 20',
  ),
)


def check(config: Config) -> None:
  """Checks fields that are right alone against each other.

  Raises:
    UserError: two of them cannot be together.
  """
  _check_image_sizes(config)
  for name, is_wrong, words in CONTRADICTIONS:
    if is_wrong(config):
      section, field = name.split('.')
      value = config[section][field]
      words = words.format(config=config)
      raise UserError(f'config.{name}={value!r}: {words}', name)


def _check_image_sizes(config: Config) -> None:
  architecture = variants.resolve(config.model)
  smallest = least = graph.smallest_image(architecture)
  if architecture.uses_aux_heads:
    without = graph.smallest_image(architecture._replace(aux_heads=()))
    least = f"{smallest}, or {without} with config.model.aux_heads='off'"
  for train_size, _ in image_sizes.parse_sizes(config.train.image_sizes):
    if train_size < smallest:
      raise UserError(
        f'config.train.image_sizes={tuple(config.train.image_sizes)}: '
        f'{train_size} is too small for the network {config.model.variant!r}: '
        f'the smallest size that works is {least}',
        'train.image_sizes',
      )
  if config.data.image_size < smallest:
    heads = ' with auxiliary heads' if architecture.uses_aux_heads else ''
    raise UserError(
      f'config.data.image_size={config.data.image_size} is too small for the '
      f'network {config.model.variant!r}{heads}: the smallest size that works '
      f'is {least}',
      'data.image_size',
    )
