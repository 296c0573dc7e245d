"""Which batch sizes are measured: given, or by where they run."""

import ml_collections

from googlenet.errors import UserError

Config = ml_collections.FrozenConfigDict

# What benchmark.batch_sizes=() means. On a GPU each size costs two programs, up
# to 40 s of compilation each.
_SIZES = {'cpu': (32, 128)}
_SIZES_ELSEWHERE = (1024,)


def resolve(config: Config, backend: str) -> list[int]:
  """Returns the batch sizes to measure, rising.

  Args:
    config: sizes that it gives are taken as they are.
    backend: what JAX calls it; known to processes that use a device alone.
  """
  given = config.benchmark.batch_sizes
  if given:
    return sorted(set(given))
  if backend == 'cpu':
    return sorted({*_SIZES[backend], config.train.batch_size})
  return sorted(_SIZES_ELSEWHERE)


def main_size(config: Config, sizes: list[int]) -> int:
  """Returns the size of the headline: train.batch_size, or the largest."""
  size = config.train.batch_size
  return size if size in sizes else max(sizes)


def check(config: Config, num_examples: int) -> None:
  """Checks what is known of given batch sizes before a device is.

  Raises:
    UserError: one does not divide into microbatches, or exceeds the data.
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
