"""Reads tables of labelled images: CSV files of paths, Parquet files of images.

A data set is a folder with files by split, train.csv or (Hugging Face's layout)
train-00000-of-00002.parquet, here or, if there is none, in a folder `data`; or
one file, whose only split is `all`.
"""

import csv
import glob
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from googlenet.data.encoded import Encoded, Labelled, make_source, natural_key
from googlenet.data.folder import ALL, ImageFiles, read_class_map
from googlenet.data.splits import (
  ONE_SPLIT,
  Source,
  check_distinct,
  some,
  split_names,
)
from googlenet.errors import UserError
from googlenet.runtime.files import open_regular

_COLUMNS = {'path', 'label'}  # of a CSV file


class _Table(NamedTuple):
  """What a file of a split holds.

  Attributes:
    images: the encoded images.
    labels: str or int each.
    class_names: names of the classes of integer labels; (): not stored.
  """

  images: Encoded
  labels: Sequence[str] | Sequence[int]
  class_names: tuple[str, ...] = ()


def open_table(
  source: str,
  data_dir: str,
  train_split: str,
  eval_split: str,
  classes: str = '',
  on_bad_image: str = 'stop',
) -> Source:
  """Opens CSV or Parquet files; examples keep the order of the files.

  A CSV file has the columns `path` (relative to the file) and `label`. A
  Parquet file has `image` (bytes, or a struct with `bytes`) and `label`.
  Classes are those of the training split in natural order, or, where Parquet's
  metadata names them, as there.

  Args:
    source: 'csv' or 'parquet'.
    data_dir: the folder, or one file.
    train_split: its labels are the classes, unless `classes` names them.
    eval_split: may be a slice, like `train_split`.
    classes: file with the classes in a fixed order.
    on_bad_image: 'stop', or 'skip' to leave out images that cannot be read.

  Raises:
    UserError: a file is missing or malformed, or an image cannot be read.
  """
  root = os.path.expanduser(data_dir)
  wanted = split_names(train_split, eval_split)
  paths = {name: tuple(_paths(source, root, data_dir, name)) for name in wanted}
  read = _READERS[source]
  tables = {name: read(files) for name, files in paths.items()}
  keys, names = _classes(tables, classes)
  check_distinct(names, root)
  index = {key: label for label, key in enumerate(keys)}
  index |= {str(key): label for key, label in index.items()}
  splits = {}
  for name, table in tables.items():
    # Files of classes hold text, also where labels are numbers.
    known = {x: index.get(x, index.get(str(x))) for x in set(table.labels)}
    more = sorted((x for x, label in known.items() if label is None), key=str)
    if more:
      there = classes or f'the split {next(iter(tables))!r}'
      raise UserError(
        f'the split {name!r} in {root} has labels that {there} lacks: '
        f'{some([*map(str, more)])}; mend or remove them'
      )
    labels = np.array([known[x] for x in table.labels], np.int32)
    splits[name] = Labelled(table.images, labels)
  return make_source(splits, names, on_bad_image, root)


def _classes(
  tables: Mapping[str, _Table], classes: str
) -> tuple[Sequence[str] | Sequence[int], tuple[str, ...]]:
  """Returns the label of each class in the tables, and its name."""
  first = next(iter(tables.values()))
  if classes:
    return read_class_map(classes)
  if first.class_names:
    return range(len(first.class_names)), first.class_names
  keys = sorted(set(first.labels), key=lambda x: natural_key(str(x)))
  return keys, tuple(map(str, keys))


def _paths(source: str, root: str, data_dir: str, split: str) -> list[str]:
  """Returns the files of a split, all in one folder.

  Raises:
    UserError: there are none.
  """
  if os.path.isfile(root) and split == ALL:
    return [root]
  for folder in (root, os.path.join(root, 'data')):
    found = []
    for pattern in (f'{split}.{source}', f'{split}-*.{source}'):
      found += glob.glob(os.path.join(glob.escape(folder), pattern))
    if found:
      break
  else:
    example = 'train.csv' if source == 'csv' else 'train-*.parquet'
    raise UserError(
      f'config.data.data_dir={data_dir!r} has no file for the split {split!r}; '
      f'config.data.source={source} takes a folder with {example} and the like '
      f"for each split, or one file and the split '{ALL}', like "
      f"--config.data.train_split='{ALL}[:90%]'; {ONE_SPLIT}"
    )
  return sorted(found)


def _check_columns(path: str, columns: Sequence[str]) -> None:
  """Checks the first line of a CSV file.

  Raises:
    UserError: it lacks path or label.
  """
  if set(columns) >= _COLUMNS:
    return
  problem = f'has the columns {", ".join(columns)}' if columns else 'is empty'
  for shown, separator in (("';'", ';'), ('tabs', '\t')):
    if len(columns) == 1 and set(columns[0].split(separator)) >= _COLUMNS:
      problem = f"has columns that are separated by {shown}, and need ','"
  raise UserError(
    f'{path} {problem}; it needs path and label in its first line'
  )


