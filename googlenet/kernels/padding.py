"""Number of windows and padding of a convolution or pooling along an axis."""

from collections.abc import Sequence
from typing import NamedTuple

# 'SAME', 'VALID', 'CEIL', or pixels on each side: see `placement`.
Padding = str | int


class Placement(NamedTuple):
  """Number of windows along one axis, and its padding in pixels."""

  out: int  # number of windows
  low: int  # padding before the first pixel
  high: int  # padding after the last pixel, up to the end of the last window


def placement(
  size: int, window: int, stride: int, padding: Padding
) -> Placement:
  """Returns the number of windows along an axis, and its padding.

  Args:
    size: length of the axis, in pixels.
    window: window size, in pixels.
    stride: distance between windows, in pixels.
    padding: 'SAME': ceil(size / stride) windows, equal padding on both sides
      with an odd pixel at the end (TensorFlow). 'VALID': no padding. 'CEIL':
      padding only at the end, enough for the last window that starts inside
      the image (Caffe's pooling; `ceil_mode` of PyTorch). A number: so many
      pixels on each side (Caffe's and PyTorch's convolutions).

  Raises:
    ValueError: a window does not fit, or the padding is invalid.
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
    out -= 1  # stride > window: the last window would contain only padding
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
