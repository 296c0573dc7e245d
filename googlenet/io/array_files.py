"""Files of weights, read without trusting them.

Reading tells the name, shape and dtype of each array first; numbers are read
one array at a time, once the shape is known to be the right one. So a file
that claims to hold more than there is costs no memory.
"""

import io
import json
import math
import os
import pathlib
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from googlenet.errors import UserError

# The names of dtypes in a .safetensors file.
_DTYPES = {
  'BOOL': np.dtype(bool),
  'U8': np.dtype('u1'),
  'I8': np.dtype('i1'),
  'U16': np.dtype('<u2'),
  'I16': np.dtype('<i2'),
  'U32': np.dtype('<u4'),
  'I32': np.dtype('<i4'),
  'U64': np.dtype('<u8'),
  'I64': np.dtype('<i8'),
  'F16': np.dtype('<f2'),
  'BF16': np.dtype(jnp.bfloat16),
  'F32': np.dtype('<f4'),
  'F64': np.dtype('<f8'),
}
# As the safetensors library has it.
_LARGEST_HEADER = 100_000_000
# Older ones run code in spite of weights_only (CVE-2025-32434).
_OLDEST_TORCH = (2, 6)


class Stored(NamedTuple):
  """An array in a file; `read` returns its numbers."""

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[], np.ndarray]


def read(path: str | os.PathLike[str]) -> dict[str, Stored]:
  """Returns what a .safetensors, .pth, .pt or .npz file holds, by name.

  Raises:
    UserError: it is missing, damaged, of another kind or has code in it.
  """
  path = pathlib.Path(path)
  if path.suffix not in _READERS:
    raise UserError(
      f'--weights={path} is of no known kind: its name must end in '
      + ', '.join(_READERS)
    )
  if not path.is_file():
    raise UserError(f'--weights={path}: no such file')
  try:
    return _READERS[path.suffix](path)
  except UserError:
    raise
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    AttributeError,
    RuntimeError,  # an encrypted archive; whatever torch meets
    MemoryError,
    RecursionError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
  ) as error:
    raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], error: Exception) -> UserError:
  """Returns the refusal of a file whose reading raised an error."""
  text = printable(' '.join(str(error).split()), 200)
  return UserError(
    f'--weights={path} is damaged or no {pathlib.Path(path).suffix} file '
    f'({type(error).__name__}: {text}): get it again'
  )


def printable(text: str, length: int = 80) -> str:
  """Returns a text of a file as something safe to show on a terminal."""
  text = ascii(text)[1:-1]
  return text if len(text) <= length else text[:length] + '...'


# ---- .safetensors: its length in 8 bytes, a JSON header, the numbers.


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """Returns what a .safetensors file that `read` takes tells beside arrays."""
  header, _ = _header(pathlib.Path(path))
  metadata = header.get('__metadata__', {})
  return metadata if isinstance(metadata, dict) else {}


def _header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
  """Returns the header, and its length in bytes.

  Raises:
    ValueError, struct.error: there is none.
  """
  size = path.stat().st_size
  with open(path, 'rb') as file:
    (length,) = struct.unpack('<Q', file.read(8))
    if length > min(size - 8, _LARGEST_HEADER):
      raise ValueError(
        f'a header of {length} bytes is declared in a file of {size}'
      )
    header = json.loads(
      file.read(length).decode('utf-8'), object_pairs_hook=_unique
    )
  if not isinstance(header, dict):
    raise ValueError('its header is no JSON object')
  return header, length


def _read_safetensors(path: pathlib.Path) -> dict[str, Stored]:
  header, length = _header(path)
  header.pop('__metadata__', None)
  data_size, end, arrays = path.stat().st_size - 8 - length, 0, {}
  spans = []
  for name, about in header.items():
    shape, (start, stop) = about['shape'], about['data_offsets']
    if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
      raise ValueError(f'shape and place of {printable(name)} are no numbers')
    if about['dtype'] not in _DTYPES:
      raise ValueError(f'{printable(name)} has an unknown dtype')
    dtype = _DTYPES[about['dtype']]
    if stop - start != math.prod(shape) * dtype.itemsize or stop > data_size:
      raise ValueError(f'{printable(name)} does not lie within the file')
    spans.append((start, stop))
    arrays[name] = Stored(
      tuple(shape),
      dtype.name,
      _from_file(path, 8 + length + start, dtype, tuple(shape)),
    )
  for start, stop in sorted(spans):
    if start != end:
      raise ValueError('its arrays overlap or leave gaps')
    end = stop
  if end != data_size:
    raise ValueError('it is longer or shorter than its header says')
  return arrays


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  names = [name for name, _ in pairs]
  if len(set(names)) < len(names):
    raise ValueError('a name occurs twice')
  return dict(pairs)


