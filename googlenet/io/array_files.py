"""Weight files of other programs: .safetensors, .npz, .pth.

`read` returns the name, shape and dtype of each array. The caller compares
them with the network before it reads the numbers, one array at a time, so a
file that claims huge arrays is refused before memory is allocated. Pickled
objects, which could run code, are refused in every format.
"""

import os
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors.numpy

from googlenet.errors import UserError
from googlenet.io import archive
from googlenet.runtime import files

# Dtypes in the header of a .safetensors file -> NumPy dtypes.
_DTYPES = {
  'BOOL': 'bool',
  'U8': 'uint8',
  'I8': 'int8',
  'U16': 'uint16',
  'I16': 'int16',
  'U32': 'uint32',
  'I32': 'int32',
  'U64': 'uint64',
  'I64': 'int64',
  'F16': 'float16',
  'BF16': 'bfloat16',
  'F32': 'float32',
  'F64': 'float64',
}
# Older versions may run code despite weights_only=True (CVE-2025-32434).
_OLDEST_TORCH = (2, 6)


class Stored(NamedTuple):
  """An array in a file; `read` reads its numbers."""

  shape: tuple[int, ...]
  dtype: str  # NumPy name if NumPy has the dtype
  read: Callable[[], np.ndarray]


def read(path: str | os.PathLike[str]) -> dict[str, Stored]:
  """Returns the arrays of a .safetensors, .pth, .pt or .npz file by name.

  Raises:
    UserError: the file is missing, damaged, of unknown type, or could run code.
  """
  path = pathlib.Path(path)
  if path.suffix not in _READERS:
    raise UserError(
      f'--weights={path} has no known file type: its name must end in '
      + ', '.join(_READERS)
    )
  if not path.exists():
    raise UserError(f'--weights={path}: no such file')
  try:
    files.open_regular(path).close()
  except OSError as error:
    raise UserError(
      f'--weights={path} cannot be read: {error.strerror}'
    ) from error
  try:
    return _READERS[path.suffix](path)
  except UserError:
    raise
  # zipfile, zlib, NumPy, safetensors and torch raise errors of many types.
  except Exception as error:
    raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], error: Exception) -> UserError:
  """Returns the error for a file that could not be read."""
  text = printable(' '.join(str(error).split()), 200)
  return UserError(
    f'--weights={path} is damaged or not a {pathlib.Path(path).suffix} file '
    f'({type(error).__name__}: {text}): get it again'
  )


def printable(text: str, length: int = 80) -> str:
  """Makes a text from a file safe to show on a terminal."""
  text = ascii(text)[1:-1]
  return text if len(text) <= length else text[:length] + '...'


# ---- .safetensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """Returns the metadata of a .safetensors file."""
  with safetensors.safe_open(path, 'np') as file:
    return file.metadata() or {}


def _read_safetensors(path: pathlib.Path) -> dict[str, Stored]:
  def stored(name: str, header: Any) -> Stored:
    def read_numbers() -> np.ndarray:
      with safetensors.safe_open(path, 'np') as file:
        return file.get_tensor(name)

    code = header.get_dtype()
    dtype = _DTYPES.get(code, code)
    return Stored(tuple(header.get_shape()), dtype, read_numbers)

  with safetensors.safe_open(path, 'np') as file:
    names = file.keys()
    return {name: stored(name, file.get_slice(name)) for name in names}


def _write_safetensors(
  file: BinaryIO,
  arrays: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
) -> None:
  # The library copies raw memory and ignores strides.
  rows = {name: np.asarray(array, order='C') for name, array in arrays.items()}
  # Not save_file, which does not raise an OSError on a full disk.
  file.write(safetensors.numpy.save(rows, dict(metadata)))


# ---- .npz: a zip archive of .npy files


