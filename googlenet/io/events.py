"""TensorBoard event files, written at once and by this thread.

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

from google.protobuf import message
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from googlenet.io.workdir import append


class EventFile:
  """A new event file in a folder."""

  def __init__(self, folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}'
    self._file = open(folder / name, 'wb', buffering=0)  # noqa: SIM115
    self.append(
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
    self.append(
      event_pb2.Event(
        wall_time=time.time() if when is None else when,
        step=step,
        summary=summary_pb2.Summary(value=values),
      )
    )

  def write_summary(self, step: int, summary: summary_pb2.Summary) -> None:
    """Appends images or histograms, seen now."""
    self.append(
      event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
    )

  def sync(self) -> None:
    """Returns when all of it is on the disk."""
    os.fsync(self._file.fileno())

  def append(self, event: event_pb2.Event) -> None:
    """Appends an event as it is."""
    data = event.SerializeToString()
    header = len(data).to_bytes(8, 'little')
    append(self._file, header + _crc(header) + data + _crc(data))

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _crc(data: bytes) -> bytes:
  return masked_crc32c(data).to_bytes(4, 'little')


def read(folder: pathlib.Path) -> Iterator[event_pb2.Event]:
  """Yields the events of a folder, of each file those before any damage."""
  for path in sorted(folder.glob('*tfevents*')):
    with open(path, 'rb') as file:
      size = os.fstat(file.fileno()).st_size
      while len(header := file.read(12)) == 12:
        length = int.from_bytes(header[:8], 'little')
        data = file.read(min(length, size))
        if len(data) < length or file.read(4) != _crc(data):
          break
        try:
          yield event_pb2.Event.FromString(data)
        except message.DecodeError:
          break


def _holds_scalars(event: event_pb2.Event) -> bool:
  return any(
    v.WhichOneof('value') == 'simple_value' for v in event.summary.value
  )


def rewrite(
  folder: pathlib.Path, records: Iterable[Mapping[str, Any]], stop: int
) -> EventFile:
  """Makes a folder hold these records, no more and no less, in a new file.

  Images and histograms stand in no record: those of the steps that count are
  kept, each after the records up to its step, where it was.

  Args:
    folder: its event files are replaced; their times of day are kept.
    records: lines of a metrics.jsonl.
    stop: images and histograms of this step and later ones are made again.

  Returns:
    The file, to be continued.
  """
  fresh = folder.with_name(folder.name + '.tmp')
  times = {
    (event.step, value.tag): event.wall_time
    for event in read(folder)
    for value in event.summary.value
  }
  kept = (
    event
    for event in read(folder)
    if event.summary.value and not _holds_scalars(event) and event.step < stop
  )
  shutil.rmtree(fresh, ignore_errors=True)
  events, when = EventFile(fresh), None
  media = next(kept, None)
  for record in records:
    while media is not None and media.step < record['step']:
      events.append(media)
      media = next(kept, None)
    scalars = {
      name: value
      for name, value in record.items()
      if name not in ('step', 'epoch') and type(value) in (int, float)
    }
    for name in scalars:
      when = times.get((record['step'], name), when)
    events.write(record['step'], scalars, when)
  while media is not None:
    events.append(media)
    media = next(kept, None)
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(fresh, folder)
  return events