def _from_file(
  path: pathlib.Path, offset: int, dtype: np.dtype, shape: tuple[int, ...]
) -> Callable[[], np.ndarray]:
  def read_numbers() -> np.ndarray:
    with open(path, 'rb') as file:
      file.seek(offset)
      data = file.read(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(shape)

  return read_numbers


def _write_safetensors(
  file: Any,
  arrays: Mapping[str, np.ndarray],
  metadata: Mapping[str, str] | None = None,
) -> None:
  names = {dtype: name for name, dtype in _DTYPES.items()}
  header, end = {'__metadata__': dict(metadata or {'format': 'pt'})}, 0
  for name, array in arrays.items():
    start, end = end, end + array.nbytes
    header[name] = {
      'dtype': names[array.dtype],
      'shape': list(array.shape),
      'data_offsets': [start, end],
    }
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # so that the numbers are aligned
  file.write(struct.pack('<Q', len(text)) + text)
  for array in arrays.values():
    file.write(np.ascontiguousarray(array).tobytes())


# ---- .npz: a zip archive of .npy files.


def _read_npz(path: pathlib.Path) -> dict[str, Stored]:
  arrays = {}
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      name = info.filename.removesuffix('.npy')
      if name in arrays:
        raise ValueError(f'{printable(name)} occurs twice')
      with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _NPY_HEADERS:
          raise ValueError(f'{printable(name)} is of an unknown version')
        shape, _, dtype = _NPY_HEADERS[version](file)
        length = file.tell()
      if dtype.hasobject:
        raise ValueError(f'{printable(name)} holds objects (pickle)')
      if info.file_size != length + math.prod(shape) * dtype.itemsize:
        raise ValueError(f'{printable(name)} is not as long as it says')
      arrays[name] = Stored(shape, dtype.name, _from_zip(path, info))
  return arrays


_NPY_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def _from_zip(
  path: pathlib.Path, info: zipfile.ZipInfo
) -> Callable[[], np.ndarray]:
  def read_numbers() -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
      data = io.BytesIO(archive.read(info))
    return np.lib.format.read_array(data, allow_pickle=False)

  return read_numbers


def _write_npz(file: Any, arrays: Mapping[str, np.ndarray]) -> None:
  np.savez(file, **arrays)


# ---- .pth: PyTorch, a pickle of which only tensors are let in.


def _import_torch(path: str) -> Any:
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f'--weights={path}: a .pth or .pt file takes PyTorch ({error}): pip '
      'install torch, or use a .safetensors file, which takes nothing'
    ) from error
  version = tuple(int(part) for part in torch.__version__.split('.')[:2])
  if version < _OLDEST_TORCH:
    raise UserError(
      f'--weights={path}: PyTorch {torch.__version__} does not read such a '
      'file safely; allowed is 2.6 or newer: pip install -U torch'
    )
  return torch


def _read_torch(path: pathlib.Path) -> dict[str, Stored]:
  torch = _import_torch(str(path))
  try:
    with warnings.catch_warnings():  # they would stand beside our one line
      warnings.simplefilter('ignore')
      state = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    # Its own message is a page, and tells how to run the code.
    raise UserError(
      f'--weights={path} is refused: it is damaged, or a pickle with more in '
      'it than tensors, which could run code; save the state_dict alone: '
      'torch.save(model.state_dict(), path)'
    ) from error
  is_dict = isinstance(state, dict)
  if not is_dict or not all(
    isinstance(v, torch.Tensor) for v in state.values()
  ):
    keys = ', '.join(printable(str(key)) for key in list(state)[:5])
    held = f'a dict of {keys}' if is_dict else f'a {type(state).__name__}'
    raise UserError(
      f'--weights={path} is no state_dict but {held}: save it by '
      'torch.save(model.state_dict(), path)'
    )

  def stored(tensor: Any) -> Stored:
    dtype = str(tensor.dtype).removeprefix('torch.')
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized
    if not is_plain or tensor.device.type != 'cpu':
      dtype = f'{tensor.layout} {dtype} on {tensor.device}'

    def read_numbers() -> np.ndarray:
      # NumPy has no bfloat16; float32 holds every number of it.
      wide = tensor.detach().float() if tensor.is_floating_point() else tensor
      return wide.numpy()

    return Stored(tuple(tensor.shape), dtype, read_numbers)

  return {str(name): stored(tensor) for name, tensor in state.items()}


def _write_torch(file: Any, arrays: Mapping[str, np.ndarray]) -> None:
  torch = _import_torch(getattr(file, 'name', ''))
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
_WRITERS = {
  '.safetensors': _write_safetensors,
  '.pth': _write_torch,
  '.pt': _write_torch,
  '.npz': _write_npz,
}


def write(
  path: str | os.PathLike[str],
  arrays: Mapping[str, np.ndarray],
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes a file aside and renames it; its kind is that of its ending.

  Args:
    path: of the file.
    arrays: by name.
    metadata: what it tells beside them; of .safetensors only.

  Raises:
    UserError: PyTorch is needed and is not there.
    OSError: it cannot be written.
  """
  path = pathlib.Path(path)
  if path.suffix in ('.pth', '.pt'):
    _import_torch(str(path))
  aside = path.with_name(path.name + '.tmp')
  try:
    with open(aside, 'wb') as file:
      if metadata is None:
        _WRITERS[path.suffix](file, arrays)
      else:
        _write_safetensors(file, arrays, metadata)
    os.replace(aside, path)
  finally:
    aside.unlink(missing_ok=True)
