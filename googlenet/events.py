"""TensorBoard event files: scalars, written at once and by this thread.

A writer with a thread of its own loses what it has not written when a run is
killed, and hangs the run when its disk is full. An event is its length, a CRC
of that, the event, a CRC of that.
"""

import os
import pathlib
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from googlenet.workdir import append

_LARGEST_EVENT = 2**20


class EventFile:
  """A new event file in a folder."""

  def __init__(self, folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}'
    self._file = open(folder / name, 'wb', buffering=0)  # noqa: SIM115
    self._append(
      event_pb2.Event(wall_time=time.time(), file_version='brain.Event:2')
    )

  def write(
    self, step: int, scalars: Mapping[str, float], when: float | None = None
  ) -> None:
    """Appends scalars, seen at a time of day (default: now)."""
    values = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in scalars.items()
    ]
    self._append(
      event_pb2.Event(
        wall_time=time.time() if when is None else when,
        step=step,
        summary=summary_pb2.Summary(value=values),
      )
    )

  def _append(self, event: event_pb2.Event) -> None:
    data = event.SerializeToString()
    header = len(data).to_bytes(8, 'little')
    append(self._file, header + _crc(header) + data + _crc(data))

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _crc(data: bytes) -> bytes:
  return masked_crc32c(data).to_bytes(4, 'little')


def read_times(folder: pathlib.Path) -> Iterator[tuple[tuple[int, str], float]]:
  """Yields ((step, name), time of day) of the events that can be read."""
  for path in sorted(folder.glob('*tfevents*')):
    with open(path, 'rb') as file:
      while len(header := file.read(12)) == 12:
        length = int.from_bytes(header[:8], 'little')
        if length > _LARGEST_EVENT:
          break
        try:
          event = event_pb2.Event.FromString(file.read(length))
        except Exception:  # whatever protobuf raises on a damaged event
          break
        file.read(4)
        for value in event.summary.value:
          yield (event.step, value.tag), event.wall_time


def rewrite(
  folder: pathlib.Path, records: Iterable[Mapping[str, Any]]
) -> EventFile:
  """Makes a folder hold these records, no more and no less, in a new file.

  Args:
    folder: its event files are replaced; their times of day are kept.
    records: lines of a metrics.jsonl.

  Returns:
    The file, to be continued.
  """
  fresh = folder.with_name(folder.name + '.tmp')
  times = dict(read_times(folder))
  shutil.rmtree(fresh, ignore_errors=True)
  events, when = EventFile(fresh), None
  for record in records:
    scalars = {
      name: value
      for name, value in record.items()
      if name not in ('step', 'epoch') and type(value) in (int, float)
    }
    for name in scalars:
      when = times.get((record['step'], name), when)
    events.write(record['step'], scalars, when)
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(fresh, folder)
  return events
