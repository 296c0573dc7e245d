"""TensorBoard event files, written at once and by this thread.

By hand: tensorboardX writes from a thread of its own, which loses what it has
not written when a run is killed, and hangs the run when its disk is full. Its
protocol buffers and checksum are used. An event in the file is its length, a
CRC of that, the event, a CRC of that.
"""

import os
import pathlib
import socket
import time
from collections.abc import Mapping

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from googlenet.io.workdir import append


class EventFile:
  """A new event file in a folder."""

  def __init__(self, folder: pathlib.Path, first_step: int | None = None):
    """Makes the file.

    Args:
      folder: made if need be.
      first_step: of a continued run: TensorBoard drops what earlier files of
        the folder hold of this step and later ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Readers take the files of a folder in the order of their names.
    name = f'events.out.tfevents.{time.time():.6f}.{socket.gethostname()}'
    self._file = open(folder / name, 'wb', buffering=0)  # noqa: SIM115
    self._append(event_pb2.Event(file_version='brain.Event:2'))
    if first_step is not None:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._append(event_pb2.Event(step=first_step, session_log=start))

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
    """Returns when all of it is on the disk."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _crc(data: bytes) -> bytes:
  return masked_crc32c(data).to_bytes(4, 'little')
