"""Writes the files of a run other than checkpoints.

The workdir is created with the first record. A run that fails before, because
of its input or a loss that is never finite, leaves no files.
"""

import contextlib
import json
import operator
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import jax
from tensorboardX.proto import summary_pb2

from googlenet.errors import UserError
from googlenet.io import events
from googlenet.io.checkpoint import MAX_ABOUT_BYTES
from googlenet.io.metrics import NonFiniteError
from googlenet.io.workdir import (
  RUN_FILES,
  Lock,
  append,
  holds_a_run,
  write_classes,
  write_text,
)
from googlenet.runtime import files
from googlenet.runtime.terminal import warn

# A checkpoint holds both, the images of each class, and a little more.
_MAX_CONFIG_BYTES = MAX_ABOUT_BYTES // 4
_MAX_CLASSES_BYTES = MAX_ABOUT_BYTES * 5 // 8
_MOST_IMAGES = 2**31  # of a class, so that its number has as many digits
# Written when a run ends because a loss or gradient is not finite.
DIVERGED = 'diverged.json'
_MAX_LINE = 2**20  # bytes of a record; a longer line is none


class LogSize(NamedTuple):
  """Size of metrics.jsonl; `records` is None for checkpoints without it."""

  bytes: int = 0
  records: int | None = 0

  @classmethod
  def of(cls, about: Mapping[str, Any]) -> 'LogSize':
    """Reads what `Writer.synced` returned from a checkpoint.

    Raises:
      KeyError, TypeError: `about` has another format.
    """
    records = about.get('metrics_records')
    if records is not None:
      records = operator.index(records)
    return cls(operator.index(about['metrics_bytes']), records)


def cut_log(path: pathlib.Path, size: LogSize) -> tuple[int, str]:
  """Cuts metrics.jsonl to the size that it had at a checkpoint.

  Returns:
    The number of its records, and what is wrong with them or ''.
  """
  data = b''
  with contextlib.suppress(FileNotFoundError):  # it is not made here
    with files.open_regular(path) as file:
      data = file.read(min(size.bytes, os.fstat(file.fileno()).st_size))
    # A line that was cut or changed by hand must not merge with the next one.
    data = data[: data.rfind(b'\n') + 1]
    with files.open_append(path) as file:
      file.truncate(len(data))
  records, missing = data.count(b'\n'), size.bytes - len(data)
  if size.records is not None and records != size.records:
    problem = (
      f'{path} holds {records:,} records where {size.records:,} were written '
      'before the checkpoint'
    )
  elif missing:
    problem = (
      f'{path} lacks {missing:,} of the {size.bytes:,} bytes that were written '
      'before the checkpoint'
    )
  else:
    problem = ''
  return records, problem


