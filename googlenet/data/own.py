"""Data sets of the user's own files: folders, CSV, Parquet and NumPy arrays."""

import os

import ml_collections

from googlenet.data.arrays import open_arrays
from googlenet.data.folder import open_folder
from googlenet.data.splits import Source
from googlenet.data.tables import open_table
from googlenet.errors import UserError


def name(data_dir: str) -> str:
  """Returns the name of a data set: that of its folder or file."""
  path = os.path.abspath(os.path.expanduser(data_dir))
  return os.path.splitext(os.path.basename(path))[0]


def open_own(data_config: ml_collections.ConfigDict) -> Source:
  """Opens a data set whose `data.source` is one of this file.

  Raises:
    UserError: `data.data_dir` is missing, or its files cannot be used.
  """
  kind, folder = data_config.source, data_config.data_dir
  splits = data_config.train_split, data_config.eval_split
  if not folder:
    raise UserError(
      f'config.data.data_dir is missing: config.data.source={kind} needs the '
      'path of your data'
    )
  if kind == 'arrays':
    return open_arrays(folder, *splits, data_config.classes)
  choices = data_config.classes, data_config.on_bad_image
  if kind == 'folder':
    return open_folder(folder, *splits, *choices)
  return open_table(kind, folder, *splits, *choices)