def _read_csv(paths: Sequence[str]) -> _Table:
  """Reads the columns path and label of CSV files with a header."""
  folder = os.path.dirname(os.path.abspath(paths[0]))
  names, labels = [], []
  for path in paths:
    try:
      with open_regular(path) as file:
        text = io.TextIOWrapper(file, 'utf-8-sig', newline='')
        rows = csv.DictReader(text)
        _check_columns(path, rows.fieldnames or ())
        for row in rows:
          if not row['path'] or not row['label']:
            raise UserError(f'{path}, line {rows.line_num}: a value is missing')
          if '\0' in row['path']:
            raise UserError(f'{path}, line {rows.line_num}: not a path')
          names.append(row['path'])
          labels.append(row['label'].strip())
    except (OSError, UnicodeError, csv.Error) as error:
      raise UserError(f'{path} cannot be read: {error}') from error
  if not names:
    raise UserError(f'{paths[0]} lists no image')
  return _Table(ImageFiles(folder, names), labels)


class ParquetImages:
  """Encoded images of Parquet files, kept in memory as they are stored."""

  def __init__(self, paths: Sequence[str], rows: np.ndarray | None = None):
    """Stores the files; `rows` are those to read, None: all."""
    self._paths, self._rows = tuple(paths), rows
    self._column = None

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_column': None}  # each process reads the files

  def _images(self) -> Any:
    if self._column is None:
      self._column = _column(self._paths, 'image')
    return self._column

  def _row(self, index: int) -> int:
    return index if self._rows is None else int(self._rows[index])

  def __len__(self) -> int:
    return len(self._images()) if self._rows is None else len(self._rows)

  def __getitem__(self, index: int) -> io.BytesIO:
    value = self._images()[self._row(index)].as_py()
    if isinstance(value, dict):
      value = value.get('bytes')
    return io.BytesIO(value or b'')

  def name(self, index: int) -> str:
    first, *others = self._paths
    last = f' to {os.path.basename(others[-1])}' if others else ''
    return f'row {self._row(index)} of {first}{last}'

  def identity(self) -> str:
    names = [os.path.basename(path) for path in self._paths]
    return f'{names} {[os.stat(path).st_size for path in self._paths]}'

  def stamp(self) -> str:
    times = [os.stat(path).st_mtime_ns for path in self._paths]
    return f'{self._paths} {times} {self._rows}'

  def subset(self, indices: np.ndarray) -> 'ParquetImages':
    rows = np.arange(len(self)) if self._rows is None else self._rows
    return ParquetImages(self._paths, rows[indices])


def _column(paths: Sequence[str], name: str) -> Any:
  """Reads a column of Parquet files: a `pyarrow.ChunkedArray`.

  Raises:
    UserError: a file is damaged or lacks the column.
  """
  import pyarrow as pa
  from pyarrow import parquet

  parts = []
  for path in paths:
    try:
      with open_regular(path) as file:
        parts += parquet.read_table(file, columns=[name]).column(0).chunks
    except (OSError, pa.ArrowException, IndexError) as error:
      raise UserError(
        f'{path} cannot be read: {" ".join(str(error).split())[:200]}; it '
        'needs the columns image and label'
      ) from error
  types = list(dict.fromkeys(str(part.type) for part in parts))
  if len(types) > 1:
    raise UserError(
      f'{os.path.dirname(paths[0])} has files of one split whose columns '
      f'{name} differ in type: {", ".join(types)}; write them with one type'
    )
  return pa.chunked_array(parts, None if parts else pa.null())


def _holds_bytes(kind: Any) -> bool:
  """Returns whether a column of this `pyarrow.DataType` holds images."""
  from pyarrow import types

  if types.is_struct(kind) and kind.get_field_index('bytes') >= 0:
    kind = kind.field('bytes').type
  return types.is_binary(kind) or types.is_large_binary(kind)


def _read_parquet(paths: Sequence[str]) -> _Table:
  """Reads Parquet files with the columns image and label."""
  from pyarrow import parquet

  labels = _column(paths, 'label').to_pylist()
  if not labels or not all(isinstance(x, (str, int)) for x in labels):
    raise UserError(
      f'{paths[0]} has labels that are neither text nor whole numbers, or none'
    )
  with open_regular(paths[0]) as file:
    schema = parquet.read_schema(file)
  kind = schema.field('image').type if 'image' in schema.names else None
  if kind is not None and not _holds_bytes(kind):
    raise UserError(
      f'{paths[0]} has images of the type {kind}; it takes bytes, or a struct '
      'with bytes'
    )
  stored = (schema.metadata or {}).get(b'huggingface')
  names = _stored_names(stored) if stored else ()
  return _Table(ParquetImages(paths), labels, names)


def _stored_names(metadata: bytes) -> tuple[str, ...]:
  """Returns the names of classes in Hugging Face's metadata, or ()."""
  try:
    label = json.loads(metadata)['info']['features']['label']
    return tuple(map(str, label.get('names', ())))
  except (ValueError, KeyError, TypeError, AttributeError):
    return ()


_READERS: dict[str, Callable[[Sequence[str]], _Table]] = {
  'csv': _read_csv,
  'parquet': _read_parquet,
}
