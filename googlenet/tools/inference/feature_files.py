"""Writes features batch by batch, so that any number of images fits."""

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

from googlenet.errors import FULL, UserError, writing
from googlenet.runtime import files
from googlenet.tools.inference.outputs import terminates_cleanly, written_aside


class Columns:
  """Collects batches in `folder`, in one file for each array."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._files: dict[str, BinaryIO] = {}
    self._kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    self._texts: dict[str, list[str]] = {}
    self._shared: dict[str, np.ndarray] = {}
    self.count = 0  # images written

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds a batch: arrays [n, ...] by name."""
    for name, array in arrays.items():
      # Strings stay in memory: their width is that of the longest of all.
      if array.dtype.kind == 'U':
        self._texts.setdefault(name, []).extend(array.tolist())
        continue
      if name not in self._files:
        self._files[name] = open(self._folder / name, 'wb')  # noqa: SIM115
        self._kinds[name] = array.dtype, array.shape[1:]
      self._files[name].write(np.ascontiguousarray(array).data)
    self.count += len(array)

  def share(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds arrays that are not of single images, by name."""
    self._shared |= arrays

  def pack(self, file: BinaryIO) -> None:
    """Writes everything as an .npz file and removes the collected files."""
    texts = {name: np.array(column) for name, column in self._texts.items()}
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
      for name, array in (texts | self._shared).items():
        with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
          np.lib.format.write_array(entry, array, allow_pickle=False)
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
        os.unlink(gathered.name)  # limits the disk space that is needed

  def close(self) -> None:
    """Closes the files."""
    for file in self._files.values():
      file.close()


class Records:
  """Writes one record per image: the bytes of an .npz file."""

  def __init__(self, writer: Any):
    self._writer = writer
    self.count = 0  # images written

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds a batch: arrays [n, ...] by name."""
    count = len(next(iter(arrays.values())))
    for i in range(count):
      record = io.BytesIO()
      np.savez(record, **{name: array[i] for name, array in arrays.items()})
      self._writer.write(record.getvalue())
    self.count += count


@contextlib.contextmanager
def npz(path: str | os.PathLike[str]) -> Iterator[Columns]:
  """Yields a writer of an .npz file with one array [N, ...] per name.

  The arrays of an archive follow each other, while each batch has a part of
  every array. Batches are therefore collected in a folder beside the output,
  which is written when the block ends without an error.
  """
  path = pathlib.Path(path)
  with (
    terminates_cleanly(),
    writing(path),
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
  """Yields a writer of an .array_record file for random access.

  The output gets its name when the block ends without an error.

  Raises:
    UserError: the library is missing.
    OSError: the file cannot be written.
  """
  try:
    from array_record.python.array_record_module import ArrayRecordWriter
  except ImportError as error:  # it has no wheels for Windows
    raise UserError(
      f'--output={path}: this format needs the library array_record, which '
      f'cannot be imported ({error}): give a name that ends in .npz'
    ) from error

  with terminates_cleanly(), files.name_aside(path) as aside:
    # One record per group, so that reading one does not decode others.
    writer = ArrayRecordWriter(str(aside), 'group_size:1')
    try:
      yield Records(writer)
      writer.close()
    except RuntimeError as error:  # the only type that the library raises
      for number in FULL:
        if os.strerror(number) in str(error):
          raise OSError(number, os.strerror(number)) from error
      raise
    finally:
      if writer.is_open():
        writer.close()


WRITERS = {'npz': npz, 'array_record': array_record}
