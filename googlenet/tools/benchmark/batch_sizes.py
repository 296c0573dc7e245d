"""The batch sizes to measure: those of the config, or defaults by backend."""

import ml_collections

from googlenet.errors import UserError

Config = ml_collections.FrozenConfigDict

# Defaults for benchmark.batch_sizes=(). A GPU gets only one size, since each
# needs two programs, and compiling one takes up to 40 s.
_CPU_SIZES = (32, 128)
_OTHER_SIZES = (1024,)


def resolve(config: Config, backend: str) -> list[int]:
  """Returns the batch sizes to measure, in ascending order.

  Args:
    config: its `benchmark.batch_sizes` are used unchanged if there are any.
    backend: JAX's name of the backend, like 'cpu'.
  """
  given = config.benchmark.batch_sizes
  if given:
    return sorted(set(given))
  if backend == 'cpu':
    return sorted({*_CPU_SIZES, config.train.batch_size})
  return list(_OTHER_SIZES)


def main_size(config: Config, sizes: list[int]) -> int:
  """Returns the headline batch size: train.batch_size, or the largest."""
  size = config.train.batch_size
  return size if size in sizes else max(sizes)


def check(config: Config, num_examples: int) -> None:
  """Checks `benchmark.batch_sizes` as far as possible without a device.

  Raises:
    UserError: a size does not divide into microbatches, or exceeds the number
      of training images.
  """
  for size in config.benchmark.batch_sizes:
    if size % config.train.microbatches:
      raise UserError(
        f'config.benchmark.batch_sizes: {size} does not divide into '
        f'config.train.microbatches={config.train.microbatches} parts: '
        'choose multiples'
      )
    if size > num_examples:
      raise UserError(
        f'config.benchmark.batch_sizes: {size} is larger than the training '
        f'data ({num_examples} images): choose at most {num_examples}'
      )
