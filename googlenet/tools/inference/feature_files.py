"""Features of any number of images on disk, written batch by batch."""

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from googlenet.tools.inference.outputs import terminates_cleanly, written_aside


class Columns:
  """Gathers each array of the batches in a file of its own."""

  def __init__(self, folder: pathlib.Path):
    """Makes nothing yet; `folder` is an empty one."""
    self._folder = folder
    self._files: dict[str, BinaryIO] = {}
    self._kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    self._texts: dict[str, list[str]] = {}
    self.count = 0  # images written

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a batch, [n, ...] each."""
    for name, array in arrays.items():
      if array.dtype.kind == 'U':  # as wide as the longest of all
        self._texts.setdefault(name, []).extend(array.tolist())
        continue
      if name not in self._files:
        self._files[name] = open(self._folder / name, 'wb')  # noqa: SIM115
        self._kinds[name] = array.dtype, array.shape[1:]
      self._files[name].write(np.ascontiguousarray(array).data)
    self.count += len(array)

  def pack(self, file: BinaryIO) -> None:
    """Writes all of it as an .npz, and removes what was gathered."""
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
      for name, texts in self._texts.items():
        with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
          np.lib.format.write_array(entry, np.array(texts), allow_pickle=False)
      for name, gathered in self._files.items():
        gathered.close()
        dtype, shape = self._kinds[name]
        with (
          archive.open(f'{name}.npy', 'w', force_zip64=True) as entry,
          open(gathered.name, 'rb') as source,
        ):
          header = {
            'descr': np.lib.format.dtype_to_descr(dtype),
            'fortran_order': False,
            'shape': (self.count, *shape),
          }
          np.lib.format.write_array_header_1_0(entry, header)
          shutil.copyfileobj(source, entry, 2**20)
        os.unlink(gathered.name)  # never all of it twice on the disk

  def close(self) -> None:
    """Closes the files."""
    for file in self._files.values():
      file.close()


class Records:
  """Writes a record an image: the bytes of an .npz."""

  def __init__(self, writer: Any):
    """Takes the writer of an .array_record."""
    self._writer = writer
    self.count = 0  # images written

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a batch, [n, ...] each."""
    count = len(next(iter(arrays.values())))
    for i in range(count):
      record = io.BytesIO()
      np.savez(record, **{name: array[i] for name, array in arrays.items()})
      self._writer.write(record.getvalue())
    self.count += count


@contextlib.contextmanager
def npz(path: str | os.PathLike[str]) -> Iterator[Columns]:
  """Yields a writer of an .npz, one array [N, ...] a name.

  An archive holds one array after another, batches come with a part of each:
  they are gathered beside the output first. The output is there, whole, when
  the block has ended without an error.
  """
  path = pathlib.Path(path)
  with (
    terminates_cleanly(),
    tempfile.TemporaryDirectory(
      prefix=path.name + '.', dir=path.parent
    ) as made,
    contextlib.closing(Columns(pathlib.Path(made))) as columns,
  ):
    yield columns
    with written_aside(path) as file:
      columns.pack(file)


@contextlib.contextmanager
def array_record(path: str | os.PathLike[str]) -> Iterator[Records]:
  """Yields a writer of an .array_record, whose records have any order.

  The output is there, whole, when the block has ended without an error.
  """
  from array_record.python.array_record_module import ArrayRecordWriter

  aside = f'{os.fspath(path)}.tmp'
  with terminates_cleanly():
    # One record in a group: no other is decoded to read one.
    writer = ArrayRecordWriter(aside, 'group_size:1')
    try:
      yield Records(writer)
      writer.close()
      os.replace(aside, path)
    finally:
      if writer.is_open():
        writer.close()
      pathlib.Path(aside).unlink(missing_ok=True)


WRITERS = {'npz': npz, 'array_record': array_record}