class Writer:
  """Writes config.json, classes.txt, metrics.jsonl, event files, result.json.

  Only process 0 writes; elsewhere every call does nothing.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    config_json: str,
    class_names: Sequence[str],
    tensorboard: bool,
  ):
    """Stores what is written later.

    Raises:
      UserError: the config or the classes do not fit into a checkpoint.
    """
    if len(config_json) > _MAX_CONFIG_BYTES:
      raise UserError(
        f'the config has {len(config_json):,} characters as JSON, allowed are '
        f'{_MAX_CONFIG_BYTES:,}: shorten the fields that hold long lists or '
        'texts'
      )
    size = len(json.dumps(dict.fromkeys(class_names, _MOST_IMAGES)))
    if size > _MAX_CLASSES_BYTES:
      raise UserError(
        f'the data set has {len(class_names):,} classes, and their names with '
        f'numbers of images have {size:,} characters as JSON, allowed are '
        f'{_MAX_CLASSES_BYTES:,}: give them shorter names, or take fewer'
      )
    self._workdir = pathlib.Path(workdir)
    self._config_json, self._class_names = config_json, class_names
    self._is_writer = jax.process_index() == 0
    self.has_tensorboard = self._is_writer and tensorboard
    self._lock: Lock | None = None
    self._jsonl: BinaryIO | None = None
    self._records = 0
    self._events: events.EventFile | None = None
    # Summaries that wait until the workdir exists.
    self._waiting: list[tuple[int, summary_pb2.Summary]] = []

  def open(self) -> None:
    """Creates and locks the workdir and opens its files, at the first call.

    Raises:
      UserError: another process has started a run in the workdir.
      OSError: the workdir cannot be created.
    """
    if not self._is_writer or self._jsonl is not None:
      return
    self._workdir.mkdir(parents=True, exist_ok=True)
    self._lock = Lock(self._workdir)
    for name in RUN_FILES:
      if name != 'profile' and (self._workdir / name).exists():
        raise UserError(holds_a_run(self._workdir, name))
    self._open_files(None)

  def resume(self, lock: Lock, step: int, log: LogSize) -> None:
    """Opens the files of an interrupted run to continue them.

    Warns if metrics.jsonl lacks records from before the checkpoint.

    Args:
      lock: lock of the workdir.
      step: steps made at the checkpoint; 0: the run starts again.
      log: size of metrics.jsonl when the checkpoint was written; later lines
        belong to steps that are repeated and are removed.
    """
    self._lock = lock
    self._records, problem = cut_log(self._workdir / 'metrics.jsonl', log)
    if problem:
      warn(f'{problem}: the run continues, but its curves have a gap')
    (self._workdir / 'result.json').unlink(missing_ok=True)
    # Step 0 has images too.
    self._open_files(step + 1 if step else 0)

  def _open_files(self, first_step: int | None) -> None:
    for name in ('config.json', 'classes.txt', 'result.json'):
      files.remove_leftovers(self._workdir / name)
    for path in self._workdir.glob('checkpoints/step_*.tmp'):
      path.unlink(missing_ok=True)
    # In this order: config.json marks the folder as a run that can be
    # continued, and without `checkpoints` it starts again, see `is_begun`.
    write_text(self._workdir / 'config.json', self._config_json)
    if not (self._workdir / 'classes.txt').exists():  # users may edit it
      write_classes(self._workdir, self._class_names)
    (self._workdir / 'checkpoints').mkdir(exist_ok=True)
    files.sync_folder(self._workdir)
    path = self._workdir / 'metrics.jsonl'
    self._jsonl = files.open_append(path)
    if self.has_tensorboard:
      folder = self._workdir / 'tensorboard'
      self._events = events.EventFile(folder, first_step)
    waiting, self._waiting = self._waiting, []
    for step, summary in waiting:
      self.write_summary(step, summary)

  def write_summary(self, step: int, summary: summary_pb2.Summary) -> None:
    """Adds images or histograms to TensorBoard.

    Before the workdir exists, they are kept in memory.
    """
    if not self.has_tensorboard:
      return
    if self._events is None:
      self._waiting.append((step, summary))
    else:
      self._events.write_summary(step, summary)

  def write(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
    """Appends one line to metrics.jsonl, and the scalars to TensorBoard.

    Args:
      step: steps made.
      epoch: epochs made, with a fraction.
      scalars: by name, such as `train/loss` and `eval/accuracy`.
    """
    if not self._is_writer:
      return
    self.open()
    record = {'step': step, 'epoch': round(epoch, 4), **scalars}
    line = json.dumps(record, allow_nan=False) + '\n'
    append(self._jsonl, line.encode())
    self._records += 1
    if self._events is not None:
      self._events.write(step, scalars)

  def synced(self) -> dict[str, int]:
    """Waits until all files are on disk; returns the size of metrics.jsonl.

    Returns:
      'metrics_bytes' and 'metrics_records', which `LogSize.of` reads.
    """
    if self._jsonl is None:
      return {'metrics_bytes': 0, 'metrics_records': 0}
    if self._events is not None:
      self._events.sync()
    os.fsync(self._jsonl.fileno())
    size = self._jsonl.tell()
    return {'metrics_bytes': size, 'metrics_records': self._records}

  def write_result(self, result: dict[str, Any]) -> None:
    """Writes result.json, which marks the run as finished."""
    if self._is_writer:
      text = json.dumps(result, indent=2) + '\n'
      write_text(self._workdir / 'result.json', text)

  def close(self) -> None:
    """Closes the files and releases the lock."""
    for owned in (self._jsonl, self._events):
      if owned is not None:
        owned.close()
    if self._lock is not None:
      self._lock.release()


def read_records(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the records of a metrics.jsonl; invalid lines are skipped."""
  if not os.path.lexists(path):
    return
  with files.open_regular(path) as file:
    for line in iter(lambda: file.readline(_MAX_LINE), b''):
      try:
        record = json.loads(line.decode(errors='replace'))
      except (ValueError, RecursionError):
        continue
      if isinstance(record, dict) and isinstance(record.get('step'), int):
        yield record


@contextlib.contextmanager
def divergence_recorded(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Writes diverged.json if training ends with a NonFiniteError.

  An older file is removed. Nothing is written if the workdir does not exist.
  """
  path = pathlib.Path(workdir) / DIVERGED
  if jax.process_index():
    yield
    return
  path.unlink(missing_ok=True)
  try:
    yield
  except NonFiniteError as error:
    with contextlib.suppress(OSError):
      if path.parent.is_dir():
        write_text(path, json.dumps({'error': error.what}, indent=2) + '\n')
    raise
