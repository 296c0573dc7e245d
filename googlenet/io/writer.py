"""Writes the files of a run other than checkpoints.

The workdir is created with the first record. A run that fails before, because
of its input or a loss that is never finite, leaves no files.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import jax
from tensorboardX.proto import summary_pb2

from googlenet.errors import UserError
from googlenet.io import events
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

# Written when a run ends because a loss or gradient is not finite.
DIVERGED = 'diverged.json'
_MAX_LINE = 2**20  # bytes of a record; a longer line is none


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
    self._workdir = pathlib.Path(workdir)
    self._config_json, self._class_names = config_json, class_names
    self._is_writer = jax.process_index() == 0
    self.has_tensorboard = self._is_writer and tensorboard
    self._lock: Lock | None = None
    self._jsonl: BinaryIO | None = None
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

  def resume(self, lock: Lock, num_bytes: int, first_step: int) -> None:
    """Opens the files of an interrupted run to continue them.

    Args:
      lock: lock of the workdir.
      num_bytes: length of metrics.jsonl when the checkpoint was written; later
        lines belong to steps that are repeated and are removed.
      first_step: first step after the checkpoint.
    """
    self._lock = lock
    path = self._workdir / 'metrics.jsonl'
    with files.open_append(path) as file:
      if file.seek(0, os.SEEK_END) > num_bytes:
        file.truncate(num_bytes)
    (self._workdir / 'result.json').unlink(missing_ok=True)
    self._open_files(first_step)

  def _open_files(self, first_step: int | None) -> None:
    for name in ('config.json', 'classes.txt', 'result.json'):
      files.remove_leftovers(self._workdir / name)
    # config.json first: it marks the folder as a run that can be continued.
    write_text(self._workdir / 'config.json', self._config_json)
    write_classes(self._workdir, self._class_names)
    (self._workdir / 'checkpoints').mkdir(exist_ok=True)
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
    if self._events is not None:
      self._events.write(step, scalars)

  def synced_bytes(self) -> int:
    """Waits until all files are on disk; returns the size of metrics.jsonl."""
    if self._jsonl is None:
      return 0
    if self._events is not None:
      self._events.sync()
    os.fsync(self._jsonl.fileno())
    return self._jsonl.tell()

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
