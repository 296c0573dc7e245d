"""Where the windows of a convolution or a pooling lie along an axis."""

from collections.abc import Sequence
from typing import NamedTuple

# 'SAME', 'VALID', 'CEIL', or pixels on each side: see `placement`.
Padding = str | int


class Placement(NamedTuple):
  """Windows along one axis, in pixels."""

  out: int  # number of windows
  low: int  # padding before the first pixel
  high: int  # padding after the last one, as far as a window reaches


def placement(
  size: int, window: int, stride: int, padding: Padding
) -> Placement:
  """Returns how many windows an axis has, and the padding around it.

  Args:
    size: of the axis.
    window: of the kernel along it.
    stride: between windows.
    padding: 'SAME': ceil(size / stride) windows, padding as equal as it goes
      and the odd pixel behind (TensorFlow). 'VALID': none. 'CEIL': none
      before; behind, as much as the last window needs that begins within the
      image (Caffe's pooling; `ceil_mode` of PyTorch). A number: that many on
      each side (Caffe's and PyTorch's convolutions).

  Raises:
    ValueError: a window does not fit, or the padding has no meaning.
  """
  if padding == 'SAME':
    out = -(-size // stride)
    total = max((out - 1) * stride + window - size, 0)
    return Placement(out, total // 2, total - total // 2)
  if padding == 'VALID':
    low = high = 0
  elif padding == 'CEIL':
    low, high = 0, -(size - window) % stride
  elif isinstance(padding, int) and padding >= 0:
    low = high = padding
  else:
    raise ValueError(f'padding={padding!r}: give SAME, VALID, CEIL or a number')
  if size + low + high < window or size + low < 1:
    raise ValueError(
      f'a window of {window} does not fit into {size} pixels, padding {padding}'
    )
  out = (size + low + high - window) // stride + 1
  if padding == 'CEIL' and (out - 1) * stride >= size:
    out -= 1  # stride > window: the last one would see padding only
  return Placement(out, low, max((out - 1) * stride + window - size - low, 0))


def pads(
  sizes: Sequence[int],
  windows: Sequence[int],
  stride: int,
  padding: Padding,
) -> list[tuple[int, int]]:
  """Returns (low, high) of `placement` for several axes, as XLA takes them."""
  return [
    tuple(placement(size, window, stride, padding))[1:]
    for size, window in zip(sizes, windows, strict=True)
  ]
