"""The files of a run beside its checkpoints, each step in them once.

A workdir is made by the first record, not before: a run that fails on its
input, or whose loss is never finite, leaves nothing behind.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import jax
from tensorboardX.proto import summary_pb2

from googlenet.errors import UserError
from googlenet.io import events
from googlenet.io.workdir import (
  RUN_FILES,
  Lock,
  append,
  holds_a_run,
  write_classes,
  write_text,
)


class Writer:
  """Writes a workdir: config.json, classes.txt, metrics.jsonl, TensorBoard,
  result.json.

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
    self._with_tensorboard = tensorboard
    self._has_summaries = False
    self._is_writer = jax.process_index() == 0
    self._lock: Lock | None = None
    self._jsonl: BinaryIO | None = None
    self._events: events.EventFile | None = None
    # Images and histograms from before the workdir was made.
    self._waiting: list[tuple[int, summary_pb2.Summary]] = []

  def open(self) -> None:
    """Makes the workdir, if that has not happened yet.

    Raises:
      UserError: another process was faster.
      OSError: it cannot be made.
    """
    if not self._is_writer or self._jsonl is not None:
      return
    self._workdir.mkdir(parents=True, exist_ok=True)
    self._lock = Lock(self._workdir)
    for name in RUN_FILES:
      if name != 'profile' and (self._workdir / name).exists():
        raise UserError(holds_a_run(self._workdir, name))
    # First: a folder with it holds a run, which can be continued.
    self._write_texts()
    (self._workdir / 'checkpoints').mkdir()
    self._open_files(0)

  def resume(self, lock: Lock, num_bytes: int, summary_stop: int) -> None:
    """Continues the files of a run that was cut off.

    Args:
      lock: of the workdir.
      num_bytes: how much of metrics.jsonl is older than the checkpoint; what
        follows is of steps that are made again.
      summary_stop: the first step whose images and histograms are made again.
    """
    self._lock = lock
    path = self._workdir / 'metrics.jsonl'
    if path.exists() and path.stat().st_size > num_bytes:
      os.truncate(path, num_bytes)
    self._write_texts()
    (self._workdir / 'checkpoints').mkdir(exist_ok=True)
    (self._workdir / 'result.json').unlink(missing_ok=True)
    self._open_files(summary_stop)

  def _write_texts(self) -> None:
    write_text(self._workdir / 'config.json', self._config_json)
    write_classes(self._workdir, self._class_names)

  def _open_files(self, summary_stop: int) -> None:
    path = self._workdir / 'metrics.jsonl'
    self._jsonl = open(path, 'ab', buffering=0)  # noqa: SIM115
    if self._with_tensorboard:
      self._events = events.rewrite(
        self._workdir / 'tensorboard', read_records(path), summary_stop
      )
    waiting, self._waiting = self._waiting, []
    for step, summary in waiting:
      self.write_summary(step, summary)

  @property
  def has_tensorboard(self) -> bool:
    """Whether this process writes event files."""
    return self._is_writer and self._with_tensorboard

  def write_summary(self, step: int, summary: summary_pb2.Summary) -> None:
    """Adds images or histograms to TensorBoard, after all records up to a step.

    They do not make the workdir: before the first record they wait for it.
    """
    if not self.has_tensorboard:
      return
    if self._events is None:
      self._waiting.append((step, summary))
      return
    self._events.write_summary(step, summary)
    self._has_summaries = True

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

  def size(self) -> int:
    """Returns the bytes of metrics.jsonl, all of them on the disk.

    So are images and histograms then; scalars of TensorBoard are made anew from
    it.
    """
    if self._jsonl is None:
      return 0
    if self._has_summaries:
      self._events.sync()
      self._has_summaries = False
    os.fsync(self._jsonl.fileno())
    return self._jsonl.tell()

  def write_result(self, result: dict[str, Any]) -> None:
    """Writes result.json: a run that has one is finished."""
    if self._is_writer:
      text = json.dumps(result, indent=2) + '\n'
      write_text(self._workdir / 'result.json', text)

  def close(self) -> None:
    """Closes the files."""
    if self._jsonl is not None:
      self._jsonl.close()
    if self._events is not None:
      self._events.close()
    if self._lock is not None:
      self._lock.release()


def read_records(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the records of a metrics.jsonl, but for lines that are none."""
  if not path.exists():
    return
  with open(path, encoding='utf-8', errors='replace') as file:
    for line in file:
      try:
        record = json.loads(line)
      except (ValueError, RecursionError):
        continue
      if isinstance(record, dict) and isinstance(record.get('step'), int):
        yield record
