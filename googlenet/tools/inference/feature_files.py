"""Features of any number of images on disk, written batch by batch."""

import io
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from googlenet.tools.inference.outputs import terminates_cleanly, written_aside


class _Writer:
  """A file that is there whole when the block ends without an error."""

  def __init__(self, path: str | os.PathLike[str]):
    """Makes nothing yet."""
    self._path = pathlib.Path(path)
    self._stack = terminates_cleanly()
    self.count = 0  # images written

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a batch, [n, ...] each."""
    raise NotImplementedError

  def open(self) -> None:
    """Begins the file, under another name."""

  def finish(self) -> None:
    """Gives the file its name."""

  def clean_up(self) -> None:
    """Removes what was made on the way."""

  def __enter__(self) -> Self:
    self._stack.__enter__()
    self.open()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    try:
      if error is None:
        self.finish()
    finally:
      self.clean_up()
      self._stack.__exit__(kind, error, traceback)


class NpzWriter(_Writer):
  """One array [N, ...] a name in an .npz, as `numpy.load` reads it.

  An archive holds one array after another, batches come with a part of each: so
  they are first gathered in files of their own, beside the output.
  """

  def open(self) -> None:
    self._folder = pathlib.Path(
      tempfile.mkdtemp(prefix=self._path.name + '.', dir=self._path.parent)
    )
    self._files: dict[str, Any] = {}
    self._kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    self._texts: dict[str, list[str]] = {}

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
      if array.dtype.kind == 'U':  # as wide as the longest of all
        self._texts.setdefault(name, []).extend(array.tolist())
        continue
      if name not in self._files:
        self._files[name] = open(self._folder / name, 'wb')  # noqa: SIM115
        self._kinds[name] = array.dtype, array.shape[1:]
      self._files[name].write(np.ascontiguousarray(array).data)
    self.count += len(array)

  def finish(self) -> None:
    with (
      written_aside(self._path) as file,
      zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive,
    ):
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

  def clean_up(self) -> None:
    for file in self._files.values():
      file.close()
    shutil.rmtree(self._folder)


class ArrayRecordWriter(_Writer):
  """A record an image, to be read in any order: the bytes of an .npz."""

  def open(self) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    self._aside = self._path.with_name(self._path.name + '.tmp')
    # One record in a group: no other is decoded to read one.
    self._writer = ArrayRecordWriter(str(self._aside), 'group_size:1')

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    count = len(next(iter(arrays.values())))
    for i in range(count):
      record = io.BytesIO()
      np.savez(record, **{name: array[i] for name, array in arrays.items()})
      self._writer.write(record.getvalue())
    self.count += count

  def finish(self) -> None:
    self._writer.close()
    os.replace(self._aside, self._path)

  def clean_up(self) -> None:
    if self._writer.is_open():
      self._writer.close()
    self._aside.unlink(missing_ok=True)


WRITERS = {'npz': NpzWriter, 'array_record': ArrayRecordWriter}
