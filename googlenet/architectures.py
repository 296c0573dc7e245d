"""Every network as rows of widths: data only, no code.

Widths and names follow Table 1 of "Going deeper with convolutions" (Szegedy
et al., 2014, arXiv 1409.4842). Row and convolution names are the parameter
names: `inception_3a/conv_3x3_reduce/w`. They are stable: checkpoints, weight
import and decay masks rely on them.
"""

from typing import NamedTuple


class Conv(NamedTuple):
  """A square convolution, SAME padding, with a bias and a ReLU."""

  name: str
  width: int
  kernel_size: int
  stride: int = 1


class ConvLayer(NamedTuple):
  """Convolutions in sequence under one name."""

  name: str
  convs: tuple[Conv, ...]


class Inception(NamedTuple):
  """Four parallel branches joined on channels, in the columns of Table 1."""

  name: str
  conv_1x1: int
  conv_3x3_reduce: int
  conv_3x3: int
  conv_5x5_reduce: int
  conv_5x5: int
  pool_proj: int


class MaxPool(NamedTuple):
  """Max pooling, SAME padding."""

  window: int = 3
  stride: int = 2


Row = ConvLayer | Inception | MaxPool


class Stage(NamedTuple):
  """Rows in sequence; the output of a stage is an end point of that name."""

  name: str
  rows: tuple[Row, ...]


# All convolutional stages; the global average pool and the classifier
# (`logits`) follow the last one.
Architecture = tuple[Stage, ...]

PLAIN: Architecture = (
  Stage(
    'stage_1',
    (
      ConvLayer('conv_1', (Conv('conv_7x7', 64, 7, stride=2),)),
      MaxPool(),
    ),
  ),
  Stage(
    'stage_2',
    (
      ConvLayer(
        'conv_2',
        (Conv('conv_3x3_reduce', 64, 1), Conv('conv_3x3', 192, 3)),
      ),
      MaxPool(),
    ),
  ),
  # fmt: off
  # Columns: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
  Stage(
    'stage_3',
    (
      Inception('inception_3a', 64, 96, 128, 16, 32, 32),
      Inception('inception_3b', 128, 128, 192, 32, 96, 64),
      MaxPool(),
    ),
  ),
  Stage(
    'stage_4',
    (
      Inception('inception_4a', 192, 96, 208, 16, 48, 64),
      Inception('inception_4b', 160, 112, 224, 24, 64, 64),
      Inception('inception_4c', 128, 128, 256, 24, 64, 64),
      Inception('inception_4d', 112, 144, 288, 32, 64, 64),
      Inception('inception_4e', 256, 160, 320, 32, 128, 128),
      MaxPool(),
    ),
  ),
  Stage(
    'stage_5',
    (
      Inception('inception_5a', 256, 160, 320, 32, 128, 128),
      Inception('inception_5b', 384, 192, 384, 48, 128, 128),
    ),
  ),
  # fmt: on
)

# The same rows, few and thin: for tests, tutorials and debugging.
TINY: Architecture = (
  Stage(
    'stage_1',
    (
      ConvLayer('conv_1', (Conv('conv_7x7', 8, 7, stride=2),)),
      MaxPool(),
    ),
  ),
  Stage('stage_2', (Inception('inception_2a', 8, 8, 12, 4, 4, 4),)),
)

ARCHITECTURES: dict[str, Architecture] = {'plain': PLAIN, 'tiny': TINY}


def strides(architecture: Architecture) -> list[int]:
  """Returns the stride of every downsampling step, in order."""
  rows = [row for stage in architecture for row in stage.rows]
  steps = []
  for row in rows:
    if isinstance(row, ConvLayer):
      steps += [conv.stride for conv in row.convs]
    elif isinstance(row, MaxPool):
      steps.append(row.stride)
  return [step for step in steps if step > 1]


def smallest_image(architecture: Architecture) -> int:
  """Returns the smallest image side, in pixels, that the network can use.

  With SAME padding nothing ever fails, but a smaller image reaches some
  downsampling step as a single pixel, which then sees padding only.
  """
  size = 1
  for stride in reversed(strides(architecture)):
    # The smallest n with ceil(n / stride) >= size and n >= 2.
    size = max((size - 1) * stride + 1, 2)
  return size


def depth(architecture: Architecture) -> int:
  """Returns the weighted layers on the longest path; a block counts two."""
  rows = [row for stage in architecture for row in stage.rows]
  return 1 + sum(
    len(row.convs) if isinstance(row, ConvLayer) else 2
    for row in rows
    if not isinstance(row, MaxPool)
  )