def _read_npz(path: pathlib.Path) -> dict[str, Stored]:
  def stored(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Stored:
    def read_numbers() -> np.ndarray:
      with np.load(path, allow_pickle=False) as arrays:
        return arrays[name]

    return Stored(shape, dtype.name, read_numbers)

  arrays = {}
  with zipfile.ZipFile(path) as zipped:
    for info in zipped.infolist():
      name = info.filename.removesuffix('.npy')
      if name in arrays:
        raise ValueError(f'{printable(name)} occurs twice')
      with zipped.open(info) as file:
        shape, _, dtype = archive.read_header(file, info.file_size)
      arrays[name] = stored(name, shape, dtype)
  return arrays


# ---- .pth: a pickle of PyTorch, from which only tensors are accepted


def _import_torch(path: str) -> Any:
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f'--weights={path}: a .pth or .pt file needs PyTorch ({error}): pip '
      'install torch, or use a .safetensors file'
    ) from error
  version = tuple(int(part) for part in torch.__version__.split('.')[:2])
  if version < _OLDEST_TORCH:
    raise UserError(
      f'--weights={path}: PyTorch {torch.__version__} does not read this file '
      'safely; 2.6 or newer is needed: pip install -U torch'
    )
  return torch


def _read_torch(path: pathlib.Path) -> dict[str, Stored]:
  torch = _import_torch(str(path))
  if zipfile.is_zipfile(path):  # newer than PyTorch 1.6, which compresses never
    with zipfile.ZipFile(path) as zipped:
      if any(info.compress_type for info in zipped.infolist()):
        raise ValueError('it is compressed, so its size is unknown')
  try:
    with warnings.catch_warnings():  # the error is one line, without warnings
      warnings.simplefilter('ignore')
      state = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    # PyTorch's own message is a page long and explains how to run the code.
    raise UserError(
      f'--weights={path} is refused: it is damaged, or a pickle with more than '
      'tensors, which could run code; save only the state_dict: '
      'torch.save(model.state_dict(), path)'
    ) from error
  is_dict = isinstance(state, dict)
  if not is_dict or not all(
    isinstance(v, torch.Tensor) for v in state.values()
  ):
    keys = ', '.join(printable(str(key)) for key in list(state)[:5])
    held = f'a dict of {keys}' if is_dict else f'a {type(state).__name__}'
    raise UserError(
      f'--weights={path} holds no state_dict but {held}: save it with '
      'torch.save(model.state_dict(), path)'
    )

  def stored(tensor: Any) -> Stored:
    dtype = str(tensor.dtype).removeprefix('torch.')
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized
    if not is_plain or tensor.device.type != 'cpu':
      dtype = f'{tensor.layout} {dtype} on {tensor.device}'

    def read_numbers() -> np.ndarray:
      # NumPy has no bfloat16; float32 represents all its values.
      wide = tensor.detach().float() if tensor.is_floating_point() else tensor
      return wide.numpy()

    return Stored(tuple(tensor.shape), dtype, read_numbers)

  return {str(name): stored(tensor) for name, tensor in state.items()}


def _write_torch(
  torch: Any, file: BinaryIO, arrays: Mapping[str, np.ndarray]
) -> None:
  state = {
    name: torch.from_numpy(np.array(array, copy=True))
    for name, array in arrays.items()
  }
  torch.save(state, file)


_READERS = {
  '.safetensors': _read_safetensors,
  '.pth': _read_torch,
  '.pt': _read_torch,
  '.npz': _read_npz,
}


def write(
  path: str | os.PathLike[str],
  arrays: Mapping[str, np.ndarray],
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes a file atomically, in the format of the suffix of `path`.

  Args:
    path: ends in .safetensors, .pth, .pt or .npz.
    arrays: by name.
    metadata: texts to store beside the arrays. If given, the format is
      .safetensors, whatever the suffix.

  Raises:
    UserError: PyTorch is needed and is not installed.
    OSError: the file cannot be written.
  """
  path = pathlib.Path(path)
  with files.written_aside(path) as file:
    if metadata or path.suffix == '.safetensors':
      _write_safetensors(file, arrays, metadata or {'format': 'pt'})
    elif path.suffix == '.npz':
      np.savez(file, **arrays)
    else:
      _write_torch(_import_torch(str(path)), file, arrays)
