"""Turns running out of memory into one line that says what to change."""

import contextlib
import os
import re
from collections.abc import Iterator

import jax

from googlenet.errors import UserError

# What to change, by the activity that ran out of memory.
REMEDIES = {
  'training': 'raise config.train.microbatches or lower '
  'config.train.batch_size',
  # The batch size of a run may not change.
  'continued training': 'raise config.train.microbatches',
  'statistics': 'set config.eval.batch_norm_batches=0',
  'evaluation': 'lower config.eval.batch_size',
  'data': 'lower config.data.on_device_mb, so that the set is streamed',
  'benchmark': 'lower config.benchmark.batch_sizes or raise '
  'config.train.microbatches',
}

_UNITS = {
  unit: 1024**power
  for power, letter in enumerate(' kmgtpe')
  for unit in (letter.strip(), f'{letter.strip()}b', f'{letter.strip()}ib')
} | {'bytes': 1, 'byte': 1}
_AMOUNT = r'(\d+(?:\.\d+)?) ?(bytes?|[kmgtpe](?:i?b)?|b)\b'
# XLA, its allocators, its plugins and NumPy word this differently.
_IS_OUT_OF_MEMORY = re.compile(
  r'(?:out|ran out)[ _]of[ _]memory|bad_alloc|alloc_failed'
  r'|(?:failed|unable) to allocate|resource_exhausted:.*\ballocat'
)
# The first pattern that matches counts.
_ASKED_FOR = [
  re.compile(pattern + _AMOUNT)
  for pattern in (
    r'used ',  # TPUs: "Used 27.04G of 15.48G hbm", the whole program's memory
    r'allocat(?:e|ing) (?:request for )?',
    r'allocat\w*[^\d;\n]*?[ (]',
  )
]


class OutOfMemoryError(UserError):
  """An allocation failed for lack of memory.

  Attributes:
    facts: how much was requested and how much there is, as text.
    what: the activity that failed, a key of `REMEDIES`.
  """

  def __init__(self, facts: str, what: str, more: str = ''):
    """Makes the message.

    Args:
      facts: how much was requested and how much there is, as text.
      what: the activity that failed, a key of `REMEDIES`.
      more: text to append to the message.
    """
    super().__init__(f'out of memory: {facts}; {REMEDIES[what]}{more}')
    self.facts, self.what = facts, what


def bytes_asked_for(text: str) -> int | None:
  """Returns the requested number of bytes that an error mentions.

  Args:
    text: text of an exception of JAX or NumPy.

  Returns:
    Bytes; None if the text has no such number.
  """
  text = text.lower()
  for pattern in _ASKED_FOR:
    if found := pattern.search(text):
      return round(float(found[1]) * _UNITS[found[2]])
  return None


def is_out_of_memory(error: Exception) -> bool:
  """Returns whether an exception means that memory ran out."""
  if isinstance(error, MemoryError):
    return True
  return isinstance(error, jax.errors.JaxRuntimeError) and bool(
    _IS_OUT_OF_MEMORY.search(str(error).lower())
  )


def _in_words(count: int) -> str:
  """Returns a number of bytes as text in GiB, or in MiB below 1 GiB."""
  gib = count / 2**30
  return f'{gib:,.1f} GiB' if gib >= 1 else f'{count / 2**20:,.1f} MiB'


def _capacity() -> str:
  """Returns a text with the memory of the fullest device, or of the machine."""
  found = []
  for device in jax.local_devices():
    try:
      stats = device.memory_stats()
    except (RuntimeError, NotImplementedError):  # the device failed as well
      continue
    found += [stats] if stats and 'bytes_limit' in stats else []
  if found:
    stats = max(found, key=lambda stats: stats.get('bytes_in_use', 0))
    used = stats.get('bytes_in_use', 0)
    return (
      f'the device has {_in_words(stats["bytes_limit"])}, of which '
      f'{_in_words(used)} are in use'
    )
  try:
    pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (AttributeError, ValueError, OSError):  # not on Windows
    return ''
  return f'the machine has {_in_words(pages)}'


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
  """Turns out-of-memory errors of JAX and NumPy into an `OutOfMemoryError`.

  Args:
    what: the activity inside of the context, a key of `REMEDIES`.

  Raises:
    OutOfMemoryError: memory ran out.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if not is_out_of_memory(error):
      raise
    asked = bytes_asked_for(str(error))
    facts = [f'{_in_words(asked)} were asked for'] if asked else []
    facts += [text for text in [_capacity()] if text]
    raise OutOfMemoryError(', '.join(facts), what) from error
