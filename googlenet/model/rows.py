"""Layer specs: layers, blocks, stages and heads of networks as plain data.

A network is a tuple of stages, each a tuple of rows. `modules` applies rows,
and `graph` computes their shapes; both raise TypeError on unknown operations.

Names of rows and convolutions are part of parameter names,
`inception_3a/conv_3x3_reduce/w`. They must not change: checkpoints, weight
import and decay masks rely on them.
"""

from typing import Any, NamedTuple

from googlenet.kernels.padding import Padding

# Placeholder width for the number of classes.
CLASSES = 0


class Conv(NamedTuple):
  """A convolution, then bias or batch norm, then the activation."""

  name: str
  width: int  # output channels
  kernel_size: int | tuple[int, int]  # (height, width), or one number for both
  stride: int = 1
  padding: Padding = 'SAME'
  is_linear: bool = False  # a bias, but no batch norm and no activation

  @property
  def shape(self) -> tuple[int, int]:
    """Height and width of the kernel."""
    size = self.kernel_size
    return size if isinstance(size, tuple) else (size, size)


class MaxPool(NamedTuple):
  """Max pooling with square windows."""

  window: int = 3
  stride: int = 2
  padding: Padding = 'SAME'


class AvgPool(NamedTuple):
  """Average pooling with square windows."""

  window: int = 3
  stride: int = 1
  padding: Padding = 'SAME'
  count_padding: bool = False  # whether the mean includes zeros of the padding


class AdaptiveAvgPool(NamedTuple):
  """Average pooling to size x size, as in PyTorch."""

  size: int


class LocalResponseNorm(NamedTuple):
  """Krizhevsky et al. 2012, section 3.3; used if normalization='lrn'.

  The constants are from Caffe's GoogLeNet; as in Caffe, `alpha` is divided by
  `size`.
  """

  size: int = 5
  alpha: float = 1e-4
  beta: float = 0.75
  k: float = 1.0


class Dropout(NamedTuple):
  """Dropout in training."""

  rate: float | None = None  # None: `model.dropout`, or the network's default


class Dense(NamedTuple):
  """A fully connected layer with bias and activation: [B, C] -> [B, width]."""

  name: str
  width: int
  is_linear: bool = False  # no activation


class SqueezeExcite(NamedTuple):
  """Scales each channel by a gate computed from the means of all channels.

  Hu et al., 2018, arXiv 1709.01507: the gates are the sigmoid of two fully
  connected layers.
  """

  reduction: int = 16  # channels / units of the first layer

  def layers(self, channels: int) -> tuple[Dense, Dense]:
    """Returns the two fully connected layers."""
    width = max(channels // self.reduction, 1)
    return (
      Dense('se_reduce', width),
      Dense('se_expand', channels, is_linear=True),
    )


class Own(NamedTuple):
  """A custom operation, see `own.register`."""

  name: str
  function: str  # the name in `own.register`
  options: tuple[tuple[str, Any], ...] = ()  # its arguments


class Fork(NamedTuple):
  """Branches of one input, concatenated along channels."""

  branches: tuple['Branch', ...]


Op = Conv | MaxPool | AvgPool | AdaptiveAvgPool | SqueezeExcite | Fork | Own
Branch = tuple[Op, ...]


class ConvLayer(NamedTuple):
  """Convolutions in sequence under one name."""

  name: str
  convs: tuple[Conv, ...]
  pool: MaxPool | None = None  # computed with the last one: see `fuse_pools`


class Residual(NamedTuple):
  """x + scale * (a linear 1x1 convolution of the joined branches).

  Szegedy et al., 2016, arXiv 1602.07261, sections 3.2 and 3.3. If x has another
  number of channels than `width`, a linear 1x1 convolution adapts it.
  """

  width: int
  scale: float
  drop_rate: float = 0.0  # stochastic depth: drops the branches in training


class Block(NamedTuple):
  """Parallel branches concatenated along channels, under one name."""

  name: str
  branches: tuple[Branch, ...]
  residual: Residual | None = None
  after: tuple[Op, ...] = ()  # operations on the concatenated map


Row = ConvLayer | Block | MaxPool | AvgPool | LocalResponseNorm | Dropout | Own


class Stage(NamedTuple):
  """Rows in sequence; the stage's output is an end point of the same name."""

  name: str
  rows: tuple[Row, ...]


class GlobalMean(NamedTuple):
  """The mean over height and width: [B, H, W, C] -> [B, C]."""


class Flatten(NamedTuple):
  """[B, H, W, C] -> [B, H * W * C]."""


HeadOp = Op | GlobalMean | Flatten | Dense | Dropout
LOGITS = Dense('logits', CLASSES, is_linear=True)


class AuxHead(NamedTuple):
  """A classifier on the output of an earlier row: Szegedy et al. 2014, s. 5."""

  name: str
  after: str  # name of the row
  ops: tuple[HeadOp, ...]


class Architecture(NamedTuple):
  """A network, and its defaults for config fields that are 'auto' or None."""

  stages: tuple[Stage, ...]
  head: tuple[HeadOp, ...] = (GlobalMean(), Dropout(), LOGITS)
  aux_heads: tuple[AuxHead, ...] = ()
  uses_aux_heads: bool = False
  normalization: str = 'none'  # or 'lrn', 'batch'
  dropout: float = 0.0
  initializer: str = 'he'
