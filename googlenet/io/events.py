"""TensorBoard event files, written immediately and without a thread.

The writer of tensorboardX uses a thread, which loses unwritten events when a
run is killed and hangs the run when the disk is full. We use only its protocol
buffers and checksum. An event is stored as: its length, a CRC of the length,
the event, a CRC of the event.
"""

import os
import pathlib
import re
import socket
import time
from collections.abc import Mapping

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from googlenet.io.workdir import append
from googlenet.runtime import files

_PREFIX = 'events.out.tfevents.'
_TIME = re.compile(re.escape(_PREFIX) + r'(\d+\.\d+)\.')


class EventFile:
  """A new event file in a folder."""

  def __init__(self, folder: pathlib.Path, first_step: int | None = None):
    """Creates the file.

    Args:
      folder: created if missing.
      first_step: first step after a resume. TensorBoard ignores events of this
        and later steps in older files of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files of a folder in the order of their names. The
    # clock may have been set back since an older file.
    older = [float(m[1]) for m in map(_TIME.match, os.listdir(folder)) if m]
    stamp = max([time.time(), *(stamp + 1e-5 for stamp in older)])
    name = f'{_PREFIX}{stamp:.6f}.{socket.gethostname()}'
    self._file = files.open_new(folder / name, buffering=0)
    try:
      self._append(event_pb2.Event(file_version='brain.Event:2'))
      if first_step is not None:
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._append(event_pb2.Event(step=first_step, session_log=start))
    except BaseException:
      self.close()
      raise

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends scalars."""
    values = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in scalars.items()
    ]
    self.write_summary(step, summary_pb2.Summary(value=values))

  def write_summary(self, step: int, summary: summary_pb2.Summary) -> None:
    """Appends scalars, images or histograms."""
    self._append(event_pb2.Event(step=step, summary=summary))

  def _append(self, event: event_pb2.Event) -> None:
    event.wall_time = time.time()
    data = event.SerializeToString()
    header = len(data).to_bytes(8, 'little')
    append(self._file, header + _crc(header) + data + _crc(data))

  def sync(self) -> None:
    """Waits until all events are on disk."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _crc(data: bytes) -> bytes:
  return masked_crc32c(data).to_bytes(4, 'little')
