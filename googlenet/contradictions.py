"""Values of fields that only make sense with certain values of others.

Each row names a field and says why its value cannot be, and what would do; what
depends on the network is a function.
"""

from collections.abc import Callable

import ml_collections

from googlenet.errors import UserError
from googlenet.input import image_sizes
from googlenet.model import graph, variants

Config = ml_collections.ConfigDict

_ROWS: tuple[tuple[str, Callable[[Config], bool], str], ...] = (
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
)


def check(config: Config) -> None:
  """Checks fields that are right alone against each other.

  Raises:
    UserError: two of them cannot be together.
  """
  size = config.data.image_size
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
  if size < smallest:
    heads = ' with auxiliary heads' if architecture.uses_aux_heads else ''
    raise UserError(
      f'config.data.image_size={size} is too small for the network '
      f'{config.model.variant!r}{heads}: the smallest size that works is '
      f'{least}',
      'data.image_size',
    )
  if 0 < config.data.resize < size:
    raise UserError(
      f'config.data.resize={config.data.resize} is smaller than '
      f'config.data.image_size={size}, the crop that is cut from it: choose '
      f'0 or at least {size}',
      'data.resize',
    )
  count = config.eval.batch_norm_batches
  if count and architecture.normalization != 'batch':
    raise UserError(
      f'config.eval.batch_norm_batches={count}: the network '
      f'{config.model.variant!r} has no batch norm; allowed is 0, or '
      "config.model.normalization='batch'",
      'eval.batch_norm_batches',
    )
  if config.eval.crops > 1 and (config.eval.flip or config.eval.shift):
    raise UserError(
      f'config.eval.crops={config.eval.crops} has views of its own: leave out '
      'config.eval.flip and config.eval.shift, or give config.eval.crops=1',
      'eval.crops',
    )
  if config.train.batch_size % config.train.microbatches:
    raise UserError(
      f'config.train.batch_size={config.train.batch_size} does not divide '
      f'into config.train.microbatches={config.train.microbatches} parts: '
      'choose a multiple, or a number of parts that divides it',
      'train.batch_size',
    )
  for name, is_wrong, words in _ROWS:
    if is_wrong(config):
      section, field = name.split('.')
      value = config[section][field]
      raise UserError(f'config.{name}={value!r}: {words}', name)
